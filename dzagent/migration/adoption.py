"""What of doublezerod's objects in the kernel is taken over, and in which commands. Pure.

The marks are changed, nothing else: a link gets our alias, and each rule and route a twin with our protocol number
before the old one goes, so that there is one at every moment. Each is named by its full identity. What is not
exactly doublezerod's is left alone and told (upstream: services, the Setup of each type).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from dzagent.grammar import format_object
from dzagent.model import Address, Desired, Link, Observed, Route, Rule, SeenLink
from dzagent.ownership import Ownership
from dzagent.plan_links import difference, printable
from dzagent.policy import Edge
from dzagent.status import describe

LEARNED: Final = 186
"""Protocol of the routes that doublezerod learns (linux/rtnetlink.h, RTPROT_BGP)."""
DEFAULT: Final = 3
"""Protocol of its default route in table 101: it names none, and the kernel takes RTPROT_BOOT."""
GROUP: Final = 4
"""Protocol of its multicast group routes (RTPROT_STATIC)."""
RULE: Final = 2
"""Protocol of its rules (RTPROT_KERNEL)."""
ROUTE_PROTOCOLS: Final = (LEARNED, DEFAULT, GROUP)
PRIORITIES: Final = frozenset({100, 101})
TABLES: Final = frozenset({100, 101})
"""Of its rules."""
MULTICAST: Final = IPv4Network("224.0.0.0/4")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of marks: `make` first, `remove` once that is done ("" for a link); `what` is for people."""

    what: str
    make: str
    remove: str = ""
    learned: bool = False


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is to be done about doublezerod's objects.

    changes: in order, links first. left: what stays as it is, and why. then: what the next pass of the agent changes
    in place. blockers: why this host cannot be taken over as it is.
    """

    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """The objects that a person is shown one by one."""
        return tuple(change.what for change in self.changes if not change.learned)

    @property
    def learned(self) -> int:
        """How many learned routes there are: they come and go, and are shown as a number."""
        return sum(change.learned for change in self.changes)


def adopt(observed: Observed, desired: Desired, owner: Ownership) -> Adoption:
    """Find what is doublezerod's. `observed` must cover ROUTE_PROTOCOLS and our own."""
    links = _links(observed, desired, owner)
    routes = _routes(observed, desired, owner, links.usable)
    rules = _rules(observed, desired, owner)
    return Adoption(
        (*links.changes, *rules.changes, *routes.changes),
        (*rules.left, *routes.left),
        links.then,
        links.blockers,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of one kind; `usable`: links that are ours then."""

    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    usable: frozenset[str] = frozenset()


# ---- links -----------------------------------------------------------------------------------------------


def _links(observed: Observed, desired: Desired, owner: Ownership) -> _Part:
    wanted = {obj.name: obj for obj in desired.objects if isinstance(obj, Link)}
    changes, then, blockers, usable = [], [], [], set()
    for seen in observed.links:
        if seen.name not in owner.links:
            continue
        alias = owner.links[seen.name]
        why = _not_adoptable(seen, wanted.get(seen.name), alias)
        if why is not None:
            blockers.append(why)
            continue
        usable.add(seen.name)
        if seen.alias != alias:
            changes.append(Change(_name(seen), f"link set dev {seen.name} alias {alias}"))
        then += _other_than(seen, wanted.get(seen.name), alias)
    then += _addresses(observed, desired, usable)
    return _Part(tuple(changes), (), tuple(then), tuple(blockers), frozenset(usable))


def _not_adoptable(seen: SeenLink, wanted: Link | None, alias: str) -> str | None:
    if seen.alias not in {"", alias}:
        return (
            f"link {seen.name} has the alias {printable(seen.alias)!r}: it is neither doublezerod's nor ours"
        )
    if seen.tunnel is None or seen.tunnel.extra:
        what = (
            f"of kind {printable(seen.kind) or 'unknown'}"
            if seen.tunnel is None
            else ", ".join(seen.tunnel.extra)
        )
        return f"link {seen.name} ({printable(what)}) is not as doublezerod makes it: a plain GRE tunnel"
    if wanted is None and seen.alias != alias:
        return f"link {seen.name} is there, but the ledger grants no service for it: see `dzagent status`"
    return None


def _other_than(seen: SeenLink, wanted: Link | None, alias: str) -> list[str]:
    """Say what the next pass changes of a link; nothing where it is as it should be."""
    if seen.tunnel is None or wanted is None:
        return []
    marked = replace(seen.tunnel, alias=alias)
    return [] if marked == wanted else [f"link {seen.name} {difference(marked, wanted)}"]


def _addresses(observed: Observed, desired: Desired, links: Iterable[str]) -> list[str]:
    """Say which addresses are not as they should be: what leans on one goes with it, and comes back with the next."""
    wanted = {obj for obj in desired.objects if isinstance(obj, Address)}
    held = frozenset(links)
    odd = [address for address in observed.addresses if address.dev in held and address not in wanted]
    return [
        f"{describe(address)}: not as it should be, and set right; routes that need it are gone for that moment"
        for address in odd
    ]


def _name(seen: SeenLink) -> str:
    ends = f" local {seen.tunnel.local} remote {seen.tunnel.remote}" if seen.tunnel is not None else ""
    return f"link {seen.name} gre{ends} (ifindex {seen.ifindex} stays, and so do its addresses)"


# ---- routes ----------------------------------------------------------------------------------------------


def _routes(observed: Observed, desired: Desired, owner: Ownership, links: Iterable[str]) -> _Part:
    """Learned ones by their way; static ones only where one is wanted, since people make such routes too."""
    peers = _peers(observed.addresses, frozenset(links))
    wanted = {(obj.table, obj.dst) for obj in desired.objects if isinstance(obj, Route)}
    changes, left = [], []
    for route in observed.routes:
        if (
            route.dev not in peers
            or route.protocol not in ROUTE_PROTOCOLS
            or route.protocol == owner.protocol
        ):
            continue
        plain = route.via in peers[route.dev] and not route.metric and not route.extra
        if plain and (route.protocol == LEARNED or (route.table, route.dst) in wanted):
            twin = replace(route, protocol=owner.protocol)
            changes.append(_swap(route, twin, learned=route.protocol == LEARNED))
        else:
            left.append(f"{_shown(route)}: not one that doublezerod makes for what the ledger grants now")
    return _Part(tuple(changes), tuple(left))


def _peers(
    addresses: Sequence[Address], links: frozenset[str]
) -> Mapping[str | None, frozenset[IPv4Address]]:
    """Return the devices' ends (the even address) of the /31s on each link."""
    found: dict[str | None, frozenset[IPv4Address]] = dict.fromkeys(links, frozenset())
    for address in addresses:
        if address.dev in links and address.interface.network.prefixlen == 31:
            found[address.dev] |= {address.interface.network[0]}
    return found


def _swap(old: Route, new: Route, *, learned: bool) -> Change:
    """A second route of the same key is appended behind the first one, which an exclusive add would refuse."""
    return Change(_shown(old), _route_line("append", new), _route_line("del", old), learned=learned)


def _route_line(verb: str, route: Route) -> str:
    return format_object(route)[0].replace("route add ", f"route {verb} ", 1)


# ---- rules -----------------------------------------------------------------------------------------------


def _rules(observed: Observed, desired: Desired, owner: Ownership) -> _Part:
    """Only a rule whose selectors are exactly those of a wanted one."""
    wanted = {obj for obj in desired.objects if isinstance(obj, Rule)}
    changes, left = [], []
    for rule in observed.rules:
        if rule.protocol != RULE or rule.priority not in PRIORITIES:
            continue
        twin = replace(rule, protocol=owner.protocol)
        if twin in wanted and not rule.extra:
            changes.append(_swap_rule(rule, twin))
        elif rule.table in TABLES and not rule.extra:
            line = _rule_line("del", rule)
            left.append(f"{_shown(rule)}: not wanted now; if it is doublezerod's: ip {line}")
    return _Part(tuple(changes), tuple(left))


def _swap_rule(old: Rule, new: Rule) -> Change:
    return Change(_shown(old), _rule_line("add", new), _rule_line("del", old))


def _rule_line(verb: str, rule: Rule) -> str:
    return format_object(rule)[0].replace("rule add ", f"rule {verb} ", 1)


def _shown(obj: Route | Rule) -> str:
    """Name an object as `ip` would take it; what has no place in the grammar is told in words."""
    return (
        describe(obj)
        if obj.extra or (isinstance(obj, Route) and obj.via is None)
        else format_object(obj)[0].replace(" add ", " ", 1)
    )


# ---- the way back ----------------------------------------------------------------------------------------


def hand_back(observed: Observed, owner: Ownership, edge: Edge) -> tuple[Change, ...]:
    """Return the changes that make our objects doublezerod's: rules and routes first, so that the links go last.

    It tolerates what it finds of its own when it starts: links, addresses and rules; routes it replaces.
    """
    mine = {link.name for link in observed.links if owner.owns(link) and link.tunnel is not None}
    rules = [
        _swap_rule(rule, replace(rule, protocol=RULE))
        for rule in observed.rules
        if rule.protocol == owner.protocol and not rule.extra
    ]
    routes = [
        _swap(route, replace(route, protocol=_protocol_of(route, edge)), learned=False)
        for route in observed.routes
        if route.protocol == owner.protocol
        and route.dev in mine
        and route.via is not None
        and not route.extra
    ]
    links = [Change(f"link {name}", f'link set dev {name} alias ""') for name in sorted(mine)]
    return (*rules, *(change for change in routes if change.make != change.remove), *links)


def _protocol_of(route: Route, edge: Edge) -> int:
    if route.table == edge.table_from and route.dst.prefixlen == 0:
        return DEFAULT
    return GROUP if route.dst.subnet_of(MULTICAST) else LEARNED
