"""Which prefixes the leak guard may hold back, and what people are told about the table."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from dzagent.firewall import LeakGuard, binding, firewall, firewall_problems
from dzagent.model import (
    Action,
    Conflict,
    Desired,
    KernelObject,
    Observed,
    Origin,
    Outcome,
    Plan,
    Result,
    Rule,
    Step,
    Wanted,
)
from dzagent.nftmodel import MARKED, NftSeen, NftSet, NftTable
from dzagent.nftvalues import network_interval

ANY = IPv4Network("0.0.0.0/0")


def prefixes(*texts: str) -> NftTable:
    elements = tuple(sorted(network_interval(IPv4Network(text)) for text in texts))
    return NftTable(
        sets=(
            NftSet("unicast_other", "ipv4_addr", ((1, 1),)),
            NftSet("unicast_prefixes", "ipv4_addr", elements),
        )
    )


def rules(*texts: str) -> list[Rule]:
    both = [
        (Rule(100, ANY, IPv4Network(t), 100, 210), Rule(101, IPv4Network(t), ANY, 101, 210)) for t in texts
    ]
    return [rule for pair in both for rule in pair]


def desired(*objects: KernelObject) -> Desired:
    return Desired(tuple(Wanted(obj, Origin("unicast", "unicast/x", n)) for n, obj in enumerate(objects)))


def guarded(table: NftTable, *routed: str) -> tuple[NftTable, int]:
    found, problems = LeakGuard().limit(desired(table, *rules(*routed)))
    (left,) = (obj for obj in found.objects if isinstance(obj, NftTable))
    return left, len(problems)


def test_a_prefix_that_is_routed_is_guarded() -> None:
    table = prefixes("203.0.113.0/24", "10.0.0.0/8")
    assert guarded(table, "10.0.0.0/8", "203.0.113.0/25", "203.0.113.128/25") == (table, 0)


@pytest.mark.parametrize("hostile", ["0.0.0.0/0", "198.51.100.0/24", "203.0.112.0/23", "203.0.113.0/26"])
def test_a_prefix_that_is_not_is_left_out(hostile: str) -> None:
    left, problems = guarded(prefixes(hostile), "203.0.113.64/26", "10.0.0.0/8")
    assert (left.sets[1].elements, problems) == ((), 1)
    assert left.sets[0].elements == ((1, 1),)


def test_what_is_guarded_lies_in_what_is_routed_as_a_whole() -> None:
    assert guarded(prefixes("203.0.112.0/23"), "203.0.112.0/24")[0].sets[1].elements == ()
    last = prefixes("203.0.113.127/32")
    assert guarded(last, "203.0.113.64/26") == (last, 0)


def test_the_others_go_on() -> None:
    assert guarded(prefixes("10.0.0.0/8", "198.51.100.0/24"), "10.0.0.0/8") == (prefixes("10.0.0.0/8"), 1)


def test_the_same_state_is_the_same_answer() -> None:
    guard, state = LeakGuard(), desired(prefixes("10.0.0.0/8"), *rules("10.0.0.0/8"))
    assert guard.limit(state)[0] is state
    other = desired(prefixes("10.0.0.0/8"))
    assert guard.limit(other)[0] is guard.limit(other)[0]
    assert guard.limit(other)[1]


TABLE = Step(Action.ADD, None, MARKED, "missing")
RULE = Step(Action.ADD, None, rules("10.0.0.0/8")[0], "missing")
PLAN = Plan("x", ((TABLE,), (RULE,)))
FAILED = (Outcome(TABLE, Result.PERMANENT, "Operation not supported"),)
SOME, NONE = desired(MARKED), Desired()
THERE, ABSENT = NftSeen("there", MARKED), NftSeen("absent")
MISSING = NftSeen(reason="NftMissing", message="The program nft was not found.")
CONFLICT = Plan("x", (), (Conflict(SOME.wanted[0], "x", "y"),))


@pytest.mark.parametrize(
    ("state", "seen", "plan", "failing", "status", "reason"),
    [
        (SOME, THERE, Plan("x"), (), "True", "Loaded"),
        (NONE, ABSENT, Plan("x"), (), "True", "NotNeeded"),
        (SOME, ABSENT, PLAN, (), "False", "Waiting"),
        (SOME, ABSENT, PLAN, FAILED, "False", "NotLoaded"),
        (SOME, MISSING, Plan("x"), (), "False", "NftMissing"),
        (NONE, MISSING, Plan("x"), (), "Unknown", "NftMissing"),
        (SOME, NftSeen(), Plan("x"), (), "Unknown", "NotRead"),
        (SOME, THERE, CONFLICT, (), "False", "Conflict"),
        (NONE, THERE, Plan("x"), (), "True", "NotNeeded"),
    ],
)
def test_the_condition(
    state: Desired, seen: NftSeen, plan: Plan, failing: tuple[Outcome, ...], status: str, reason: str
) -> None:
    found = firewall(state, seen, plan, failing)
    assert found[:3] == ("Firewall", status, reason)
    assert found[3]


def test_only_a_table_that_is_needed_is_a_problem() -> None:
    (problem,) = firewall_problems(SOME, Observed(nft=MISSING))
    assert (problem.code, "tunnels work without it" in problem.message) == ("NftMissing", True)
    assert firewall_problems(NONE, Observed(nft=MISSING)) == ()
    assert firewall_problems(SOME, Observed(nft=THERE)) == firewall_problems(SOME, Observed()) == ()


def test_no_service_waits_for_a_table_that_cannot_be_loaded() -> None:
    assert binding(PLAN, FAILED) == (RULE,)
    assert binding(PLAN, ()) == (TABLE, RULE)
