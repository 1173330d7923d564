"""When the loop passes: what is due without being woken, and how soon after a wake by the kernel. Pure but for its clock.

What somebody else does to the kernel wakes the loop at once; if that goes on and on, passes are limited to a share of
a core. Time that passes took is a debt that is paid off at a fixed rate; a debt above a limit has to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

GATHER: Final = 0.003
"""Seconds between the first event and the look at what it means: events come in groups."""

SHARE: Final = 0.08
"""Part of a core that passes without any result may take while foreign events go on."""

USEFUL: Final = 0.15
"""How much of the time of a pass that repaired something counts: a fight may cost half a core, for it is a fight."""

BURSTS: Final[dict[bool, tuple[float, float]]] = {True: (1.0, 0.5), False: (0.25, 5.0)}
"""By urgency (whether objects of ours are touched): seconds of debt that are free, and the longest wait."""

UNWATCHED: Final = 2.0
"""Seconds between passes while nobody watches the kernel, and after a pass that failed."""

UNSETTLED: Final = 5.0
"""Seconds until the next pass where something is withheld, in conflict or left to do: its causes may be silent."""

TOLD: Final = 1.0
"""Seconds between a pass and the next one that only tells people what has changed beside the kernel."""

AT_ONCE: Final = 0.05
"""The least that passes are apart that nobody asked for, in seconds."""


@dataclass(frozen=True, slots=True)
class Passed:
    """How a pass ended: seconds of a core that it took for the kernel's events, whether it changed anything, whether it read everything, what is left.

    retry_in: seconds until a step that failed may be tried again, None if none is to be.
    """

    seconds: float = 0.0
    changed: bool = False
    fully: bool = True
    failed: bool = False
    unsettled: bool = False
    watched: bool = False
    retry_in: float | None = None


class Rhythm:
    """Decides when to pass. resync: seconds between looks at everything; `chance` gives numbers from 0 to 1."""

    def __init__(self, resync: float, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._resync = resync
        self._clock = clock
        self._chance = chance
        self._full_at = self._pass_at = clock()
        self._told_at = clock()
        self._debt = 0.0
        self._debt_at = clock()

    def left(self) -> float:
        """Return the seconds until a pass is due, 0 if one is."""
        return max(0.0, min(self._pass_at, self._full_at) - self._clock())

    @property
    def full(self) -> bool:
        """Whether the pass that is due has to read everything."""
        return self._clock() >= self._full_at

    @property
    def tells(self) -> bool:
        """Whether the last pass is long enough ago for one that only tells."""
        return self._clock() - self._told_at >= TOLD

    def want(self, *, urgent: bool) -> None:
        """Ask for a pass because of the kernel's events: at once, or when the debt allows."""
        free, longest = BURSTS[urgent]
        wait = min(longest, max(0.0, self._owed() - free) / SHARE)
        self._pass_at = min(self._pass_at, self._clock() + wait)

    def spent(self, seconds: float, *, useful: bool) -> None:
        """Count seconds of a core that were spent on the kernel's events."""
        self._debt = self._owed() + seconds * (USEFUL if useful else 1.0)

    def passed(self, how: Passed) -> None:
        """Take in a pass that has just ended."""
        now = self._told_at = self._clock()
        self.spent(how.seconds, useful=how.changed)
        if how.fully and not how.failed:
            self._full_at = now + self._resync * (0.9 + 0.2 * self._chance())
        elif how.failed:
            self._full_at = max(self._full_at, now + UNWATCHED)
        times = [self._full_at]
        if how.failed or not how.watched:
            times.append(now + UNWATCHED)
        if how.unsettled:
            times.append(now + UNSETTLED)
        if how.retry_in is not None:
            # one that is due already was not tried, for a reason that takes its time
            times.append(now + (how.retry_in if how.retry_in > 0 else UNWATCHED))
        self._pass_at = max(now + AT_ONCE, min(times))

    def _owed(self) -> float:
        now = self._clock()
        self._debt = max(0.0, self._debt - (now - self._debt_at) * SHARE)
        self._debt_at = now
        return self._debt
