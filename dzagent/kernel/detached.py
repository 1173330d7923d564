"""Starts a process of our own that outlives us: it belongs to another session, and nothing of it is waited for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from dzagent.errors import KernelError


def detach(args: Sequence[str], *, program: str = sys.executable, log: str = os.devnull) -> int:
    """Start this Python with `args` in a session of its own; return its process id.

    It finds our modules where we found them. Its output goes to `log`: whoever reads ours may be gone by then. Raises
    KernelError if it cannot be started.
    """
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    out = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    same = (os.POSIX_SPAWN_DUP2, 1, 2)
    try:
        return os.posix_spawn(
            program, (program, *args), _environment(os.environ), file_actions=(null, out, same), setsid=True
        )
    except (OSError, NotImplementedError) as error:
        raise KernelError(f"{program} could not be started: {error}") from error


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    return {**own, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def reap(pid: int) -> bool:
    """Take in the end of a process that we started, without waiting; True if it has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
