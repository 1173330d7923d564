"""The part of the plan that is about links: names, marks, endpoints, and who holds them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address

from dzagent.model import (
    Action,
    Conflict,
    KernelObject,
    Link,
    Observed,
    Origin,
    SeenLink,
    ServiceName,
    Step,
    Wanted,
)
from dzagent.owned import Owned
from dzagent.ownership import Ownership

__all__ = ["UNWANTED", "Links", "Ownership", "Part", "difference", "pair", "plan_links", "printable"]

UNWANTED = "not wanted any more"
RENAMED = "renamed: it is a link of ours under another name"


@dataclass(slots=True)
class Part:
    """The steps for objects of one kind."""

    make: list[Step] = field(default_factory=list)
    remove: list[Step] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


@dataclass(slots=True)
class Links(Part):
    """Links, and what the others need to know of them.

    clear: deletes that must come first. usable: links that will be ours. owned: links that are ours now, and
    so are their addresses. rebuilt: links that go first, and take their addresses and routes along. blocked: services whose
    link is held by somebody else.
    """

    clear: list[Step] = field(default_factory=list)
    usable: set[str] = field(default_factory=set)
    owned: dict[str, Owned[Link]] = field(default_factory=dict)
    rebuilt: set[str] = field(default_factory=set)
    blocked: set[ServiceName] = field(default_factory=set)


def plan_links(wanted: Sequence[Wanted], observed: Observed, owner: Ownership) -> Links:
    """Plan the wanted links, and find out which of them everything else can stand on."""
    seen = {link.name: link for link in observed.links}
    ours = {name: held for name, link in seen.items() if (held := owner.link(link)) is not None}
    part = Links(owned=ours)
    targets = _targets(part, wanted, observed, owner)
    kept = {item.obj.name for item in wanted if isinstance(item.obj, Link)}
    needed = {pair(item.obj) for item in targets.values() if isinstance(item.obj, Link)}
    for name, link in ours.items():
        if name in kept:
            continue
        renamed = name not in owner.links
        in_the_way = renamed or (seen[name].tunnel is not None and pair(link.obj) in needed)
        step = Step(Action.DELETE, link, None, RENAMED if renamed else UNWANTED)
        (part.clear if in_the_way else part.remove).append(step)
        if in_the_way:
            part.rebuilt.add(name)
    for name, item in targets.items():
        twin = owner.adopt(seen[name], item.obj) if name in seen and isinstance(item.obj, Link) else None
        if twin is not None:
            part.owned.setdefault(name, twin)
    _make_links(part, targets, seen)
    return part


def _targets(
    part: Links, wanted: Sequence[Wanted], observed: Observed, owner: Ownership
) -> dict[str, Wanted]:
    """Return the wanted links that can be had, by name; the others become conflicts."""
    targets: dict[str, Wanted] = {}
    for item in wanted:
        if isinstance(item.obj, Link):
            conflict = _link_conflict(item, item.obj, observed, owner) or _twin(item, item.obj, targets)
            if conflict is None:
                targets[item.obj.name] = item
            else:
                part.conflicts.append(conflict)
    names = {c.wanted.obj.name for c in part.conflicts if isinstance(c.wanted.obj, Link)}
    stuck = {link.name: link.tunnel for link in observed.links if link.name in names and owner.owns(link)}
    while True:  # a link that cannot move keeps its endpoints from the next one, and so on
        conflict = next(filter(None, (_stuck(item, stuck) for item in targets.values())), None)
        if conflict is None or not isinstance(conflict.wanted.obj, Link):
            break
        part.conflicts.append(conflict)
        name = conflict.wanted.obj.name
        del targets[name]
        stuck |= {link.name: link.tunnel for link in observed.links if link.name == name}
    part.blocked |= {conflict.wanted.origin.service for conflict in part.conflicts}
    part.usable |= targets.keys()
    return targets


def _stuck(item: Wanted, stuck: Mapping[str, Link | None]) -> Conflict | None:
    """Tell whether a link of ours that has a conflict itself holds the endpoints of this one."""
    for name, held in stuck.items():
        if (
            isinstance(item.obj, Link)
            and held is not None
            and not _keyed(held)
            and pair(held) == pair(item.obj)
        ):
            advice = f"Solve the conflict of {name}; it then moves, and this link follows."
            return Conflict(item, f"our own link {name}, which cannot move to its new endpoints", advice)
    return None


def _link_conflict(item: Wanted, link: Link, observed: Observed, owner: Ownership) -> Conflict | None:
    """Tell whether somebody else holds the name, or the pair of endpoints, of a wanted link."""
    for seen in observed.links:
        if seen.name == link.name and not owner.owns(seen) and owner.adopt(seen, link) is None:
            return Conflict(
                item,
                f"link {seen.name} of kind {printable(seen.kind) or 'unknown'}, alias {seen.alias!r}",
                _advice(seen, link),
            )
        if link.name in seen.altnames:
            return Conflict(
                item,
                f"link {printable(seen.name)}, which has it as an alternative name",
                f"Take it away: `ip link property del dev {printable(seen.name)} altname {link.name}`.",
            )
        if seen.name == link.name or owner.owns(seen) or seen.tunnel is None:
            continue
        if pair(seen.tunnel) == pair(link) and not _keyed(seen.tunnel):
            return Conflict(
                item,
                f"GRE link {printable(seen.name)} with the same endpoints, alias {seen.alias!r}",
                f"Remove it with `ip link delete {printable(seen.name)}`: the kernel allows one such tunnel.",
            )
    return None


def _advice(seen: SeenLink, link: Link) -> str:
    """Say what a person can do about a link of our name that is not ours, and why it is not adopted."""
    remove = f"Remove it with `ip link delete {seen.name}`, or choose another name in the configuration."
    if seen.tunnel is None:
        return remove
    bare = replace(seen.tunnel, alias=link.alias, up=link.up)
    if bare == link:
        take = f"`ip link set dev {seen.name} alias ''` lets the agent adopt it"
        return f"It bears somebody's alias; if nobody needs it, {take}. Else: {remove[0].lower()}{remove[1:]}"
    return f"It is not adopted because it {difference(bare, link)}. {remove}"


def _twin(item: Wanted, link: Link, targets: Mapping[str, Wanted]) -> Conflict | None:
    """Tell whether two wanted links have one pair of endpoints: the first of them gets it."""
    for name, other in targets.items():
        if isinstance(other.obj, Link) and pair(other.obj) == pair(link):
            advice = "The kernel allows one GRE tunnel between two addresses; one service has to change."
            return Conflict(item, f"our own link {name} with the same endpoints", advice)
    return None


def _make_links(part: Links, targets: Mapping[str, Wanted], seen: Mapping[str, SeenLink]) -> None:
    """Add, change or rebuild links so that no two hold one pair of endpoints at any moment."""
    pending = {name: item for name, item in targets.items() if not _is_right(item.obj, seen.get(name))}
    pairs = {
        name: pair(link.tunnel)
        for name, link in seen.items()
        if name in targets and link.tunnel is not None and not _keyed(link.tunnel)
    }
    for name, item in list(pending.items()):
        link = seen.get(name)
        if link is not None and (link.tunnel is None or _foreign_parts(link.tunnel)):
            _rebuild(part, link, _why_rebuilt(link), item.origin)
            pairs.pop(name, None)
    while pending:
        free = next((n for n in pending if _holder_of(n, targets, pairs) is None), None)
        if free is not None:
            item = pending.pop(free)
            part.make.append(_link_step(item, None if free in part.rebuilt else part.owned.get(free)))
            pairs.pop(free, None)
            continue
        # A ring of links that wait for each other's endpoints: one of them makes room.
        holder = _holder_of(next(iter(pending)), targets, pairs) or next(iter(pending))
        _rebuild(part, seen[holder], "its endpoints are wanted for another tunnel", targets[holder].origin)
        pairs.pop(holder, None)


def _is_right(obj: KernelObject, seen: SeenLink | None) -> bool:
    return seen is not None and seen.tunnel == obj


def _holder_of(
    name: str, targets: Mapping[str, Wanted], pairs: Mapping[str, tuple[IPv4Address, IPv4Address]]
) -> str | None:
    """Return the link of ours that now holds the endpoints which link `name` shall get."""
    link = targets[name].obj
    if not isinstance(link, Link):
        return None
    return next((other for other, held in pairs.items() if other != name and held == pair(link)), None)


def _rebuild(part: Links, link: SeenLink, why: str, origin: Origin) -> None:
    part.rebuilt.add(link.name)
    part.clear.append(Step(Action.DELETE, part.owned[link.name], None, why, origin))


def _why_rebuilt(link: SeenLink) -> str:
    if link.tunnel is None:
        return f"rebuilt: it is of kind {link.kind or 'unknown'}, not gre"
    return f"rebuilt: it has {', '.join(link.tunnel.extra)}"


def _link_step(item: Wanted, held: Owned[Link] | None) -> Step:
    if held is None:
        return Step(Action.ADD, None, item.obj, "missing", item.origin)
    return Step(Action.CHANGE, held, item.obj, difference(held.obj, item.obj), item.origin)


def _foreign_parts(link: Link) -> bool:
    """Tell whether a tunnel has attributes that no change in place takes away (a master can be left)."""
    return any(not token.startswith("master ") for token in link.extra)


def _keyed(link: Link) -> bool:
    """A GRE key is part of a tunnel's identity: with one, the same endpoints are another tunnel."""
    return any(token.startswith(("key ", "ikey ", "okey ")) for token in link.extra)


def pair(link: Link) -> tuple[IPv4Address, IPv4Address]:
    """Return the endpoints by which the kernel tells GRE links without keys apart."""
    return link.local, link.remote


def difference(before: KernelObject, after: KernelObject) -> str:
    """Say what differs: "differs: remote 192.0.2.1 -> 192.0.2.9"."""
    parts = [
        f"{f.name} {_show(getattr(before, f.name))} -> {_show(getattr(after, f.name))}"
        for f in fields(before)
        if getattr(before, f.name) != getattr(after, f.name)
    ]
    return "differs: " + ", ".join(parts)


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return printable("+".join(map(str, value))) or "none"
    return "none" if value is None or value == "" else printable(str(value))


def printable(text: str) -> str:
    """Escape what a terminal or a log would not show as text: names and aliases of others may hold anything."""
    return text if text.isprintable() else ascii(text)[1:-1]
