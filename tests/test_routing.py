"""The routing decision: rules in order, the longest prefix, and what to make of selectors that cannot be judged."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from dzagent.model import Route, Rule
from dzagent.routing import Routing, decide, possible

ANY = IPv4Network("0.0.0.0/0")
DST, SRC, NONE = IPv4Address("192.0.2.50"), IPv4Address("198.51.100.7"), IPv4Address(0)
NEAR, FAR = IPv4Network("192.0.2.0/24"), IPv4Network("203.0.113.0/24")
MAIN = Rule(32766, ANY, ANY, 254, 2)
UPLINK = Route(ANY, IPv4Address("198.51.100.1"), "eth0", 254, 3)


def rule(priority: int, table: int, *extra: str, src: IPv4Network = ANY, dst: IPv4Network = ANY) -> Rule:
    return Rule(priority, src, dst, table, 4, tuple(sorted(extra)))


def route(
    table: int, dst: IPv4Network = ANY, dev: str = "doublezero0", *extra: str, metric: int = 0
) -> Route:
    return Route(dst, None, dev, table, 210, None, metric, extra)


def devices(
    rules: list[Rule], routes: list[Route], src: IPv4Address = SRC, *, vrf: bool = False
) -> list[str]:
    """Return the devices of every possible way, "-" where a rule refuses."""
    ways = Routing(rules, routes, vrf=vrf).ways(DST, src)
    return ["-" if way.route is None else str(way.route.dev) for way in ways]


def test_rules_are_asked_in_order_of_priority_and_then_as_they_stand() -> None:
    routes = [UPLINK, route(100)]
    assert devices([MAIN, rule(100, 100)], routes) == ["doublezero0"]
    assert devices([MAIN, rule(40000, 100)], routes) == ["eth0"]
    assert devices([rule(5, 254), rule(5, 100)], routes) == ["eth0"]


def test_the_longest_prefix_and_then_the_least_metric_wins() -> None:
    routes = [route(7, ANY, "a"), route(7, NEAR, "b", metric=9), route(7, NEAR, "c", metric=3)]
    assert devices([rule(1, 7)], routes) == ["c"]
    assert devices([rule(1, 7)], [route(7, FAR, "a")]) == []


def test_of_two_routes_that_are_alike_the_first_one_is_taken() -> None:
    assert devices([rule(1, 7)], [route(7, NEAR, "first"), route(7, NEAR, "appended")]) == ["first"]


@pytest.mark.parametrize("length", range(33))
def test_a_prefix_of_any_length_can_be_the_longest(length: int) -> None:
    found = route(7, IPv4Network((DST, length), strict=False), "found")
    assert devices([rule(1, 7)], [found]) == ["found"]
    shorter = [route(7, IPv4Network((DST, less), strict=False), "shorter") for less in range(length)]
    assert devices([rule(1, 7)], [*shorter, found]) == ["found"]


def test_a_table_without_a_route_leads_on_to_the_next_rule() -> None:
    assert devices([rule(1, 7), MAIN], [UPLINK]) == ["eth0"]
    assert devices([rule(1, 7), MAIN], [route(7, NEAR, "x", "type throw"), UPLINK]) == ["eth0"]


@pytest.mark.parametrize(
    ("selectors", "matches"),
    [
        ({"dst": NEAR}, True),
        ({"dst": FAR}, False),
        ({"src": IPv4Network("198.51.100.0/24")}, True),
        ({"src": FAR}, False),
        ({"src": IPv4Network("198.51.100.0/24"), "dst": FAR}, False),
    ],
)
def test_source_and_destination_select(selectors: dict[str, IPv4Network], matches: bool) -> None:
    found = rule(1, 100, **selectors)
    assert devices([found, MAIN], [UPLINK, route(100)]) == ["doublezero0" if matches else "eth0"]
    assert possible(found, DST, SRC) is matches
    inverted = rule(1, 100, "not", **selectors)
    assert devices([inverted, MAIN], [UPLINK, route(100)]) == ["eth0" if matches else "doublezero0"]


def test_before_the_source_is_chosen_only_rules_without_a_source_match() -> None:
    bound = rule(1, 100, src=IPv4Network("198.51.100.7/32"))
    assert devices([bound, MAIN], [UPLINK, route(100)], NONE) == ["eth0"]


@pytest.mark.parametrize(
    "token",
    ["fwmark 0x1/0xffffffff", "iif eth1", "oif eth0", "ipproto 6", "uidrange 0-10", "dport 80-80", "tos 0x10",
     "never-heard-of 1"],
)  # fmt: skip
def test_a_selector_that_cannot_be_judged_may_match_or_not(token: str) -> None:
    assert devices([rule(1, 100, token), MAIN], [UPLINK, route(100)]) == ["doublezero0", "eth0"]
    assert devices([rule(1, 100, token, dst=FAR), MAIN], [UPLINK, route(100)]) == ["eth0"]
    assert devices([rule(1, 100, token, "not", dst=FAR), MAIN], [UPLINK, route(100)]) == ["doublezero0"]
    ways = Routing([rule(1, 100, token), MAIN], [UPLINK, route(100)]).ways(DST, SRC)
    assert [way.certain for way in ways] == [False, False], "neither end is certain if the first may be it"


@pytest.mark.parametrize("token", ["iif lo", "realms 0/3", "to 192.0.2.9/24"])
def test_what_leaves_no_doubt_does_not(token: str) -> None:
    way = decide([rule(1, 100, token), MAIN], [UPLINK, route(100)], DST, SRC)
    assert way is not None
    assert (way.certain, way.route) == (True, route(100))


def test_suppressed_results_are_passed_over() -> None:
    rules = [rule(1, 100, "suppress_prefixlength 0"), MAIN]
    assert devices(rules, [UPLINK, route(100)]) == ["eth0"]
    assert devices(rules, [UPLINK, route(100), route(100, NEAR)]) == ["doublezero0"]
    assert devices([rule(1, 100, "suppress_ifgroup 3"), MAIN], [UPLINK, route(100)]) == [
        "doublezero0",
        "eth0",
    ]
    refused = route(100, ANY, "lo", "type unreachable")
    assert devices(rules, [UPLINK, refused]) == ["lo"], "only a result that is a route can be suppressed"


def test_a_jump_skips_what_is_between_and_does_nothing_without_a_target() -> None:
    routes = [UPLINK, route(100)]
    between = rule(150, 100)
    target = rule(200, 254)
    assert devices([rule(1, 0, "goto 200"), between, target], routes) == ["eth0"]
    assert devices([rule(1, 0, "goto 300"), between, target], routes) == ["doublezero0"]
    assert sorted(devices([rule(1, 0, "fwmark 0x1/0x1", "goto 200"), between, target], routes)) == [
        "doublezero0",
        "eth0",
    ]


def test_many_jumps_in_doubt_are_walked_once_each() -> None:
    jumps = [rule(n, 0, "fwmark 0x1/0x1", f"goto {n + 1}") for n in range(1, 400)]
    assert set(devices([*jumps, rule(400, 254)], [UPLINK])) == {"eth0"}


def test_a_rule_that_refuses_ends_it() -> None:
    for kind in ("blackhole", "unreachable", "prohibit"):
        assert devices([rule(1, 0, f"type {kind}"), MAIN], [UPLINK]) == ["-"]
    assert devices([rule(1, 0, "type nop"), MAIN], [UPLINK]) == ["eth0"]


def test_a_vrf_may_be_any_table_but_main_and_local() -> None:
    rules = [rule(1000, 0, "l3mdev"), MAIN]
    assert devices(rules, [UPLINK, route(100), route(101, ANY, "x")]) == ["eth0"]
    assert devices(rules, [UPLINK, route(100), route(101, ANY, "x")], vrf=True) == [
        "doublezero0",
        "x",
        "eth0",
    ]
    assert devices(rules, [UPLINK, route(255, ANY, "lo")], vrf=True) == ["eth0"]


def test_a_rule_whose_table_is_not_known_may_lead_to_any_or_on() -> None:
    assert devices([rule(1, 0), MAIN], [UPLINK, route(100)]) == ["doublezero0", "eth0"]


def test_sources_are_of_one_kind_if_no_rule_tells_them_apart() -> None:
    low, high = IPv4Address("100.64.0.1"), IPv4Address("203.0.113.1")
    kinds = Routing([rule(1, 100, dst=NEAR), MAIN], [])
    assert kinds.kind_of_source(low) == kinds.kind_of_source(high)
    kinds = Routing([rule(1, 100, src=IPv4Network("0.0.0.0/1")), MAIN], [])
    assert kinds.kind_of_source(low) != kinds.kind_of_source(high)
    assert kinds.kind_of_source(low) == kinds.kind_of_source(IPv4Address("100.64.0.2"))


def test_a_route_for_some_types_of_service_is_not_counted_on() -> None:
    assert devices([MAIN], [UPLINK, route(254, NEAR, "x", "tos 0x10")]) == ["eth0"]
