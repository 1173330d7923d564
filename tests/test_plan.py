"""The plan: smallest changes, only ours, reasons for a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

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
from dzagent.nftmodel import NftSeen
from dzagent.ownership import Claims, LinkClaim
from dzagent.plan import MAX_EXACT, Ownership, exact_keys, interest, make_plan, plan_changes
from dzagent.plan_links import printable

OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
LOCAL, ANY = IPv4Address("198.51.100.7"), IPv4Network("0.0.0.0/0")
LINK = Link("doublezero0", LOCAL, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
OTHER = Link("doublezero1", LOCAL, IPv4Address("192.0.2.2"), 64, 1476, "dzagent:multicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ROUTE = Route(ANY, IPv4Address("169.254.0.0"), "doublezero0", 101, 210)
RULE = Rule(100, IPv4Network("203.0.113.0/24"), ANY, 101, 210)
FOREIGN = Route(ANY, IPv4Address("198.51.100.1"), "eth0", 101, 4)


def want(*objects: KernelObject, service: ServiceName = "unicast") -> Desired:
    return Desired(tuple(Wanted(obj, Origin(service, "x.ip", n)) for n, obj in enumerate(objects, 1)))


ALL = want(LINK, ADDRESS, ROUTE, RULE)


def seen(link: Link, kind: str = "gre", index: int = 7) -> SeenLink:
    tunnel = link if kind == "gre" else None
    return SeenLink(link.name, index, kind, link.up, link.mtu, link.alias, tunnel)


def state(*objects: KernelObject | SeenLink) -> Observed:
    return Observed(
        tuple(o if isinstance(o, SeenLink) else seen(o) for o in objects if isinstance(o, Link | SeenLink)),
        tuple(o for o in objects if isinstance(o, Address)),
        tuple(o for o in objects if isinstance(o, Route)),
        tuple(o for o in objects if isinstance(o, Rule)),
    )


def plan(desired: Desired, *objects: KernelObject | SeenLink) -> Plan:
    return make_plan(desired, state(*objects), OWNER)


def brief(steps: Iterable[Step]) -> list[tuple[Action, KernelObject]]:
    return [(step.action, step.target) for step in steps]


def test_equal_states_give_an_empty_plan() -> None:
    result = plan(ALL, LINK, ADDRESS, ROUTE, RULE)
    assert (result.phases, result.conflicts) == ((), ())


def test_up_goes_link_address_route_rule() -> None:
    result = plan(ALL)
    assert [brief(phase) for phase in result.phases] == [
        [(Action.ADD, obj)] for obj in (LINK, ADDRESS, ROUTE, RULE)
    ]
    assert {step.reason for step in result.steps} == {"missing"}
    assert [str(step.origin) for step in result.steps] == ["x.ip:1", "x.ip:2", "x.ip:3", "x.ip:4"]


def test_down_goes_the_other_way() -> None:
    result = plan(Desired(), LINK, ADDRESS, ROUTE, RULE)
    assert [brief(phase) for phase in result.phases] == [
        [(Action.DELETE, obj)] for obj in (RULE, ROUTE, ADDRESS, LINK)
    ]


def test_new_comes_before_old_goes() -> None:
    old = replace(RULE, priority=90)
    result = plan(ALL, LINK, ADDRESS, ROUTE, old)
    assert brief(result.steps) == [(Action.ADD, RULE), (Action.DELETE, old)]


# ---- links ---------------------------------------------------------------------------------------------------


def test_a_link_is_changed_in_place_and_the_reason_says_what() -> None:
    (step,) = plan(ALL, replace(LINK, remote=IPv4Address("192.0.2.9")), ADDRESS, ROUTE, RULE).steps
    assert step.action is Action.CHANGE
    assert step.reason == "differs: remote 192.0.2.9 -> 192.0.2.1"


@pytest.mark.parametrize("edit", [replace(LINK, alias=""), replace(LINK, alias="", up=False)])
def test_an_unmarked_link_is_adopted_if_it_is_what_we_would_make(edit: Link) -> None:
    result = plan(ALL, edit, ADDRESS, ROUTE, RULE)
    assert brief(result.steps) == [(Action.CHANGE, LINK)]
    assert result.conflicts == ()


@pytest.mark.parametrize(
    "other",
    [
        seen(replace(LINK, alias=""), "vxlan"),
        seen(replace(LINK, alias="", ttl=32)),
        seen(replace(LINK, alias="theirs")),
        seen(replace(LINK, alias="theirs", extra=("ikey 0.0.0.1",))),
    ],
)
def test_an_unmarked_link_of_our_name_is_a_conflict_and_nothing_stands_on_it(other: SeenLink) -> None:
    foreign = Address("doublezero0", IPv4Interface("10.0.0.1/24"), "global")
    result = plan(ALL, other, foreign)
    assert result.phases == ()
    (conflict,) = result.conflicts
    assert conflict.wanted.obj == LINK
    assert "doublezero0" in conflict.owner
    assert conflict.advice


def test_a_person_is_told_why_a_link_is_not_adopted() -> None:
    def advice(other: SeenLink) -> str:
        return plan(ALL, other).conflicts[0].advice

    assert "not adopted because it differs: ttl 32 -> 64." in advice(
        seen(replace(LINK, alias="", ttl=32, up=False))
    )
    assert advice(seen(replace(LINK, alias="x"))) == (
        "It bears somebody's alias; if nobody needs it, `ip link set dev doublezero0 alias ''` lets the agent adopt "
        "it. Else: remove it with `ip link delete doublezero0`, or choose another name in the configuration."
    )
    assert advice(seen(replace(LINK, alias=""), "vxlan")).startswith("Remove it with `ip link delete")


def test_an_unmarked_link_that_is_not_wanted_stays_with_its_addresses() -> None:
    assert plan(Desired(), seen(replace(LINK, alias="")), ADDRESS).phases == ()


def test_a_marked_link_of_another_kind_is_rebuilt_with_all_that_stands_on_it() -> None:
    result = plan(ALL, seen(LINK, "vxlan"), ADDRESS, ROUTE, RULE)
    first = result.phases[0][0]
    assert (first.action, first.target.extra) == (Action.DELETE, ("kind vxlan",))
    assert result.phases[0][0].reason == "rebuilt: it is of kind vxlan, not gre"
    assert plan(ALL, seen(LINK, "")).phases[0][0].reason == "rebuilt: it is of kind unknown, not gre"
    assert brief(result.steps[1:]) == [(Action.ADD, obj) for obj in (LINK, ADDRESS, ROUTE)]


def test_a_link_with_a_key_is_rebuilt() -> None:
    edited = replace(LINK, extra=("ikey 0.0.0.1",))
    assert brief(plan(want(LINK), edited).steps) == [(Action.DELETE, edited), (Action.ADD, LINK)]


def test_a_link_in_a_bridge_leaves_it_in_place() -> None:
    (step,) = plan(want(LINK), replace(LINK, extra=("master br0",))).steps
    assert (step.action, step.reason) == (Action.CHANGE, "differs: extra master br0 -> none")


def test_an_unwanted_link_of_ours_makes_room_for_its_endpoints() -> None:
    old = replace(OTHER, remote=LINK.remote)
    result = plan(want(LINK), old)
    assert brief(result.steps) == [(Action.DELETE, old), (Action.ADD, LINK)]
    assert len(result.phases) == 2


def test_links_move_in_the_order_in_which_endpoints_become_free() -> None:
    moved = replace(OTHER, remote=IPv4Address("192.0.2.3"))
    wanted = Desired(
        (*want(replace(LINK, remote=OTHER.remote)).wanted, *want(moved, service="multicast").wanted)
    )
    result = plan(wanted, LINK, OTHER)
    assert brief(result.steps) == [
        (Action.CHANGE, moved),
        (Action.CHANGE, replace(LINK, remote=OTHER.remote)),
    ]


def test_links_that_swap_endpoints_are_untangled() -> None:
    first, second = replace(LINK, remote=OTHER.remote), replace(OTHER, remote=LINK.remote)
    wanted = Desired((*want(first).wanted, *want(second, service="multicast").wanted))
    steps = brief(plan(wanted, LINK, OTHER).steps)
    assert steps[0] == (Action.DELETE, OTHER)
    assert set(steps[1:]) == {(Action.CHANGE, first), (Action.ADD, second)}
    assert steps[1] == (Action.CHANGE, first)


def test_a_link_that_is_rebuilt_anyway_makes_room_for_the_one_it_swaps_with() -> None:
    edited = replace(LINK, extra=("external",))
    first, second = replace(LINK, remote=OTHER.remote), replace(OTHER, remote=LINK.remote)
    wanted = Desired((*want(first).wanted, *want(second, service="multicast").wanted))
    assert brief(plan(wanted, edited, OTHER).steps) == [
        (Action.DELETE, edited),
        (Action.CHANGE, second),
        (Action.ADD, first),
    ]


def test_a_link_of_ours_under_another_name_goes_first_and_the_reason_says_so() -> None:
    known = replace(OWNER, claims=Claims((LinkClaim("doublezero0", 7, "gre"),)))
    step, *_ = make_plan(want(LINK), state(replace(LINK, name="old0")), known).steps
    assert (step.action, step.reason) == (Action.DELETE, "renamed: it is a link of ours under another name")
    (step,) = plan(Desired(), LINK).steps
    assert step.reason == "not wanted any more"


def test_two_wanted_links_with_the_same_endpoints_are_a_conflict() -> None:
    second = replace(OTHER, remote=LINK.remote)
    result = plan(Desired((*want(LINK).wanted, *want(second, service="multicast").wanted)))
    assert brief(result.steps) == [(Action.ADD, LINK)]
    assert result.conflicts[0].wanted.obj == second


def test_a_foreign_tunnel_with_our_endpoints_is_a_conflict() -> None:
    result = plan(ALL, replace(LINK, name="gre7", alias=""))
    assert result.phases == ()
    assert "gre7" in result.conflicts[0].owner


def test_an_alternative_name_of_another_link_is_a_conflict() -> None:
    other = SeenLink("eth0", 2, "", up=True, mtu=1500, altnames=("enp1s0", "doublezero0"))
    made = plan(ALL, other)
    assert made.steps == ()
    (conflict,) = made.conflicts
    assert conflict.owner == "link eth0, which has it as an alternative name"
    assert "ip link property del dev eth0 altname doublezero0" in conflict.advice


def test_names_and_aliases_of_others_cannot_forge_a_line() -> None:
    evil = "x\n\x1b[2J"
    conflicts = [
        *plan(ALL, replace(LINK, name=evil, alias="")).conflicts,
        *plan(ALL, seen(replace(LINK, alias=evil), evil)).conflicts,
    ]
    known = replace(OWNER, claims=Claims((LinkClaim("doublezero0", 7, "gre"),)))
    (step,) = make_plan(want(LINK), state(replace(LINK, alias=evil)), known).steps
    said = [text for conflict in conflicts for text in (conflict.owner, conflict.advice)] + [step.reason]
    assert len(said) == 5
    assert all(text.isprintable() for text in said)
    assert printable(evil) == r"x\n\x1b[2J"
    kinds = (plan(ALL, seen(replace(LINK, alias="x"), kind)).conflicts[0].owner for kind in ("vxlan", ""))
    assert list(kinds) == [f"link doublezero0 of kind {kind}, alias 'x'" for kind in ("vxlan", "unknown")]


def test_a_foreign_tunnel_with_a_key_is_not_in_the_way() -> None:
    assert plan(want(LINK), replace(LINK, name="gre7", alias="", extra=("ikey 0.0.0.1",))).conflicts == ()


# ---- addresses, routes, rules --------------------------------------------------------------------------------


def test_a_scope_is_changed() -> None:
    (step,) = plan(ALL, LINK, replace(ADDRESS, scope="global"), ROUTE, RULE).steps
    assert (step.action, step.reason) == (Action.CHANGE, "differs: scope global -> link")


def test_an_address_with_another_peer_is_another_address_and_one_with_a_label_is_the_same() -> None:
    peered = replace(ADDRESS, extra=("peer 169.254.0.8/31",))
    assert brief(plan(ALL, LINK, peered, ROUTE, RULE).steps) == [
        (Action.ADD, ADDRESS),
        (Action.DELETE, peered),
    ]
    labelled = replace(ADDRESS, extra=("label doublezero0:x",))
    assert brief(plan(ALL, LINK, labelled, ROUTE, RULE).steps) == [(Action.CHANGE, ADDRESS)]


def test_addresses_on_our_links_are_ours_and_others_are_not() -> None:
    extra = Address("doublezero0", IPv4Interface("10.0.0.1/24"), "global")
    elsewhere = Address("eth0", IPv4Interface("10.0.0.2/24"), "global")
    assert brief(plan(ALL, LINK, ADDRESS, extra, elsewhere, ROUTE, RULE).steps) == [(Action.DELETE, extra)]


def test_an_address_without_a_link_of_ours_is_said() -> None:
    result = plan(want(replace(ADDRESS, dev="eth0")))
    assert result.phases == ()
    assert "eth0" in result.conflicts[0].owner


def test_a_route_of_ours_with_the_same_key_is_changed() -> None:
    wrong = replace(ROUTE, src=LOCAL)
    (step,) = plan(ALL, LINK, ADDRESS, wrong, RULE).steps
    assert (step.action, step.before) == (Action.CHANGE, wrong)
    assert step.reason == "differs: src 198.51.100.7 -> none"


def test_a_route_of_ours_with_a_tos_is_another_route() -> None:
    odd = replace(ROUTE, extra=("tos 0x10",))
    assert brief(plan(ALL, LINK, ADDRESS, odd, RULE).steps) == [(Action.ADD, ROUTE), (Action.DELETE, odd)]
    wrong = replace(ROUTE, src=LOCAL)
    assert brief(plan(ALL, LINK, ADDRESS, odd, wrong, RULE).steps) == [
        (Action.CHANGE, ROUTE),
        (Action.DELETE, odd),
    ]


def test_a_route_on_a_link_that_no_file_makes_is_said_and_no_rule_leads_to_it() -> None:
    result = plan(want(LINK, replace(ROUTE, dev="eth0"), RULE), LINK)
    assert result.phases == ()
    (conflict,) = result.conflicts
    assert conflict.owner == "link eth0 is not one that the rendered files make"


def test_a_key_that_somebody_else_holds_is_a_conflict_until_it_leaves() -> None:
    result = plan(ALL, LINK, ADDRESS, FOREIGN)
    assert result.phases == ()
    assert (
        result.conflicts[0].owner
        == "route 0.0.0.0/0 via 198.51.100.1 dev eth0 table 101 of protocol 4 (static)"
    )
    assert brief(plan(ALL, LINK, ADDRESS).steps) == [(Action.ADD, ROUTE), (Action.ADD, RULE)]


def test_a_foreign_route_beside_ours_is_never_replaced() -> None:
    wrong = replace(ROUTE, via=IPv4Address("169.254.0.4"))
    result = plan(ALL, LINK, ADDRESS, FOREIGN, wrong, RULE)
    assert brief(result.steps) == [(Action.DELETE, wrong)]


def test_a_foreign_route_of_another_tos_or_metric_is_not_in_the_way() -> None:
    others = replace(FOREIGN, extra=("tos 0x10",)), replace(FOREIGN, metric=5)
    assert plan(ALL, LINK, ADDRESS, *others, RULE).conflicts == ()


def test_every_odd_route_of_our_protocol_goes() -> None:
    odd = Route(IPv4Network("192.0.3.0/24"), None, None, 7, 210, extra=("type blackhole",))
    assert brief(plan(ALL, LINK, ADDRESS, ROUTE, odd, RULE).steps) == [(Action.DELETE, odd)]


def test_a_rule_of_another_protocol_is_left_and_ours_is_made() -> None:
    theirs = replace(RULE, protocol=4)
    assert brief(plan(ALL, LINK, ADDRESS, ROUTE, theirs).steps) == [(Action.ADD, RULE)]


def test_a_rule_of_ours_with_another_selector_is_another_rule() -> None:
    edited = replace(RULE, extra=("iif eth0",))
    result = plan(ALL, LINK, ADDRESS, ROUTE, edited)
    assert brief(result.steps) == [(Action.ADD, RULE), (Action.DELETE, edited)]


# ---- the plan itself -----------------------------------------------------------------------------------------


def test_the_id_names_both_states_and_not_what_is_none_of_our_business() -> None:
    eth0 = SeenLink("eth0", 2, "", up=True, mtu=1500)
    assert plan(ALL, LINK).id == plan(ALL, LINK, eth0, replace(FOREIGN, table=9)).id
    ids = {plan(ALL).id, plan(ALL, LINK).id, plan(ALL, seen(LINK, index=8)).id, plan(Desired(), LINK).id}
    assert len(ids) == 4


def test_the_interest_covers_every_key() -> None:
    found = interest(ALL, OWNER)
    assert (found.protocol, found.links) == (210, ("doublezero0", "doublezero1"))
    assert found.exact == ((101, ANY),)


def test_a_more_open_rule_is_made_first_and_what_is_in_its_way_makes_room() -> None:
    narrow, wide = Rule(100, IPv4Network("10.0.0.0/8"), RULE.dst, 101, 210), replace(RULE, src=ANY)
    other = Rule(100, IPv4Network("10.0.0.0/8"), RULE.dst, 102, 210)
    both = plan(want(LINK, ADDRESS, ROUTE, narrow, wide), LINK, ADDRESS, ROUTE)
    assert brief(both.steps) == [(Action.ADD, wide), (Action.ADD, narrow)]
    late = plan(want(LINK, ADDRESS, ROUTE, narrow, wide), LINK, ADDRESS, ROUTE, narrow)
    assert [step.reason for step in late.steps] == [
        "a rule that is more open comes first",
        "missing",
        "missing",
    ]
    assert brief(late.steps) == [(Action.DELETE, narrow), (Action.ADD, wide), (Action.ADD, narrow)]
    unwanted = plan(want(LINK, ADDRESS, ROUTE, wide), LINK, ADDRESS, ROUTE, narrow, other)
    assert brief(unwanted.steps) == [(Action.DELETE, narrow), (Action.ADD, wide), (Action.DELETE, other)]
    assert {step.reason for step in unwanted.steps if step.action is Action.DELETE} == {"not wanted any more"}


def test_half_of_all_addresses_is_less_open_than_all() -> None:
    half, wide = replace(RULE, src=IPv4Network("0.0.0.0/1")), replace(RULE, src=ANY)
    made = plan(want(LINK, ADDRESS, ROUTE, half, wide), LINK, ADDRESS, ROUTE)
    assert brief(made.steps) == [(Action.ADD, wide), (Action.ADD, half)]


def test_only_a_rule_to_the_same_destination_is_in_the_way_of_one_from_anywhere() -> None:
    near, far = IPv4Network("198.18.0.0/16"), IPv4Network("198.19.0.0/16")
    wide = replace(RULE, src=ANY, dst=near)
    same, another = replace(RULE, dst=near), replace(RULE, dst=far)
    made = plan(want(LINK, ADDRESS, ROUTE, wide, same, another), LINK, ADDRESS, ROUTE, same, another)
    assert brief(made.steps) == [(Action.DELETE, same), (Action.ADD, wide), (Action.ADD, same)]


# ---- what the id of a plan covers ------------------------------------------------------------------------------


STRANGER = Link("tun7", LOCAL, LINK.remote, 64, 1476, "")
HOLDER = Route(ROUTE.dst, IPv4Address("198.51.100.1"), "eth0", 101, 4)


@pytest.mark.parametrize(
    "moved",
    [
        state(replace(LINK, mtu=1400), ADDRESS, ROUTE, RULE),
        state(LINK, replace(ADDRESS, scope="global"), ROUTE, RULE),
        state(LINK, ADDRESS, replace(ROUTE, via=IPv4Address("169.254.0.9")), RULE),
        state(LINK, ADDRESS, ROUTE, replace(RULE, priority=99)),
        state(LINK, ADDRESS, ROUTE, RULE, HOLDER),
        state(LINK, ADDRESS, ROUTE, RULE, STRANGER),
        state(seen(LINK, index=8), ADDRESS, ROUTE, RULE),
        replace(state(LINK, ADDRESS, ROUTE, RULE), nft=NftSeen("absent")),
    ],
    ids=["link", "address", "route", "rule", "who holds a key", "who holds the endpoints", "number", "nft"],
)
def test_the_id_of_a_plan_covers_everything_that_it_was_made_from(moved: Observed) -> None:
    before = make_plan(ALL, state(LINK, ADDRESS, ROUTE, RULE), OWNER)
    assert make_plan(ALL, moved, OWNER).id != before.id
    assert len(before.id) == 12


def test_the_id_of_a_plan_covers_what_the_journal_says_is_ours() -> None:
    held = state(LINK, replace(OTHER, name="old0"))
    known = replace(OWNER, claims=Claims((LinkClaim("doublezero1", 7, "gre"),)))
    assert make_plan(ALL, held, known).id != make_plan(ALL, held, OWNER).id


@pytest.mark.parametrize(
    "beside",
    [
        replace(STRANGER, remote=IPv4Address("192.0.2.99")),
        Address("eth0", IPv4Interface("198.51.100.7/24"), "global"),
        replace(HOLDER, table=7),
        replace(RULE, protocol=4),
    ],
    ids=["link", "address", "route", "rule"],
)
def test_the_id_of_a_plan_does_not_cover_what_is_none_of_our_business(beside: KernelObject) -> None:
    before = make_plan(ALL, state(LINK, ADDRESS, ROUTE, RULE), OWNER)
    assert make_plan(ALL, state(LINK, ADDRESS, ROUTE, RULE, beside), OWNER).id == before.id


# ---- links that wait for links that cannot move -------------------------------------------------------------


THIRD_OWNER = Ownership(210, {**OWNER.links, "doublezero2": "dzagent:third"})


def test_links_wait_in_a_row_for_one_that_cannot_move() -> None:
    """doublezero0 has a conflict and keeps its endpoints from doublezero1, which keeps its own from doublezero2."""
    third = Link("doublezero2", LOCAL, IPv4Address("192.0.2.3"), 64, 1476, "dzagent:third")
    taken = IPv4Address("192.0.2.50")
    stranger = Link("tun7", LOCAL, taken, 64, 1476, "")
    wanted = want(
        replace(LINK, remote=taken), replace(OTHER, remote=LINK.remote), replace(third, remote=OTHER.remote)
    )
    held = state(LINK, seen(OTHER, index=8), seen(third, index=9), seen(stranger, index=10))
    result = make_plan(wanted, held, THIRD_OWNER)
    assert result.steps == ()
    first, second, last = result.conflicts
    assert "GRE link tun7" in first.owner
    assert second.owner == "our own link doublezero0, which cannot move to its new endpoints"
    assert last.owner == "our own link doublezero1, which cannot move to its new endpoints"
    assert "Solve the conflict of doublezero1" in last.advice


def test_a_link_that_can_move_makes_room_beside_one_that_cannot() -> None:
    taken = IPv4Address("192.0.2.50")
    names = {f"doublezero{n}": f"dzagent:{n}" for n in range(4)}
    links = [
        Link(name, LOCAL, IPv4Address(f"192.0.2.{n}"), 64, 1476, alias)
        for n, (name, alias) in enumerate(names.items(), 1)
    ]
    stuck, follows, waits, free = links
    held = [seen(link, index=n) for n, link in enumerate(links, 7)]
    stranger = seen(Link("tun7", LOCAL, taken, 64, 1476, ""), index=20)
    moved = [
        replace(stuck, remote=taken),
        replace(follows, remote=stuck.remote),
        replace(waits, remote=free.remote),
        replace(free, remote=IPv4Address("192.0.2.60")),
    ]
    result = make_plan(want(*moved), state(*held, stranger), Ownership(210, names))
    assert [conflict.wanted.obj for conflict in result.conflicts] == moved[:2]
    assert brief(result.steps) == [(Action.CHANGE, moved[3]), (Action.CHANGE, moved[2])]


def test_a_link_with_a_key_keeps_its_endpoints_from_nobody() -> None:
    taken = IPv4Address("192.0.2.50")
    stranger = Link("tun7", LOCAL, taken, 64, 1476, "")
    keyed = seen(replace(LINK, extra=("key 5",)))
    wanted = want(replace(LINK, remote=taken), replace(OTHER, remote=LINK.remote))
    result = make_plan(wanted, state(keyed, seen(OTHER, index=8), seen(stranger, index=10)), OWNER)
    assert [step.target.name for step in result.steps if isinstance(step.target, Link)] == ["doublezero1"]
    assert len(result.conflicts) == 1


# ---- single routes, and keys whose holder must be known ---------------------------------------------------------


def test_changed_routes_alone_are_planned_as_in_a_whole_plan() -> None:
    item = Wanted(ROUTE, Origin("unicast", "x.ip", 1))
    other = replace(ROUTE, via=IPv4Address("169.254.0.8"))
    make, remove = plan_changes(
        [(item, None), (item, ROUTE), (item, other), (None, ROUTE), (None, None)], OWNER
    )
    assert brief(make) == [(Action.ADD, ROUTE), (Action.CHANGE, ROUTE)]
    assert make[1].before == other
    assert make[1].reason == "differs: via 169.254.0.8 -> 169.254.0.0"
    assert brief(remove) == [(Action.DELETE, ROUTE)]


def test_the_holder_is_asked_for_where_a_static_route_of_ours_is_missing() -> None:
    learned = (254, IPv4Network("198.18.0.1/32"))
    assert exact_keys(ALL, state(ROUTE), OWNER, ()) == ()
    assert exact_keys(ALL, state(), OWNER, [learned]) == ((101, ANY), learned)
    assert exact_keys(ALL, state(HOLDER), OWNER, ()) == ((101, ANY),)
    assert exact_keys(ALL, state(replace(ROUTE, table=100)), OWNER, ()) == ((101, ANY),)
    many = want(*(replace(ROUTE, table=1000 + n) for n in range(MAX_EXACT + 9)))
    assert len(exact_keys(many, state(), OWNER, [learned])) == MAX_EXACT + 1
