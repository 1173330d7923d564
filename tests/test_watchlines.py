"""What lines of `ip monitor` (iproute2 6.1, as recorded) say may have changed, and what says nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.kernel.held import Held
from dzagent.kernel.watchlines import EVERYTHING, MAX_KEYS, NOTHING, Lines, Touched, is_known
from dzagent.model import Interest, Route
from tests.watch_fakes import route_line

STATIC = (254, IPv4Network("233.84.178.0/24"))
DEFAULT = (254, IPv4Network("0.0.0.0/0"))
LINES = Lines(Interest(210, ("doublezero0", "doublezero1"), (STATIC,)))
ROUTE = Route(
    IPv4Network("198.18.0.1/32"),
    IPv4Address("169.254.0.4"),
    "doublezero0",
    254,
    210,
    IPv4Address("198.51.100.7"),
)
SLOT = (254, ROUTE.dst)
ADDED, DELETED = route_line(ROUTE), route_line(ROUTE, deleted=True)
REST = "qdisc noop state DOWN group 0 \\    link/[778] 198.51.100.7 peer 192.0.2.1 \\    gre remote 192.0.2.1"


def judge(*lines: str) -> Touched:
    return LINES.judge("\n".join(lines).encode())


@pytest.mark.parametrize(
    "line",
    [
        "[ROUTE]1 77.0.0.0/8 via 198.51.100.2 dev eth0 table 254 proto 3 scope 0 ",
        "[ROUTE]Deleted 1 77.0.0.0/8 via 198.51.100.2 dev eth0 table 254 proto 2100 scope 0 ",
        "[ROUTE]2 169.254.0.5 dev doublezero0 table 255 proto 2 scope 254 src 169.254.0.5 ",
        "[ROUTE]1 233.84.178.0/24 dev eth0 table 100 proto 3 scope 253 ",
        "[ROUTE]1 not-a-prefix dev eth0 table 254 proto 210 scope 0 ",
        "[ROUTE]1 10.0.0.0/99 dev eth0 table 254 proto 210 scope 0 ",
        "[NEIGH]198.51.100.1 dev eth0 lladdr 02:00:00:00:00:01 REACHABLE",
        "Unknown message: 0x00000014 0x0000001c 0x00000000",
        "",
        "\x00\xff garbage [ROUTE]",
    ],
)
def test_what_cannot_concern_us_touches_nothing(line: str) -> None:
    assert judge(line) == NOTHING


def test_a_route_of_ours_is_touched_alone() -> None:
    assert judge(DELETED) == Touched(slots={SLOT: DELETED})
    assert judge(DELETED).urgent
    other = "[ROUTE]6 10.8.0.0/16 table 100 proto 210 scope 0 "
    assert judge(other).slots == {(100, IPv4Network("10.8.0.0/16")): None}


def test_a_key_that_must_be_known_is_touched_by_anybody() -> None:
    line = "[ROUTE]1 233.84.178.0/24 via 10.0.0.1 dev eth0 table 254 proto 3 scope 0 "
    assert judge(line).slots == {STATIC: line}
    line = "[ROUTE]Deleted 1 default via 198.51.100.1 dev eth0 table 254 proto 3 scope 0 "
    assert judge(line).slots == {DEFAULT: line}
    assert not judge(line).urgent
    assert judge(line.replace("table 254", "table 9")) == NOTHING


def test_somebody_who_replaces_a_route_of_ours_is_heard() -> None:
    held = Held()
    lines = Lines(Interest(210, ("doublezero0",)), held)
    foreign = "[ROUTE]1 198.18.0.1 via 198.51.100.1 dev eth0 table 254 proto 186 scope 0 "
    assert lines.judge(foreign.encode()) == NOTHING
    held.now([ROUTE])
    assert lines.judge(foreign.encode()).slots == {SLOT: foreign}
    assert lines.judge(foreign.replace("table 254", "table 9").encode()) == NOTHING


def test_a_link_of_ours_takes_addresses_and_routes_along() -> None:
    everything_but_rules = Touched(links=True, addresses=True, routes=True, ours=True)
    assert judge(f"[LINK]Deleted 4: doublezero0: <POINTOPOINT> mtu 1476 {REST}") == everything_but_rules
    assert judge(f"[LINK]4: doublezero1@NONE: <POINTOPOINT> mtu 1476 {REST}") == everything_but_rules
    assert judge(f"[LINK]9: eth7@if3: <UP> mtu 1500 {REST}") == Touched(links=True)
    assert judge(f"[LINK]9: doublezero00: <UP> mtu 1500 {REST}") == Touched(links=True)


def test_an_address_may_take_routes_along() -> None:
    ours = (
        r"[ADDR]Deleted 4: doublezero0    inet 169.254.0.5/31 scope 253 doublezero0\       valid_lft forever"
    )
    assert judge(ours) == Touched(addresses=True, routes=True, ours=True)
    assert judge(ours.replace("doublezero0", "eth0")) == Touched(addresses=True, routes=True)


@pytest.mark.parametrize(
    ("line", "beside"),
    [
        ("[ROUTE]6 192.0.2.1 table 254 proto 3 scope 0", True),
        ("[ROUTE]Deleted 1 192.0.2.0/24 via 10.0.0.1 dev eth0 table 254 proto 186 scope 0", True),
        ("[ROUTE]1 default via 10.0.0.1 dev eth0 table 7 proto 3 scope 0", True),
        ("[ROUTE]1 10.9.0.0/16 via 10.0.0.1 dev eth0 table 100 proto 3 scope 0", True),
        ("[ROUTE]1 10.9.0.0/16 via 10.0.0.1 dev eth0 table 1000 proto 3 scope 0", False),
        ("[ROUTE]1 192.0.2.2 via 10.0.0.1 dev eth0 table 254 proto 3 scope 0", False),
        ("[ROUTE]1 10.9.0.0/16 via 10.0.0.1 dev doublezero0 table 100 proto 210 scope 0", False),
    ],
)
def test_others_in_our_places_are_worth_a_look(line: str, *, beside: bool) -> None:
    """On the way to a tunnel's end, or in a table of our rules; and nothing is read again for them."""
    interest = Interest(210, ("doublezero0",), tables=(100, 101), ends=(IPv4Address("192.0.2.1"),))
    touched = Lines(interest).judge(line.encode() + b"\n")
    assert touched.beside is beside
    assert touched.around is (beside or "default" in line)
    if beside and "default" not in line:
        assert touched
        assert not touched.slots
        assert not touched.urgent
    assert not Lines(Interest(210, ("doublezero0",))).judge(line.encode() + b"\n").beside


