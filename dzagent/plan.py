"""The plan: the smallest change from what the kernel holds to what it should hold. Pure.

Only objects that are provably ours are changed or deleted: those that the policy check (`ownership`) vouches for.
A key that somebody else holds is a `Conflict`, and what stands on it is left out of the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv4Network

from dzagent.model import (
    Action,
    Address,
    Conflict,
    Desired,
    Interest,
    Key,
    Link,
    Observed,
    Plan,
    Route,
    Rule,
    Step,
    Wanted,
    key,
)
from dzagent.owned import Owned
from dzagent.ownership import Ownership
from dzagent.plan_links import UNWANTED, Links, Part, difference, pair, plan_links
from dzagent.plan_nft import plan_nft
from dzagent.protocols import named

__all__ = ["Ownership", "exact_keys", "interest", "make_plan", "plan_changes"]


def interest(desired: Desired, owner: Ownership) -> Interest:
    """Return what an observation must cover, so that a plan for `desired` knows who holds every key."""
    keys = dict.fromkeys((obj.table, obj.dst) for obj in desired.objects if isinstance(obj, Route))
    return Interest(owner.protocol, tuple(owner.links), tuple(keys))


MAX_EXACT = 512
"""Keys of static routes whose holder is read in every pass; more than the ledger's groups ever are."""

FEW_EXACT = 8
"""Keys that can be read in time on any host: each costs a walk through all its routes (1,000,000: 0.4 s)."""


def exact_keys(
    desired: Desired, observed: Observed, owner: Ownership, contested: Iterable[tuple[int, IPv4Network]]
) -> tuple[tuple[int, IPv4Network], ...]:
    """Return the keys of routes whose holder must be known: static ones that are missing, and learned ones that were
    not to be had. Each costs the kernel a walk through its whole table.
    """
    wanted = tuple(obj for obj in desired.objects if isinstance(obj, Route))
    numbers = {int(route.dst.network_address) for route in wanted}
    held = {
        (route.table, route.dst)
        for route in observed.routes
        if route.protocol == owner.protocol and int(route.dst.network_address) in numbers
    }
    static = dict.fromkeys(
        (route.table, route.dst) for route in wanted if (route.table, route.dst) not in held
    )
    return tuple(dict.fromkeys((*tuple(static)[:MAX_EXACT], *contested)))


def make_plan(desired: Desired, observed: Observed, owner: Ownership) -> Plan:
    """Compare the two states. Equal states give a plan without phases.

    Phases: what is in the way goes first; then links, addresses, routes, nftables and rules are made or changed; then
    unwanted rules, nftables, routes, addresses and links go. Deletes come last so that traffic has somewhere to go.
    """
    wanted = tuple({key(item.obj): item for item in desired.wanted}.values())
    links = plan_links(wanted, observed, owner)
    left = _without(observed, links.rebuilt)
    addresses = _plan_addresses(wanted, left, links, owner)
    routes = _plan_routes(wanted, left, links, owner)
    nft = plan_nft(wanted, observed, owner)
    rules = _plan_rules(wanted, left, links, routes, owner)
    parts = (links, addresses, routes, nft, rules)
    phases = (
        links.clear,
        *(part.make for part in parts),
        *(part.remove for part in reversed(parts)),
    )
    return Plan(
        _plan_id(wanted, observed, owner),
        tuple(tuple(phase) for phase in phases if phase),
        tuple(conflict for part in parts for conflict in part.conflicts),
    )


def _without(observed: Observed, gone: set[str]) -> Observed:
    """Return what is left when links are deleted: the kernel takes their addresses and routes along."""
    if not gone:
        return observed
    return replace(
        observed,
        addresses=tuple(address for address in observed.addresses if address.dev not in gone),
        routes=tuple(route for route in observed.routes if route.dev not in gone),
    )


# ---- addresses -------------------------------------------------------------------------------------------


