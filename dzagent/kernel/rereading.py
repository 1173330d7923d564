"""Reading again only what may have changed: the batch for it, and its answer put into what was seen before. Pure.

In a batch `ip route show exact` reads through all tables of the kernel and costs as much as those have routes (10,000:
7 ms; 1,000,000: 0.4 s), alone through the table that it names; so single routes are read one by one while they are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from dzagent.kernel import observe
from dzagent.kernel.held import Slot
from dzagent.kernel.observe import Known
from dzagent.kernel.watchlines import Touched
from dzagent.model import Interest, Observed, Route

FEW: Final = 6
"""Routes that are read one by one; more are read all together."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read again. own: all routes of ours. exact: keys with every holder; single: keys of ours alone."""

    links: bool
    addresses: bool
    rules: bool
    own: bool
    exact: tuple[Slot, ...]
    single: tuple[Slot, ...]

    def lines(self, interest: Interest) -> tuple[str, ...]:
        """Return the lines of a batch."""
        return (
            *(["link show"] if self.links else []),
            *(["addr show"] if self.addresses else []),
            *(["rule show"] if self.rules else []),
            *([f"route show table all proto {interest.protocol}"] if self.own else []),
            *(f"route show exact {dst} table {table}" for table, dst in self.exact),
            *(
                f"route show exact {dst} table {table} proto {interest.protocol}"
                for table, dst in self.single
            ),
        )

    @property
    def size(self) -> int:
        """The number of lines of the batch, and of answers."""
        return self.links + self.addresses + self.rules + self.own + len(self.exact) + len(self.single)


def reading(touched: Touched, interest: Interest) -> Reading:
    """Return what has to be read where this was touched."""
    keys = observe.reads(interest)
    held = frozenset(keys)
    exact = keys if touched.routes else tuple(slot for slot in touched.slots if slot in held)
    single = () if touched.routes else tuple(slot for slot in touched.slots if slot not in held)
    many = touched.routes or len(single) > FEW
    return Reading(touched.links, touched.addresses, touched.rules, many, exact, () if many else single)


def merge(stdout: bytes, what: Reading, interest: Interest, before: Observed, known: Known) -> Observed:
    """Return what was seen `before` with the answer in the place of what was read again. Raises ObservationError."""
    lines = iter(observe.answers(stdout, what.size))
    links = observe.read_links(next(lines)) if what.links else before.links
    addresses = observe.read_addresses(next(lines)) if what.addresses else before.addresses
    rules = observe.read_rules(next(lines)) if what.rules else before.rules
    routes = before.routes
    if what.own or what.exact or what.single:
        routes = _merge_routes(lines, what, interest, before.routes, known)
    return replace(before, links=links, addresses=addresses, rules=rules, routes=routes)


def _merge_routes(
    lines: Iterator[str], what: Reading, interest: Interest, before: tuple[Route, ...], known: Known
) -> tuple[Route, ...]:
    protocol = interest.protocol
    own = known.read(next(lines), protocol) if what.own else None
    foreign: list[Route] = []
    found: list[Route] = []
    for table, _ in what.exact:
        for route in observe.read_routes(next(lines), table):
            (found if route.protocol == protocol else foreign).append(route)
    for table, _ in what.single:
        found += observe.read_routes(next(lines), table, protocol)
    exact, single = set(what.exact), set(what.single)
    foreign = list(dict.fromkeys(foreign))
    if own is not None:
        left = [r for r in before if r.protocol != protocol and (r.table, r.dst) not in exact]
        return (*own, *left, *foreign)
    touched = exact | single
    again = {int(dst.network_address) for _, dst in touched}
    gone = [
        route
        for route in before
        if int(route.dst.network_address) in again
        and (route.table, route.dst) in (touched if route.protocol == protocol else exact)
    ]
    if len(gone) == len(found) + len(foreign) and set(gone) == {*found, *foreign}:
        return before
    old = set(map(id, gone))
    kept = [route for route in before if id(route) not in old]
    return (*kept, *found, *foreign)
