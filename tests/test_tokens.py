"""What an object has beside what we set: every edit is seen, and what changes by itself is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.kernel import tokens

ROUTE: dict[str, Any] = {
    "type": "1",
    "dst": "203.0.113.9",
    "gateway": "169.254.0.0",
    "dev": "doublezero0",
    "table": "100",
    "scope": "0",
    "flags": [],
}
RULE: dict[str, Any] = {
    "priority": 100,
    "src": "all",
    "dst": "203.0.113.0",
    "dstlen": 24,
    "table": "100",
    "protocol": "210",
}
ADDRESS: dict[str, Any] = {
    "family": "inet",
    "local": "169.254.0.1",
    "prefixlen": 31,
    "scope": "253",
    "label": "doublezero0",
    "valid_life_time": 4294967295,
    "preferred_life_time": 4294967295,
}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("0", "global"),
        ("253", "link"),
        (254, "host"),
        ("200", "site"),
        ("7", "7"),
        ("link", "link"),
        ("", ""),
    ],
)
def test_a_scope_is_iproute2_s_word(value: object, word: str) -> None:
    assert tokens.scope(value) == word


# ---- links ---------------------------------------------------------------------------------------------------


def test_a_tunnel_as_we_make_it_has_no_tokens() -> None:
    ours = {"local": "198.51.100.7", "remote": "192.0.2.1", "ttl": 64, "pmtudisc": False}
    defaults = {"ikey": "0.0.0.0", "okey": "0", "icsum": False, "tos": "0x0", "encap": "none", "fwmark": 0}  # noqa: S104 - a key
    assert list(tokens.gre({**ours, **defaults})) == []


@pytest.mark.parametrize(
    ("name", "value", "token"),
    [
        ("ikey", "0.0.0.5", "ikey 0.0.0.5"),
        ("icsum", True, "icsum"),
        ("iseq", True, "iseq"),
        ("tos", "inherit", "tos inherit"),
        ("link", "eth0", "link eth0"),
        ("external", True, "external"),
        ("ignore_df", True, "ignore_df"),
        ("never-heard-of", 3, "never-heard-of 3"),
    ],
)
def test_an_edited_tunnel_shows_what_was_set(name: str, value: object, token: str) -> None:
    assert list(tokens.gre({"ttl": 64, name: value})) == [token]


def test_a_link_in_a_bridge_says_so() -> None:
    assert list(tokens.link({"ifname": "doublezero0", "master": "br0"})) == ["master br0"]
    assert list(tokens.link({"ifname": "doublezero0"})) == []


# ---- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ()),
        ({"secondary": True}, ()),
        ({"protocol": "kernel_lo"}, ()),
        ({"dynamic": True, "valid_life_time": 60}, ("dynamic",)),
        ({"noprefixroute": True}, ("noprefixroute",)),
        ({"broadcast": "169.254.0.1"}, ("broadcast 169.254.0.1",)),
        ({"label": "doublezero0:a"}, ("label doublezero0:a",)),
        ({"address": "10.0.0.9"}, ("peer 10.0.0.9/31",)),
        ({"metric": 5, "address": "10.0.0.9"}, ("metric 5", "peer 10.0.0.9/31")),
    ],
)
def test_addresses_show_what_we_never_set(more: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert tokens.address({**ADDRESS, **more}, "doublezero0") == expected


def test_a_label_may_be_missing() -> None:
    assert tokens.address({k: v for k, v in ADDRESS.items() if k != "label"}, "doublezero0") == ()


# ---- routes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ()),
        ({"metric": 7, "protocol": "210", "prefsrc": "203.0.113.9"}, ()),
        ({"flags": ["linkdown", "dead", "rt_offload", "rt_trap", "offload_failed"]}, ()),
        ({"flags": ["onlink"]}, ("onlink",)),
        ({"type": "6"}, ("type blackhole",)),
        ({"type": "blackhole"}, ("type blackhole",)),
        ({"type": "77"}, ("type 77",)),
        ({"tos": "0x10"}, ("tos 0x10",)),
        ({"scope": "253"}, ("scope link",)),
        ({"metrics": [{"mtu": 1300, "advmss": 1260}]}, ("advmss 1260", "mtu 1300")),
        ({"nhid": 7}, ("nhid 7",)),
        ({"cache": [], "expires": 5, "used": 1, "users": 1, "age": 2}, ()),
        ({"flow": {"to": "3"}}, ("flow {'to': '3'}",)),
        ({"encap": "ip", "id": 5, "src": "0.0.0.0"}, ("encap-encap ip", "encap-id 5")),  # noqa: S104 - not set
        ({"never-heard-of": True}, ("never-heard-of",)),
    ],
)
def test_routes_show_what_we_never_set(more: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert tokens.route({**ROUTE, **more}) == expected


@pytest.mark.parametrize(
    ("scope", "expected"), [("253", ()), ("link", ()), ("0", ("scope global",)), ("254", ("scope host",))]
)
def test_a_route_without_a_gateway_has_link_scope(scope: str, expected: tuple[str, ...]) -> None:
    direct = {name: value for name, value in ROUTE.items() if name != "gateway"}
    assert tokens.route({**direct, "scope": scope}) == expected


def test_next_hops_are_tokens() -> None:
    hops = [
        {"gateway": "198.51.100.1", "dev": "eth0", "weight": 1, "flags": []},
        {"dev": "ppp0", "weight": 2, "flags": []},
        {"flags": []},
    ]
    multipath = {k: v for k, v in ROUTE.items() if k not in {"gateway", "dev"}}
    assert tokens.route({**multipath, "nexthops": hops}) == (
        "nexthop dev ppp0 weight 2",
        "nexthop via 198.51.100.1 dev eth0 weight 1",
        "nexthop weight 1",
    )
    with pytest.raises(ValueError, match="octets"):
        tokens.route({**multipath, "nexthops": [{"gateway": "x"}]})


def test_an_ipv6_gateway_is_a_token() -> None:
    direct = {name: value for name, value in ROUTE.items() if name != "gateway"}
    via = {"via": {"family": "inet6", "host": "fe80::1"}}
    assert tokens.route({**direct, **via}) == ("via inet6 fe80::1",)


# ---- rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ()),
        ({"not": None}, ("not",)),
        ({"iif": "eth0", "iif_detached": None}, ("iif eth0",)),
        ({"oif": "eth0", "oif_detached": None}, ("oif eth0",)),
        ({"fwmark": "0x5"}, ("fwmark 0x5/0xffffffff",)),
        ({"fwmark": "0x5", "fwmask": "0xff"}, ("fwmark 0x5/0xff",)),
        ({"ipproto": "ipproto-6"}, ("ipproto 6",)),
        ({"ipproto": "tcp"}, ("ipproto tcp",)),
        ({"tos": "0x10"}, ("tos 0x10",)),
        ({"sport_start": 5, "sport_end": 9}, ("sport 5-9",)),
        ({"dport_start": 5, "dport_end": 5}, ("dport 5-5",)),
        ({"dport": 80}, ("dport 80",)),
        ({"uid_start": 0, "uid_end": 10}, ("uidrange 0-10",)),
        ({"suppress_prefixlen": 0}, ("suppress_prefixlength 0",)),
        ({"suppress_ifgroup": "5"}, ("suppress_ifgroup 5",)),
        ({"flow_to": "5"}, ("realms 0/5",)),
        ({"flow_from": "4", "flow_to": "5"}, ("realms 4/5",)),
        ({"tun_id": 5}, ("tun_id 5",)),
        ({"l3mdev": None}, ("l3mdev",)),
        ({"goto": 32766, "unresolved": None}, ("goto 32766",)),
        ({"nop": None}, ("type nop",)),
        ({"action": "6"}, ("type blackhole",)),
        ({"action": "7"}, ("type unreachable",)),
        ({"action": "8"}, ("type prohibit",)),
        ({"action": "99"}, ("type 99",)),
        ({"dst": "203.0.113.9"}, ("to 203.0.113.9/24",)),
        ({"src": "10.1.2.3", "srclen": 8}, ("from 10.1.2.3/8",)),
        ({"src": "10.0.0.0", "srclen": 8}, ()),
        ({"src": "10.1.2.3"}, ()),
        ({"never-heard-of": 1, "not": None}, ("never-heard-of 1", "not")),
    ],
)
def test_rules_show_every_selector_that_we_never_set(more: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert tokens.rule({**RULE, **more}) == expected


# ---- whatever a newer tool prints ------------------------------------------------------------------------------

values = st.none() | st.just(value=True) | st.integers(1, 9) | st.sampled_from(["on", "10.0.0.1", "0x1"])
unknown = st.dictionaries(st.from_regex(r"x-[a-z]{1,8}", fullmatch=True), values, max_size=4)


@given(unknown, st.randoms(use_true_random=False))
def test_the_order_of_attributes_does_not_matter(more: dict[str, Any], chance: Any) -> None:
    items = [*more.items(), *ROUTE.items()]
    chance.shuffle(items)
    assert tokens.route(dict(items)) == tokens.route({**ROUTE, **more})


@given(unknown)
def test_an_attribute_that_nobody_knows_makes_a_difference(more: dict[str, Any]) -> None:
    for found in (tokens.route({**ROUTE, **more}), tokens.rule({**RULE, **more})):
        assert {token.split()[0] for token in found} == more.keys()
    assert len(tokens.address({**ADDRESS, **more}, "doublezero0")) == len(more)
