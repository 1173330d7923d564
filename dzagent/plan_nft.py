"""The part of the plan that is about the nftables table. Pure.

The table is one object: its parts come from the files of the services, and whatever else is in it goes. It is ours if
it bears our mark; any other table of that name is a conflict, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from dzagent.model import Action, Conflict, Observed, Plan, ServiceName, Step, Wanted
from dzagent.nftmodel import FAMILY, MARKED, TABLE, NftSeen, NftTable, combine
from dzagent.nftview import changes
from dzagent.owned import Owned
from dzagent.ownership import Ownership
from dzagent.plan_links import UNWANTED, Part

OWNER: Final = f"a table {FAMILY} {TABLE} without our mark"
ADVICE: Final = f"If nobody needs it, `nft delete table {FAMILY} {TABLE}`; ours follows by itself."


def plan_nft(wanted: Sequence[Wanted], observed: Observed, owner: Ownership) -> Part:
    """Compare the wanted parts with the table. What could not be read is left alone."""
    part, seen = Part(), observed.nft
    items = [item for item in wanted if isinstance(item.obj, NftTable)]
    after = combine((MARKED, *(item.obj for item in items if isinstance(item.obj, NftTable))))
    held = _held(seen, owner)
    if seen.state == "absent" and items:
        part.make.append(Step(Action.ADD, None, after, "missing", items[0].origin))
    elif seen.state == "there" and held is None and items:
        part.conflicts.append(Conflict(items[0], OWNER, ADVICE))
    elif held is not None and not items:
        part.remove.append(Step(Action.DELETE, held, None, UNWANTED))
    elif held is not None and held.obj != after:
        origin = next((item.origin for item in items if not _holds(held.obj, item)), items[0].origin)
        part.make.append(Step(Action.CHANGE, held, after, changes(held.obj, after), origin))
    return part


def _held(seen: NftSeen, owner: Ownership) -> Owned[NftTable] | None:
    """Return the table if it is there and ours."""
    if seen.state != "there":
        return None
    return owner.table(seen.table, marked=seen.table.marked, handle=seen.handle)


def table_handle(seen: NftSeen, owner: Ownership, known: int | None) -> int | None:
    """Return the handle of our table, None if there is none; what was known last where nobody could look."""
    if seen.state == "unread":
        return known
    return None if _held(seen, owner) is None else seen.handle


def _holds(table: NftTable, item: Wanted) -> bool:
    """Tell whether a table has everything of a part."""
    part = item.obj
    return isinstance(part, NftTable) and (
        set(part.chains) <= set(table.chains)
        and set(part.sets) <= set(table.sets)
        and set(part.counters) <= set(table.counters)
    )


def part_of(table: NftTable, services: Collection[ServiceName]) -> NftTable:
    """Return what a table has for some services: names say whose it is."""
    prefixes = tuple(f"{service}_" for service in services)
    return named_in(table, {name for name in table.names if name.startswith(prefixes)})


def spare_parts(plan: Plan, services: Collection[ServiceName]) -> Plan:
    """Return the plan with what the table has for these services left in place."""
    phases = (
        tuple(spared for step in phase if (spared := _spare(step, services)) is not None)
        for phase in plan.phases
    )
    return replace(plan, phases=tuple(phase for phase in phases if phase))


def _spare(step: Step, services: Collection[ServiceName]) -> Step | None:
    before = step.before
    return keep(step, part_of(before, services)) if isinstance(before, NftTable) else step


def named_in(table: NftTable, names: Collection[str]) -> NftTable:
    """Return what a table has under some names."""
    return NftTable(
        tuple(chain for chain in table.chains if chain.name in names),
        tuple(one for one in table.sets if one.name in names),
        tuple(name for name in table.counters if name in names),
    )


def keep(step: Step, kept: NftTable) -> Step | None:
    """Return the step with a part of the table left in place; None if then nothing is left to do."""
    if not isinstance(step.before, NftTable) or not kept.names:
        return step
    wanted = step.after if isinstance(step.after, NftTable) else MARKED
    after = combine((kept, wanted))
    if after == step.before:
        return None
    return replace(step, action=Action.CHANGE, after=after, reason=changes(step.before, after))
