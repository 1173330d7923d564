"""Somebody is faster: what takes our place between the look and the change is as it was afterwards.

In a network namespace of the running kernel, with a stand-in for GRE where it has none (e2e/lab/standin.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.kernel.commands import SPARE_METRIC
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import Completed
from dzagent.model import Action, Address, Interest, KernelObject, Link, Outcome, Result, Route, Rule, Step
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace
from tests.owning import ours

INTEREST = Interest(210, ("doublezero0",))
LINK = Link(
    "doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast", up=True
)
NEAR = Address("doublezero0", IPv4Interface("169.254.0.5/31"), "link")
OWN = Address("doublezero0", IPv4Interface("203.0.113.9/32"), "global")
DST = IPv4Network("198.18.0.0/24")
ROUTE = Route(DST, IPv4Address("169.254.0.4"), "doublezero0", 254, 210, src=OWN.interface.ip)
ODD = replace(ROUTE, src=None, extra=("mtu 1200",))
RULE = Rule(100, IPv4Network("0.0.0.0/0"), DST, 100, 210)

THEIRS = "198.18.0.0/24 via 198.51.100.1 dev eth0"
STEAL = ("route del 198.18.0.0/24 proto 210", f"route add {THEIRS} proto 186")
BRIDGE = ("link delete doublezero0", "link add doublezero0 type bridge", "link set doublezero0 up")
MOVED = ("link set doublezero0 down", "link set doublezero0 name away0", *BRIDGE[1:])
SHOWS = ("-d -4 addr show", "-4 rule show", "-N -d -4 route show table all", "link show")


@dataclass
class Racing:
    """Passes programs on; before the write of this number somebody else does something."""

    net: Namespace
    edits: Sequence[str] = ()
    at: int = -1
    writes: int = 0
    before: dict[str, list[str]] | None = None

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        if tuple(args) == ("-force", "-batch", "-"):
            if self.writes == self.at:
                for edit in self.edits:
                    self.net.ip(edit)
                self.before = self.dump()
            self.writes += 1
        return self.net(program, args, stdin)

    def dump(self) -> dict[str, list[str]]:
        """Return everything in the namespace that does not bear our number."""
        return {
            show: [line for line in self.net.ip(show).splitlines() if "proto 210" not in line]
            for show in SHOWS
        }


@pytest.fixture
def net() -> Iterator[Namespace]:
    try:
        with namespace(f"dzagent-races-{os.getpid()}") as made:
            kernel = IpRoute(made)
            kernel.observe(INTEREST)
            for obj in (LINK, NEAR, OWN):
                done(kernel.apply([Step(Action.ADD, None, obj, "missing")]))
            yield made
    except LabError as error:
        pytest.skip(f"NOT TESTED: the real kernel. {error}")


def done(outcomes: Sequence[Outcome]) -> None:
    assert [outcome.message for outcome in outcomes if outcome.result is not Result.DONE] == []


def change(before: KernelObject, after: KernelObject) -> Step:
    return Step(Action.CHANGE, ours(before), after, "differs")


def test_a_route_is_changed_and_nothing_stays_beside_it(net: Namespace) -> None:
    net.ip("route add 198.18.0.0/24 via 169.254.0.4 dev doublezero0 proto 210 mtu 1200")
    kernel = IpRoute(net)
    assert ODD in kernel.observe(INTEREST).routes
    done(kernel.apply([change(ODD, ROUTE)]))
    assert [route for route in kernel.observe(INTEREST).routes if route.protocol == 210] == [ROUTE]


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "edits",
    [
        STEAL,
        (f"route prepend {THEIRS} proto 186",),
        ("route del 198.18.0.0/24 proto 210", "route add blackhole 198.18.0.0/24 proto 186"),
        ("route del 198.18.0.0/24 proto 210", f"route add {THEIRS} proto static tos 0x10"),
        (f"route add {THEIRS} proto 186 metric 7",),
        (f"route append {THEIRS} proto 186",),
    ],
)
def test_no_route_takes_the_place_of_somebody_s(net: Namespace, edits: Sequence[str], at: int) -> None:
    net.ip("route add 198.18.0.0/24 via 169.254.0.4 dev doublezero0 proto 210 mtu 1200")
    racing = Racing(net, edits, at)
    kernel = IpRoute(racing)
    kernel.observe(INTEREST)
    kernel.apply([change(ODD, ROUTE)])
    assert racing.before is not None
    assert racing.dump() == racing.before
    left = [route for route in kernel.observe(INTEREST).routes if route.protocol == 210]
    assert all(route.metric != SPARE_METRIC for route in left)


def test_a_route_whose_new_form_is_refused_stays_as_it_is(net: Namespace) -> None:
    net.ip("route add 198.18.0.0/24 via 169.254.0.4 dev doublezero0 proto 210 mtu 1200")
    kernel = IpRoute(net)
    kernel.observe(INTEREST)
    wrong = replace(ROUTE, via=IPv4Address("192.0.2.77"))
    (outcome,) = kernel.apply([change(ODD, wrong)])
    assert outcome.result is Result.TRANSIENT
    assert ODD in kernel.observe(INTEREST).routes


STEPS = {
    "link set": change(replace(LINK, mtu=1300), LINK),
    "link up": change(replace(LINK, up=False), LINK),
    "link change": change(replace(LINK, remote=IPv4Address("192.0.2.99")), LINK),
    "link delete": Step(Action.DELETE, ours(LINK), None, "gone"),
    "address add": Step(
        Action.ADD, None, Address("doublezero0", IPv4Interface("10.9.0.1/24"), "global"), "x"
    ),
    "address change": change(NEAR, replace(NEAR, scope="global")),
    "address delete": Step(Action.DELETE, ours(OWN), None, "gone"),
    "rule delete": Step(Action.DELETE, ours(RULE), None, "gone"),
    "rule add": Step(Action.ADD, None, RULE, "missing"),
    "route delete": Step(Action.DELETE, ours(ROUTE), None, "gone"),
    "route add": Step(Action.ADD, None, ROUTE, "missing"),
}
RULES = ("rule add priority 100 to 198.18.0.0/24 table 100 protocol 4",)


@pytest.mark.parametrize(
    ("kind", "edits"),
    [
        *((kind, edits) for kind in STEPS if kind[:4] in {"link", "addr"} for edits in (BRIDGE, MOVED)),
        *((kind, RULES) for kind in ("rule delete", "rule add")),
        *((kind, STEAL[1:]) for kind in ("route delete", "route add")),
    ],
)
def test_nothing_that_is_somebody_else_s_is_changed(net: Namespace, kind: str, edits: Sequence[str]) -> None:
    """Of a link that was renamed we still mean that very link: it is left out of the comparison."""
    racing = Racing(net, edits, 0)
    kernel = IpRoute(racing)
    kernel.observe(INTEREST)
    kernel.apply([STEPS[kind]])
    assert racing.before is not None
    after = racing.dump()
    if edits is MOVED:
        show = "-d link show dev doublezero0"
        assert "bridge" in net.ip(show)
        assert "inet " not in net.ip("-4 addr show dev doublezero0")
        assert "mtu 1500" in net.ip(show)
        assert "UP" in net.ip(show)
        return
    assert after == racing.before
