"""Fights: somebody keeps undoing what we repair. Then repairs slow down, and a person is told. Pure; times are passed in.

A repair is a step that makes what we had made before and that nobody asked us to take away since. What the ledger, a
peer or a policy takes away and gives again is no fight. Losing a race for a key counts like a repair that was undone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dzagent.model import (
    Action,
    Address,
    KernelObject,
    Key,
    Link,
    Observed,
    Outcome,
    Result,
    Route,
    Rule,
    Step,
    key,
)
from dzagent.policy import Contested as Rules
from dzagent.protocols import named

FIRST_DELAY: Final = 1.0
"""Seconds of the first pause; each further one is twice as long, up to the policy's limit."""

JITTER: Final = 0.25
"""Part by which a pause is made shorter or longer by chance, so that two agents do not march in step."""

MAX_MADE: Final = 65_536
"""Objects that we remember to have made: two services with all their routes."""

MAX_COUNTED: Final = 1000
"""Repairs of one object that are counted, unless the policy's limit is higher."""

MAX_WATCHED: Final = MAX_MADE
"""Objects whose repairs are counted at one time; of what is more, none: to drop others would let a flood end a count."""

SWEEPS: Final = 10
"""How often within the window counts that have become old are dropped."""


@dataclass(frozen=True, slots=True)
class Fight:
    """An object that is contested: the step that repairs it, how often that was undone, and what is in its place."""

    step: Step
    count: int
    rival: str = ""


@dataclass(slots=True)
class _Watched:
    """The repairs of one object. Times are seconds of the caller's clock."""

    step: Step
    times: list[float] = field(default_factory=list)
    level: int = 0
    retry_at: float = 0.0
    missing_since: float | None = None
    right_since: float | None = None
    lasted: float = 0.0

    @property
    def contested(self) -> bool:
        return self.level > 0


