"""The lock of the one reconciler: whoever holds it may write the kernel."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from dzagent.errors import StateError

LOCK_SECONDS, LOCK_STEP = 1.0, 0.05
"""How long, and how often, the reconciler's lock is tried."""


def take_lock(
    path: Path, *, patience: float = LOCK_SECONDS, wait: Callable[[float], None] = time.sleep
) -> int:
    """Become the only reconciler of this run directory. Raises StateError if another one runs.

    patience: seconds to go on trying, since the API holds the lock for a moment when it looks whether we run.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateError(f"{path} cannot be opened ({error.strerror}){_advice(error)}") from error
    tries = max(1, round(patience / LOCK_STEP))
    for left in reversed(range(tries)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if left == 0:
                os.close(fd)
                raise StateError(f"another dzagentd runs already: it holds {path}") from error
            wait(LOCK_STEP)
        else:
            break
    return fd


def _advice(error: OSError) -> str:
    """What to do about a lock that cannot be opened, where that can be known."""
    if isinstance(error, PermissionError):
        return "; use sudo, or start the service: systemctl start dzagentd"
    return ""
