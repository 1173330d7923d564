"""Steps that would change where protected traffic goes: the routing decision, simulated before and after. Pure.

`guard` judges an object by its own prefix. Here the rules of others count as well: one that points at a table where
we put a route, or one that nothing hides any more once a rule of ours is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from dzagent.afterwards import after
from dzagent.held import Held, less
from dzagent.model import (
    MAIN_TABLE,
    Action,
    KernelObject,
    Observed,
    Plan,
    Protected,
    Route,
    Rule,
    Step,
)
from dzagent.protect import SSH_LOCAL, SSH_PEER, Shield, without
from dzagent.routing import LOCAL_TABLE, Routing, Way, possible

_ANY_SOURCE: Final = IPv4Address(0)
MAX_POINTS: Final = 256
"""Addresses that stand for one protected network; more rules than that inside one of them are not looked at."""


@dataclass(frozen=True, slots=True)
class Ours:
    """How our part of the routing is told: names of our tunnels, protocol number, our own addresses on them."""

    tunnels: frozenset[str]
    protocol: int
    addresses: tuple[IPv4Address, ...] = ()


def turning(plan: Plan, observed: Observed, protected: Protected, ours: Ours) -> tuple[Held, ...]:
    """Return the steps after which protected traffic could leave through a tunnel and before which it could not.

    A delete counts too: what it uncovers may capture. Each phase is judged by itself, since traffic flows between
    them. Where several steps together do it, the rule is named before the route, and a delete last.
    """
    reach = _Reach(plan, observed, protected, ours)
    if not any(reach.can_turn(step) for step in plan.steps):
        return ()
    before = _Sight(observed, observed, protected, ours)
    held: list[Held] = []
    while True:
        found = _first(less(plan, held), observed, before, reach)
        if not found:
            return tuple(held)
        held += found


class _Reach:
    """Which steps can matter to protected traffic at all: hardly any, and for those alone it is worth to simulate."""

    def __init__(self, plan: Plan, observed: Observed, protected: Protected, ours: Ours) -> None:
        self.protected, self.ours = protected, ours
        self._shield = Shield(protected, ours.addresses)
        self._sources = (_ANY_SOURCE, *_sources(observed, ours))
        self._vrf = any(link.kind == "vrf" for link in observed.links)
        added = [step.after for step in plan.steps if isinstance(step.after, Rule)]
        self._rules = (*observed.rules, *added)
        self._led: dict[int, bool] = {}
        # a rule that comes or goes may be where somebody jumps to
        self._jumps = any(token.startswith("goto ") for rule in observed.rules for token in rule.extra)

    def can_turn(self, step: Step) -> bool:
        """Tell whether a step can: a rule that protected traffic can match, a route where such a rule leads."""
        obj = step.target
        if isinstance(obj, Rule):
            return self._jumps or self._matches(obj)
        if not isinstance(obj, Route):
            return False
        ours = obj.dev in self.ours.tunnels
        if ours and (obj.table == MAIN_TABLE or step.action is Action.DELETE):
            return False  # judged by its prefix; and what it led astray was captured before
        if obj.table not in self._led:
            self._led[obj.table] = any(self._leads(rule, obj.table) for rule in self._rules)
        return self._led[obj.table]

    def _leads(self, rule: Rule, table: int) -> bool:
        anywhere = not rule.table and (self._vrf or "l3mdev" not in rule.extra)
        return (rule.table == table or anywhere) and self._matches(rule)

    def _matches(self, rule: Rule) -> bool:
        if "not" in rule.extra:
            return True
        return self._shield.captured(rule.dst) is not None and any(src in rule.src for src in self._sources)


def _first(plan: Plan, observed: Observed, before: _Sight, reach: _Reach) -> tuple[Held, ...]:
    """Return what has to be withheld because of the first capture that is found, nothing if there is none."""
    done: list[Step] = []
    for phase in plan.phases:
        done += phase
        if not any(reach.can_turn(step) for step in phase):
            continue
        seen = _Sight(after(observed, done), observed, reach.protected, reach.ours)
        for capture in seen.captures():
            if before.captures_at(capture):
                continue
            steps = _blamed(capture, done)
            if steps:
                return tuple(Held(step, _reason(capture, step)) for step in steps)
    return ()


# ---- what is seen at one moment --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Capture:
    """Traffic that may leave through a tunnel. strict: what is protected is an end of an SSH session."""

    dst: IPv4Address
    src: IPv4Address
    what: str
    way: Way
    ssh: bool


class _Sight:
    """The routing of one moment, and the protected traffic that it may lead into a tunnel."""

    def __init__(self, observed: Observed, base: Observed, protected: Protected, ours: Ours) -> None:
        """`base` names the host's own addresses: what a plan adds is not one that traffic comes from yet."""
        local = [address.interface.ip for address in observed.addresses]
        here = [Route(IPv4Network(ip), None, "lo", LOCAL_TABLE, 2) for ip in dict.fromkeys(local)]
        vrf = any(link.kind == "vrf" for link in observed.links)
        self._routing = Routing(observed.rules, (*here, *observed.routes), vrf=vrf)
        self._ours = ours
        self._protected = protected
        self._prefixes = [_ends(rule.dst) for rule in observed.rules]
        sources = (_ANY_SOURCE, *_sources(base, ours))
        alike = {self._routing.kind_of_source(src): src for src in reversed(sources)}
        self._sources = [(src, self._routing.from_source(src)) for src in alike.values()]

    def captures(self) -> Iterator[_Capture]:
        """Yield protected traffic that may leave through a tunnel."""
        hard = without(self._protected, SSH_PEER, SSH_LOCAL).addresses
        for dst, what in self._protected.addresses.items():
            if dst not in self._ours.addresses:
                yield from self._towards(dst, what, ssh=dst not in hard)
        for network, what in self._protected.networks.items():
            for dst in _points(network, self._prefixes):
                yield from self._towards(dst, f"in {network}, {what}", ssh=False)

    def _towards(self, dst: IPv4Address, what: str, *, ssh: bool) -> Iterator[_Capture]:
        for src, rules in self._sources:
            for way in self._routing.ways_among(rules, dst, src):
                if self._captures(way, ssh=ssh):
                    yield _Capture(dst, src, what, way, ssh)
                    break

    def captures_at(self, other: _Capture) -> bool:
        """Tell whether the same traffic may leave through a tunnel here."""
        return any(self._captures(way, ssh=other.ssh) for way in self._routing.ways(other.dst, other.src))

    def _captures(self, way: Way, *, ssh: bool) -> bool:
        """An SSH session is judged by prefix where the rule is ours: see `guard` for what is then let through."""
        if way.route is None or way.route.dev not in self._ours.tunnels:
            return False
        return not (ssh and (way.rule.protocol == self._ours.protocol or way.route.table == MAIN_TABLE))


