"""Steps as lines of `ip -batch`: full identities, exclusive adds, nothing that could be read otherwise."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.errors import KernelError
from dzagent.kernel.commands import batch_lines, preview
from dzagent.model import Action, Address, KernelObject, Link, Route, Rule, Step
from tests.owning import ours

LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ANY = IPv4Network("0.0.0.0/0")
ROUTE = Route(
    ANY, IPv4Address("169.254.0.0"), "doublezero0", 101, 210, src=IPv4Address("203.0.113.9"), metric=5
)
RULE = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)


def add(obj: KernelObject) -> tuple[str, ...]:
    return batch_lines(Step(Action.ADD, None, obj, "missing"))


def delete(obj: KernelObject, indexes: dict[str, int] | None = None) -> tuple[str, ...]:
    return batch_lines(Step(Action.DELETE, ours(obj), None, "not wanted any more"), indexes or {})


def change(before: KernelObject, after: KernelObject) -> tuple[str, ...]:
    return batch_lines(Step(Action.CHANGE, ours(before), after, "differs"))


@pytest.mark.parametrize("obj", [LINK, ADDRESS, ROUTE, RULE])
def test_objects_are_made_by_exclusive_add(obj: KernelObject) -> None:
    lines = add(obj)
    assert " add " in lines[0]
    assert not [line for line in lines if "replace" in line]


def test_a_link_is_changed_with_every_gre_attribute_repeated() -> None:
    assert change(replace(LINK, remote=IPv4Address("192.0.2.9")), LINK) == (
        "link change dev doublezero0 type gre local 198.51.100.7 remote 192.0.2.1 ttl 64 nopmtudisc",
    )


def test_other_parts_of_a_link_are_set_one_by_one() -> None:
    before = replace(LINK, mtu=1400, alias="", up=False, extra=("master br0",))
    assert change(before, LINK) == (
        "link set dev doublezero0 nomaster",
        "link set dev doublezero0 mtu 1476",
        "link set dev doublezero0 alias dzagent:unicast",
        "link set dev doublezero0 up",
    )


def test_a_link_is_deleted_by_its_index_where_it_is_known() -> None:
    assert delete(LINK, {"doublezero0": 7}) == ("link set dev if7 down", "link delete dev if7")
    assert delete(LINK) == ("link set dev doublezero0 down", "link delete dev doublezero0")


def test_an_index_is_not_used_if_a_link_has_it_as_its_name() -> None:
    assert delete(LINK, {"doublezero0": 7, "if7": 3})[1] == "link delete dev doublezero0"


def test_a_scope_is_changed_by_delete_and_add() -> None:
    assert change(replace(ADDRESS, scope="global"), ADDRESS) == (
        "addr del 169.254.0.1/31 dev doublezero0",
        "addr add 169.254.0.1/31 dev doublezero0 scope link",
    )


def test_a_peer_is_part_of_the_identity_of_an_address() -> None:
    address = Address(
        "doublezero0", IPv4Interface("10.9.0.1/32"), "global", ("label doublezero0:x", "peer 10.9.0.2/32")
    )
    assert delete(address) == ("addr del 10.9.0.1 peer 10.9.0.2/32 dev doublezero0",)


def test_a_route_of_ours_is_changed_beside_a_spare_one_and_never_by_replace() -> None:
    before = replace(ROUTE, via=IPv4Address("169.254.0.2"))
    spare = replace(ROUTE, metric=0xFFFFDA21)
    assert change(before, ROUTE) == (*add(spare), *delete(before), *add(ROUTE), *delete(spare))
    assert add(spare)[0].endswith(" metric 4294957601")


def test_a_route_of_ours_of_another_type_is_changed_by_delete_and_add() -> None:
    before = Route(ANY, None, "doublezero0", 101, 210, metric=5, extra=("type multicast",))
    assert change(before, ROUTE) == (
        "route del multicast 0.0.0.0/0 table 101 proto 210 metric 5",
        *add(ROUTE),
    )


@pytest.mark.parametrize(
    ("route", "line"),
    [
        (
            ROUTE,
            (
                "route del unicast 0.0.0.0/0 via 169.254.0.0 dev doublezero0 src 203.0.113.9 "
                "table 101 proto 210 metric 5"
            ),
        ),
        (
            Route(IPv4Network("192.0.3.0/24"), None, None, 101, 210, extra=("type blackhole",)),
            "route del blackhole 192.0.3.0/24 table 101 proto 210",
        ),
        (
            Route(IPv4Network("192.0.4.0/24"), None, None, 254, 210, extra=("nexthop via 1.1.1.1 weight 1",)),
            "route del unicast 192.0.4.0/24 table 254 proto 210",
        ),
        (
            Route(IPv4Network("192.0.5.0/24"), ROUTE.via, "doublezero0", 254, 210, extra=("nhid 5",)),
            "route del unicast 192.0.5.0/24 table 254 proto 210",
        ),
        (
            Route(ANY, ROUTE.via, "doublezero0", 254, 210, extra=("onlink", "tos 0x10")),
            "route del unicast 0.0.0.0/0 tos 0x10 via 169.254.0.0 dev doublezero0 table 254 proto 210",
        ),
    ],
)
def test_routes_are_deleted_by_full_identity_with_protocol(route: Route, line: str) -> None:
    assert delete(route) == (line,)


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (RULE, "rule del priority 100 from 0.0.0.0/0 to 203.0.113.0/24 table 100 protocol 210"),
        (
            replace(RULE, extra=("fwmark 0x10/0xff", "iif eth0", "not")),
            (
                "rule del not priority 100 from 0.0.0.0/0 to 203.0.113.0/24 table 100 protocol 210 "
                "fwmark 0x10/0xff iif eth0"
            ),
        ),
        (
            replace(RULE, table=0, extra=("type blackhole",)),
            "rule del priority 100 from 0.0.0.0/0 to 203.0.113.0/24 protocol 210 type blackhole",
        ),
        (
            replace(RULE, src=IPv4Network("10.0.0.0/8"), extra=("from 10.1.2.3/8", "to 203.0.113.9/24")),
            "rule del priority 100 from 10.1.2.3/8 to 203.0.113.9/24 table 100 protocol 210",
        ),
    ],
)
def test_rules_are_deleted_by_full_identity_with_protocol(rule: Rule, line: str) -> None:
    assert delete(rule) == (line,)


@pytest.mark.parametrize("name", ["a#b", "a\nlink delete dev eth0", 'a"b', "a'b", "a\\", ""])
def test_a_name_that_a_batch_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(KernelError, match="No safe command"):
        delete(replace(RULE, extra=(f"iif {name}",)))


@pytest.mark.parametrize("obj", [replace(LINK, ttl=0), replace(ROUTE, via=None), replace(RULE, priority=0)])
def test_an_object_outside_the_grammar_has_no_command(obj: KernelObject) -> None:
    with pytest.raises(KernelError, match="No safe command"):
        add(obj)


def test_a_preview_never_raises() -> None:
    step = Step(Action.DELETE, ours(replace(RULE, extra=("iif a#b\n",))), None, "not wanted any more")
    (line,) = preview(step)
    assert line.startswith("# No safe command")
    assert "\n" not in line
    assert preview(Step(Action.DELETE, ours(RULE), None, "")) == delete(RULE)
