"""Changes with a way back: opened before a plan runs, closed when somebody confirms it, undone when nobody does.

The loop asks first of all (`tick`), so that the next start of the agent undoes what the last one could not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dzagent.afterwards import after
from dzagent.checkpoint import CheckpointFile, Pending, UndoneFile
from dzagent.errors import GrammarError, InputError, StateError
from dzagent.held import Held
from dzagent.intent import IntentView, intent_stamp
from dzagent.journal import Journal
from dzagent.kernel.protocol import Kernel
from dzagent.model import Desired, Observed, Plan, Problem, Route, ServiceName
from dzagent.ownership import Ownership
from dzagent.report import Reporter
from dzagent.rollback import TRIES, account, finish, roll_back
from dzagent.screen import Screen, screen
from dzagent.state import read_apply_request
from dzagent.undo import Undo, no_way_back, undo_of, way_back
from dzagent.undone import Undone, still_wanted
from dzagent.volume import Unproven
from dzagent.wishes import Wishes

log = logging.getLogger(__name__)

RETRY: Final = 1.0
"""Seconds between two tries of a rollback."""


class NoWayBack(InputError):
    """A change that was to be undone if nobody confirms it, and could not be: nothing was changed."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the checkpoint lies, what was rolled back, and what a person confirms."""

    checkpoint: CheckpointFile
    undone: UndoneFile
    confirmation: Path