def _sources(observed: Observed, ours: Ours) -> tuple[IPv4Address, ...]:
    """Return the addresses that this host's other traffic comes from."""
    found = (a.interface.ip for a in observed.addresses if a.dev not in ours.tunnels)
    return tuple(dict.fromkeys(ip for ip in found if not ip.is_loopback))


def _ends(network: IPv4Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _points(network: IPv4Network, prefixes: Iterable[tuple[int, int]]) -> tuple[IPv4Address, ...]:
    """Return addresses of a network that stand for all: rules that tell them apart begin or end between them.

    prefixes: first and last address of what the rules tell apart.
    """
    first, last = _ends(network)
    points = {min(first + 1, last)}
    for low, high in prefixes:
        points.update(point for point in (low, high + 1) if first < point <= last)
    return tuple(map(IPv4Address, sorted(points)[:MAX_POINTS]))


# ---- whose fault it is -----------------------------------------------------------------------------------


def _blamed(capture: _Capture, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps without which the traffic would not be captured: what makes the way, or what uncovers it."""
    for culprit in (capture.way.rule, capture.way.route):
        found = [step for step in steps if culprit is not None and step.after == culprit]
        if found:
            return tuple(found)
    covers = tuple(step for step in steps if step.before is not None and _covers(step.before, capture))
    # or somebody jumps to a rule of ours, over the one that captures
    return covers or tuple(step for step in steps if isinstance(step.before, Rule))


def _covers(obj: KernelObject, capture: _Capture) -> bool:
    """Tell whether an object may have kept this traffic from going further down the rules."""
    if isinstance(obj, Rule):
        return obj.priority <= capture.way.rule.priority and possible(obj, capture.dst, capture.src)
    return isinstance(obj, Route) and capture.dst in obj.dst


def _reason(capture: _Capture, step: Step) -> str:
    rule, route = capture.way.rule, capture.way.route
    dev = "" if route is None else route.dev
    verb = "can then leave" if step.action is not Action.DELETE else "could leave without it"
    source = "" if capture.src == _ANY_SOURCE else f" from {capture.src}"
    may = "leads" if capture.way.certain else "may lead"
    return (
        f"Traffic{source} to {capture.dst}, {capture.what}, {verb} through {dev}: rule {rule.priority} "
        f"of protocol {rule.protocol} {may} it to table {rule.table}."
    )
