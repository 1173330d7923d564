"""When the next poll is made. Pure; times in seconds.

benchmarks/fleet.py runs ten thousand of these against one server, to see that they never fall into step.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from dzagent.errors import OverBudget
from dzagent.ledger.endpoints import Budget

CONFIRM_SECONDS = 2.0
"""How soon an answer that leaves something unproven is followed by the next poll."""

QUICK_POLLS = 3
"""How many quick polls follow each other before the usual interval is good enough again."""

HINT_SPREAD = 0.2
"""Hosts that are woken by the same change ask within this time, not all at once."""

HINT_GAP = 0.5
"""Least time from one poll to the next one that a hint causes."""

HINTS_A_MINUTE = 20
"""Polls that hints may cause: whoever sends hints cannot make this host hammer its RPC."""

_BACKOFF = (1.0, 1.5, 2.0, 3.0)


class Outcome(enum.Enum):
    """How a poll ended, for the purpose of choosing when to make the next one."""

    PROVEN = "proven"
    UNPROVEN = "unproven"  # a sound answer that another one must confirm, or an answer that was late
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the last polls ended: `streak` polls in a row ended as `last`."""

    last: Outcome = Outcome.PROVEN
    streak: int = 0

    def then(self, outcome: Outcome) -> Pulse:
        """Return the pulse after one more poll."""
        return Pulse(outcome, self.streak + 1 if outcome is self.last else 1)

    def delay(self, interval: float, jitter: float) -> float:
        """Return seconds until the next poll. `jitter` is a factor around 1."""
        if self.last is Outcome.UNPROVEN and self.streak <= QUICK_POLLS:
            return min(interval, CONFIRM_SECONDS) * jitter
        if self.last is Outcome.FAILED:
            return interval * _BACKOFF[min(self.streak, len(_BACKOFF)) - 1] * jitter
        return interval * jitter


class Hints:
    """Turns hints into the time of an early poll. `clock` gives seconds, `chance` a number from 0 to 1."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._budget = Budget(HINTS_A_MINUTE, clock)
        self._due: float | None = None
        self.slot = 0
        self.taken = 0
        self.ignored = 0

    def hint(self, slot: int, last_poll: float) -> None:
        """Take a hint in; a flood of them causes no flood of polls. `slot` is where the change was seen."""
        if self._due is not None:
            self.slot = max(self.slot, slot)
            return
        try:
            self._budget.spend()
        except OverBudget:
            self.ignored += 1
            return
        self.taken += 1
        self.slot = max(self.slot, slot)
        self._due = max(self._clock() + HINT_SPREAD * self._chance(), last_poll + HINT_GAP)

    def due(self) -> float | None:
        """When to poll because of a hint, None for not at all."""
        return self._due

    def polled(self) -> int:
        """A poll begins: return the slot it should reach (0 for any), and wait for the next hint."""
        self._due = None
        slot, self.slot = self.slot, 0
        return slot
