"""Others beside us: named, never touched, looked for once in a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.errors import KernelError, ObservationError
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import Completed
from dzagent.model import Address, Desired, Link, Observed, Origin, Route, Rule, Wanted
from dzagent.neighbours import (
    AGAIN_SECONDS,
    LOOK_SECONDS,
    Neighbours,
    beside_our_rules,
    in_our_tables,
    looped,
)

ANY = IPv4Network("0.0.0.0/0")
LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
RULE = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
ORIGIN = Origin("unicast", "unicast/rule.ip", 3)
DESIRED = Desired((Wanted(LINK, ORIGIN), Wanted(RULE, ORIGIN)))


@dataclass
class Around:
    """A kernel that says what a test says, and counts how often it was asked."""

    routes: dict[int, Sequence[str]] = field(default_factory=dict)
    dead: bool = False
    error: KernelError | None = None
    asked: int = 0

    def foreign_routes(self, table: int, protocol: int) -> Sequence[str]:
        self.asked += 1
        assert protocol == 210
        if self.error is not None:
            raise self.error
        return self.routes.get(table, ())

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        assert dst == LINK.remote
        return None if self.dead else LINK.local


def codes(looking: Neighbours, desired: Desired = DESIRED, observed: Observed | None = None) -> list[str]:
    return [problem.code for problem in looking.problems(desired, observed or Observed())]


def test_rules_of_others_with_our_priority_are_named() -> None:
    theirs = [
        replace(RULE, src=IPv4Network((n << 24, 8)), protocol=186, extra=("iif \x1b[2J",))
        for n in range(1, 6)
    ]
    (problem,) = beside_our_rules(DESIRED, Observed(rules=(RULE, *theirs)), 210)
    assert problem.code == "PriorityShared"
    assert "priority 100 too: from 1.0.0.0/8 to 203.0.113.0/24 iif" in problem.message
    assert "protocol 186 (bgp)" in problem.message
    assert "and 2 more" in problem.message
    assert problem.message.isprintable()
    elsewhere = tuple(replace(rule, priority=99) for rule in theirs)
    assert beside_our_rules(DESIRED, Observed(rules=(RULE, *elsewhere)), 210) == ()
    assert beside_our_rules(Desired(), Observed(rules=tuple(theirs)), 210) == ()


def test_routes_of_others_in_our_tables_are_named() -> None:
    (odd,) = in_our_tables({100: ("6 10.0.0.0/8 proto 4",)})
    assert "others: blackhole 10.0.0.0/8 proto 4;" in odd.message
    (problem,) = in_our_tables({100: ("10.0.0.0/8 dev eth0 proto 4",), 101: ()})
    assert problem.code == "TableShared"
    assert "table 100 has routes of others: 10.0.0.0/8 dev eth0 proto 4;" in problem.message


def test_the_kernel_is_asked_once_in_a_while_and_when_what_we_use_changes() -> None:
    now = [0.0]
    around = Around({100: ("10.0.0.0/8 dev eth0",)})
    looking = Neighbours(around, 210, lambda: now[0])
    assert [codes(looking) for _ in range(5)] == [["TableShared"]] * 5
    assert around.asked == 1
    around.routes, around.dead = {}, True
    now[0] += AGAIN_SECONDS
    assert codes(looking) == ["EndpointUnrouted"]
    assert around.asked == 2
    now[0] += AGAIN_SECONDS
    around.dead = False
    assert codes(looking) == []
    assert around.asked == 3
    now[0] += LOOK_SECONDS - 1
    codes(looking)
    assert around.asked == 3
    moved = Desired((Wanted(LINK, ORIGIN), Wanted(replace(RULE, table=7), ORIGIN)))
    assert codes(looking, moved) == []
    assert codes(looking, Desired()) == []
    assert around.asked == 4


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("default via 10.0.0.1 dev eth0 proto 4", []),
        ("6 default proto 4", []),
        ("203.0.113.9 via 10.0.0.1 dev eth0", []),
        ("203.0.113.0/24 via 10.0.0.1 dev eth0", []),
        ("203.0.113.0/25 via 10.0.0.1 dev eth0", ["TableShared"]),
    ],
)
def test_a_route_that_holds_our_key_is_not_told_twice(line: str, code: list[str]) -> None:
    gateway = IPv4Address("169.254.0.0")
    routes = [
        Wanted(Route(IPv4Network(dst), gateway, "doublezero0", 100, 210), ORIGIN)
        for dst in ("0.0.0.0/0", "203.0.113.9/32", "203.0.113.0/24")
    ]
    looking = Neighbours(Around({100: (line,)}), 210, lambda: 0.0)
    assert codes(looking, Desired((*DESIRED.wanted, *routes))) == code


def test_a_route_beside_ours_is_told_since_no_conflict_is() -> None:
    ours = Route(IPv4Network("203.0.113.9/32"), IPv4Address("169.254.0.0"), "doublezero0", 100, 210)
    looking = Neighbours(Around({100: ("203.0.113.9 tos 0x10 via 10.0.0.1 dev eth0",)}), 210, lambda: 0.0)
    desired = Desired((*DESIRED.wanted, Wanted(ours, ORIGIN)))
    assert codes(looking, desired, Observed(routes=(ours,))) == ["TableShared"]


def test_a_route_that_made_room_for_ours_is_not_told_from_memory() -> None:
    ours = Route(IPv4Network("203.0.113.9/32"), IPv4Address("169.254.0.0"), "doublezero0", 100, 210)
    desired = Desired((*DESIRED.wanted, Wanted(ours, ORIGIN)))
    around = Around({100: ("203.0.113.9 via 10.0.0.1 dev eth0",)})
    looking = Neighbours(around, 210, lambda: 0.0)
    assert [codes(looking, desired) for _ in range(3)] == [[]] * 3, "the plan's conflict tells it"
    around.routes = {}
    assert codes(looking, desired, Observed(routes=(ours,))) == []


def test_somebody_who_may_have_come_is_looked_for_at_once() -> None:
    around = Around()
    looking = Neighbours(around, 210, lambda: 0.0)
    assert codes(looking) == []
    around.dead = True
    assert codes(looking) == []
    looking.again()
    assert codes(looking) == ["EndpointUnrouted"]


def test_a_way_to_the_endpoint_through_our_own_tunnel_is_told() -> None:
    inner = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
    outer = Address("doublezero0", IPv4Interface("198.51.100.7/32"), "global")
    desired = Desired(tuple(Wanted(obj, ORIGIN) for obj in (LINK, inner, outer)))
    assert looped(desired, {LINK.remote: LINK.local}) == ()
    assert looped(desired, {}) == ()
    (problem,) = looped(desired, {LINK.remote: inner.interface.ip})
    assert problem.code == "EndpointLooped"


@pytest.mark.parametrize("around", [None, Around(dead=True, error=ObservationError("no"))])
def test_who_cannot_look_says_nothing(around: Around | None) -> None:
    assert codes(Neighbours(around, 210, lambda: 0.0)) == []


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (Completed(0, b"", b""), ()),
        (Completed(2, b"", b"Error: ipv4: FIB table does not exist.\nDump terminated\n"), ()),
        (
            Completed(0, b"default via 10.0.0.1 dev eth0 proto 210 \n6 10.1.0.0/16 proto 2100 \n", b""),
            ("6 10.1.0.0/16 proto 2100",),
        ),
        (Completed(0, b"10.1.0.0/16 dev eth0 scope 253 \n", b""), ("10.1.0.0/16 dev eth0 scope 253",)),
    ],
)
def test_a_table_is_read_without_what_is_ours(done: Completed, expected: tuple[str, ...]) -> None:
    assert IpRoute(lambda *_: done).foreign_routes(100, 210) == expected


def test_a_table_that_cannot_be_read_is_not_empty() -> None:
    with pytest.raises(ObservationError, match="table 100"):
        IpRoute(lambda *_: Completed(1, b"", b"Cannot open netlink socket")).foreign_routes(100, 210)