def _plan_addresses(wanted: Sequence[Wanted], observed: Observed, links: Links, owner: Ownership) -> Part:
    """All IPv4 addresses on our links are ours; one elsewhere never is."""
    part = Part()
    held = {
        _slot(address): mine
        for address in observed.addresses
        if (mine := owner.address(address, links.owned.get(address.dev))) is not None
    }
    kept: set[Key] = set()
    for item in wanted:
        if not isinstance(item.obj, Address):
            continue
        kept.add(_slot(item.obj))
        if item.obj.dev not in links.usable:
            _no_link(part, item, item.obj.dev, links)
            continue
        before = held.get(_slot(item.obj))
        if before is None:
            part.make.append(Step(Action.ADD, None, item.obj, "missing", item.origin))
        elif before.obj != item.obj:
            reason = difference(before.obj, item.obj)
            part.make.append(Step(Action.CHANGE, before, item.obj, reason, item.origin))
    part.remove += [
        Step(Action.DELETE, mine, None, UNWANTED) for slot, mine in held.items() if slot not in kept
    ]
    return part


def _slot(address: Address) -> tuple[str, IPv4Interface, tuple[str, ...]]:
    """The kernel tells addresses of a link by address, length and peer, whatever their scope."""
    peer = tuple(token for token in address.extra if token.startswith("peer "))
    return address.dev, address.interface, peer


def _no_link(part: Part, item: Wanted, dev: str | None, links: Links) -> None:
    """Leave out what needs a link that is not there; say so unless the link's own conflict says it."""
    if item.origin.service not in links.blocked:
        owner = f"link {dev} is not one that the rendered files make"
        part.conflicts.append(Conflict(item, owner, "Render a tunnel of that name, or change the line."))


# ---- routes ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Routes(Part):
    """Routes; `empty`: tables in which a wanted route cannot be made."""

    empty: set[int] = field(default_factory=set)


def _plan_routes(wanted: Sequence[Wanted], observed: Observed, links: Links, owner: Ownership) -> _Routes:
    part = _Routes()
    ours: dict[Key, list[Owned[Route]]] = {}
    others: dict[Key, Route] = {}
    for route in observed.routes:
        held = owner.route(route)
        if held is not None:
            ours.setdefault(key(route), []).append(held)
        elif not _has_tos(route):
            others.setdefault(key(route), route)
    kept: set[Route] = set()
    for item in wanted:
        if isinstance(item.obj, Route):
            mine, holder = ours.get(key(item.obj), []), others.get(key(item.obj))
            kept.update(_plan_route(part, item, item.obj, mine=mine, holder=holder, links=links))
    part.remove += [
        Step(Action.DELETE, held, None, UNWANTED)
        for routes in ours.values()
        for held in routes
        if held.obj not in kept
    ]
    return part


def _plan_route(
    part: _Routes,
    item: Wanted,
    route: Route,
    *,
    mine: Sequence[Owned[Route]],
    holder: Route | None,
    links: Links,
) -> tuple[Route, ...]:
    """Plan one route; return those in the kernel that it stands for (and that are not deleted)."""
    if route.dev not in links.usable:
        part.empty.add(route.table)
        _no_link(part, item, route.dev, links)
        return (route,)
    if any(held.obj == route for held in mine):
        return (route,)
    if holder is not None:
        part.empty.add(route.table)
        part.conflicts.append(Conflict(item, _holder(holder), "Remove that route; ours follows by itself."))
        return ()
    before = next((held for held in mine if not _has_tos(held.obj)), None)
    if before is None:
        part.make.append(Step(Action.ADD, None, route, "missing", item.origin))
        return ()
    part.make.append(Step(Action.CHANGE, before, route, difference(before.obj, route), item.origin))
    return (before.obj,)


def _has_tos(route: Route) -> bool:
    """A TOS is part of a route's key in the kernel: with one, the same prefix and metric is another route."""
    return any(token.startswith("tos ") for token in route.extra)


def _holder(route: Route) -> str:
    via = f" via {route.via}" if route.via is not None else ""
    dev = f" dev {route.dev}" if route.dev is not None else ""
    return f"route {route.dst}{via}{dev} table {route.table} of {named(route.protocol)}"


