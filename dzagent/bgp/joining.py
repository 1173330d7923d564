"""Where learned routes meet the rest: they join the desired objects, and pass the same plan and guard. Pure.

Thousands of routes that are as they should be would cost every plan its time, so what is wanted and held alike is
taken out of both sides first: it could only become no step. What is left is planned as everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from dzagent.bgp.learnedfile import file_of
from dzagent.bgp.parts import Installed, Joined, Learned
from dzagent.bgp.rejoining import rejoin
from dzagent.model import (
    Action,
    Address,
    Desired,
    Observed,
    Origin,
    Outcome,
    Plan,
    Problem,
    Result,
    Route,
    ServiceName,
    Step,
    Wanted,
)
from dzagent.ownership import Ownership
from dzagent.plan import plan_changes

__all__ = ["Installed", "Joined", "Joiner", "Learned", "Quick", "capturing", "join"]

Slot: TypeAlias = tuple[int, IPv4Network]
"""Table and prefix: what two routes of ours cannot share."""

MAX_CONTESTED = 128
"""Keys that somebody else was faster at, and whose holder is therefore read in every pass."""


NOTHING_EQUAL: Mapping[int, Route] = {}


def join(
    desired: Desired,
    observed: Observed,
    learned: Learned,
    doubtful: Collection[str] = (),
    equal: Mapping[int, Route] = NOTHING_EQUAL,
) -> Joined:
    """Add the learned routes to both sides.

    doubtful: links of services that are kept but whose peer is not known: the routes on them stay as they are.
    equal: learned routes by the identity of observed ones that they were found equal to before.

    A learned route needs its source address on the host (the kernel refuses it else); without, it waits.
    """
    local = _local(desired, observed)
    rendered = {_slot(obj) for obj in desired.objects if isinstance(obj, Route)}
    alike, rest_of = _known_alike(observed.routes, equal)
    held = {_number(route): route for route in rest_of if not route.metric and not route.extra}
    installed: dict[tuple[ServiceName, str], Route] = {}
    found: dict[int, Route] = {}
    missing: list[Wanted] = []
    problems: list[Problem] = []
    for name, routes in learned.items():
        source = next(iter(routes.values())).src if routes else None
        if source is not None and source not in local:
            problems.append(_no_source(name, source, len(routes)))
            continue
        origin = Origin(name, file_of(name), 0)
        for prefix, route in routes.items():
            known = alike.get(id(route))
            if known is not None:
                installed[name, prefix] = route
                found[id(known)] = route
                continue
            seen = held.get(_number(route))
            if seen is not None and seen == route:
                installed[name, prefix] = route
                found[id(seen)] = route
            elif _slot(route) not in rendered:
                missing.append(Wanted(route, origin))
    if not (installed or missing or doubtful):
        return Joined(desired, observed, problems=tuple(problems))
    rest = tuple(
        route
        for route in observed.routes
        if id(route) not in found and (route.dev not in doubtful or _slot(route) in rendered)
    )
    return Joined(
        Desired((*desired.wanted, *missing)) if missing else desired,
        replace(observed, routes=rest),
        installed,
        tuple(problems),
        found,
    )


def _known_alike(
    routes: Iterable[Route], equal: Mapping[int, Route]
) -> tuple[Mapping[int, Route], list[Route]]:
    """Return observed routes by the identity of the learned ones that they were found equal to, and the others."""
    alike: dict[int, Route] = {}
    others: list[Route] = []
    for seen in routes:
        route = equal.get(id(seen))
        if route is None or id(route) in alike:
            others.append(seen)
        else:
            alike[id(route)] = seen
    return alike, others


def capturing(learned: Learned, protected: Iterable[IPv4Address]) -> frozenset[tuple[ServiceName, str]]:
    """Return the learned routes that lead one of these addresses into a tunnel, installed or not.

    Few addresses and 33 lengths are looked up, however many routes there are.
    """
    found: set[tuple[ServiceName, str]] = set()
    for address in protected:
        for length in range(33):
            prefix = f"{IPv4Network((int(address), length), strict=False)}"
            found.update((name, prefix) for name, routes in learned.items() if prefix in routes)
    return frozenset(found)


def _no_source(name: ServiceName, source: IPv4Address, count: int) -> Problem:
    message = f"{source} is not an address of this host: {count} learned routes wait for it"
    return Problem("DzIpMissing", message, name)


def _local(desired: Desired, observed: Observed) -> frozenset[IPv4Address]:
    wanted = (obj.interface.ip for obj in desired.objects if isinstance(obj, Address))
    return frozenset((*wanted, *(address.interface.ip for address in observed.addresses)))


def _number(route: Route) -> tuple[int, int, int, int]:
    """Return what tells two plain routes apart, as numbers: cheaper than addresses by far."""
    return route.table, int(route.dst.network_address), route.dst.prefixlen, route.protocol


def _slot(route: Route) -> Slot:
    return route.table, route.dst


@dataclass(frozen=True, slots=True)
class Quick:
    """A plan for changed routes, and whose routes its steps are (by the identity of a step)."""

    plan: Plan
    keys: Mapping[int, tuple[ServiceName, str]]


@dataclass(slots=True)
class Joiner:
    """Joins with a memory: nothing is compared again while neither side has changed."""

    installed: dict[tuple[ServiceName, str], Route] = field(default_factory=dict)
    contested: dict[Slot, None] = field(default_factory=dict)
    news: bool = False
    """Whether `installed` has changed since somebody cleared this."""
    _inputs: tuple[object, ...] = ()
    _observed: Observed = field(default_factory=Observed)
    _joined: Joined | None = None

    def join(
        self,
        desired: Desired,
        observed: Observed,
        version: object,
        learned: Learned,
        doubtful: Collection[str],
    ) -> Joined:
        """As the function `join`; `version` tells one `learned` from another."""
        inputs = (version, desired, observed.links, observed.addresses, observed.routes, tuple(doubtful))
        if self._joined is None or inputs != self._inputs:
            equal = NOTHING_EQUAL if self._joined is None else self._joined.equal
            # the inputs of the last time hold on to its observed routes: an identity is of one of those, or new
            again = self._again(inputs, desired, observed, learned) if not doubtful else None
            self._joined = again or join(desired, observed, learned, doubtful, equal)
            self._inputs, self._observed = inputs, observed
            self.news |= self.installed != self._joined.installed
            self.installed = dict(self._joined.installed)
        # what is not compared here (rules) may still have changed
        return replace(
            self._joined, observed=replace(self._joined.observed, rules=observed.rules, nft=observed.nft)
        )

    def _again(
        self, inputs: tuple[object, ...], desired: Desired, observed: Observed, learned: Learned
    ) -> Joined | None:
        """Correct the last result, if nothing but a few observed routes is different."""
        if self._joined is None or (*inputs[:4], *inputs[5:]) != (*self._inputs[:4], *self._inputs[5:]):
            return None
        return rejoin(self._joined, desired, self._observed, observed, learned)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the last joining found wrong."""
        return () if self._joined is None else self._joined.problems

    def quick(
        self,
        desired: Desired,
        observed: Observed,
        changes: Mapping[tuple[ServiceName, str], Route | None],
        owner: Ownership,
    ) -> Quick:
        """Plan changed routes alone, from what is known of the kernel: nothing is read, no table compared."""
        local = _local(desired, observed)
        rendered = {_slot(obj) for obj in desired.objects if isinstance(obj, Route)}
        origins: dict[ServiceName, Origin] = {name: Origin(name, file_of(name), 0) for name, _ in changes}
        made: list[tuple[ServiceName, str]] = []
        removed: list[tuple[ServiceName, str]] = []
        make: list[Step] = []
        remove: list[Step] = []
        for key, route in changes.items():
            wanted = route
            if route is not None and (route.src not in local or (rendered and _slot(route) in rendered)):
                wanted = None
            item = None if wanted is None else Wanted(wanted, origins[key[0]])
            new, old = plan_changes([(item, self.installed.get(key))], owner)
            make += new
            remove += old
            made += [key] * len(new)
            removed += [key] * len(old)
        phases = tuple(tuple(phase) for phase in (make, remove) if phase)
        keys = {id(step): key for step, key in zip((*make, *remove), (*made, *removed), strict=True)}
        return Quick(Plan("", phases), keys)

    def saw(self, name: tuple[ServiceName, str], route: Route | None) -> None:
        """Take in what the kernel holds of one learned route."""
        if route is None:
            self.installed.pop(name, None)
        else:
            self.installed[name] = route
        self.news = True

    def done(self, quick: Quick, outcomes: Iterable[Outcome]) -> bool:
        """Take in what became of a quick plan; False if the kernel has to be read to know what it holds."""
        sound = True
        self.news = True
        for outcome in outcomes:
            route, key = outcome.step.target, quick.keys.get(id(outcome.step))
            good = outcome.result is Result.DONE or outcome.result is Result.GONE
            if not good or key is None or not isinstance(route, Route):
                sound = False
            elif outcome.step.action is Action.DELETE:
                self.installed.pop(key, None)
            else:
                self.installed[key] = route
        return sound

    def contest(self, outcomes: Iterable[Outcome]) -> None:
        """Remember the keys of learned routes that somebody else holds, so that a pass can name the holder."""
        for outcome in outcomes:
            route, origin = outcome.step.target, outcome.step.origin
            if not isinstance(route, Route) or origin is None or origin.file != file_of(origin.service):
                continue
            if outcome.result is Result.RACED and len(self.contested) < MAX_CONTESTED:
                self.contested[_slot(route)] = None

    def forget_contested(self, plan: Plan) -> None:
        """Drop the keys that nobody else holds any more."""
        held = {
            _slot(conflict.wanted.obj)
            for conflict in plan.conflicts
            if isinstance(conflict.wanted.obj, Route)
        }
        self.contested = {slot: None for slot in self.contested if slot in held}
