"""Carrying out a plan: what stands on a failed object is blocked, everything else goes on."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.errors import KernelError, KernelTimeout
from dzagent.kernel.execute import execute
from dzagent.model import Action, Address, Desired, KernelObject, Link, Origin, Result, Route, Rule, Wanted
from dzagent.plan import Ownership, interest, make_plan
from tests.fake_kernel import FakeKernel, Fault

OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
LOCAL, ANY = IPv4Address("198.51.100.7"), IPv4Network("0.0.0.0/0")
LINK = Link("doublezero0", LOCAL, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
OTHER = Link("doublezero1", LOCAL, IPv4Address("192.0.2.2"), 64, 1476, "dzagent:multicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ROUTE = Route(ANY, IPv4Address("169.254.0.0"), "doublezero0", 101, 210)
RULE = Rule(100, IPv4Network("203.0.113.0/24"), ANY, 101, 210)
DESIRED = Desired(
    (
        *(Wanted(obj, Origin("unicast", "x.ip", 1)) for obj in (LINK, ADDRESS, ROUTE, RULE)),
        Wanted(OTHER, Origin("multicast", "tunnel.ip", 1)),
    )
)


def run(kernel: FakeKernel, desired: Desired = DESIRED) -> dict[KernelObject, Result]:
    plan = make_plan(desired, kernel.observe(interest(desired, OWNER)), OWNER)
    return {outcome.step.target: outcome.result for outcome in execute(kernel, plan)}


def test_everything_is_made_in_one_go() -> None:
    kernel = FakeKernel()
    assert set(run(kernel).values()) == {Result.DONE}
    assert run(kernel) == {}


def test_what_stands_on_a_failed_link_is_blocked_and_the_rest_goes_on() -> None:
    kernel = FakeKernel(faults=[Fault(lambda step: step.target == LINK)])
    assert run(kernel) == {
        LINK: Result.TRANSIENT,
        OTHER: Result.DONE,
        ADDRESS: Result.BLOCKED,
        ROUTE: Result.BLOCKED,
        RULE: Result.BLOCKED,
    }
    assert [step.target for step in kernel.applied] == [LINK, OTHER]


def test_a_route_is_blocked_by_its_failed_address_and_a_rule_by_its_route() -> None:
    kernel = FakeKernel(faults=[Fault(lambda step: step.target == ADDRESS, Result.PERMANENT)])
    results = run(kernel)
    assert (results[LINK], results[ROUTE], results[RULE]) == (Result.DONE, Result.BLOCKED, Result.BLOCKED)


def test_deletes_are_always_tried() -> None:
    kernel = FakeKernel()
    run(kernel)
    kernel.faults = [Fault(lambda step: step.target == RULE and step.action is Action.DELETE)]
    results = run(kernel, Desired())
    assert results == {
        RULE: Result.TRANSIENT,
        ROUTE: Result.DONE,
        ADDRESS: Result.DONE,
        LINK: Result.DONE,
        OTHER: Result.DONE,
    }
    assert run(kernel, Desired()) == {RULE: Result.DONE}


def test_a_tool_that_cannot_start_stops_the_pass() -> None:
    kernel = FakeKernel(faults=[Fault(lambda _: True, error=KernelError("no ip"))])
    with pytest.raises(KernelError):
        run(kernel)


def test_a_tool_that_had_to_be_killed_ends_the_plan_and_not_the_pass() -> None:
    kernel = FakeKernel(faults=[Fault(lambda step: step.target == ADDRESS, error=KernelTimeout("ip hangs"))])
    plan = make_plan(DESIRED, kernel.observe(interest(DESIRED, OWNER)), OWNER)
    outcomes = {outcome.step.target: outcome for outcome in execute(kernel, plan)}
    assert {obj: outcome.result for obj, outcome in outcomes.items()} == {
        LINK: Result.DONE,
        OTHER: Result.DONE,
        ADDRESS: Result.TRANSIENT,
        ROUTE: Result.BLOCKED,
        RULE: Result.BLOCKED,
    }
    assert outcomes[ADDRESS].message == "ip hangs"
    assert outcomes[RULE].message == "not tried: ip hangs"
    assert [step.target for step in kernel.applied] == [LINK, OTHER, ADDRESS]