@dataclass(slots=True)
class Contest:
    """Counts repairs by object. chance: a number from 0 to 1, for the jitter."""

    rules: Rules
    chance: Callable[[], float] = random.random
    _made: dict[Key, KernelObject] = field(default_factory=dict)
    _watched: dict[Key, _Watched] = field(default_factory=dict)
    _contested: dict[Key, _Watched] = field(default_factory=dict)
    _swept_at: float = 0.0

    # ---- steps -----------------------------------------------------------------------------------------

    def ready(self, step: Step, now: float) -> bool:
        """Whether this step may be tried now; one that wants something else than what is fought over always may."""
        watched = self._of(step)
        return watched is None or now >= watched.retry_at

    def record(self, outcomes: Iterable[Outcome], now: float) -> None:
        """Take in how steps ended."""
        for outcome in outcomes:
            step, result = outcome.step, outcome.result
            if result is Result.RACED and step.action is not Action.DELETE:
                self._count(key(step.target), step, now)
            elif result is Result.DONE or result is Result.GONE:
                self._done(step, result, now)

    def _done(self, step: Step, result: Result, now: float) -> None:
        object_key = key(step.target)
        if step.after is None:
            if step.origin is not None:  # it makes room for what is wanted: a repair in two steps
                return
            if self._made.pop(object_key, None) is not None:  # our own wish took it away
                self._drop(object_key)
            elif result is Result.DONE:
                self._count(object_key, step, now)
            return
        if _comes_anew(step):
            self._forget_dependants(step.after)
        if self._made.get(object_key) == step.after:
            self._count(object_key, step, now)
            return
        if len(self._made) >= MAX_MADE:
            self._made.pop(next(iter(self._made)))
        self._made[object_key] = step.after
        self._drop(object_key)

    def _forget_dependants(self, obj: KernelObject) -> None:
        """The kernel drops what stands on a link or an address that goes: making that again is no repair of its own."""
        if isinstance(obj, Link | Address):
            name = obj.name if isinstance(obj, Link) else obj.dev
            kinds = Address | Route if isinstance(obj, Link) else Route
            gone = [k for k, made in self._made.items() if isinstance(made, kinds) and made.dev == name]
            for object_key in gone:
                del self._made[object_key]

    def _count(self, object_key: Key, step: Step, now: float) -> None:
        watched = self._watched.get(object_key)
        if watched is None or not _same(watched.step, step):
            self._drop(object_key)
            if len(self._watched) >= MAX_WATCHED:
                return
            watched = self._watched[object_key] = _Watched(step)
        if watched.times:
            gone_at = now if watched.missing_since is None else watched.missing_since
            watched.lasted = gone_at - watched.times[-1]
        watched.times.append(now)
        watched.missing_since = watched.right_since = None
        self._prune(watched, now)
        if watched.contested or len(watched.times) >= self.rules.after:
            self._contested[object_key] = watched
            watched.level += 1
            watched.retry_at = now + self._delay(watched.level)

    def _drop(self, object_key: Key) -> None:
        self._watched.pop(object_key, None)
        self._contested.pop(object_key, None)

    def _delay(self, level: int) -> float:
        pause = min(self.rules.longest, FIRST_DELAY * 2.0 ** min(level - 1, 32))
        return pause * (1 - JITTER + 2 * JITTER * self.chance())

    def _prune(self, watched: _Watched, now: float) -> None:
        """Forget repairs that are older than the window, and what is more than can be counted."""
        first = next((n for n, at in enumerate(watched.times) if now - at <= self.rules.within), None)
        most = max(self.rules.after, MAX_COUNTED)
        watched.times = [] if first is None else watched.times[first:][-most:]

    # ---- passes ----------------------------------------------------------------------------------------

    def settle(self, left: Sequence[Step], now: float) -> tuple[Fight, ...]:
        """Take in what is left to do after a pass; return the fights that go on.

        A fight is over when its object has been right for the policy's `calm`, or for twice as long as a repair
        lasted of late, if that is longer.
        """
        self._sweep(now)
        if not self._contested:
            return ()
        missing = {key(step.target) for step in left}
        for object_key, watched in list(self._contested.items()):
            self._prune(watched, now)
            if object_key in missing:
                watched.right_since = None
                watched.missing_since = now if watched.missing_since is None else watched.missing_since
                continue
            watched.right_since = now if watched.right_since is None else watched.right_since
            if now >= self._over_at(watched):
                self._drop(object_key)
        return self.fights()

    def _sweep(self, now: float) -> None:
        """Drop counts of objects that nobody has undone for long, now and then: there may be thousands."""
        if not self._watched or now - self._swept_at < self.rules.within / SWEEPS:
            return
        self._swept_at = now
        quiet = ((k, w) for k, w in self._watched.items() if k not in self._contested)
        for object_key in [k for k, w in quiet if now - w.times[-1] > self.rules.within]:
            del self._watched[object_key]

    def _over_at(self, watched: _Watched) -> float:
        calm = max(self.rules.calm, min(2 * watched.lasted, self.rules.within))
        return calm + (watched.right_since or 0.0)

    def fights(self) -> tuple[Fight, ...]:
        """Return what is contested now, links first."""
        found = [Fight(watched.step, len(watched.times)) for watched in self._contested.values()]
        return tuple(sorted(found, key=lambda fight: not isinstance(fight.step.target, Link)))

    def standing(self, steps: Iterable[Step]) -> tuple[Outcome, ...]:
        """Return those of these steps that wait because they are fought over, as outcomes."""
        if not self._contested:
            return ()
        found = ((step, self._of(step)) for step in steps)
        return tuple(
            self.outcome(Fight(step, len(watched.times))) for step, watched in found if watched is not None
        )

    def outcome(self, fight: Fight) -> Outcome:
        """Return a fight as the end of a step that is not tried yet."""
        return Outcome(fight.step, Result.CONTESTED, self.sentence(fight.count))

    def sentence(self, count: int) -> str:
        """Say what a fight is."""
        repairs = "1 repair" if count == 1 else f"{count} repairs"
        return (
            f"somebody keeps undoing it: {repairs} within {self.rules.within:g} s, now they are slowed down"
        )

    def next_due(self) -> float | None:
        """Return the earliest time at which a repair may be tried again or a fight may be over."""
        times = (
            self._over_at(watched) if watched.right_since is not None else watched.retry_at
            for watched in self._contested.values()
        )
        return min(times, default=None)

    def _of(self, step: Step) -> _Watched | None:
        """Return what is contested of the object that a step is about, if it wants the same of it.

        A delete that makes room for what is wanted waits with it: half a repair would be worse than none.
        """
        if not self._contested:
            return None
        watched = self._contested.get(key(step.target))
        if watched is None or _same(watched.step, step):
            return watched
        rebuilt = step.action is Action.DELETE and step.origin is not None
        return watched if rebuilt and watched.step.after is not None else None


def rival(step: Step, observed: Observed) -> str:
    """Say what somebody else has put in the place of an object of ours; "" if nothing is there."""
    obj = step.after
    if isinstance(obj, Route):
        others = (r.protocol for r in observed.routes if (r.table, r.dst) == (obj.table, obj.dst))
        return _theirs(others, obj.protocol, "a route")
    if isinstance(obj, Rule):
        same = (r for r in observed.rules if (r.priority, r.src, r.dst) == (obj.priority, obj.src, obj.dst))
        return _theirs((r.protocol for r in same), obj.protocol, "a rule")
    return ""


def _theirs(protocols: Iterable[int], ours: int, what: str) -> str:
    other = next((protocol for protocol in protocols if protocol != ours), None)
    return "" if other is None else f"{what} of {named(other)} is in its place"


def _comes_anew(step: Step) -> bool:
    """Tell whether what stood on the object of a step is gone: it was not there, or down, or is made anew."""
    if isinstance(step.after, Link):
        return step.action is Action.ADD or (isinstance(step.before, Link) and not step.before.up)
    return isinstance(step.after, Address)


def _same(one: Step, other: Step) -> bool:
    """Tell whether two steps want the same of an object; what is in its place meanwhile may differ."""
    return one.after == other.after
