"""The way back from a change: what it made is removed, what it took away returns. Pure.

The plan back is made by the same rules as every plan, against what the kernel holds at that moment: only what is
provably ours and still as the change left it is touched; what moved meanwhile is left alone and named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dzagent.afterwards import after
from dzagent.errors import GrammarError
from dzagent.model import (
    Address,
    Desired,
    Interest,
    KernelObject,
    Link,
    Observed,
    Origin,
    Plan,
    Route,
    SeenLink,
    Wanted,
    key,
)
from dzagent.nftmodel import NftSeen, NftTable
from dzagent.objecttext import object_lines
from dzagent.ownership import Ownership
from dzagent.plan import interest, make_plan
from dzagent.status import describe

_ORIGIN = Origin("unicast", "rollback.json", 0)


@dataclass(frozen=True, slots=True)
class Undo:
    """What a rollback does: objects that return, and objects that the change made and that go."""

    restore: tuple[KernelObject, ...] = ()
    remove: tuple[KernelObject, ...] = ()


@dataclass(frozen=True, slots=True)
class WayBack:
    """A plan that undoes a change, and why parts of the change stay."""

    plan: Plan
    skipped: tuple[str, ...] = ()


def undo_of(plan: Plan, observed: Observed, owner: Ownership) -> Undo:
    """Return what undoes a plan that is about to be carried out on this state."""
    changed = [step.before for step in plan.steps if step.before is not None]
    before = dict.fromkeys((*ours(observed, owner), *changed))
    then = dict.fromkeys(ours(after(observed, plan.steps), owner))
    return Undo(
        tuple(obj for obj in before if obj not in then), tuple(obj for obj in then if obj not in before)
    )


def ours(observed: Observed, owner: Ownership) -> tuple[KernelObject, ...]:
    """Return everything that the marks show to be ours."""
    links = [link.tunnel for link in observed.links if _is_ours(link, owner) and link.tunnel is not None]
    names = {link.name for link in links}
    return (
        *links,
        *_table(observed.nft, owner),
        *(address for address in observed.addresses if address.dev in names),
        *(route for route in observed.routes if route.protocol == owner.protocol),
        *(rule for rule in observed.rules if rule.protocol == owner.protocol),
    )


def _table(seen: NftSeen, owner: Ownership) -> tuple[NftTable, ...]:
    if seen.state != "there" or owner.table(seen.table, marked=seen.table.marked, handle=seen.handle) is None:
        return ()
    return (seen.table,)


def _is_ours(link: SeenLink, owner: Ownership) -> bool:
    """A link of ours that somebody has renamed is no concern of a rollback."""
    return link.name in owner.links and owner.owns(link)


def no_way_back(undo: Undo, owner: Ownership) -> str | None:
    """Say what could not be restored, since no line of our grammar makes it; None if everything could."""
    for obj in (*undo.restore, *undo.remove):
        try:
            object_lines(obj)
            known = not isinstance(obj, Link) or owner.links.get(obj.name) == obj.alias
        except GrammarError:
            known = False
        if not known:
            return f"{describe(obj)} is not as dzagent makes it, and could not be restored"
    return None


def interest_of(undo: Undo, owner: Ownership) -> Interest:
    """Return what must be observed, so that nothing of somebody else's is taken for free."""
    return interest(Desired(tuple(Wanted(obj, _ORIGIN) for obj in undo.restore)), owner)


def way_back(undo: Undo, observed: Observed, owner: Ownership) -> WayBack:
    """Plan the way back from what the kernel holds now; what somebody has changed meanwhile stays, and is named."""
    held = {key(obj): obj for obj in ours(observed, owner)}
    made, restore, skipped = set(undo.remove), list[KernelObject](), list[str]()
    for obj in undo.restore:
        holder = held.get(key(obj))
        if holder is None or holder == obj or holder in made:
            restore.append(obj)
        else:
            skipped.append(f"{describe(obj)} is not restored: it is {describe(holder)} now")
    back, told = {key(obj) for obj in restore}, {key(obj) for obj in undo.restore}
    for obj in undo.remove:
        holder = held.get(key(obj))
        if holder is not None and holder != obj and key(obj) not in told:
            skipped.append(f"{describe(obj)} is not removed: it is {describe(holder)} now")
    touched = {obj for obj in held.values() if obj in made or key(obj) in back}
    seen = _limited(observed, owner, touched)
    standing = [link.tunnel for link in seen.links if _is_ours(link, owner) and link.tunnel not in touched]
    wanted = [*(link for link in standing if link is not None), *restore]
    plan = make_plan(Desired(tuple(Wanted(obj, _ORIGIN) for obj in wanted)), seen, owner)
    skipped += [f"{describe(c.wanted.obj)} is not restored: {c.owner}" for c in plan.conflicts]
    return WayBack(plan, tuple(skipped))


def _limited(observed: Observed, owner: Ownership, touched: set[KernelObject]) -> Observed:
    """Return the state without what is ours and not concerned: a plan would remove it as unwanted."""
    mine = set(ours(observed, owner)) - touched

    def rest(objects: Iterable[KernelObject]) -> list[KernelObject]:
        return [obj for obj in objects if obj not in mine]

    return replace(
        observed,
        links=tuple(link for link in observed.links if not owner.owns(link) or _usable(link, owner)),
        addresses=tuple(obj for obj in rest(observed.addresses) if isinstance(obj, Address)),
        routes=tuple(obj for obj in rest(observed.routes) if isinstance(obj, Route)),
        rules=tuple(obj for obj in observed.rules if obj not in mine),
        nft=NftSeen() if observed.nft.table in mine else observed.nft,
    )


def _usable(link: SeenLink, owner: Ownership) -> bool:
    """A link of ours that is no tunnel, or that somebody has renamed, is none that a rollback touches."""
    return link.tunnel is not None and link.name in owner.links
