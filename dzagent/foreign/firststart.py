"""The first start on a host that doublezerod ran on: its last wish becomes ours, once.

Never after a person has spoken, and never twice: what was taken over is remembered by digest, beside the intent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from dzagent.conditions import Status
from dzagent.config import Doublezerod, Paths
from dzagent.errors import StateError
from dzagent.files import absent, write_json
from dzagent.foreign.oldstate import OldState, read_old_state
from dzagent.state import write_first_intent

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What became of doublezerod's state at this start: the condition StateMigrated. `corrupt`: it is to be told."""

    status: Status = "Unknown"
    reason: str = "NothingFound"
    message: str = "doublezerod has left no state on this host"

    @property
    def corrupt(self) -> bool:
        """Whether its wish is not known although there is a file."""
        return self.status == "False"


def take_over(paths: Paths, places: Doublezerod, now: Callable[[], float]) -> TakenOver:
    """Make doublezerod's wish the first intent, unless there is one already. Never raises.

    now: unix seconds, for the note of what was taken over.
    """
    if not absent(paths.intent):
        return TakenOver(reason="NotNeeded", message="what is wanted has been said to dzagent itself")
    if not absent(paths.taken_over):
        return TakenOver("True", "Before", f"it was taken over at an earlier start: {paths.taken_over}")
    try:
        found = read_old_state(places.state)
    except StateError as error:
        return _failed("Unreadable", error)
    if found is None:
        return TakenOver()
    try:
        return _taken(paths, found, now())
    except StateError as error:
        return _failed("NotWritten", error)


def _failed(reason: str, error: StateError) -> TakenOver:
    message = f"what doublezerod was told cannot be taken over: {error}; say it again: `dzagent enable` or `disable`"
    log.warning("%s", message)
    return TakenOver("False", reason, message)


def _taken(paths: Paths, found: OldState, now: float) -> TakenOver:
    """Write the intent first: were it the note, a crash between the two would lose the wish."""
    if not write_first_intent(paths.intent, found.intent):
        return TakenOver(reason="NotNeeded", message="what is wanted has been said to dzagent itself")
    note = {
        "file": str(found.file),
        "sha256": found.digest,
        "reconciler_enabled": found.intent.enabled,
        "at": now,
    }
    write_json(paths.taken_over, note, durable=True)
    word = "enabled" if found.intent.enabled else "disabled"
    remark = f"; {found.remark}" if found.remark else ""
    message = f"{found.file} says {word}: taken over as the first intent{remark}"
    log.info("%s", message)
    return TakenOver("True", "TakenOver", message)
