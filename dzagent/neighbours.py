"""Others in the places that we use: they hold nothing of ours and stay, but may draw traffic to where it is not meant.

A rule of the same priority, routes in the tables of our rules, no route to a tunnel's endpoint. The decisions are pure;
`Neighbours` reads the kernel for them once in a while, since nothing that we do depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final, Protocol

from dzagent.errors import KernelError
from dzagent.model import Address, Desired, Link, Observed, Problem, Route, Rule
from dzagent.plan_links import printable
from dzagent.protocols import named

LOOK_SECONDS: Final = 20.0
"""How often the tables of our rules are read for routes of others."""

AGAIN_SECONDS: Final = 4.0
"""How often while there are some: a person who removes them wants to see it."""

MAX_NAMED: Final = 3
"""Objects of others that one sentence names."""

SHARED: Final = frozenset({"PriorityShared", "TableShared"})
"""Problems that are told by the condition Conflict as well."""


class Around(Protocol):
    """Reads what others have in a routing table, and where the kernel would send a packet."""

    def foreign_routes(self, table: int, protocol: int) -> Sequence[str]:
        """Return the routes of other protocols, one line each. Raises KernelError if that cannot be read."""

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        """Return the source address towards `dst`; None if the kernel has no way there. Raises KernelError."""


def beside_our_rules(desired: Desired, observed: Observed, protocol: int) -> tuple[Problem, ...]:
    """Report rules of others with a priority of ours: which of them a packet meets first is chance."""
    priorities = {obj.priority for obj in desired.objects if isinstance(obj, Rule)}
    found: dict[int, list[Rule]] = {}
    for rule in observed.rules:
        if rule.priority in priorities and rule.protocol != protocol:
            found.setdefault(rule.priority, []).append(rule)
    return tuple(
        Problem(
            "PriorityShared",
            f"other rules have priority {priority} too: {_some(map(_rule, rules))}; which comes first is chance: give "
            "them another one, or set edge.priority_to and edge.priority_from of the policy",
            "unicast",
        )
        for priority, rules in sorted(found.items())
    )


def _rule(rule: Rule) -> str:
    extra = "".join(f" {token}" for token in rule.extra)
    return printable(f"from {rule.src} to {rule.dst}{extra} lookup {rule.table} of {named(rule.protocol)}")


def _some(texts: Iterable[str]) -> str:
    every = list(texts)
    more = [f"and {len(every) - MAX_NAMED} more"] if len(every) > MAX_NAMED else []
    return ", ".join((*every[:MAX_NAMED], *more))


def in_our_tables(foreign: Mapping[int, Sequence[str]]) -> tuple[Problem, ...]:
    """Report routes of others in the tables that our rules point at: a longer prefix wins over ours."""
    return tuple(
        Problem(
            "TableShared",
            f"table {table} has routes of others: {_some(map(_readable, routes))}; what they match does not take ours: "
            "remove them, or set edge.table_to and edge.table_from of the policy",
            "unicast",
        )
        for table, routes in sorted(foreign.items())
        if routes
    )


_TYPES: Final = {
    "2": "local",
    "3": "broadcast",
    "6": "blackhole",
    "7": "unreachable",
    "8": "prohibit",
    "9": "throw",
}
"""Types of routes as `ip -N` prints them, before the prefix."""


def _readable(line: str) -> str:
    kind, _, rest = line.partition(" ")
    return printable(f"{_TYPES[kind]} {rest}" if kind in _TYPES else line)


def _destination(line: str) -> str:
    """Return the prefix of a line as `ip -N` prints it: a type other than unicast is a number before it."""
    first, _, rest = line.partition(" ")
    return rest.partition(" ")[0] if first.isdigit() else first


def _prefix(route: Route) -> str:
    """Return the prefix of a route as `ip` prints it."""
    if route.dst.prefixlen == 0:
        return "default"
    return str(route.dst.network_address) if route.dst.prefixlen == 32 else str(route.dst)


def unrouted(desired: Desired, dead: Collection[IPv4Address]) -> tuple[Problem, ...]:
    """Report tunnels whose endpoint the kernel has no way to; `dead` are those endpoints."""
    return tuple(
        Problem(
            "EndpointUnrouted",
            f"the kernel has no way to the tunnel endpoint {item.obj.remote} (no route, or a blackhole, unreachable or "
            f"prohibit route): `ip route get {item.obj.remote}` says more",
            item.origin.service,
        )
        for item in desired.wanted
        if isinstance(item.obj, Link) and item.obj.remote in dead
    )


def places(desired: Desired) -> tuple[tuple[int, ...], tuple[IPv4Address, ...]]:
    """Return where others matter: the tables that our rules point at, and the far ends of our tunnels."""
    tables = dict.fromkeys(obj.table for obj in desired.objects if isinstance(obj, Rule))
    ends = dict.fromkeys(obj.remote for obj in desired.objects if isinstance(obj, Link))
    return tuple(tables), tuple(ends)


def looped(desired: Desired, sources: Mapping[IPv4Address, IPv4Address]) -> tuple[Problem, ...]:
    """Report tunnels whose packets would go into a tunnel of ours; `sources` are source addresses by endpoint."""
    inner = {obj.interface.ip for obj in desired.objects if isinstance(obj, Address)}
    return tuple(
        Problem(
            "EndpointLooped",
            f"the kernel sends packets for the tunnel endpoint {item.obj.remote} into a tunnel of ours: "
            f"`ip route get {item.obj.remote}` names the route or rule, remove it",
            item.origin.service,
        )
        for item in desired.wanted
        if isinstance(item.obj, Link) and sources.get(item.obj.remote) in inner - {item.obj.local}
    )


class Neighbours:
    """Looks around once in a while, and whenever what we use changes. now: seconds of the loop's clock.

    A route that holds a key of ours is a conflict of the plan: it is not told twice.
    """

    def __init__(self, around: Around | None, protocol: int, now: Callable[[], float]) -> None:
        self._around = around
        self._protocol = protocol
        self._now = now
        self._looked: tuple[object, float] = (None, 0.0)
        self._foreign: Mapping[int, Sequence[str]] = {}
        self._ways: Mapping[IPv4Address, IPv4Address | None] = {}

    def again(self) -> None:
        """Look at the next chance: somebody may have come or gone."""
        self._looked = (None, 0.0)

    def problems(self, desired: Desired, observed: Observed) -> tuple[Problem, ...]:
        """Return what a person should know of others in our places."""
        self._look((*places(desired), self._missing(desired, observed)))
        return (
            *beside_our_rules(desired, observed, self._protocol),
            *in_our_tables(self._told_once(desired, observed)),
            *unrouted(desired, {end for end, source in self._ways.items() if source is None}),
            *looped(desired, {end: source for end, source in self._ways.items() if source is not None}),
        )

    def _told_once(self, desired: Desired, observed: Observed) -> Mapping[int, Sequence[str]]:
        """Return the routes of others that no conflict of the plan tells: there, ours is missing."""
        missing = self._missing(desired, observed)
        return {
            table: [line for line in lines if (table, _destination(line)) not in missing]
            for table, lines in self._foreign.items()
        }

    def _missing(self, desired: Desired, observed: Observed) -> frozenset[tuple[int, str]]:
        """Return the routes that we want and do not have, if any of others are known."""
        if not any(self._foreign.values()):
            return frozenset()
        wanted = {(obj.table, _prefix(obj)) for obj in desired.objects if isinstance(obj, Route)}
        there = (r for r in observed.routes if r.protocol == self._protocol and r.table in self._foreign)
        return frozenset(wanted.difference((r.table, _prefix(r)) for r in there))

    def _look(self, using: tuple[Sequence[int], Sequence[IPv4Address], frozenset[tuple[int, str]]]) -> None:
        tables, ends, _ = using
        seen, at = self._looked
        pause = AGAIN_SECONDS if None in self._ways.values() or any(self._foreign.values()) else LOOK_SECONDS
        if self._around is None or (seen == using and self._now() - at < pause):
            return
        self._looked = (using, self._now())
        try:
            self._foreign = {table: self._around.foreign_routes(table, self._protocol) for table in tables}
            self._ways = {end: self._around.source_for(end) for end in ends}
        except KernelError:  # a pass that cannot read the kernel says so itself
            self._foreign, self._ways = {}, {}
