"""A kernel that is watched: what was seen stays known, and only what the watch touches is read again.

Lines that say only what is known (the agent's own writes, above all) touch nothing. While the watch is not healthy,
and whenever the loop has its doubts, everything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, Protocol

from dzagent.kernel.held import Held, Slot
from dzagent.kernel.protocol import Kernel
from dzagent.kernel.rereading import FEW
from dzagent.kernel.watch import WatchView
from dzagent.kernel.watchlines import EVERYTHING, NOTHING, Lines, Touched, is_known
from dzagent.model import Address, Interest, Link, Observed, Outcome, Result, Route, Rule, Step
from dzagent.nftmodel import NftTable

SHARE: Final = 50.0
"""A look at everything that took t seconds is repeated after SHARE * t at the earliest, unless there is doubt."""


class Rereader(Kernel, Protocol):
    """A kernel that can be read in parts."""

    def reread(self, interest: Interest, touched: Touched, before: Observed) -> Observed:
        """Return what was seen `before`, with what was touched read again. Raises as `observe` does."""


class Watcher(Protocol):
    """The watch, as it is used here."""

    @property
    def healthy(self) -> bool:
        """Whether every change since the last `take` is known."""

    def attend(self, lines: Lines) -> None:
        """Judge by these from now on."""

    def take(self) -> Touched:
        """Return what was touched since the last time."""

    def view(self) -> WatchView:
        """Return how it is, for people."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last look: what it was for, what it found, when everything was read last, and how long that took."""

    interest: Interest
    observed: Observed
    full_at: float
    cost: float


class WatchedKernel:
    """Implements `Kernel`. The loop's thread alone calls it. `clock` gives monotonic seconds.

    `tables` tells whether the watch hears of nftables; while not, every look reads them.
    """

    def __init__(
        self,
        kernel: Rereader,
        watch: Watcher,
        clock: Callable[[], float],
        tables: Callable[[], bool] = lambda: True,
    ) -> None:
        self._kernel = kernel
        self._watch = watch
        self._clock = clock
        self._tables = tables
        self._held = Held()
        self._seen: _Seen | None = None
        self._news = NOTHING
        self._written = NOTHING
        self._fully = True

    # ---- Kernel --------------------------------------------------------------------------------------------

    def observe(self, interest: Interest) -> Observed:
        """Read what was touched since the last look: everything, where that is not known."""
        seen = self._seen
        if seen is None or self._fully or not self._watch.healthy or not _same(seen.interest, interest):
            return self._observe_all(interest)
        touched = self.news() | self._written | _more(seen.interest, interest)
        if not self._tables():
            touched |= Touched(tables=True)
        if touched.everything:
            return self._observe_all(interest)
        observed = seen.observed
        if touched:
            self._seen = None  # if this fails, nothing is known
            observed = self._kernel.reread(interest, touched, seen.observed)
            if observed.routes is not seen.observed.routes or self._written:
                self._took_in(observed, interest.protocol)
        self._news = self._written = NOTHING
        self._remember(interest, replace(seen, interest=interest, observed=observed))
        return observed

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        """Carry out steps; what they touch is read at the next look."""
        self._written |= _written(steps)
        outcomes = self._kernel.apply(steps)
        for outcome in outcomes:
            route = outcome.step.target
            if isinstance(route, Route) and outcome.result in {Result.DONE, Result.GONE}:
                if outcome.step.after is None:
                    self._held.drop(route)
                else:
                    self._held.put(route)
        return outcomes

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        """Return the source address towards `dst`, asked each time."""
        return self._kernel.source_for(dst)

    # ---- for the loop --------------------------------------------------------------------------------------

    def news(self) -> Touched:
        """Return what was touched since the last look, beside what is known. Nothing is read."""
        touched = self._watch.take()
        if touched.slots:
            slots = {slot: line for slot, line in touched.slots.items() if not self._is_known(slot, line)}
            touched = replace(touched, slots=slots)
        self._news |= touched
        return self._news

    def reread_routes(self, slots: Collection[Slot]) -> Mapping[Slot, tuple[Route, ...]] | None:
        """Read single routes again; return those of ours. None if everything has to be read. Raises as `observe`."""
        seen = self._seen
        if seen is None or self._fully or not self._watch.healthy:
            return None
        self._seen = None
        observed = self._kernel.reread(seen.interest, Touched(slots=dict.fromkeys(slots)), seen.observed)
        # our own writes since the last look are not in `observed`: only what was read counts
        ours = (route for route in observed.routes if route.protocol == seen.interest.protocol)
        self._held.read(frozenset(slots), ours)
        self._seen = replace(seen, observed=observed)
        left = {slot: line for slot, line in self._news.slots.items() if slot not in slots}
        self._news = replace(self._news, slots=left)
        return {slot: self._held.at(slot) for slot in slots}

    def doubt(self) -> None:
        """Make the next look read everything."""
        self._fully = True

    def doubt_if_old(self) -> None:
        """Make the next look read everything if the last such look is old for what it cost."""
        seen = self._seen
        self._fully |= seen is None or self._clock() - seen.full_at >= SHARE * seen.cost

    def view(self) -> WatchView:
        """Return how the watch is, for people."""
        return self._watch.view()

    # ---- parts ---------------------------------------------------------------------------------------------

    def _observe_all(self, interest: Interest) -> Observed:
        self._seen = None
        self._remember_lines(interest)
        self._watch.take()  # what comes from here on may be newer than what is read
        began = self._clock()
        observed = self._kernel.observe(interest)
        now = self._clock()
        self._took_in(observed, interest.protocol)
        self._news = self._written = NOTHING
        self._fully = False
        self._seen = _Seen(interest, observed, now, now - began)
        return observed

    def _took_in(self, observed: Observed, protocol: int) -> None:
        self._held.now(route for route in observed.routes if route.protocol == protocol)

    def _remember(self, interest: Interest, seen: _Seen) -> None:
        before = self._seen
        self._seen = seen
        if before is None or before.interest != interest:
            self._remember_lines(interest)

    def _remember_lines(self, interest: Interest) -> None:
        self._watch.attend(Lines(interest, self._held))

    def _is_known(self, slot: Slot, line: str | None) -> bool:
        held = self._held.at(slot)
        if self._seen is None or len(held) > 1:
            return False
        return is_known(line, held[0] if held else None, self._seen.interest.protocol)


def _same(one: Interest, other: Interest) -> bool:
    """Tell whether two looks read the same but for single keys."""
    return (one.protocol, one.links) == (other.protocol, other.links)


def _more(before: Interest, after: Interest) -> Touched:
    """Return the keys that were not read before."""
    known = frozenset(before.exact)
    return Touched(slots={slot: None for slot in after.exact if slot not in known})


def _written(steps: Sequence[Step]) -> Touched:
    """Return what steps of ours touch; routes vanish with links and addresses, unseen."""
    targets = tuple(step.target for step in steps)
    if any(isinstance(target, Link) for target in targets):
        return EVERYTHING
    addresses = any(isinstance(target, Address) for target in targets)
    slots: dict[Slot, str | None] = {
        (target.table, target.dst): None for target in targets if isinstance(target, Route)
    }
    return Touched(
        addresses=addresses,
        rules=any(isinstance(target, Rule) for target in targets),
        routes=addresses or len(slots) > FEW,
        slots={} if len(slots) > FEW else slots,
        tables=any(isinstance(target, NftTable) for target in targets),
    )
