"""How much may go without a proven cause."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.held import removal
from dzagent.model import (
    Action,
    Address,
    Desired,
    KernelObject,
    Link,
    Observed,
    Origin,
    Plan,
    Route,
    Rule,
    SeenLink,
    ServiceName,
    Step,
    Wanted,
)
from dzagent.nftmodel import NftChain, NftRule, NftTable, NftVerdict
from dzagent.ownership import Ownership
from dzagent.plan import make_plan
from dzagent.policy import GuardRules
from dzagent.volume import Unproven, excessive, removed, too_large_a_share, too_many, too_often
from tests.owning import ours

ANY = IPv4Network("0.0.0.0/0")
LINKS: dict[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
VIA = IPv4Address("169.254.0.0")
RULES = tuple(Rule(100, ANY, IPv4Network(f"203.0.{n}.0/24"), 100, 210) for n in range(20))
LEARNED = tuple(Route(IPv4Network(f"203.1.{n}.0/24"), VIA, "doublezero0", 254, 210) for n in range(50))
FOREIGN = Rule(100, ANY, IPv4Network("10.0.0.0/8"), 7, 4)
SEEN = Observed(
    links=(SeenLink("doublezero0", 9, "gre", up=True, mtu=1476, alias="dzagent:unicast", tunnel=LINK),),
    addresses=(ADDRESS,),
    routes=LEARNED,
    rules=(*RULES, FOREIGN),
)
WHY = Unproven({"unicast": "the templates have changed"})
LOOSE = GuardRules(removals=1000, share=100, per_hour=1000)


def plan(*wanted: KernelObject, seen: Observed = SEEN) -> Plan:
    return make_plan(Desired(tuple(Wanted(obj, Origin("unicast", "x", 1)) for obj in wanted)), seen, OWNER)


def withheld(
    made: Plan, limits: GuardRules, unproven: Unproven = WHY, seen: Observed = SEEN
) -> tuple[int, str]:
    """Return how many steps are withheld, and why."""
    held = excessive(made, seen, unproven, limits, LINKS, 210)
    assert len({item.id for item in held}) <= 1
    return len(held), held[0].reason if held else ""


LESS_TEN = plan(LINK, ADDRESS, *LEARNED, *RULES[10:])


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        (LOOSE, 0),
        (replace(LOOSE, removals=10), 0),
        (replace(LOOSE, removals=9), 10),
        (replace(LOOSE, share=14), 0),  # 10 of 72
        (replace(LOOSE, share=13), 10),
        (replace(LOOSE, per_hour=10), 0),
        (replace(LOOSE, per_hour=9), 10),
    ],
)
def test_each_limit_withholds_all_of_it(limits: GuardRules, count: int) -> None:
    assert withheld(LESS_TEN, limits)[0] == count


def test_the_reason_has_the_numbers_and_what_changed() -> None:
    reason = withheld(LESS_TEN, GuardRules(removals=3, share=5, per_hour=4))[1]
    assert reason == (
        "10 of 72 objects of the unicast service would go, which is still provided, and the only cause is that the "
        "templates have changed (guard.removals is 3; that is 14 %, guard.share is 5 %; 0 went within the last hour, "
        "guard.per_hour is 4)."
    )


def test_what_has_a_proven_cause_is_not_limited() -> None:
    none = GuardRules(removals=0, share=0, per_hour=0)
    assert withheld(LESS_TEN, none, Unproven()) == (0, "")
    assert withheld(LESS_TEN, none, Unproven({"multicast": "the policy has changed"})) == (0, "")
    explained = replace(WHY, explained=frozenset(removal(rule) for rule in RULES[:10]))
    assert withheld(LESS_TEN, none, explained) == (0, "")


def test_learned_routes_go_by_the_engine_s_word_unless_a_filter_may_have_taken_them() -> None:
    none = GuardRules(removals=0, share=0, per_hour=0)
    fewer = plan(LINK, ADDRESS, *RULES)
    assert withheld(fewer, none) == (0, "")
    assert withheld(fewer, none, replace(WHY, refusing=frozenset({"unicast"})))[0] == len(LEARNED)


def test_a_link_counts_with_what_it_takes_along() -> None:
    gone = plan(*RULES)
    assert any(isinstance(step.target, Link) for step in gone.steps)
    count, reason = withheld(gone, GuardRules())
    assert count
    assert reason.startswith("52 of 72 objects")


def test_a_rebuilt_link_does_not_go() -> None:
    odd = replace(LINK, extra=("ikey 7",))
    seen = replace(SEEN, links=(replace(SEEN.links[0], tunnel=odd),))
    rebuilt = plan(LINK, ADDRESS, *LEARNED, *RULES, seen=seen)
    assert [step.action.value for step in rebuilt.steps][:1] == ["delete"]
    assert withheld(rebuilt, GuardRules(removals=0, share=0, per_hour=0), seen=seen) == (0, "")


def test_what_went_before_counts() -> None:
    assert withheld(LESS_TEN, replace(LOOSE, per_hour=16), replace(WHY, recent={"unicast": 7}))[0] == 10
    assert withheld(LESS_TEN, replace(LOOSE, per_hour=17), replace(WHY, recent={"unicast": 7}))[0] == 0


def test_what_went_counts_if_it_worked_and_nothing_explains_it() -> None:
    """Ten rules, and of the table one rule of two."""
    drop = NftRule((NftVerdict("drop"),))
    table = NftTable((NftChain("unicast_a", None, (drop, drop)),))
    less = replace(table, chains=(NftChain("unicast_a", None, (drop,)),))
    change = Step(Action.CHANGE, ours(table), less, "differs")
    whole = replace(LESS_TEN, phases=(*LESS_TEN.phases, (change,)))
    ids = {id(step) for step in whole.steps}
    assert removed(whole, "unicast", WHY, LINKS, ids) == 11
    assert removed(whole, "unicast", WHY, LINKS, ids - {id(change)}) == 10
    assert removed(whole, "unicast", WHY, LINKS, {id(change)}) == 1
    assert removed(whole, "unicast", WHY, LINKS, set()) == 0
    assert removed(whole, "unicast", Unproven(), LINKS, ids) == 0
    assert removed(whole, "unicast", replace(WHY, tables=False), LINKS, ids) == 10
    assert withheld(whole, replace(LOOSE, share=49))[0] == 11, "half of what is in the table would go"
    assert withheld(whole, replace(LOOSE, share=50))[0] == 0
    assert withheld(whole, replace(LOOSE, removals=10))[0] == 11
    assert withheld(whole, replace(LOOSE, removals=11))[0] == 0


def test_the_limits_one_by_one() -> None:
    limits = GuardRules(removals=3, share=25, per_hour=5)
    assert (too_many(3, limits), too_many(4, limits)) == (None, "guard.removals is 3")
    assert too_large_a_share(1, 4, limits) is None
    assert too_large_a_share(2, 4, limits) == "that is 50 %, guard.share is 25 %"
    assert too_often(2, 3, limits) is None
    assert too_often(3, 3, limits) == "3 went within the last hour, guard.per_hour is 5"


def test_only_what_is_ours_and_of_the_service_counts_into_the_whole() -> None:
    other = replace(LINK, name="doublezero1", remote=IPv4Address("192.0.2.2"), alias="dzagent:multicast")
    crowded = replace(
        SEEN,
        links=(
            *SEEN.links,
            SeenLink("eth0", 2, "", up=True, mtu=1500),
            SeenLink("doublezero1", 10, "gre", up=True, mtu=1476, alias=other.alias, tunnel=other),
        ),
        addresses=(ADDRESS, Address("eth0", IPv4Interface("198.51.100.7/24"), "global")),
        routes=(*LEARNED, Route(ANY, VIA, "doublezero0", 254, 4)),
    )
    assert " of 72 objects " in withheld(plan(*RULES, seen=crowded), GuardRules(), seen=crowded)[1]


def test_all_of_one_object_is_all() -> None:
    assert too_large_a_share(1, 1, replace(LOOSE, share=99)) == "that is 100 %, guard.share is 99 %"