def plan_changes(
    pairs: Iterable[tuple[Wanted | None, Route | None]], owner: Ownership
) -> tuple[list[Step], list[Step]]:
    """Return what to make and what to remove where only some routes changed.

    pairs: a route as it is wanted now, and as it is held (by us) now; None where there is none. For those, the steps
    are those of `make_plan`; that their link and addresses are there is what the caller knows.
    """
    make: list[Step] = []
    remove: list[Step] = []
    for item, route in pairs:
        held = None if route is None else owner.route(route)
        if item is None:
            if held is not None:
                remove.append(Step(Action.DELETE, held, None, UNWANTED))
        elif held is None:
            make.append(Step(Action.ADD, None, item.obj, "missing", item.origin))
        elif held.obj != item.obj:
            make.append(Step(Action.CHANGE, held, item.obj, difference(held.obj, item.obj), item.origin))
    return make, remove


# ---- rules -----------------------------------------------------------------------------------------------


def _plan_rules(
    wanted: Sequence[Wanted], observed: Observed, links: Links, routes: _Routes, owner: Ownership
) -> Part:
    """A rule never points at a table whose route cannot be made: traffic would go astray.

    For the kernel's exclusive add a side that is open equals every other one: a rule from anywhere is refused beside
    one from somewhere. So open ones are made first, and what is in their way makes room, and comes back if wanted.
    """
    part = Part()
    ours = {rule: held for rule in observed.rules if (held := owner.rule(rule)) is not None}
    targets = {item.obj: item for item in wanted if isinstance(item.obj, Rule)}
    missing = [
        rule
        for rule, item in targets.items()
        if rule not in ours and rule.table not in routes.empty and item.origin.service not in links.blocked
    ]
    in_the_way = [rule for rule in ours if any(_stands_in_for(rule, other) for other in missing)]
    for rule in in_the_way:
        item, reason = (
            targets.get(rule),
            "a rule that is more open comes first" if rule in targets else UNWANTED,
        )
        part.make.append(Step(Action.DELETE, ours[rule], None, reason, item.origin if item else None))
        missing += [rule] if item else []
    part.make += [
        Step(Action.ADD, None, rule, "missing", targets[rule].origin)
        for rule in sorted(missing, key=_named_sides)
    ]
    part.remove += [
        Step(Action.DELETE, held, None, UNWANTED)
        for rule, held in ours.items()
        if rule not in targets and rule not in in_the_way
    ]
    return part


def _stands_in_for(rule: Rule, other: Rule) -> bool:
    """Tell whether the kernel would take a rule that is there for another one, and refuse that."""
    sides = ((rule.src, other.src), (rule.dst, other.dst))
    return replace(rule, src=other.src, dst=other.dst) == other and all(
        new.prefixlen == 0 or held == new for held, new in sides
    )


def _named_sides(rule: Rule) -> int:
    return sum(side.prefixlen > 0 for side in (rule.src, rule.dst))


# ---- the identity of a plan ------------------------------------------------------------------------------


def _plan_id(wanted: Iterable[Wanted], observed: Observed, owner: Ownership) -> str:
    """Return a short hash of both states, of the part of the host's that concerns us."""
    pairs = {pair(item.obj) for item in wanted if isinstance(item.obj, Link)}
    keys = {key(item.obj) for item in wanted}
    relevant: list[object] = [item.obj for item in wanted]
    relevant += [
        link
        for link in observed.links
        if link.name in owner.links or (link.tunnel is not None and pair(link.tunnel) in pairs)
    ]
    relevant += [link.name for link in observed.links if owner.owns(link)]
    relevant += [address for address in observed.addresses if address.dev in owner.links]
    relevant += [r for r in observed.routes if r.protocol == owner.protocol or key(r) in keys]
    relevant += [rule for rule in observed.rules if rule.protocol == owner.protocol]
    relevant.append(observed.nft)
    text = "\n".join([repr(owner.protocol), *sorted(map(repr, relevant))])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
