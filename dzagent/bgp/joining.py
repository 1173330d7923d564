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
from dzagent.model import (
    Action,
    Address,
    Desired,
    Link,
    Observed,
    Origin,
    Outcome,
    Plan,
    Problem,
    Result,
    Route,
    ServiceName,
    Wanted,
)

Learned: TypeAlias = Mapping[ServiceName, Mapping[str, Route]]
Installed: TypeAlias = Mapping[tuple[ServiceName, str], Route]
Slot: TypeAlias = tuple[int, IPv4Network]
"""Table and prefix: what two routes of ours cannot share."""

MAX_CONTESTED = 128
"""Keys that somebody else was faster at, and whose holder is therefore read in every pass."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Both sides for the plan, and which learned routes the kernel holds as they should be."""

    desired: Desired
    observed: Observed
    installed: Installed = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def join(desired: Desired, observed: Observed, learned: Learned, doubtful: Collection[str] = ()) -> Joined:
    """Add the learned routes to both sides.

    doubtful: links of services that are kept but whose peer is not known: the routes on them stay as they are.
    A learned route needs its source address on the host (the kernel refuses it else); without, it waits.
    """
    local = _local(desired, observed)
    rendered = {_slot(obj) for obj in desired.objects if isinstance(obj, Route)}
    held = set(observed.routes)
    installed: dict[tuple[ServiceName, str], Route] = {}
    missing: list[Wanted] = []
    problems: list[Problem] = []
    for name, routes in learned.items():
        source = next(iter(routes.values())).src if routes else None
        if source is not None and source not in local:
            problems.append(_no_source(name, source, len(routes)))
            continue
        origin = Origin(name, file_of(name), 0)
        for prefix, route in routes.items():
            if route in held:
                installed[name, prefix] = route
            elif _slot(route) not in rendered:
                missing.append(Wanted(route, origin))
    if not (installed or missing or doubtful):
        return Joined(desired, observed, problems=tuple(problems))
    settled = set(installed.values())
    rest = tuple(
        route
        for route in observed.routes
        if route not in settled and (route.dev not in doubtful or _slot(route) in rendered)
    )
    return Joined(
        Desired((*desired.wanted, *missing)), replace(observed, routes=rest), installed, tuple(problems)
    )


def _no_source(name: ServiceName, source: IPv4Address, count: int) -> Problem:
    message = f"{source} is not an address of this host: {count} learned routes wait for it"
    return Problem("DzIpMissing", message, name)


def _local(desired: Desired, observed: Observed) -> frozenset[IPv4Address]:
    wanted = (obj.interface.ip for obj in desired.objects if isinstance(obj, Address))
    return frozenset((*wanted, *(address.interface.ip for address in observed.addresses)))


def _slot(route: Route) -> Slot:
    return route.table, route.dst


@dataclass(slots=True)
class Joiner:
    """Joins with a memory: nothing is compared again while neither side has changed."""

    installed: dict[tuple[ServiceName, str], Route] = field(default_factory=dict)
    contested: dict[Slot, None] = field(default_factory=dict)
    _inputs: tuple[object, ...] = ()
    _joined: Joined | None = None

    def join(
        self, desired: Desired, observed: Observed, version: int, learned: Learned, doubtful: Collection[str]
    ) -> Joined:
        """As the function `join`; `version` tells one `learned` from another."""
        inputs = (version, desired, observed.links, observed.addresses, observed.routes, tuple(doubtful))
        if self._joined is None or inputs != self._inputs:
            self._joined = join(desired, observed, learned, doubtful)
            self._inputs = inputs
            self.installed = dict(self._joined.installed)
        # what is not compared here (rules) may still have changed
        return replace(self._joined, observed=replace(self._joined.observed, rules=observed.rules))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the last joining found wrong."""
        return () if self._joined is None else self._joined.problems

    def quick(
        self, desired: Desired, observed: Observed, changes: Mapping[tuple[ServiceName, str], Route | None]
    ) -> Joined:
        """Return both sides for changed routes alone, from what is known of the kernel: nothing is read again."""
        local = _local(desired, observed)
        ground = [item for item in desired.wanted if isinstance(item.obj, (Link, Address))]
        rendered = {_slot(obj) for obj in desired.objects if isinstance(obj, Route)}
        origins: dict[ServiceName, Origin] = {}
        wanted = [
            Wanted(route, origins.setdefault(name, Origin(name, file_of(name), 0)))
            for (name, _), route in changes.items()
            if route is not None and route.src in local and _slot(route) not in rendered
        ]
        held = tuple(route for key in changes if (route := self.installed.get(key)) is not None)
        return Joined(Desired((*ground, *wanted)), replace(observed, routes=held))

    @staticmethod
    def only(plan: Plan, changes: Mapping[tuple[ServiceName, str], Route | None]) -> Plan:
        """Return the steps of a quick plan that concern changed routes: the ground is there to stand on."""
        prefixes = {prefix for _, prefix in changes}
        phases = (
            tuple(
                step for step in phase if isinstance(step.target, Route) and str(step.target.dst) in prefixes
            )
            for phase in plan.phases
        )
        return replace(plan, phases=tuple(phase for phase in phases if phase))

    def done(self, changes: Iterable[tuple[ServiceName, str]], outcomes: Iterable[Outcome]) -> bool:
        """Take in what became of a quick plan; False if the kernel has to be read to know what it holds."""
        keys = set(changes)
        sound = True
        for outcome in outcomes:
            route = outcome.step.target
            if not isinstance(route, Route) or outcome.result not in {Result.DONE, Result.GONE}:
                sound = False
                continue
            name = self._service_of(outcome, route)
            key = (name, str(route.dst)) if name is not None else None
            if key is None or key not in keys:
                sound = False
            elif outcome.step.action is Action.DELETE:
                self.installed.pop(key, None)
            else:
                self.installed[key] = route
        return sound

    def _service_of(self, outcome: Outcome, route: Route) -> ServiceName | None:
        if outcome.step.origin is not None:
            return outcome.step.origin.service
        prefix = str(route.dst)
        names: tuple[ServiceName, ...] = ("unicast", "multicast")
        return next((name for name in names if self.installed.get((name, prefix)) == route), None)

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
