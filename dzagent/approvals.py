"""What a person lets through: approvals that count once and for a while, and what they have let in since."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dzagent.errors import StateError
from dzagent.files import read_json, write_json
from dzagent.held import Held, making, step_key
from dzagent.intent import intent_stamp
from dzagent.model import Action, Observed, Outcome, Result
from dzagent.state import ApprovalRequest, read_approvals

log = logging.getLogger(__name__)

MAX_ACCEPTED = 4096


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval. deadline: seconds since boot. confirm: seconds until it is rolled back, None for never."""

    id: str
    deadline: float
    confirm: int | None = None


class Approvals:
    """The approvals of this process: none outlives it, none is older than `seconds`, none counts twice.

    What was let in stays let in while it is in the kernel, also for the next process: it would else be taken down by
    the same guard that it was let past. That is kept in /run, which ends with the kernel's state.
    """

    def __init__(
        self, requests: Path, accepted: Path, place: str, seconds: float, now: Callable[[], float]
    ) -> None:
        self._requests = requests
        self._accepted_file = accepted
        self._place = place
        self._seconds = seconds
        self._now = now
        self._open: dict[str, Approval] = {}
        self._stamp = intent_stamp(requests)
        self._seen = frozenset(self._read())
        self._accepted: frozenset[str] | None = None
        self._looked_at: object = None

    # ---- approvals -------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in new requests and drop what has expired."""
        stamp = intent_stamp(self._requests)
        if stamp != self._stamp:
            self._stamp = stamp
            found = frozenset(self._read())
            for request in found - self._seen:
                deadline = self._now() + self._seconds
                self._open[request.id] = Approval(request.id, deadline, request.confirm)
                log.info("%s is approved for %g s", request.id, self._seconds)
            self._seen = found
        now = self._now()
        self._open = {name: item for name, item in self._open.items() if item.deadline > now}

    def _read(self) -> Iterable[ApprovalRequest]:
        try:
            return read_approvals(self._requests)
        except StateError as error:
            log.warning("%s", error)
            return ()

    @property
    def ids(self) -> frozenset[str]:
        """The ids that are approved now."""
        return frozenset(self._open)

    def confirm_within(self, used: Iterable[Held]) -> int | None:
        """Return the seconds within which what is let through must be confirmed; the fewest if several say so."""
        found = [self._open[item.id].confirm for item in used if item.id in self._open]
        return min((seconds for seconds in found if seconds is not None), default=None)

    def drop(self, used: Iterable[Held]) -> None:
        """Close approvals without having used them."""
        for item in used:
            self._open.pop(item.id, None)

    def consume(self, used: Iterable[Held], outcomes: Iterable[Outcome]) -> None:
        """Close the approvals of what was tried, however it ended, and remember what was let in."""
        ended = {id(outcome.step): outcome.result for outcome in outcomes}
        tried = [item for item in used if id(item.step) in ended]
        for item in tried:
            self._open.pop(item.id, None)
        let_in = {
            step_key(item.step)
            for item in tried
            if item.kind == "capture"
            and item.step.action is not Action.DELETE
            and ended[id(item.step)] is Result.DONE
        }
        if let_in - self.accepted:
            self._remember(self.accepted | let_in)

    # ---- what was let in -------------------------------------------------------------------------------

    @property
    def accepted(self) -> frozenset[str]:
        """What was let in (`step_key`)."""
        if self._accepted is None:
            self._accepted = self._load()
        return self._accepted

    def forget_absent(self, observed: Observed) -> None:
        """Forget what is no longer in the kernel: an approval counts once. It lets in routes and rules alone."""
        seen = (observed.routes, observed.rules)
        if not self.accepted or seen == self._looked_at:
            return
        self._looked_at = seen
        there = {making(obj) for group in seen for obj in group}
        if self.accepted - there:
            self._remember(self.accepted & there)

    def _remember(self, accepted: frozenset[str]) -> None:
        self._looked_at = None
        self._accepted = accepted
        document = {
            "version": 1,
            "place": self._place,
            "accepted": sorted(accepted)[:MAX_ACCEPTED],
        }
        try:
            write_json(self._accepted_file, document)
        except StateError as error:
            log.warning("%s", error)

    def _load(self) -> frozenset[str]:
        try:
            document: Any = read_json(self._accepted_file)
        except StateError as error:
            log.warning("%s", error)
            return frozenset()
        if not isinstance(document, dict):
            return frozenset()
        if document.get("place") != self._place:
            return frozenset()
        accepted = document.get("accepted")
        if not isinstance(accepted, list):
            return frozenset()
        return frozenset(text for text in accepted[:MAX_ACCEPTED] if isinstance(text, str))
