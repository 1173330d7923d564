"""Joining again after a few routes of thousands have changed: the last result is corrected, not made anew. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dzagent.bgp.learnedfile import file_of
from dzagent.bgp.parts import Joined, Learned
from dzagent.model import Desired, Observed, Origin, Route, ServiceName, Wanted

FEW: Final = 64
"""Routes that differ; with more of them everything is joined anew."""


def rejoin(
    last: Joined, desired: Desired, before: Observed, now: Observed, learned: Learned
) -> Joined | None:
    """Return what `join` would for `now`, from what it returned for `before`. None if it has to be joined anew.

    Everything but the observed routes must be as it was, nothing was missing, and nothing was doubtful.
    """
    if last.desired is not desired or last.problems:
        return None
    old = {id(route): route for route in before.routes}
    new = {id(route): route for route in now.routes}
    gone, fresh = old.keys() - new.keys(), new.keys() - old.keys()
    if len(gone) + len(fresh) > FEW:
        return None
    installed, equal = dict(last.installed), dict(last.equal)
    lost: dict[tuple[ServiceName, str], Route] = {}
    for number in gone:
        route = equal.pop(number, None)
        if route is not None:
            name = _name_of(route, learned)
            if name is None:
                return None
            installed.pop(name, None)
            lost[name] = route
    extra: list[Route] = []
    for number in fresh:
        seen = new[number]
        found = next((key for key, route in lost.items() if route == seen), None)
        if found is None:
            extra.append(seen)
        else:
            installed[found] = equal[number] = lost.pop(found)
    rendered = {(obj.table, obj.dst) for obj in desired.objects if isinstance(obj, Route)}
    missing = tuple(
        Wanted(route, Origin(name, file_of(name), 0))
        for (name, _), route in lost.items()
        if (route.table, route.dst) not in rendered
    )
    rest = (*(route for route in last.observed.routes if id(route) not in gone), *extra)
    wanted = Desired((*desired.wanted, *missing)) if missing else desired
    return Joined(wanted, replace(now, routes=rest), installed, (), equal)


def _name_of(route: Route, learned: Learned) -> tuple[ServiceName, str] | None:
    prefix = str(route.dst)
    found = next((name for name, routes in learned.items() if routes.get(prefix) is route), None)
    return None if found is None else (found, prefix)