def test_rules() -> None:
    assert judge("[RULE]Deleted 100:\tfrom 10.0.0.0/8 lookup 100 proto 210") == Touched(rules=True, ours=True)
    assert judge("[RULE]7:\tfrom all fwmark 0x1 lookup 7 proto 4") == Touched(rules=True)


def test_lost_events_touch_everything() -> None:
    assert judge(ADDED, "netlink receive error No buffer space available (105)") == EVERYTHING


def test_the_last_line_about_a_route_counts() -> None:
    assert judge(DELETED, ADDED).slots == {SLOT: ADDED}
    assert (judge(ADDED) | judge(DELETED)).slots == {SLOT: DELETED}


def test_a_line_that_tells_not_all_is_not_forgotten() -> None:
    odd = ADDED.replace("scope 0", "scope 0 metric 7")
    assert judge(odd, ADDED).slots == {SLOT: None}
    assert (judge(odd) | judge(ADDED)).slots == {SLOT: None}
    assert judge(ADDED, odd).slots == {SLOT: None}


def test_too_many_routes_are_all_routes() -> None:
    lines = [
        ADDED.replace("198.18.0.1", f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}")
        for n in range(MAX_KEYS + 1)
    ]
    assert judge(*lines) == Touched(routes=True, ours=True)
    halves = judge(*lines[: MAX_KEYS // 2]) | judge(*lines[MAX_KEYS // 2 :])
    assert halves == Touched(routes=True, ours=True)


def test_what_is_known_is_no_news() -> None:
    assert is_known(ADDED, ROUTE, 210)
    assert is_known(DELETED, None, 210)
    assert not is_known(DELETED, ROUTE, 210)
    assert not is_known(ADDED, None, 210)
    assert not is_known(None, ROUTE, 210)
    assert not is_known(ADDED, replace(ROUTE, metric=5), 210)
    for word in ("via 169.254.0.4", "dev doublezero0", "proto 210", "src 198.51.100.7"):
        assert not is_known(ADDED.replace(word, word[:-1] + "9"), ROUTE, 210), word


def test_somebody_elses_route_that_goes_is_news() -> None:
    assert not is_known(DELETED.replace("proto 210", "proto 186"), None, 210)


@given(st.lists(st.sampled_from([b"[ROUTE]", b"Deleted ", b"1 ", b"198.18.0.1", b" via ", b"[LINK]4: doublezero0",
                                 b"[RULE]", b"[ADDR]", b" proto 210 ", b"\n", b"\xff", b"table 99999999999999999999",
                                 b" table 254", b"default "]), max_size=30))  # fmt: skip
def test_any_bytes_are_judged(parts: list[bytes]) -> None:
    touched = LINES.judge(b"".join(parts))
    assert isinstance(touched | touched, Touched)
