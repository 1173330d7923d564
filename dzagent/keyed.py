"""Repair of single learned routes, from the keys that the watch names: those alone are read and planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from dzagent.bgp.joining import Joiner, Learned
from dzagent.kernel.held import Slot
from dzagent.kernel.watched import WatchedKernel
from dzagent.kernel.watchlines import Touched
from dzagent.model import Route, ServiceName

Name: TypeAlias = tuple[ServiceName, str]
"""A learned route, as BGP names it: service and prefix."""

MOST: Final = 512
"""Routes that are repaired one by one; where more are touched a pass looks at everything."""


def names_of(touched: Touched, learned: Learned, joiner: Joiner) -> Mapping[Slot, Name]:
    """Return which learned routes were touched, such that are or were; none if a pass has to look at all anyway.

    A key that somebody else had is left to a pass, which says so.
    """
    names: dict[Slot, Name] = {}
    if touched.routes or len(touched.slots) > MOST:
        return names
    for slot in touched.slots:
        table, prefix = slot[0], str(slot[1])
        for name, routes in learned.items():
            if slot in joiner.contested:
                continue
            if _is_at(routes.get(prefix), table) or _is_at(joiner.installed.get((name, prefix)), table):
                names[slot] = (name, prefix)
    return names


def differing(
    names: Mapping[Slot, Name], seen: Mapping[Slot, tuple[Route, ...]], learned: Learned, joiner: Joiner
) -> Mapping[Name, Route | None] | None:
    """Tell the joiner what the kernel holds of these, and return those that differ, as they should be.

    None if a key holds more than one route of ours: a pass has to find out which.
    """
    found: dict[Name, Route | None] = {}
    for slot, name in names.items():
        held, wanted = seen.get(slot, ()), learned[name[0]].get(name[1])
        if len(held) > 1:
            return None
        joiner.saw(name, held[0] if held else None)
        if not held or held[0] != wanted:
            found[name] = wanted
    return found


def repairs(
    touched: Touched, learned: Learned, joiner: Joiner, watched: WatchedKernel
) -> Mapping[Name, Route | None] | None:
    """Read the learned routes that were touched, and return those that differ, as they should be.

    None if a pass has to find out more first. Raises as `observe` does.
    """
    names = names_of(touched, learned, joiner)
    if not names:
        return {}
    seen = watched.reread_routes(names)
    return None if seen is None else differing(names, seen, learned, joiner)


def _is_at(route: Route | None, table: int) -> bool:
    return route is not None and route.table == table
