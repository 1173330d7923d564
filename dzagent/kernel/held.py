"""The routes of ours that the kernel is known to hold, by key and by the text that `ip` prints for them.

Thousands of them are compared by identity (the reader gives the same object for the same text), so that a look that
changed little costs little here.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Final, TypeAlias

from dzagent.model import Route

Slot: TypeAlias = tuple[int, IPv4Network]
"""Table and prefix of a route."""

ANY: Final = IPv4Network("0.0.0.0/0")


def route_text(dst: IPv4Network) -> str:
    """Return a prefix as `ip` prints it: "default", and a single address without its length."""
    if dst == ANY:
        return "default"
    return str(dst.network_address) if dst.prefixlen == 32 else str(dst)


class Held:
    """An index of routes. One thread changes it; `names` and `at` may be asked by another."""

    def __init__(self) -> None:
        self._by_id: dict[int, Route] = {}
        self._by_slot: dict[Slot, tuple[Route, ...]] = {}
        self.names: dict[bytes, int] = {}
        """How many routes have a prefix, as `ip` prints it."""

    def now(self, routes: Iterable[Route]) -> None:
        """Take in what a look has found."""
        found = {id(route): route for route in routes}
        for number in self._by_id.keys() - found.keys():
            self._remove(self._by_id[number])
        for number in found.keys() - self._by_id.keys():
            self._add(found[number])
        self._by_id = found

    def at(self, slot: Slot) -> tuple[Route, ...]:
        """Return the routes of a table and prefix."""
        return self._by_slot.get(slot, ())

    def put(self, route: Route) -> None:
        """Take in a route that was made or changed: what it replaces is gone."""
        self.drop(route)
        self._by_id[id(route)] = route
        self._add(route)

    def drop(self, route: Route) -> None:
        """Take in that whatever has the key of this route is gone."""
        for old in self.at((route.table, route.dst)):
            if old.metric == route.metric:
                self._remove(old)
                self._by_id.pop(id(old), None)

    def _add(self, route: Route) -> None:
        slot, name = (route.table, route.dst), route_text(route.dst).encode()
        self._by_slot[slot] = (*self.at(slot), route)
        self.names[name] = self.names.get(name, 0) + 1

    def _remove(self, route: Route) -> None:
        slot, name = (route.table, route.dst), route_text(route.dst).encode()
        left = tuple(other for other in self.at(slot) if other is not route)
        if left:
            self._by_slot[slot] = left
        else:
            self._by_slot.pop(slot, None)
        self.names[name] = self.names.get(name, 1) - 1
        if self.names[name] <= 0:
            del self.names[name]
