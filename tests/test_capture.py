"""What a plan would lead into a tunnel by the rules of others, or by uncovering them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.afterwards import after
from dzagent.capture import Ours, turning
from dzagent.held import Held, less
from dzagent.model import (
    Address,
    Desired,
    Link,
    Observed,
    Origin,
    Plan,
    Protected,
    Route,
    Rule,
    SeenLink,
    Wanted,
)
from dzagent.ownership import Ownership
from dzagent.plan import make_plan
from dzagent.protect import SSH_LOCAL, SSH_PEER
from dzagent.routing import Routing

ANY = IPv4Network("0.0.0.0/0")
RPC, OWN, GATEWAY = IPv4Address("192.0.2.50"), IPv4Address("198.51.100.7"), IPv4Address("198.51.100.1")
PROTECTED = Protected({RPC: "the RPC endpoint", OWN: "an address of this host"})
OURS = Ours(frozenset({"doublezero0", "doublezero1"}), 210)
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast"})
LOCAL = Rule(0, ANY, ANY, 255, 2)
MAIN = Rule(32766, ANY, ANY, 254, 2)
UPLINK = Route(ANY, GATEWAY, "eth0", 254, 3)
INTO = Route(ANY, IPv4Address("169.254.0.0"), "doublezero0", 100, 210)
TUNNEL = Link("doublezero0", OWN, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
HOST = Observed(
    links=(
        SeenLink("eth0", 2, "", up=True, mtu=1500),
        SeenLink("doublezero0", 9, "gre", up=True, mtu=1476, alias="dzagent:unicast", tunnel=TUNNEL),
    ),
    addresses=(Address("eth0", IPv4Interface("198.51.100.7/24"), "global"),),
    routes=(UPLINK,),
    rules=(LOCAL, MAIN),
)


def foreign(priority: int, table: int, *extra: str, src: IPv4Network = ANY, dst: IPv4Network = ANY) -> Rule:
    return Rule(priority, src, dst, table, 4, extra)


def plan(seen: Observed, *wanted: Route | Rule) -> Plan:
    """Return the plan of routes and rules: the link is there and stays."""
    objects = tuple(Wanted(obj, Origin("unicast", "x", 1)) for obj in (TUNNEL, *wanted))
    return make_plan(Desired(objects), seen, OWNER)


def targets(held: tuple[Held, ...]) -> list[object]:
    return [item.step.target for item in held]


def test_a_route_into_a_table_that_a_rule_of_others_points_at_is_withheld() -> None:
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100), MAIN))
    (item,) = turning(plan(seen, INTO), seen, PROTECTED, OURS)
    assert item.step.target == INTO
    assert (
        "192.0.2.50, the RPC endpoint, can then leave through doublezero0: rule 50 of protocol 4"
        in item.reason
    )
    assert "leads it to table 100" in item.reason


def test_a_rule_that_nothing_protected_can_match_or_that_comes_too_late_is_no_danger() -> None:
    for rule in (
        foreign(50, 100, dst=IPv4Network("203.0.113.0/24")),
        foreign(50, 100, src=IPv4Network("203.0.113.9/32")),
        foreign(40000, 100),
        foreign(50, 100, "suppress_prefixlength 0"),
        foreign(50, 99),
        foreign(50, 0, "l3mdev"),
    ):
        seen = replace(HOST, rules=(LOCAL, *sorted((rule, MAIN), key=lambda r: r.priority)))
        assert turning(plan(seen, INTO), seen, PROTECTED, OURS) == (), rule


@pytest.mark.parametrize("token", ["fwmark 0x10/0xff", "iif eth7", "uidrange 0-10", "sport 1-2"])
def test_a_selector_that_cannot_be_judged_counts_as_a_match(token: str) -> None:
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, token), MAIN))
    (item,) = turning(plan(seen, INTO), seen, PROTECTED, OURS)
    assert "may lead it to table 100" in item.reason


def test_an_inverted_rule_matches_what_it_does_not_name() -> None:
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, "not", dst=IPv4Network("203.0.113.0/24")), MAIN))
    assert targets(turning(plan(seen, INTO), seen, PROTECTED, OURS)) == [INTO]
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, "not", dst=IPv4Network("192.0.2.0/24")), MAIN))
    assert turning(plan(seen, INTO), seen, Protected({RPC: "the RPC endpoint"}), OURS) == ()


def test_a_rule_that_somebody_jumps_to_counts_whatever_it_selects() -> None:
    landing = Rule(60, ANY, IPv4Network("10.0.0.0/8"), 7, 210)
    rules = (LOCAL, foreign(20, 0, "goto 60"), foreign(50, 100), landing, MAIN)
    seen = replace(HOST, routes=(UPLINK, INTO), rules=rules)
    assert not any(way.route == INTO for way in Routing(rules, seen.routes).ways(RPC, IPv4Address(0)))
    assert targets(turning(plan(seen, INTO), seen, Protected({RPC: "the RPC endpoint"}), OURS)) == [landing]
    harmless = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
    made = plan(seen, INTO, harmless)
    assert len(made.steps) == 2
    assert targets(turning(made, seen, Protected({RPC: "the RPC endpoint"}), OURS)) == [landing]


def test_a_rule_by_source_captures_what_comes_from_this_host() -> None:
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, src=IPv4Network("198.51.100.0/24")), MAIN))
    (item,) = turning(plan(seen, INTO), seen, PROTECTED, OURS)
    assert "Traffic from 198.51.100.7 to 192.0.2.50" in item.reason


def test_what_comes_from_our_doublezero_address_is_meant_to() -> None:
    dz = IPv4Address("203.0.113.9")
    seen = replace(
        HOST,
        addresses=(*HOST.addresses, Address("doublezero0", IPv4Interface(f"{dz}/32"), "global")),
        rules=(LOCAL, foreign(50, 100, src=IPv4Network(f"{dz}/32")), MAIN),
    )
    assert turning(plan(seen, INTO), seen, PROTECTED, replace(OURS, addresses=(dz,))) == ()


def test_our_own_rule_is_named_before_the_route() -> None:
    ours = Rule(100, IPv4Network("198.51.100.7/32"), ANY, 100, 210)
    held = turning(plan(HOST, INTO, ours), HOST, PROTECTED, OURS)
    assert targets(held) == [ours]


def test_a_delete_that_uncovers_a_capture_is_withheld() -> None:
    shield = Rule(40, ANY, IPv4Network("192.0.2.0/24"), 254, 210)
    seen = replace(HOST, routes=(UPLINK, INTO), rules=(LOCAL, shield, foreign(50, 100), MAIN))
    protected = Protected({RPC: "the RPC endpoint"})
    (item,) = turning(plan(seen, INTO), seen, protected, OURS)
    assert item.step.target == shield
    assert "could leave without it" in item.reason


@pytest.mark.parametrize("priority", [40, 50])
def test_only_the_rule_that_covers_is_to_stay(priority: int) -> None:
    """Of our rules that go: one that leads the traffic elsewhere, one that comes too late, one for other traffic."""
    covers = Rule(priority, ANY, IPv4Network("192.0.2.0/24"), 254, 210)
    late, other = replace(covers, priority=60), replace(covers, dst=IPv4Network("203.0.113.0/24"))
    seen = replace(HOST, routes=(UPLINK, INTO), rules=(LOCAL, other, covers, foreign(50, 100), late, MAIN))
    made = plan(seen, INTO)
    assert len(made.steps) == 3
    assert targets(turning(made, seen, Protected({RPC: "the RPC endpoint"}), OURS)) == [covers]


def test_a_rule_whose_table_is_not_known_may_be_the_one() -> None:
    seen = replace(HOST, rules=(LOCAL, foreign(50, 0), MAIN))
    (item,) = turning(plan(seen, INTO), seen, PROTECTED, OURS)
    assert (item.step.target, "may lead it" in item.reason) == (INTO, True)


def test_a_rule_for_vrfs_leads_nowhere_on_a_host_without_one_whatever_else_is_simulated() -> None:
    rules = (LOCAL, foreign(50, 0, "l3mdev"), MAIN, foreign(40000, 100))
    seen = replace(HOST, rules=rules)
    assert turning(plan(seen, INTO), seen, PROTECTED, OURS) == ()


def test_what_was_captured_before_is_not_blamed_on_the_plan() -> None:
    seen = replace(HOST, routes=(UPLINK, INTO), rules=(LOCAL, foreign(50, 100), MAIN))
    more = Rule(40, ANY, IPv4Network("192.0.2.0/24"), 100, 210)
    assert turning(plan(seen, INTO, more), seen, PROTECTED, OURS) == ()


def test_a_route_of_ours_that_refuses_what_would_be_captured_stays() -> None:
    refusing = Route(IPv4Network("192.0.2.0/24"), None, None, 7, 210, extra=("type blackhole",))
    rules = (LOCAL, foreign(30, 7), foreign(50, 100), MAIN)
    seen = replace(HOST, routes=(UPLINK, INTO, refusing), rules=rules)
    held = turning(plan(seen, INTO), seen, Protected({RPC: "the RPC endpoint"}), OURS)
    assert targets(held) == [refusing]


def test_every_part_of_a_protected_network_counts() -> None:
    part = IPv4Network("198.51.100.128/26")
    protected = Protected({}, {IPv4Network("198.51.100.0/24"): "a network of this host"})
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, dst=part), MAIN))
    (item,) = turning(plan(seen, INTO), seen, protected, OURS)
    assert "198.51.100.128, in 198.51.100.0/24, a network of this host" in item.reason


NETWORK = Protected({}, {IPv4Network("198.51.100.0/24"): "a network of this host"})


def test_neither_the_address_of_a_protected_network_nor_what_is_beside_it_counts() -> None:
    theirs = [foreign(50, 100, dst=IPv4Network(dst)) for dst in ("198.51.100.0/32", "203.0.113.0/24")]
    seen = replace(HOST, rules=(LOCAL, *theirs, MAIN))
    assert turning(plan(seen, INTO), seen, NETWORK, OURS) == ()


def test_our_own_rule_into_a_protected_network_is_withheld_too() -> None:
    ours = Rule(100, ANY, IPv4Network("198.51.100.128/26"), 100, 210)
    assert targets(turning(plan(HOST, INTO, ours), HOST, NETWORK, OURS)) == [ours]


@pytest.mark.parametrize(
    ("part", "first"),
    [
        ("198.51.100.0/25", "198.51.100.1"),  # the first host stands for what no rule tells apart
        ("198.51.100.64/26", "198.51.100.64"),
        ("198.51.100.255/32", "198.51.100.255"),
        ("198.51.0.0/16", "198.51.100.1"),  # one that goes beyond the network on both sides
    ],
)
def test_the_address_that_stands_for_a_part_of_a_network(part: str, first: str) -> None:
    protected = Protected({}, {IPv4Network("198.51.100.0/24"): "a network of this host"})
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, dst=IPv4Network(part)), MAIN))
    (item,) = turning(plan(seen, INTO), seen, protected, OURS)
    assert f"{first}, in 198.51.100.0/24" in item.reason


def test_what_begins_behind_a_part_counts_too() -> None:
    """A rule of the uplink for the first half: the second one, where it has ended, goes through the tunnel."""
    protected = Protected({}, {IPv4Network("198.51.100.0/24"): "a network of this host"})
    half = foreign(40, 254, dst=IPv4Network("198.51.100.0/25"))
    seen = replace(HOST, rules=(LOCAL, half, foreign(50, 100), MAIN))
    (item,) = turning(plan(seen, INTO), seen, protected, OURS)
    assert "198.51.100.128, in 198.51.100.0/24" in item.reason


@pytest.mark.parametrize("beside", ["198.51.99.0/24", "198.51.101.0/24"])
def test_a_rule_for_a_neighbour_of_a_network_is_no_danger_to_it(beside: str) -> None:
    protected = Protected({}, {IPv4Network("198.51.100.0/24"): "a network of this host"})
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100, dst=IPv4Network(beside)), MAIN))
    assert turning(plan(seen, INTO), seen, protected, OURS) == ()


def test_a_rule_for_the_tables_of_vrfs_counts_on_a_host_with_one() -> None:
    protected = Protected({RPC: "the RPC endpoint"})
    vrf = SeenLink("blue", 12, "vrf", up=True, mtu=65575)
    rules = (LOCAL, foreign(1000, 0, "l3mdev"), MAIN)
    without, beside = replace(HOST, rules=rules), replace(HOST, rules=rules, links=(*HOST.links, vrf))
    assert turning(plan(without, INTO), without, protected, OURS) == ()
    assert targets(turning(plan(beside, INTO), beside, protected, OURS)) == [INTO]


def test_a_route_that_refused_other_traffic_is_not_blamed() -> None:
    refusing = [
        Route(IPv4Network(text), None, None, 7, 210, extra=("type blackhole",))
        for text in ("192.0.2.0/24", "203.0.113.0/24")
    ]
    rules = (LOCAL, foreign(30, 7), foreign(50, 100), MAIN)
    seen = replace(HOST, routes=(UPLINK, INTO, *refusing), rules=rules)
    held = turning(plan(seen, INTO), seen, Protected({RPC: "the RPC endpoint"}), OURS)
    assert targets(held) == refusing[:1]


def test_loopback_is_no_source_of_traffic_that_leaves() -> None:
    seen = replace(
        HOST,
        addresses=(*HOST.addresses, Address("lo", IPv4Interface("127.0.0.1/8"), "host")),
        rules=(LOCAL, foreign(50, 100, src=IPv4Network("127.0.0.0/8")), MAIN),
    )
    assert turning(plan(seen, INTO), seen, PROTECTED, OURS) == ()


def test_an_ssh_session_counts_for_rules_of_others_only() -> None:
    admin = IPv4Address("203.0.113.77")
    protected = Protected({admin: SSH_PEER, OWN: SSH_LOCAL})
    ours = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
    assert turning(plan(HOST, INTO, ours), HOST, protected, OURS) == (), "the prefix is judged elsewhere"
    seen = replace(HOST, rules=(LOCAL, foreign(50, 100), MAIN))
    assert targets(turning(plan(seen, INTO), seen, protected, OURS)) == [INTO]


def test_plain_routes_of_the_main_table_cost_no_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dzagent.capture._Sight", None)
    learned = Route(IPv4Network("203.0.113.0/24"), None, "doublezero0", 254, 210)
    assert turning(plan(HOST, learned), HOST, PROTECTED, OURS) == ()


def test_what_no_rule_leads_protected_traffic_to_costs_no_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dzagent.capture._Sight", None)
    assert turning(plan(HOST, INTO), HOST, PROTECTED, OURS) == ()
    for rule in (
        foreign(50, 100, dst=IPv4Network("203.0.113.0/24")),
        foreign(50, 100, src=IPv4Network("203.0.113.9/32")),
        foreign(50, 0, "l3mdev"),
    ):
        seen = replace(HOST, rules=(LOCAL, rule, MAIN))
        assert turning(plan(seen, INTO), seen, PROTECTED, OURS) == ()
    address = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
    made = make_plan(
        Desired(tuple(Wanted(obj, Origin("unicast", "x", 1)) for obj in (TUNNEL, address))), HOST, OWNER
    )
    assert [step.target for step in made.steps] == [address]
    assert turning(made, HOST, PROTECTED, OURS) == ()


# ---- what is simulated at all ------------------------------------------------------------------------------------

_NETS = tuple(
    map(IPv4Network, ("0.0.0.0/0", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.51.100.7/32"))
)
_TOKENS = (
    (),
    (),
    (),
    ("not",),
    ("fwmark 0x1/0x1",),
    ("goto 150",),
    ("suppress_prefixlength 0",),
    ("l3mdev",),
)
_nets = st.sampled_from(_NETS)


@st.composite
def rules(draw: st.DrawFn, protocol: int) -> Rule:
    extra = draw(st.sampled_from(_TOKENS)) if protocol != 210 else ()
    table = 0 if set(extra) & {"goto 150", "l3mdev"} else draw(st.sampled_from((100, 101, 254, 7)))
    return Rule(draw(st.sampled_from((50, 100, 150))), draw(_nets), draw(_nets), table, protocol, extra)


_routes = st.builds(
    lambda dst, table: Route(dst, IPv4Address("169.254.0.0"), "doublezero0", table, 210),
    _nets,
    st.sampled_from((100, 101)),
)


@given(
    st.lists(rules(4), max_size=4),
    st.lists(rules(210), max_size=3),
    st.lists(_routes, max_size=2),
    st.lists(rules(210), max_size=3),
    st.lists(_routes, max_size=2),
)
def test_what_is_not_simulated_would_have_changed_nothing(
    theirs: list[Rule], had: list[Rule], held: list[Route], wants: list[Rule], routes: list[Route]
) -> None:
    present = sorted({*theirs, *had}, key=lambda rule: rule.priority)
    seen = replace(HOST, routes=(UPLINK, *dict.fromkeys(held)), rules=(LOCAL, *present, MAIN))
    made = plan(seen, *dict.fromkeys(routes), *dict.fromkeys(wants))
    found = turning(made, seen, PROTECTED, OURS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dzagent.capture._Reach.can_turn", lambda *_: True)
        assert targets(turning(made, seen, PROTECTED, OURS)) == targets(found)


@given(st.lists(rules(4), max_size=4), st.lists(rules(210), max_size=3), st.lists(_routes, max_size=2))
def test_a_screened_plan_leads_nothing_protected_into_a_tunnel(
    theirs: list[Rule], wants: list[Rule], routes: list[Route]
) -> None:
    seen = replace(HOST, rules=(LOCAL, *sorted(dict.fromkeys(theirs), key=lambda rule: rule.priority), MAIN))
    made = plan(seen, *dict.fromkeys(routes), *dict.fromkeys(wants))
    left = less(made, turning(made, seen, PROTECTED, OURS))
    then = after(seen, left.steps)
    routing = Routing(then.rules, then.routes)
    for dst in (RPC,):
        for src in (IPv4Address(0), OWN):
            assert all(way.route is None or way.route.dev != "doublezero0" for way in routing.ways(dst, src))
