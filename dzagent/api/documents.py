"""The files the API reads, each with what to say if it is missing or torn."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dzagent.config import Paths
from dzagent.errors import StateError
from dzagent.files import read_json
from dzagent.state import Intent, read_intent

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A published document; `content` is {} and `problem` says why where it could not be read."""

    content: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class IntentFile:
    """The intent on disk. `intent` is None if nobody said anything, or, with a `problem`, if it is corrupt.

    stamp: changes with every write; the status document repeats the one that it answers to.
    """

    intent: Intent | None
    stamp: int = 0
    problem: str = ""

    @property
    def enabled(self) -> bool | None:
        """What is wanted: False while nobody has said anything, None if the file is corrupt."""
        if self.problem:
            return None
        return self.intent is not None and self.intent.enabled


@dataclass(frozen=True, slots=True)
class Agent:
    """Whether a reconciler runs, and why we think so."""

    running: bool
    message: str


def read_document(path: Path) -> Document:
    """Read a JSON object; never raises, since a reader must always get an answer."""
    try:
        content = read_json(path)
    except StateError as error:
        return Document({}, str(error))
    if content is None:
        return Document({}, f"{path} does not exist: the agent has not published it yet")
    if not isinstance(content, dict):
        return Document({}, f"{path} does not hold a JSON object")
    return Document(content)


def full_disk(directory: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> str:
    """Say that nothing can be written where the agent publishes, "" if something can: then what is read may be old.

    A read-only mount is not told: the API may see one where the agent does not.
    """
    try:
        there = statvfs(directory)
    except OSError:
        return ""
    full = (there.f_blocks > 0 and there.f_bavail == 0) or (there.f_files > 0 and there.f_favail == 0)
    what = f"{directory} is on a full file system: what dzagentd says here may be old, make room"
    return f"{what} (`df -h {directory}`)" if full else ""


def read_intent_file(path: Path) -> IntentFile:
    """Read the intent; never raises."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    try:
        return IntentFile(read_intent(path), stamp)
    except StateError as error:
        return IntentFile(None, stamp, str(error))


def agent_state(paths: Paths, status: Mapping[str, Any]) -> Agent:
    """Tell whether a reconciler runs: it listens on its wake socket.

    Where that cannot be told, whether it holds its lock, or whether the pid it has published is alive. The lock
    comes second because testing it means taking it for a moment, in which a starting dzagentd would not get it.
    """
    running = _listens(paths.wake)
    if running is None:
        running = _lock_held(paths.lock)
    if running is None:
        running = _pid_alive(status.get("pid"))
    if running:
        return Agent(running=True, message="dzagentd runs")
    return Agent(running=False, message="dzagentd does not run; start it with: systemctl start dzagentd")


def _listens(path: Path) -> bool | None:
    """Whether a process holds the datagram socket: the kernel refuses to connect to one left by a dead process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return None
    return True


def _lock_held(path: Path) -> bool | None:
    """Test the lock without keeping it: a shared lock is refused while dzagentd holds the exclusive one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    finally:
        os.close(descriptor)
    return False


def _pid_alive(pid: Any) -> bool:
    if isinstance(pid, bool) or not isinstance(pid, int) or not 0 < pid < 2**22 + 1:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