class Confirming:
    """Watches over the one change that waits for its confirmation. The loop's thread alone calls it.

    now: seconds since boot. unix: seconds since 1970. helper: starts what undoes a change if this process dies, and
    returns how to end it; None where something else does that.
    """

    def __init__(
        self,
        files: Files,
        kernel: Kernel,
        reporter: Reporter,
        owner: Ownership,
        journal: Journal,
        links: Mapping[ServiceName, str],
        now: Callable[[], float],
        unix: Callable[[], float],
        helper: Callable[[], None] | None = None,
    ) -> None:
        self._files = files
        self._kernel = kernel
        self._reporter = reporter
        self._owner = owner
        self._journal = journal
        self._links = links
        self._now = now
        self._unix = unix
        self._helper = helper
        self._stamp = intent_stamp(files.confirmation)
        self._pending: Pending | None = None
        self._tries = 0
        self._retry_at = 0.0
        self._undone: Undone | None = None
        self._problems: tuple[Problem, ...] = ()
        self._loaded = False

    # ---- what others see -------------------------------------------------------------------------------

    @property
    def pending(self) -> Pending | None:
        """The change that waits for its confirmation."""
        return self._pending

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What a person should know about files that could not be followed."""
        return self._problems

    def undone(self, intent: IntentView) -> Undone | None:
        """Return what was rolled back and is not done again. Who disables the agent wants all of it gone."""
        return self._undone if intent.enabled is True else None

    def seconds_left(self) -> float | None:
        """Return the seconds until something is to be done here, None if nothing is."""
        if self._pending is None:
            return None
        return max(0.0, max(self._pending.deadline, self._retry_at) - self._now())

    # ---- before everything else ------------------------------------------------------------------------

    def tick(self, intent: IntentView) -> None:
        """Close, or undo, the change that waits. Raises KernelError and StateError: then nothing else may happen."""
        self._load()
        confirmed = self._confirmed()
        pending = self._pending
        if pending is None:
            return
        if confirmed == pending.plan_id:
            self._close("confirmed", "it stays")
        elif intent.enabled is False and not intent.silent:
            self._close("superseded", "the agent was disabled before it was confirmed")
        elif self._now() >= max(pending.deadline, self._retry_at):
            self._undo(pending)

    def _load(self) -> None:
        """Read what an earlier process left, once."""
        if self._loaded:
            return
        problems: list[Problem] = []
        try:
            self._pending = self._files.checkpoint.read()
        except StateError as error:
            problems.append(Problem("CheckpointUnreadable", f"{error}: the last change is not rolled back"))
            with suppress(StateError):  # then it is reported again by the next process
                self._files.checkpoint.set_aside()
        try:
            self._undone = self._files.undone.read()
        except StateError as error:
            problems.append(Problem("RolledBackUnreadable", str(error)))
        self._problems = tuple(problems)
        self._loaded = True

    def _confirmed(self) -> str | None:
        """Return the plan that somebody has confirmed since the last look."""
        stamp = intent_stamp(self._files.confirmation)
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            request = read_apply_request(self._files.confirmation)
        except StateError as error:
            log.warning("%s", error)
            return None
        return None if request is None else request.plan_id

    def _close(self, result: str, message: str) -> None:
        pending = self._pending
        self._pending = None
        try:
            self._files.checkpoint.clear()
        except StateError as error:
            self._stuck(error)
        if pending is not None:
            log.info("plan %s is %s: %s", pending.plan_id, result, message)
            self._reporter.applied(pending.plan_id, result, message)

    def _stuck(self, error: StateError) -> None:
        """A file that cannot be removed stops no repair: this process knows, and the next one undoes what is undone."""
        message = f"{error}: remove it, or the next dzagentd rolls that change back"
        self._problems = (*self._problems, Problem("CheckpointStuck", message))

    def _undo(self, pending: Pending) -> None:
        self._tries += 1
        rolled = roll_back(self._kernel, self._owner, self._journal, pending)
        account(rolled, pending, self._links)
        self._reporter.events(rolled.outcomes)
        if rolled.failed and self._tries < TRIES:
            self._retry_at = self._now() + RETRY
            return
        self._undone = Undone(pending.plan_id, self._unix(), pending.undo.remove, pending.undo.restore)
        self._pending, self._tries, self._retry_at = None, 0, 0.0
        try:
            finish(self._files.checkpoint, self._files.undone, self._undone)
        except StateError as error:
            self._stuck(error)
        result = "not rolled back" if rolled.failed else "rolled back"
        self._reporter.applied(pending.plan_id, result, rolled.message)

    # ---- a change with a way back ----------------------------------------------------------------------

    def begin(self, plan: Plan, observed: Observed, seconds: int, by: Screen) -> None:
        """Open a checkpoint for a plan that runs next. Raises NoWayBack or StateError; then it must not run."""
        if self._pending is not None:
            raise NoWayBack(f"plan {self._pending.plan_id} waits for its confirmation; confirm it first")
        owner = replace(self._owner, claims=self._journal.claims)
        undo = undo_of(plan, observed, owner)
        why = no_way_back(undo, owner) or _blocked(undo, after(observed, plan.steps), owner, by)
        if why is not None:
            raise NoWayBack(f"there is no way back: {why}")
        pending = Pending(plan.id, self._now() + seconds, self._unix() + seconds, undo)
        try:
            self._files.checkpoint.write(pending)
        except GrammarError as error:
            raise NoWayBack(f"there is no way back: {error}") from error
        self._pending = pending
        if self._helper is not None:
            self._helper()

    # ---- what was rolled back --------------------------------------------------------------------------

    def settle(
        self,
        wishes: Wishes,
        intent: IntentView,
        desired: Desired,
        learned: Mapping[ServiceName, Mapping[str, Route]],
    ) -> None:
        """Forget what was rolled back and is not wanted as it was then: its inputs have changed."""
        if self._undone is None or intent.enabled is not True or wishes.kept:
            return
        self._replace(still_wanted(self._undone, desired, learned, self._links))

    def approve(self, used: tuple[Held, ...]) -> None:
        """Forget what was rolled back if a person has let it through."""
        if any(item.kind == "rollback" for item in used):
            self._replace(None)

    def _replace(self, undone: Undone | None) -> None:
        if undone == self._undone:
            return
        self._undone = undone
        try:
            self._files.undone.write(undone)
        except StateError as error:
            log.warning("%s", error)


def _blocked(undo: Undo, then: Observed, owner: Ownership, by: Screen) -> str | None:
    """Say what would keep a rollback from working once the change is made, judged as every plan is; None if nothing.

    then: what the kernel holds by then. by: without the limits for what has no cause, since this has one.
    """
    back = way_back(undo, then, owner)
    if back.skipped:
        return back.skipped[0]
    _, held, _ = screen(back.plan, then, replace(by, undone=None, unproven=Unproven()))
    return f"it would be withheld: {held[0].reason}" if held else None
