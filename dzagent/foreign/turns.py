"""Whose turn it is to write to the kernel: ours, unless doublezerod runs or a migration is under way.

A pass of the reconciler holds a lock that many may share; `dzagent migrate` holds it alone, so that no pass is under
way while it writes. An unfinished migration (its process was killed) is remembered by its record.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dzagent.config import Paths
from dzagent.errors import StateError
from dzagent.foreign.record import UNFINISHED, read_record
from dzagent.foreign.sight import ForeignWatch
from dzagent.state import read_intent

CONDITION: Final = "ForeignDaemon"
"""The condition that is True while somebody else's turn lasts."""

HANDED_BACK: Final = "HandedBack"
"""The code of a hindrance: what was ours is doublezerod's again, and only its mark tells."""

PATIENCE, STEP = 30.0, 0.05
"""Seconds that a migration waits for the end of a pass, and between two tries."""


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why this pass may not write: `code` is the condition's reason, `message` one sentence with what to do."""

    code: str
    message: str


class Turns:
    """Says for each pass whether it may write. Starts no program and never waits."""

    def __init__(self, paths: Paths, watch: ForeignWatch, boot: str) -> None:
        self._paths = paths
        self._watch = watch
        self._boot = boot

    @contextlib.contextmanager
    def turn(self) -> Iterator[Hindrance | None]:
        """Hold the lock for a pass, if it is to be had; yield why the pass may not write, None if it may."""
        descriptor = _open(self._paths.turn)
        try:
            yield self._hindrance(descriptor)
        finally:
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)

    def _hindrance(self, descriptor: int | None) -> Hindrance | None:
        seen = self._watch.look()
        if descriptor is not None and not _shared(descriptor):
            return Hindrance("Migrating", "`dzagent migrate` is at work: nothing is changed until it is done")
        unfinished = self._unfinished()
        if unfinished is not None:
            return unfinished
        if seen is None:
            return None
        message = (
            f"doublezerod runs here ({seen.how}): dzagent changes nothing while it does; `dzagent migrate` takes over "
            "from it"
        )
        return Hindrance("DoublezerodRuns", message)

    def _unfinished(self) -> Hindrance | None:
        """Return what an earlier migration of this boot forbids: a later boot has nothing left of it."""
        try:
            record = read_record(self._paths.migration)
        except StateError as error:
            return Hindrance("MigrationUnreadable", str(error))
        if record is None or record.boot != self._boot:
            return None
        if record.phase in UNFINISHED:
            message = f"a migration was broken off: nothing is changed; {UNFINISHED[record.phase]}"
            return Hindrance("MigrationUnfinished", message)
        if record.phase == "undone" and not self._enabled() and not self._said_since():
            message = "everything was handed back to doublezerod: nothing is changed until `dzagent enable`"
            return Hindrance(HANDED_BACK, message)
        return None

    def _said_since(self) -> bool:
        """Whether a person has spoken since everything was handed back: the record was written after that wish."""
        try:
            return self._paths.intent.stat().st_mtime_ns > self._paths.migration.stat().st_mtime_ns
        except OSError:
            return False

    def _enabled(self) -> bool:
        try:
            intent = read_intent(self._paths.intent)
        except StateError:
            return False
        return intent is not None and intent.enabled


def _open(path: Path) -> int | None:
    """Open the lock. None if there can be none (a full /run, say): that stops no repair; -1 if it is not for us."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError:
        return -1
    except OSError:
        return None


def _shared(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def alone(
    path: Path, *, patience: float = PATIENCE, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock alone: no pass is under way, and none may write. Raises StateError if that cannot be had.

    patience: seconds to wait for the end of a pass.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        with contextlib.suppress(
            OSError
        ):  # the reconciler, which may be another user, must be able to open it
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        for left in reversed(range(max(1, round(patience / STEP)))):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if left == 0:
                    message = f"{path} is locked: another `dzagent migrate` runs, or dzagentd hangs in a pass"
                    raise StateError(message) from error
                sleep(STEP)
        yield
    finally:
        os.close(descriptor)


def _made(path: Path) -> int:
    """Open the lock; a new one is for the reconciler too, which may be another user: the owner of the directory."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    with contextlib.suppress(OSError):
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor
