"""The kernel part against a real kernel, in a network namespace of its own. (with a stand-in for GRE: e2e/lab/standin.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.kernel.execute import execute
from dzagent.kernel.iproute import IpRoute
from dzagent.model import Address, Desired, KernelObject, Link, Origin, Plan, Result, Route, Rule, Wanted
from dzagent.plan import Ownership, interest, make_plan
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace

OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
LOCAL, ANY = IPv4Address("198.51.100.7"), IPv4Network("0.0.0.0/0")
PEER = IPv4Address("169.254.0.0")
LINK = Link("doublezero0", LOCAL, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
DZ_IP = Address("doublezero0", IPv4Interface("203.0.113.9/32"), "global")
ROUTES = tuple(
    Route(dst, PEER, "doublezero0", table, 210, src)
    for dst, table, src in (
        (ANY, 100, None),
        (ANY, 101, DZ_IP.interface.ip),
        (IPv4Network("192.0.2.64/26"), 254, DZ_IP.interface.ip),
    )
)
RULES = (
    Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210),
    Rule(101, IPv4Network("203.0.113.0/24"), ANY, 101, 210),
)
OBJECTS: tuple[KernelObject, ...] = (LINK, ADDRESS, DZ_IP, *ROUTES, *RULES)
DESIRED = Desired(tuple(Wanted(obj, Origin("unicast", "x.ip", n)) for n, obj in enumerate(OBJECTS, 1)))


@pytest.fixture
def netns() -> Iterator[Namespace]:
    try:
        with namespace(f"dzagent-test-{os.getpid()}") as made:
            yield made
    except LabError as error:
        pytest.skip(f"NOT TESTED: the real kernel. {error}")


def plan(kernel: IpRoute, desired: Desired = DESIRED) -> Plan:
    return make_plan(desired, kernel.observe(interest(desired, OWNER)), OWNER)


def converge(kernel: IpRoute, desired: Desired = DESIRED) -> int:
    """Repeat until the plan is empty; returns the number of rounds."""
    for rounds in range(4):
        current = plan(kernel, desired)
        if not current.phases:
            return rounds
        execute(kernel, current)
    pytest.fail(f"does not converge: {plan(kernel, desired)}")


def test_a_service_comes_up_in_one_round_and_then_rests(netns: Namespace) -> None:
    kernel = IpRoute(netns)
    outcomes = execute(kernel, plan(kernel))
    assert [(o.result, o.message) for o in outcomes] == [(Result.DONE, "")] * len(OBJECTS)
    rest = plan(kernel)
    assert (rest.phases, rest.conflicts) == ((), ())


@pytest.mark.parametrize(
    "edit",
    [
        "link set doublezero0 down",
        "link delete doublezero0",
        "link set doublezero0 mtu 1400",
        "addr del 169.254.0.1/31 dev doublezero0",
        "addr add 10.0.0.1/24 dev doublezero0",
        "addr add 10.9.0.1 peer 10.9.0.2/32 dev doublezero0",
        "addr add 169.254.0.1/31 dev doublezero0 label doublezero0:x scope host",
        "route del 0.0.0.0/0 table 101",
        "route replace 0.0.0.0/0 via 169.254.0.0 dev doublezero0 table 101 proto 210 mtu 1200",
        "route add 10.1.0.0/16 via 169.254.0.0 dev doublezero0 table 100 proto 210",
        "route flush table 100",
        "rule del priority 100",
        "rule add priority 99 from 203.0.113.0/24 table 101 protocol 210",
    ],
)
def test_an_edit_by_somebody_else_is_repaired(netns: Namespace, edit: str) -> None:
    kernel = IpRoute(netns)
    converge(kernel)
    if "label" in edit:
        netns.ip("addr del 169.254.0.1/31 dev doublezero0")
    netns.ip(edit)
    assert plan(kernel).steps
    assert converge(kernel) <= 2


def test_an_endpoint_moves_in_place(netns: Namespace) -> None:
    kernel = IpRoute(netns)
    converge(kernel)
    index = netns.ip("-o link show doublezero0").split(":")[0]
    moved = Link("doublezero0", LOCAL, IPv4Address("192.0.2.9"), 64, 1476, "dzagent:unicast")
    desired = Desired((Wanted(moved, DESIRED.wanted[0].origin), *DESIRED.wanted[1:]))
    assert converge(kernel, desired) == 1
    assert netns.ip("-o link show doublezero0").split(":")[0] == index


ODD = (
    "route add blackhole 192.0.3.0/24 table 101 proto 210",
    "route add 192.0.4.0/24 proto 210 nexthop via 198.51.100.1 weight 2 nexthop via 198.51.100.3 dev eth0",
    "route add 192.0.5.0/24 via 198.51.100.1 dev eth0 onlink tos 0x10 proto 210",
    "route add 192.0.5.0/24 via inet6 fe80::1 dev eth0 proto 210 table 102",
    "route add 192.0.6.0/24 dev eth0 proto 210 table 102 metric 9",
    "route add local 192.0.8.0/24 dev lo proto 210 table 102",
    "route append 192.0.9.0/24 via 198.51.100.1 proto 210",
    "route append 192.0.9.0/24 via 198.51.100.2 proto 210",
    "route add 192.0.10.0/24 encap ip id 5 dst 1.1.1.1 tos 8 dev eth0 proto 210",
    "rule add priority 102 from 203.0.113.0/24 iif eth0 fwmark 0x10/0xff ipproto tcp dport 80 table 101 protocol 210",
    "rule add not priority 103 from 203.0.113.1 blackhole protocol 210",
    "rule add priority 104 from all lookup main suppress_prefixlength 0 protocol 210",
    "rule add priority 105 from 1.2.3.4 goto 32766 protocol 210",
    "rule add priority 106 from 1.2.3.4 uidrange 0-10 oif eth0 table 7 tos 0x10 protocol 210",
    "rule add priority 108 from all lookup 7 suppress_ifgroup 5 protocol 210",
    "rule add priority 109 from all sport 10-20 lookup 7 protocol 210",
    "rule add priority 110 from all nop protocol 210",
)


@pytest.mark.parametrize("desired", [Desired(), DESIRED])
def test_every_odd_object_of_our_protocol_can_be_removed(netns: Namespace, desired: Desired) -> None:
    kernel = IpRoute(netns)
    converge(kernel)
    for command in ODD:
        netns.ip(command)
    assert converge(kernel, desired) <= 2
    if not desired.wanted:
        assert netns.ip("route show table all proto 210") == ""
        assert "doublezero0" not in netns.ip("link show")


def test_foreign_objects_stay_as_they_are(netns: Namespace) -> None:
    for command in (
        "rule add priority 100 to 203.0.113.0/24 table 100 protocol 4",
        "route add 0.0.0.0/0 via 198.51.100.1 table 102 proto 4",
        "route add 192.0.2.64/26 via 198.51.100.1 metric 5 proto 186",
        "link add gre-like type bridge",
    ):
        netns.ip(command)
    shows = ("rule show", "route show table 102", "route show table main", "-br addr show dev eth0")
    before = [netns.ip(show) for show in shows]
    kernel = IpRoute(netns)
    converge(kernel)
    converge(kernel, Desired())
    assert [netns.ip(show) for show in shows] == before


def test_a_key_held_by_another_protocol_is_a_conflict_until_it_leaves(netns: Namespace) -> None:
    netns.ip("route add 0.0.0.0/0 via 198.51.100.1 table 101 proto 4")
    kernel = IpRoute(netns)
    converge(kernel)
    assert "protocol 4" in plan(kernel).conflicts[0].owner
    assert "lookup 101" not in netns.ip("rule show")
    netns.ip("route del 0.0.0.0/0 table 101")
    assert converge(kernel) == 1
    assert plan(kernel).conflicts == ()


def test_an_unmarked_link_of_our_name_is_left_alone(netns: Namespace) -> None:
    netns.ip("link add doublezero0 type bridge")
    netns.ip("addr add 10.0.0.1/24 dev doublezero0")
    kernel = IpRoute(netns)
    assert converge(kernel) == 0
    assert plan(kernel).conflicts
    assert "10.0.0.1" in netns.ip("addr show dev doublezero0")


def test_the_source_towards_an_address(netns: Namespace) -> None:
    kernel = IpRoute(netns)
    assert kernel.source_for(IPv4Address("192.0.2.1")) == LOCAL
    netns.ip("route del default")
    assert kernel.source_for(IPv4Address("192.0.2.1")) is None
