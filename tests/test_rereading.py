"""Reading a part again gives what reading everything gives, if only that part has changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dzagent.kernel.held import Held
from dzagent.kernel.observe import Known, batch, decode
from dzagent.kernel.rereading import FEW, merge, reading
from dzagent.kernel.watchlines import EVERYTHING, Touched
from dzagent.model import Interest, Observed, Route

INTEREST = Interest(210, ("doublezero0",), ((254, IPv4Network("198.18.0.2/32")),))
ROUTES = [(254, f"198.18.0.{n}", protocol) for n in range(1, 5) for protocol in (210, 3)]


def _route(table: int, dst: str, protocol: int, *, full: bool) -> dict[str, Any]:
    record = {
        "type": "1",
        "dst": dst,
        "gateway": "169.254.0.4",
        "dev": "doublezero0",
        "scope": "0",
        "flags": [],
    }
    return {**record, "table": str(table), "protocol": str(protocol)} if full else record


def answer(line: str, routes: set[tuple[int, str, int]], extra: dict[str, list[Any]]) -> str:
    """Answer one line of a batch as `ip` does: what was asked for is not printed again."""
    words = line.split()
    if words[0] != "route":
        return json.dumps(extra[words[0]])
    table = words[words.index("table") + 1]
    protocol = words[words.index("proto") + 1] if "proto" in words else None
    found = []
    for at, dst, owner in sorted(routes):
        if table not in {"all", str(at)} or protocol not in {None, str(owner)}:
            continue
        if "exact" in words and words[words.index("exact") + 1] != f"{dst}/32":
            continue
        record = _route(at, dst, owner, full=True)
        if table != "all":
            del record["table"]
        if protocol is not None:
            del record["protocol"]
        found.append(record)
    return json.dumps(found)


EXTRA: dict[str, list[Any]] = {"link": [], "addr": [], "rule": []}


def read(lines: Iterable[str], routes: set[tuple[int, str, int]]) -> bytes:
    return "\n".join(answer(line, routes, EXTRA) for line in lines).encode()


def everything(routes: set[tuple[int, str, int]]) -> Observed:
    return decode(read(batch(INTEREST).splitlines(), routes), INTEREST)


chosen = st.sets(st.sampled_from(ROUTES))


@given(chosen, chosen, st.booleans())
def test_reading_what_differs_is_reading_everything(
    before: set[tuple[int, str, int]], after: set[tuple[int, str, int]], all_routes: bool
) -> None:
    slots = {(table, IPv4Network(dst)): None for table, dst, _ in before ^ after}
    touched = Touched(routes=True) if all_routes else Touched(slots=slots)
    what = reading(touched, INTEREST)
    seen = everything(before)
    again = merge(read(what.lines(INTEREST), after), what, INTEREST, seen, Known())
    assert set(again.routes) == set(everything(after).routes)
    assert len(set(again.routes)) == len(again.routes)


@given(chosen)
def test_what_has_not_changed_is_the_same_object(routes: set[tuple[int, str, int]]) -> None:
    seen = everything(routes)
    what = reading(Touched(slots={(table, IPv4Network(dst)): None for table, dst, _ in routes}), INTEREST)
    assert merge(read(what.lines(INTEREST), routes), what, INTEREST, seen, Known()).routes is seen.routes


def test_what_is_read() -> None:
    key, other = INTEREST.exact[0], (100, IPv4Network("10.0.0.0/8"))
    assert reading(Touched(slots={key: None, other: None}), INTEREST).lines(INTEREST) == (
        "route show exact 198.18.0.2/32 table 254",
        "route show exact 10.0.0.0/8 table 100 proto 210",
    )
    many = {(100, IPv4Network((n << 8, 24))): None for n in range(FEW + 1)}
    assert reading(Touched(slots=many), INTEREST).lines(INTEREST) == ("route show table all proto 210",)
    assert reading(Touched(links=True), INTEREST).lines(INTEREST) == ("link show",)
    assert reading(EVERYTHING, INTEREST).lines(INTEREST)[:4] == (
        "link show",
        "addr show",
        "rule show",
        "route show table all proto 210",
    )


# ---- the index of held routes ----------------------------------------------------------------------------


def _made(table: int, dst: str, metric: int = 0) -> Route:
    return Route(IPv4Network(dst), None, "doublezero0", table, 210, metric=metric)


MADE = [
    _made(table, f"10.0.{number}.0/{length}", metric)
    for table in (1, 2)
    for number in (0, 1)
    for length in (24, 25)
    for metric in (0, 5)
]


@given(st.lists(st.lists(st.sampled_from(MADE), unique=True)))
def test_the_index_follows_every_look(looks: list[list[Route]]) -> None:
    held = Held()
    for look in looks:
        held.now(look)
        for route in look:
            assert route in held.at((route.table, route.dst))
        numbers = {int(route.dst.network_address) for route in look}
        assert set(held.numbers) == numbers
        assert sum(held.numbers.values()) == len(look)


def test_own_writes_are_in_the_index_until_the_next_look() -> None:
    held, old, new = Held(), _made(1, "10.0.0.0/24"), _made(1, "10.0.0.0/24")
    held.now([old])
    held.put(new)
    assert [id(route) for route in held.at((1, old.dst))] == [id(new)]
    held.drop(_made(1, "10.0.0.0/24", metric=9))
    assert held.at((1, old.dst)) == (new,)
    held.drop(old)
    assert held.at((1, old.dst)) == ()
    assert not held.numbers
    held.now([old])
    assert held.at((1, old.dst)) == (old,)
