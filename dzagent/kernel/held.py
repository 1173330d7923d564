"""The routes of ours that the kernel is known to hold, by key.

Thousands of them are compared by identity (the reader gives the same object for the same text), so that a look that
changed little costs little here. Keys are numbers: they are cheaper than addresses by far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Network
from typing import Final, TypeAlias

from dzagent.model import Route

Slot: TypeAlias = tuple[int, IPv4Network]
"""Table and prefix of a route."""

ANY: Final = IPv4Network("0.0.0.0/0")


class Held:
    """An index of routes. One thread changes it; `at` and `in numbers` may be asked by another."""

    def __init__(self) -> None:
        self._by_id: dict[int, Route] = {}
        self._by_key: dict[tuple[int, int, int], tuple[Route, ...]] = {}
        self.numbers: dict[int, int] = {}
        """How many routes there are, by the first address of their prefix as a number."""

    def now(self, routes: Iterable[Route]) -> None:
        """Take in what a look has found."""
        found = {id(route): route for route in routes}
        for number in self._by_id.keys() - found.keys():
            self._remove(self._by_id[number])
        for number in found.keys() - self._by_id.keys():
            self._add(found[number])
        self._by_id = found

    def read(self, slots: Collection[Slot], routes: Iterable[Route]) -> None:
        """Take in what a look at these keys alone has found among `routes`; what is known of others stays."""
        numbers = {int(dst.network_address) for _, dst in slots}
        for slot in slots:
            for old in self.at(slot):
                self._remove(old)
                self._by_id.pop(id(old), None)
        for route in routes:
            if int(route.dst.network_address) in numbers and (route.table, route.dst) in slots:
                self._by_id[id(route)] = route
                self._add(route)

    def at(self, slot: Slot) -> tuple[Route, ...]:
        """Return the routes of a table and prefix."""
        table, dst = slot
        return self._by_key.get((table, int(dst.network_address), dst.prefixlen), ())

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
        number = int(route.dst.network_address)
        key = (route.table, number, route.dst.prefixlen)
        self._by_key[key] = (*self._by_key.get(key, ()), route)
        self.numbers[number] = self.numbers.get(number, 0) + 1

    def _remove(self, route: Route) -> None:
        number = int(route.dst.network_address)
        key = (route.table, number, route.dst.prefixlen)
        left = tuple(other for other in self._by_key.get(key, ()) if other is not route)
        if left:
            self._by_key[key] = left
        else:
            self._by_key.pop(key, None)
        self.numbers[number] = self.numbers.get(number, 1) - 1
        if self.numbers[number] <= 0:
            del self.numbers[number]
