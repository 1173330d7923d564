"""Fights: told from wishes that change, slowed down, named, and over when it is quiet."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.contested import FIRST_DELAY, MAX_COUNTED, MAX_MADE, MAX_WATCHED, Contest, Fight, rival
from dzagent.model import (
    Action,
    Address,
    KernelObject,
    Link,
    Observed,
    Origin,
    Outcome,
    Result,
    Route,
    Rule,
    Step,
)
from dzagent.policy import Contested
from tests.owning import ours

ANY, GATEWAY = IPv4Network("0.0.0.0/0"), IPv4Address("169.254.0.0")
LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ROUTE = Route(ANY, GATEWAY, "doublezero0", 101, 210)
RULE = Rule(100, IPv4Network("203.0.113.0/24"), ANY, 101, 210)
ORIGIN = Origin("unicast", "unicast/rule.ip", 3)
ADD = Step(Action.ADD, None, RULE, "missing", ORIGIN)
RULES = Contested(after=3, within=100, longest=10, calm=20)


def add(obj: KernelObject) -> Step:
    return Step(Action.ADD, None, obj, "missing", ORIGIN)


def delete(obj: KernelObject) -> Step:
    return Step(Action.DELETE, ours(obj), None, "not wanted any more")


def change(before: KernelObject, after: KernelObject) -> Step:
    return Step(Action.CHANGE, ours(before), after, "differs", ORIGIN)


def contest(rules: Contested = RULES) -> Contest:
    return Contest(rules, chance=lambda: 0.5)


def do(one: Contest, *steps: Step, at: float = 0.0, result: Result = Result.DONE) -> None:
    one.record([Outcome(step, result) for step in steps], at)


def fought(at: float = 0.0) -> Contest:
    """A contest whose rule was made once and repaired three times."""
    one = contest()
    for _ in range(4):
        do(one, ADD, at=at)
    return one


# ---- what is a fight -----------------------------------------------------------------------------------------


def test_the_last_repair_of_the_limit_makes_it_contested() -> None:
    one = contest()
    for n in range(3):
        do(one, ADD, at=n)
        assert one.settle((), n) == ()
        assert one.ready(ADD, n)
    do(one, ADD, at=3)
    assert one.settle((), 3) == (Fight(ADD, 3),)
    assert not one.ready(ADD, 3)


def test_repairs_that_are_far_apart_are_no_fight() -> None:
    one = contest()
    for n in range(20):
        do(one, ADD, at=60.0 * n)
        assert one.settle((), 60.0 * n) == ()


def test_only_what_changed_back_counts() -> None:
    one = contest()
    for n in range(9):
        do(one, add(replace(RULE, table=100 + n)), at=n)
        do(one, change(ROUTE, replace(ROUTE, via=GATEWAY + n)), at=n)
    assert one.settle((), 9) == ()


def test_what_we_take_away_ourselves_and_make_again_is_no_fight() -> None:
    one = contest()
    for n in range(9):
        do(one, ADD, at=n)
        do(one, delete(RULE), at=n)
    assert one.settle((), 9) == ()


def test_our_own_wish_starts_the_count_anew() -> None:
    one = contest()
    do(one, ADD, delete(RULE), ADD)
    for n in range(2):
        do(one, ADD, at=n)
    assert one.ready(ADD, 2)
    do(one, ADD, at=2)
    assert not one.ready(ADD, 2)


@pytest.mark.parametrize(
    ("root", "fought_over"),
    [
        (delete(LINK), set()),
        (delete(ADDRESS), set()),
        (change(replace(ADDRESS, scope="global"), ADDRESS), {ADDRESS}),
        (add(ADDRESS), {ADDRESS}),
        (change(replace(LINK, up=False), LINK), {LINK}),
        (add(LINK), {LINK}),
        (change(replace(LINK, mtu=1400), LINK), {LINK, ROUTE}),
    ],
)
def test_what_goes_with_its_link_or_address_is_not_fought_over_itself(
    root: Step, fought_over: set[KernelObject]
) -> None:
    one = contest()
    do(one, add(LINK), add(ADDRESS), add(ROUTE))
    for n in range(4):
        again = [add(root.target)] if root.after is None else []
        do(one, root, *again, add(ROUTE), at=n)
    assert {fight.step.target for fight in one.settle((), 4)} == fought_over


def test_a_link_that_somebody_keeps_spoiling_is_a_fight_though_we_delete_it_to_rebuild_it() -> None:
    one = contest()
    spoilt = replace(LINK, extra=("ikey 0.0.0.1",))
    do(one, add(LINK), add(ADDRESS))
    for n in range(3):
        do(one, Step(Action.DELETE, ours(spoilt), None, "rebuilt", ORIGIN), add(LINK), add(ADDRESS), at=n)
    assert one.settle((), 3) == (Fight(add(LINK), 3),)
    assert not one.ready(Step(Action.DELETE, ours(spoilt), None, "rebuilt", ORIGIN), 2)
    assert one.ready(delete(spoilt), 2)


def test_what_somebody_keeps_adding_in_our_place_is_a_fight() -> None:
    one, extra = contest(), replace(ADDRESS, interface=IPv4Interface("10.0.0.1/24"))
    for n in range(3):
        do(one, delete(extra), at=n)
    (fight,) = one.settle((), 3)
    assert (fight.step.target, fight.count) == (extra, 3)
    do(one, delete(extra), at=3, result=Result.GONE)
    assert one.settle((), 3) == (fight,), "what was gone already is not counted"


def test_losing_a_race_again_and_again_is_a_fight() -> None:
    one = contest()
    for n in range(3):
        assert one.ready(ADD, n)
        do(one, ADD, at=n, result=Result.RACED)
    assert not one.ready(ADD, 2)


@pytest.mark.parametrize("result", [Result.TRANSIENT, Result.PERMANENT, Result.BLOCKED])
def test_failures_are_no_fight(result: Result) -> None:
    one = contest()
    for n in range(9):
        do(one, ADD, at=n, result=result)
    assert one.settle((ADD,), 9) == ()


# ---- how it slows down ---------------------------------------------------------------------------------------


def test_each_pause_is_twice_as_long_up_to_the_limit() -> None:
    one, now, pauses = fought(), 0.0, []
    for _ in range(6):
        one.settle((ADD,), now)
        due = one.next_due()
        assert due is not None
        assert not one.ready(ADD, due - 0.001)
        assert one.ready(ADD, due)
        pauses.append(due - now)
        now = due
        do(one, ADD, at=now)
    assert pauses == [FIRST_DELAY, 2, 4, 8, 10, 10]


def test_a_pause_has_jitter() -> None:
    for chance, expected in ((0.0, 0.75), (1.0, 1.25)):
        one = Contest(RULES, chance=iter([chance]).__next__)
        for _ in range(4):
            do(one, ADD)
        one.settle((ADD,), 0)
        assert one.next_due() == expected


def test_others_and_other_wishes_do_not_wait() -> None:
    one = fought()
    assert one.ready(add(replace(RULE, priority=7)), 0)
    assert one.ready(delete(RULE), 0)
    moved = replace(RULE, src=IPv4Network("203.0.112.0/24"))
    assert one.ready(add(moved), 0)
    assert one.ready(change(replace(LINK, mtu=1), LINK), 0)


def test_what_waits_is_shown_as_an_outcome() -> None:
    one = fought()
    (outcome,) = one.standing((ADD, add(ROUTE)))
    assert (outcome.step, outcome.result) == (ADD, Result.CONTESTED)
    assert "3 repairs within 100 s" in outcome.message
    assert contest().standing((ADD,)) == ()


# ---- how it ends ---------------------------------------------------------------------------------------------


def test_a_fight_is_over_when_it_has_been_quiet() -> None:
    one = fought()
    one.settle((ADD,), 0.5)
    do(one, ADD, at=1)
    assert one.settle((), 1)
    assert one.next_due() == 21
    assert one.settle((), 20.9)
    assert one.settle((), 21) == ()
    assert one.next_due() is None
    do(one, ADD, at=22)
    assert one.settle((), 22) == (), "it starts anew"


def test_a_slow_fight_is_not_over_between_two_blows() -> None:
    one = contest(Contested(after=3, within=600, longest=10, calm=20))
    do(one, ADD, at=0)
    for n in range(1, 8):
        one.settle((), 100.0 * n - 99)
        one.settle((ADD,), 100.0 * n - 1)
        do(one, ADD, at=100.0 * n)
        assert bool(one.settle((), 100.0 * n + 90)) == (n >= 3)
    assert one.settle((), 700.0 + 199)
    assert one.settle((), 700.0 + 310) == ()


def test_the_pause_before_a_repair_is_no_time_that_it_lasted() -> None:
    one = contest(Contested(after=3, within=600, longest=60, calm=20))
    now = 0.0
    for _ in range(9):
        do(one, ADD, at=now)
        one.settle((ADD,), now)
        one.settle((ADD,), now + 1)
        now = one.next_due() or now
    do(one, ADD, at=now)
    one.settle((), now)
    assert one.settle((), now + 19)
    assert one.settle((), now + 20) == ()


def test_a_wish_that_changes_ends_the_fight() -> None:
    one = fought()
    do(one, delete(RULE), at=1)
    assert one.settle((), 1) == ()
    one = contest()
    for _ in range(4):
        do(one, add(ROUTE))
    assert one.settle((), 0)
    do(one, add(replace(ROUTE, via=GATEWAY + 2)), at=1, result=Result.RACED)
    assert one.settle((), 1) == ()
    one = contest()
    for _ in range(4):
        do(one, add(ROUTE))
    do(one, change(ROUTE, replace(ROUTE, via=GATEWAY + 2)), at=1)
    assert one.settle((), 1) == ()


def test_memory_is_bounded() -> None:
    one = contest()
    routes = [add(replace(ROUTE, dst=IPv4Network((n << 8, 24)), table=7)) for n in range(MAX_MADE + 10)]
    do(one, *routes)
    assert len(one._made) == MAX_MADE
    extra = [delete(replace(ROUTE, dst=IPv4Network((n << 8, 24)), table=8)) for n in range(MAX_WATCHED + 10)]
    do(one, *extra)
    assert len(one._watched) == MAX_WATCHED
    one.settle((), RULES.within)
    assert one._watched
    one.settle((), 1000)
    assert not one._watched
    for _ in range(1500):
        do(one, ADD, at=1000)
    assert one.settle((), 1000)[0].count == MAX_COUNTED


def test_a_flood_of_thousands_is_a_fight_over_each() -> None:
    one = contest()
    routes = [add(replace(ROUTE, dst=IPv4Network((n << 8, 24)))) for n in range(10_000)]
    for n in range(4):
        do(one, *routes, at=n)
    assert len(one.settle((), 4)) == len(routes)
    assert not any(one.ready(step, 3) for step in routes)


# ---- who it is -----------------------------------------------------------------------------------------------


def test_what_took_its_place_is_named() -> None:
    theirs = replace(ROUTE, protocol=186, dev="eth0")
    assert (
        rival(add(ROUTE), Observed(routes=(ROUTE, theirs))) == "a route of protocol 186 (bgp) is in its place"
    )
    assert rival(add(ROUTE), Observed(routes=(replace(theirs, table=100), ROUTE))) == ""
    rules = (replace(RULE, protocol=99, table=7), RULE)
    assert rival(ADD, Observed(rules=rules)) == "a rule of protocol 99 (openr) is in its place"
    assert rival(ADD, Observed(rules=(replace(rules[0], priority=1),))) == ""
    assert rival(delete(RULE), Observed(rules=rules)) == ""
    assert rival(add(LINK), Observed()) == ""


def test_a_fight_outlives_the_window_while_its_object_is_missing() -> None:
    one = fought()
    one.settle((ADD,), 1)
    assert one.settle((ADD,), 500) == (Fight(ADD, 0),)
    do(one, ADD, at=501)
    assert one.settle((), 501) == (Fight(ADD, 1),)


def test_a_fight_that_slows_down_is_still_one_where_few_repairs_are_left_in_the_window() -> None:
    one = contest(replace(RULES, within=10, calm=500))
    for n in range(4):
        do(one, ADD, at=n)
    assert one.next_due() == 3 + FIRST_DELAY
    do(one, ADD, at=50)
    assert one.next_due() == 50 + 2 * FIRST_DELAY
    assert one.settle((ADD,), 50) == (Fight(ADD, 1),)


def test_the_window_holds_what_is_exactly_as_old_as_it_is_long() -> None:
    one = contest(replace(RULES, within=10))
    for at in (0, 0, 5, 10):
        do(one, ADD, at=at)
    assert not one.ready(ADD, 10)


def test_links_are_named_before_what_stands_on_them() -> None:
    one = contest()
    for obj in (RULE, LINK, ROUTE):
        for _ in range(4):
            do(one, change(replace(LINK, mtu=1400), LINK) if obj is LINK else add(obj))
    assert [fight.step.target for fight in one.fights()] == [LINK, RULE, ROUTE]


def test_one_repair_is_said_in_the_singular() -> None:
    assert "1 repair within 100 s" in contest().sentence(1)
    assert "2 repairs within 100 s" in contest().sentence(2)
