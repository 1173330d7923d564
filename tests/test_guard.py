"""The guard withholds what would capture a protected destination, and only that."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from dzagent.guard import check
from dzagent.model import Action, KernelObject, Plan, Protected, Route, Rule, Step

ANY = IPv4Network("0.0.0.0/0")
RPC = IPv4Address("192.0.2.50")
PROTECTED = Protected({RPC: "the RPC endpoint"})
NEAR = IPv4Network("192.0.2.0/24")
FAR = IPv4Network("203.0.113.0/24")


def route(dst: IPv4Network, table: int = 254) -> Route:
    return Route(dst, IPv4Address("169.254.0.0"), "doublezero0", table, 210)


def rule(src: IPv4Network, dst: IPv4Network) -> Rule:
    return Rule(100, src, dst, 100, 210)


def plan(*objects: KernelObject, action: Action = Action.ADD) -> Plan:
    steps = [
        Step(action, None, obj, "missing") if action is Action.ADD else Step(action, obj, None, "unwanted")
        for obj in objects
    ]
    return Plan("id", (tuple(steps),))


@pytest.mark.parametrize(
    "obj", [route(NEAR), rule(ANY, NEAR), rule(NEAR, ANY), rule(ANY, ANY), rule(FAR, NEAR)]
)
def test_what_would_capture_is_withheld_and_named(obj: KernelObject) -> None:
    allowed, held = check(plan(obj), PROTECTED)
    assert allowed.phases == ()
    assert held[0].step.target == obj
    assert "RPC" in held[0].reason


@pytest.mark.parametrize("obj", [route(FAR), route(ANY, 101), rule(ANY, FAR), rule(FAR, ANY)])
def test_what_is_safe_passes(obj: KernelObject) -> None:
    allowed, held = check(plan(obj), PROTECTED)
    assert allowed == plan(obj)
    assert held == ()


def test_the_rest_of_a_plan_goes_on() -> None:
    allowed, held = check(plan(rule(ANY, NEAR), rule(ANY, FAR)), PROTECTED)
    assert [step.target for step in allowed.steps] == [rule(ANY, FAR)]
    assert len(held) == 1
    assert allowed.id == "id"


def test_deletes_are_never_withheld() -> None:
    allowed, held = check(plan(route(NEAR), rule(ANY, ANY), action=Action.DELETE), PROTECTED)
    assert len(allowed.steps) == 2
    assert held == ()


def test_addresses_that_may_be_captured_are_passed_on() -> None:
    assert check(plan(rule(ANY, NEAR)), PROTECTED, [RPC])[1] == ()
