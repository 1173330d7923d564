"""Routes: who holds a key, which gateway can be reached, what a delete hits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, TypeAlias

from dzagent.model import MAIN_TABLE, Route, Rule
from tests.kernel_fake.rules import ordered
from tests.kernel_fake.state import DEFAULT_TABLE, EXISTS, LOCAL_TABLE, Refused, State, broadcasts, no_device

Found: TypeAlias = Literal["near", "local", "other"]
"""What lies at an address, as far as a gateway is concerned."""

_LINK_SCOPE = frozenset({"type multicast", "type broadcast", "type anycast"})


def add_route(state: State, route: Route, *, replacing: bool = False) -> None:
    """Make a route as `ip route add` does, or `ip route replace`: that one takes over whoever holds the key."""
    if route.dev not in state.links:
        raise no_device(route.dev or "")
    state.tables.add(route.table)
    _check_gateway(state, route)
    if route.src is not None and not state.is_local(route.src):
        raise Refused("Error: Invalid prefsrc address.")
    holders = [other for other in _table(state, route.table) if _key(other) == _key(route)]
    if not holders:
        state.routes.append(route)
    elif not replacing or route in holders[1:]:
        raise Refused(EXISTS)
    elif route != holders[0]:
        _exchange(state, holders[0], route)


def _exchange(state: State, old: Route, new: Route) -> None:
    if old in state.connected:
        state.connected.remove(old)
        state.routes.append(new)
    else:
        state.routes[state.routes.index(old)] = new


@dataclass(frozen=True)
class Doomed:
    """What a delete names; None stands for whatever is there."""

    dst: IPv4Network
    table: int
    protocol: int | None = None
    via: IPv4Address | None = None
    dev: str | None = None
    src: IPv4Address | None = None
    metric: int | None = None
    kind: str | None = None
    tos: str | None = None

    def hits(self, route: Route) -> bool:
        kind = next((t.removeprefix("type ") for t in route.extra if t.startswith("type ")), "unicast")
        wants: tuple[tuple[object, object], ...] = (
            (self.protocol, route.protocol),
            (self.via, route.via),
            (self.dev, route.dev),
            (self.src, route.src),
            (self.metric, route.metric),
            (self.kind, kind),
        )
        same = (self.dst, self.table, self.tos) == (route.dst, route.table, _tos(route))
        return same and all(wish is None or wish == has for wish, has in wants)


def delete_route(state: State, doomed: Doomed) -> None:
    """Delete the first route that has everything that was named, whoever owns it."""
    if doomed.dev is not None and doomed.dev not in state.links:
        raise no_device(doomed.dev)
    if doomed.table not in state.tables:
        raise Refused("Error: FIB table does not exist.")
    routes = sorted(_table(state, doomed.table), key=lambda route: route.metric)
    found = next((route for route in routes if doomed.hits(route)), None)
    if found is None:
        raise Refused("RTNETLINK answers: No such process")
    (state.connected if found in state.connected else state.routes).remove(found)


# ---- gateways ----------------------------------------------------------------------------------------------


def _check_gateway(state: State, route: Route) -> None:
    """A gateway must be near over that very link, by the table itself or else by the rules."""
    if route.via is None:
        if not state.is_up(route.dev):
            raise Refused("Error: Device for nexthop is not up.")
        return
    found = None
    if route.table != MAIN_TABLE:
        found = _look_up(state, route.table, route.via, route.dev)
    if found is None:
        found = _look_up_by_rules(state, route.via, route.dev)
    if found in {None, "other"}:
        raise Refused("Error: Nexthop has invalid gateway.")
    if not state.is_up(route.dev):
        raise Refused("RTNETLINK answers: Network is down")


def _look_up_by_rules(state: State, ip: IPv4Address, dev: str | None) -> Found | None:
    for rule in ordered(state):
        found = _look_up(state, rule.table, ip, dev) if _leads(rule, ip, dev) else None
        if found is not None:
            return found
    return None


def _leads(rule: Rule, ip: IPv4Address, dev: str | None) -> bool:
    """Tell whether the look-up of a gateway, which has no source yet, follows a rule."""
    return ip in rule.dst and rule.src.prefixlen == 0 and set(rule.extra) <= {f"oif {dev}"}


def _look_up(state: State, table: int, ip: IPv4Address, dev: str | None) -> Found | None:
    """Find what a table has of scope link or nearer for an address."""
    if table == LOCAL_TABLE:
        if any(address.interface.ip == ip and address.dev == dev for address in state.addresses):
            return "local"
        return "other" if (dev, ip) in set(broadcasts(state)) else None
    near = [r for r in _table(state, table) if ip in r.dst and r.dev == dev and _is_near(r)]
    if not near:
        return None
    best = max(near, key=lambda route: route.dst.prefixlen)
    return "other" if _LINK_SCOPE & set(best.extra) else "near"


def _is_near(route: Route) -> bool:
    kind = [token for token in route.extra if token.startswith("type ")]
    return bool(_LINK_SCOPE & set(kind)) if kind else route.via is None and "scope global" not in route.extra


# ---- parts -------------------------------------------------------------------------------------------------


def _table(state: State, table: int) -> Iterator[Route]:
    """Yield the routes of a table; those that follow from addresses are in the main one."""
    if table == MAIN_TABLE:
        yield from state.connected
    yield from (route for route in state.routes if route.table == table)


def held(state: State, table: int, dst: IPv4Network) -> list[Route]:
    """Return the routes of one prefix of a table, the lowest metric first."""
    return sorted((r for r in _table(state, table) if r.dst == dst), key=lambda route: route.metric)


def has_table(state: State, table: int) -> bool:
    return table in state.tables or table == DEFAULT_TABLE


def _key(route: Route) -> tuple[object, ...]:
    return route.dst, route.metric, _tos(route)


def _tos(route: Route) -> str | None:
    return next((token.split()[1] for token in route.extra if token.startswith("tos ")), None)
