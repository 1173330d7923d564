"""What runs the loop: waits for reasons, and decides between the quick way, a pass, and nothing.

Changes of learned routes and of the kernel go the quick way first; whatever else is said, and what the quick way
leaves, is a pass. Files that a person may edit by hand are looked at every few seconds, without reading them.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from dzagent.intent import intent_stamp
from dzagent.kernel.watched import WatchedKernel
from dzagent.rhythm import GATHER, Passed, Rhythm
from dzagent.wake import Wake

KERNEL: Final = "kernel"
"""The reason for which the watch over the kernel wakes the loop."""

QUICK: Final = frozenset({KERNEL, "routes"})
"""Reasons that the quick way may answer."""

FILES_SECONDS: Final = 2.0
"""Seconds between two looks at the times of files."""

_RESYNC: Final = re.compile(r"resync(?::([0-9a-f]{1,32}))?")


def cpu_seconds() -> float:
    """Return the time that this thread and all ended children of the process have used a core."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + children.ru_utime + children.ru_stime


Rest: TypeAlias = Callable[[Callable[[float], frozenset[str]], float], frozenset[str]]
"""Waits for reasons, by the way that it is given, for some seconds at most."""


def _wait(wait: Callable[[float], frozenset[str]], seconds: float) -> frozenset[str]:
    return wait(seconds)


class Loop(Protocol):
    """What is driven."""

    @property
    def tried(self) -> int:
        """How many changes of the kernel were tried so far."""

    @property
    def urgent(self) -> bool:
        """Whether objects of ours are touched."""

    @property
    def outdated(self) -> bool:
        """Whether people are told what is not so any more, although nothing has to be done."""

    def run_pass(self) -> Passed:
        """Run one pass."""

    def run_changes(self) -> bool:
        """Go the quick way; False if a pass is needed."""

    def resync_asked(self, token: str) -> None:
        """The next pass answers a person's wish."""


class Drive:
    """Runs a loop until it is told to stop.

    `cost` gives the seconds of a core that were used so far; `rest` waits, and may do something else meanwhile.
    """

    def __init__(
        self,
        loop: Loop,
        rhythm: Rhythm,
        cost: Callable[[], float],
        rest: Rest = _wait,
        watched: WatchedKernel | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        self._loop = loop
        self._rhythm = rhythm
        self._cost = cost
        self._rest = rest
        self._watched = watched
        self._files = files
        self._stamps = self._look_at_files()

    def run(self, wake: Wake, stopping: Callable[[], bool]) -> None:
        """Run until told to stop; begins with a pass."""
        self._pass(fully=True)
        while not stopping():
            reasons = self._rest(wake.wait, min(self._rhythm.left(), FILES_SECONDS))
            if KERNEL in reasons:
                reasons |= wake.wait(GATHER, ignoring=QUICK)
            if not stopping():
                self.turn(reasons)

    def turn(self, reasons: frozenset[str]) -> None:
        """Answer the reasons that came; none of them means that time has passed."""
        fully = any(self._asks_for_everything(reason) for reason in reasons) or self._rhythm.full
        if fully or reasons - QUICK or self._files_changed():
            self._pass(fully=fully)
        elif reasons:
            self._quick(reasons)
        if self._rhythm.left() <= 0 or (self._rhythm.tells and self._loop.outdated):
            self._pass(fully=False, woken=True)

    def _quick(self, reasons: frozenset[str]) -> None:
        began, before = self._cost(), self._loop.tried
        done = self._loop.run_changes()
        if KERNEL in reasons:
            self._rhythm.spent(self._cost() - began, useful=self._loop.tried > before)
        if not done:
            self._rhythm.want(urgent=self._loop.urgent or "routes" in reasons)

    def _pass(self, *, fully: bool, woken: bool = False) -> None:
        """Run a pass. woken: by the kernel's events, which say what to read; else what is old is read again."""
        watched = self._watched
        if watched is not None and fully:
            watched.doubt()
        elif watched is not None and not woken:
            watched.doubt_if_old()
        began = self._cost()
        how = self._loop.run_pass()
        healthy = watched is not None and watched.view().healthy
        seconds = self._cost() - began if woken else 0.0  # what else asks for a pass has limits of its own
        self._rhythm.passed(replace(how, seconds=seconds, fully=fully or watched is None, watched=healthy))
        self._stamps = self._look_at_files()

    def _asks_for_everything(self, reason: str) -> bool:
        found = _RESYNC.fullmatch(reason)
        if found is not None:
            self._loop.resync_asked(found[1] or "")
        return found is not None

    def _files_changed(self) -> bool:
        return self._look_at_files() != self._stamps

    def _look_at_files(self) -> tuple[int, ...]:
        return tuple(map(intent_stamp, self._files))
