"""The guard withholds what would capture a protected destination, and only that."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.guard import check, own_addresses, withhold
from dzagent.model import (
    Action,
    Address,
    Desired,
    KernelObject,
    Link,
    Origin,
    Plan,
    Protected,
    Route,
    Rule,
    Step,
    Wanted,
)
from dzagent.protect import SSH_LOCAL, SSH_PEER
from tests.owning import ours

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
        Step(action, None, obj, "missing")
        if action is Action.ADD
        else Step(action, ours(obj), None, "unwanted")
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


# ---- sessions that come and go ---------------------------------------------------------------------------------

ADMIN, OWN = IPv4Address("203.0.113.77"), IPv4Address("203.0.113.9")
SESSIONS = Protected({RPC: "the RPC endpoint", ADMIN: SSH_PEER, OWN: SSH_LOCAL})


def test_an_ssh_session_withholds_what_is_new_and_not_the_repair_of_what_was_there() -> None:
    half = plan(rule(ANY, FAR))
    allowed, held = check(half, SESSIONS)
    assert (allowed.phases, len(held)) == ((), 1)
    assert check(half, SESSIONS, installed=[FAR]) == (half, ())


def test_anything_else_withholds_what_was_there_as_well() -> None:
    allowed, held = check(plan(rule(ANY, NEAR)), SESSIONS, installed=[NEAR])
    assert (allowed.phases, len(held)) == ((), 1)


# ---- the desired state -----------------------------------------------------------------------------------------


def desired(*objects: KernelObject) -> Desired:
    return Desired(tuple(Wanted(obj, Origin("unicast", "rule.ip", n)) for n, obj in enumerate(objects, 1)))


def test_what_would_capture_is_not_desired_and_the_rest_is() -> None:
    left, held = withhold(desired(rule(ANY, FAR), rule(NEAR, ANY), route(ANY, 101)), PROTECTED)
    assert left.objects == (rule(ANY, FAR), route(ANY, 101))
    assert [(item.step.target, str(item.step.origin)) for item in held] == [(rule(NEAR, ANY), "rule.ip:2")]
    assert "RPC" in held[0].reason


def test_a_safe_state_is_left_as_it_is() -> None:
    whole = desired(rule(ANY, FAR), rule(FAR, ANY))
    assert withhold(whole, PROTECTED) == (whole, ())
    assert withhold(whole, SESSIONS, installed=[FAR]) == (whole, ())
    assert withhold(whole, SESSIONS, [ADMIN, OWN]) == (whole, ())
    assert withhold(whole, SESSIONS, [OWN])[0] == Desired()


def test_own_addresses_are_those_on_our_links_that_no_tunnel_ends_at() -> None:
    client, far = IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1")
    link = Link("doublezero0", client, far, 64, 1476, "dzagent:unicast")
    overlay = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
    single = Address("doublezero0", IPv4Interface(f"{OWN}/32"), "global")
    assert own_addresses(desired(link, overlay, single, rule(ANY, FAR))) == (OWN,)
    both = Address("doublezero0", IPv4Interface(f"{client}/32"), "global")
    assert own_addresses(desired(link, overlay, both)) == ()


# ---- learned hosts, and what is installed ----------------------------------------------------------------------

PEER = IPv4Address("203.0.113.9")
SSH = Protected({PEER: SSH_PEER})
HOST, PAIR = IPv4Network("203.0.113.9/32"), IPv4Network("203.0.113.8/31")


def learned(dst: IPv4Network, file: str = "learned/unicast.routes") -> Plan:
    step = Step(Action.ADD, None, route(dst), "missing", Origin("unicast", file, 0))
    return Plan("id", ((step,),))


@pytest.mark.parametrize(
    ("made", "ssh_hosts", "passes"),
    [
        (learned(HOST), True, True),
        (learned(HOST), False, False),
        (learned(PAIR), True, False),
        (learned(HOST, "unicast/route.ip"), True, False),
        (plan(route(HOST)), True, False),
        (plan(rule(ANY, HOST)), True, False),
    ],
)
def test_only_a_learned_host_may_be_an_ssh_peer_and_only_if_that_is_said(
    made: Plan, ssh_hosts: bool, passes: bool
) -> None:
    allowed, held = check(made, SSH, ssh_hosts=ssh_hosts)
    assert (allowed.steps == made.steps, held == ()) == (passes, passes)


def test_nobody_who_asks_for_nothing_lets_a_learned_host_be_an_ssh_peer() -> None:
    assert check(learned(HOST), SSH)[1]


def test_a_learned_host_may_not_be_anything_else_that_is_protected() -> None:
    assert check(learned(IPv4Network((RPC, 32))), PROTECTED, ssh_hosts=True)[1]


def test_what_is_installed_excuses_that_prefix_alone() -> None:
    made = plan(rule(ANY, FAR))
    assert check(made, SSH, installed=[FAR])[1] == ()
    assert check(made, SSH, installed=[NEAR])[1]
    assert check(made, SSH, installed=[])[1]


def test_half_of_all_addresses_counts_as_a_side_of_a_rule() -> None:
    half = IPv4Network("128.0.0.0/1")
    assert check(plan(rule(half, FAR)), PROTECTED)[1]
    assert check(plan(rule(FAR, half)), PROTECTED)[1]
