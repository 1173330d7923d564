"""Undoing a change that nobody confirmed: by the running agent, by the next one, or by `dzagentd --rollback`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from dzagent.audit import audit_line
from dzagent.checkpoint import CheckpointFile, Pending, UndoneFile
from dzagent.errors import StateError
from dzagent.journal import Journal
from dzagent.kernel.execute import execute
from dzagent.kernel.protocol import Kernel
from dzagent.model import SERVICE_NAMES, Outcome, Result, ServiceName
from dzagent.ownership import Ownership
from dzagent.undo import WayBack, interest_of, way_back
from dzagent.undone import Undone

log = logging.getLogger(__name__)
audit = logging.getLogger("dzagent.audit")

ROUNDS: Final = 3
"""Looks at the kernel in one go: an address that returns lets its routes return in the next round."""
TRIES: Final = 5
"""How often a rollback is tried until what is left of it is given up."""
RELEASE_SECONDS: Final = 120.0
"""How long after a deadline somebody else may hold the lock until `--rollback --wait` gives up."""
STEP: Final = 1.0

_GOOD: Final = frozenset({Result.DONE, Result.GONE})


@dataclass(frozen=True, slots=True)
class RolledBack:
    """How a rollback ended: every step that was tried, what was left alone and why, what could not be done."""

    outcomes: tuple[Outcome, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def message(self) -> str:
        """One sentence for a person."""
        said = [*self.failed, *self.skipped]
        return "; ".join(said)[:500] if said else "everything is as it was before"


def roll_back(kernel: Kernel, owner: Ownership, journal: Journal, pending: Pending) -> RolledBack:
    """Undo a change, as far as it is still there and ours. Raises KernelError if the kernel cannot be read.

    journal: knows what is ours although its mark is gone, and what is begun.
    """

    def look() -> WayBack:
        return way_back(pending.undo, kernel.observe(watched), replace(owner, claims=journal.claims))

    done: list[Outcome] = []
    failed: tuple[str, ...] = ()
    watched = interest_of(pending.undo, owner)
    back = look()
    skipped = back.skipped
    for _ in range(ROUNDS):
        if not back.plan.steps:
            return RolledBack(tuple(done), skipped, ())
        journal.begin(back.plan.steps)
        outcomes = execute(kernel, back.plan)
        done += outcomes
        failed = tuple(o.message or o.result.value for o in outcomes if o.result not in _GOOD)
        back = look()
    left = tuple(f"{len(back.plan.steps)} steps of the way back are left" for _ in back.plan.steps[:1])
    return RolledBack(tuple(done), skipped, (*left, *failed) if left else ())


def account(rolled: RolledBack, pending: Pending, links: Mapping[ServiceName, str]) -> None:
    """Write the audit lines of a rollback."""
    why = f"plan {pending.plan_id} was not confirmed"
    causes = dict.fromkeys(SERVICE_NAMES, why)
    for outcome in rolled.outcomes:
        level = logging.INFO if outcome.result in _GOOD else logging.WARNING
        audit.log(level, "%s", audit_line(outcome, causes, links))
    for text in rolled.skipped:
        audit.warning("rollback of plan %s: %s", pending.plan_id, text)
    log.warning("plan %s was not confirmed and is rolled back: %s", pending.plan_id, rolled.message)


@dataclass(slots=True)
class Rollback:
    """What `dzagentd --rollback` works with. now: seconds since boot; unix: seconds since 1970.

    take_lock raises StateError while another process is the reconciler; give_back returns what it took.
    """

    file: CheckpointFile
    undone: UndoneFile
    kernel: Kernel
    owner: Ownership
    journal: Journal
    links: Mapping[ServiceName, str]
    take_lock: Callable[[], int]
    give_back: Callable[[int], None]
    now: Callable[[], float]
    unix: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep
    _told: str = ""

    def run(self, *, wait: bool) -> int:
        """Undo the open change if its time has come and no agent does it; return the exit status.

        0: there is nothing (left) to do. 1: it could not be done, and why is logged. wait: until its time has come.
        """
        tries = 0
        while True:
            try:
                pending = self.file.read()
            except StateError as error:
                if not wait or self._give_up(error):
                    return self._unreadable(error)
                self.sleep(STEP)
                continue
            if pending is None:
                return 0
            left = pending.deadline - self.now()
            if left > 0:
                if not wait:
                    return 0
                self.sleep(min(left, STEP))
                continue
            tries += 1
            ended = self._once(pending, last=tries >= TRIES)
            if ended is not None:
                return ended
            if not wait and tries >= TRIES:
                return 1
            if wait and -left > RELEASE_SECONDS:
                log.error(
                    "plan %s is not rolled back: another dzagentd holds the lock and does not do it",
                    pending.plan_id,
                )
                return 1
            self.sleep(STEP)

    def _give_up(self, error: StateError) -> bool:
        """Tell whether no agent lives; one that does knows its change by heart, and we wait for its end, or the file's."""
        try:
            self.give_back(self.take_lock())
        except StateError:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("%s: left to the dzagentd that runs", error)
            return False
        return True

    def _unreadable(self, error: StateError) -> int:
        """What cannot be read would start us again and again: it is moved away, unless an agent is there to do so."""
        log.error("%s: the last change is not rolled back", error)
        with suppress(StateError):
            lock = self.take_lock()
            try:
                self.file.set_aside()
            finally:
                self.give_back(lock)
        return 1

    def _once(self, pending: Pending, *, last: bool) -> int | None:
        """Try once; None if it has to be tried again. A living agent does it by itself: it holds the lock."""
        try:
            lock = self.take_lock()
        except StateError as error:
            log.info("%s", error)
            return None
        try:
            if self.file.read() is None:
                return 0  # it was confirmed at the last moment
            rolled = roll_back(self.kernel, self.owner, self.journal, pending)
            account(rolled, pending, self.links)
            if rolled.failed and not last:
                return None
            undone = Undone(pending.plan_id, self.unix(), pending.undo.remove, pending.undo.restore)
            finish(self.file, self.undone, undone)
            return 1 if rolled.failed else 0
        finally:
            self.give_back(lock)


def finish(file: CheckpointFile, memory: UndoneFile, undone: Undone) -> None:
    """Remember what was rolled back, then close the checkpoint: if this is cut off in between, it is done again.

    Raises StateError if the checkpoint cannot be closed. That it cannot be remembered (a full disk) is logged.
    """
    try:
        memory.write(undone)
    except StateError as error:
        log.warning("%s: a restarted agent will do it again", error)
    file.clear()
