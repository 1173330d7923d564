"""Which slots can be true. Pure; times are monotonic seconds.

Slots only rise, about 2.5 a second. An answer for a slot far beyond that, once believed, would make every honest
answer after it an old one: it is believed only after it was repeated for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SLOTS_A_SECOND = 20
"""Eight times what the network does."""

SLACK = 100_000
"""Slots that may be jumped at any time: eleven hours, for a host that slept."""

REPEATS = 3
REPEAT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Slots:
    """The newest slot that is believed (-1 for none) and since when, and a leap that is waited for."""

    slot: int = -1
    at: float = 0.0
    leap: int = -1
    leap_at: float = 0.0
    leaps: int = 0

    def limit(self, now: float) -> int | None:
        """Return the highest slot that is believed now, None for any."""
        if self.slot < 0 or self._repeated(now):
            return None
        return self.slot + SLACK + int(SLOTS_A_SECOND * max(0.0, now - self.at))

    def believe(self, slot: int, now: float) -> Slots:
        """Return what holds after an answer that was taken in."""
        return Slots(slot, now)

    def leapt(self, slot: int, now: float) -> Slots:
        """Return what holds after an answer beyond the limit."""
        goes_on = self.leaps and abs(slot - self.leap) <= SLACK
        if not goes_on:
            return replace(self, leap=slot, leap_at=now, leaps=1)
        return replace(self, leap=slot, leaps=self.leaps + 1)

    def _repeated(self, now: float) -> bool:
        return self.leaps >= REPEATS and now - self.leap_at >= REPEAT_SECONDS
