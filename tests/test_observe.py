"""Decoding what `ip` prints: the fixtures are real output, see tests/fixtures/ip/README.md."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.errors import ObservationError
from dzagent.kernel.observe import Known, batch, decode, decode_source
from dzagent.model import Address, Interest, Link, Observed, Route, Rule

FIXTURES = Path(__file__).parent / "fixtures" / "ip"
HOST = (FIXTURES / "host.json").read_bytes()
GRE = (FIXTURES / "gre.json").read_text().strip()
ANY = IPv4Network("0.0.0.0/0")
EXACT = tuple(
    (table, IPv4Network(dst))
    for table, dst in ((101, "0.0.0.0/0"), (999, "1.0.0.0/8"), (5000, "0.0.0.0/0"), (254, "192.0.8.0/24"))
)
INTEREST = Interest(210, ("doublezero0",), EXACT)
PLAIN = Interest(210, ("doublezero0",))
PEER = IPv4Address("169.254.0.0")


def host() -> Observed:
    return decode(HOST, INTEREST)


def answer(
    link: str = "[]", addr: str = "[]", rule: str = "[]", owned: str = "[]", gateways: str = "[]"
) -> bytes:
    return f"{link}\n{addr}\n{rule}\n{owned}\n{gateways}\n".encode()


def one(**line: Any) -> Observed:
    return decode(answer(**{name: json.dumps([value]) for name, value in line.items()}), PLAIN)


def test_the_batch_reads_everything_in_one_process() -> None:
    assert batch(INTEREST).splitlines() == [
        "link show",
        "addr show",
        "rule show",
        "route show table all proto 210",
        "route show exact 0.0.0.0/0 table 254",
        "route show exact 0.0.0.0/0 table 101",
        "route show exact 1.0.0.0/8 table 999",
        "route show exact 0.0.0.0/0 table 5000",
        "route show exact 192.0.8.0/24 table 254",
    ]


def test_links_without_addresses_are_seen_and_odd_aliases_read() -> None:
    links = {link.name: link for link in host().links}
    assert set(links) == {"lo", "veth0", "tveth", "tbridge", "ve1", "ve0", "vx0"}
    assert links["ve1"].alias == 'John\'s "up" \\ link'
    assert (links["vx0"].kind, links["vx0"].mtu, links["vx0"].up) == ("vxlan", 1400, True)
    assert links["vx0"].tunnel is None
    assert not links["tbridge"].up


def test_an_apostrophe_escaped_as_json_forbids_is_read() -> None:
    link = r'[{"ifindex":1,"ifname":"lo","flags":[],"mtu":1,"ifalias":"a\'b\\\\\'c"}]'
    assert decode(answer(link=link), PLAIN).links[0].alias == "a'b\\\\'c"


def test_foreign_names_and_aliases_of_any_bytes_do_not_blind_us() -> None:
    odd = decode(HOST.replace(b"ve1", b"v\xff1").replace(b"John", b"J\xf6hn"), INTEREST)
    assert {link.name for link in odd.links} == {"lo", "veth0", "tveth", "tbridge", "v\ufffd1", "ve0", "vx0"}
    assert len(odd.routes) == len(host().routes)


def test_addresses_carry_peer_and_label_but_not_secondary() -> None:
    addresses = host().addresses
    assert Address("vx0", IPv4Interface("169.254.0.1/31"), "link") in addresses
    assert Address("ve0", IPv4Interface("10.9.0.1/32"), "global", ("peer 10.9.0.2/32",)) in addresses
    assert Address("ve0", IPv4Interface("198.51.100.8/24"), "global", ("label ve0:x",)) in addresses
    assert all(isinstance(address.interface, IPv4Interface) for address in addresses)


def test_plain_routes_have_the_protocol_that_was_asked_for() -> None:
    routes = host().routes
    assert Route(ANY, PEER, "vx0", 101, 210) in routes
    assert Route(IPv4Network("192.0.2.0/24"), PEER, "vx0", 254, 210, IPv4Address("198.51.100.7")) in routes
    assert (
        Route(IPv4Network("192.0.2.77/32"), PEER, "vx0", 5000, 210, metric=7, extra=("mtu 1200",)) in routes
    )


def test_a_route_read_twice_is_there_once() -> None:
    assert len([r for r in host().routes if r.table == 101 and r.dst == ANY]) == 1


def test_holders_of_exact_keys_are_seen_whoever_they_are() -> None:
    holders = [r for r in host().routes if r.protocol != 210]
    assert Route(IPv4Network("192.0.8.0/24"), IPv4Address("198.51.100.1"), "ve0", 254, 4) in holders
    assert Route(ANY, IPv4Address("198.51.100.2"), "ve0", 254, 3, metric=50) in holders


@pytest.mark.parametrize(
    ("dst", "extra"),
    [
        ("192.0.3.0/24", ("type blackhole",)),
        (
            "192.0.4.0/24",
            ("nexthop via 198.51.100.1 dev ve0 weight 2", "nexthop via 198.51.100.3 dev ve0 weight 1"),
        ),
        ("192.0.6.0/24", ()),
        ("192.0.7.0/24", ("nhid 7",)),
        ("192.0.10.0/24", ("encap-encap ip", "encap-id 5", "scope link")),
    ],
)
def test_odd_routes_of_our_protocol_are_representable(dst: str, extra: tuple[str, ...]) -> None:
    (route,) = [r for r in host().routes if r.dst == IPv4Network(dst)]
    assert route.extra == extra


def test_rules_keep_every_selector_and_action() -> None:
    rules = {rule.priority: rule for rule in host().rules}
    assert rules[100] == Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
    assert rules[102].extra == ("dport 80", "fwmark 0x10/0xff", "iif ve0", "ipproto 6")
    assert rules[103].extra == ("not", "type blackhole")
    assert rules[104].extra == ("suppress_prefixlength 0",)
    assert rules[105].extra == ("goto 32766",)
    assert rules[106].extra == ("oif ve0", "tos 0x10", "uidrange 0-10")
    assert rules[0].protocol == 2


def test_a_rule_with_host_bits_is_read_and_keeps_its_identity() -> None:
    record = {"priority": 50, "src": "10.1.2.3", "srclen": 8, "table": "7", "protocol": "0"}
    (rule,) = one(rule={**record, "dst": "10.9.0.0", "dstlen": 16}).rules
    assert rule == Rule(50, IPv4Network("10.0.0.0/8"), IPv4Network("10.9.0.0/16"), 7, 0, ("from 10.1.2.3/8",))
    (other,) = one(rule={**record, "dst": "10.9.9.9", "dstlen": 16, "src": "10.0.0.0"}).rules
    assert other.extra == ("to 10.9.9.9/16",)


def test_gre_links_are_tunnels() -> None:
    links = {link.name: link for link in decode(answer(link=GRE), PLAIN).links}
    local = IPv4Address("198.51.100.7")
    assert links["doublezero0"].tunnel == Link(
        "doublezero0", local, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast"
    )
    edited = links["doublezero1"].tunnel
    assert edited is not None
    assert (edited.ttl, edited.pmtudisc, edited.up) == (32, True, False)
    assert edited.extra == (
        "icsum",
        "ikey 0.0.0.5",
        "link eth0",
        "master br0",
        "okey 0.0.0.6",
        "tos 0x10",
    )
    wildcard = links["gre0"].tunnel
    assert wildcard is not None
    assert (wildcard.local, wildcard.ttl) == (IPv4Address(0), 0)


def test_carrier_and_offload_flags_are_not_drift() -> None:
    record = {"type": "1", "dst": "1.1.1.1", "gateway": "169.254.0.0", "dev": "x", "scope": "0"}
    route = one(owned={**record, "table": "100", "flags": ["linkdown", "dead", "rt_offload"]}).routes[0]
    assert route == Route(IPv4Network("1.1.1.1/32"), PEER, "x", 100, 210)


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"[\n",
        HOST[:-2],
        HOST[: len(HOST) // 2],
        b"\n".join(HOST.splitlines()[:-1]),
        HOST + b"[]\n",
        HOST.replace(b'"priority":100', b'"priority":"x"'),
        HOST.replace(b'"dst":"192.0.3.0/24"', b'"dst":"192.0.3.0/99"'),
        HOST.replace(b'"ifindex":1,', b""),
        HOST.replace(b'"prefixlen":31', b'"prefixlen":null'),
        b"[1]\n" * 9,
        b"{}\n" * 9,
        b"[" * 100_000 + b"\n" + b"[]\n" * 8,
    ],
)
def test_whatever_cannot_be_read_is_an_error_and_never_empty(stdout: bytes) -> None:
    with pytest.raises(ObservationError):
        decode(stdout, INTEREST)


@given(st.data())
def test_damaged_output_never_raises_anything_else(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(HOST) - 1))
    junk = data.draw(st.binary(max_size=4))
    damaged = HOST[:at] + junk + HOST[at + data.draw(st.integers(0, 40)) :]
    try:
        decode(damaged, INTEREST)
    except ObservationError:
        return


def test_the_source_of_a_route_look_up() -> None:
    assert decode_source(b'[{"dst":"192.0.2.1","prefsrc":"198.51.100.7"}]\n') == IPv4Address("198.51.100.7")
    assert decode_source(b'[{"dst":"192.0.2.1"}]\n') is None
    with pytest.raises(ObservationError):
        decode_source(b'[{"dst":"192.0.2.1","prefsrc":"x"}]\n')


def test_two_protocols_that_read_alike_are_told_apart() -> None:
    known = Known()
    line = '[{"type":"1","dst":"192.0.2.1","gateway":"169.254.0.0","dev":"d0","scope":"0","flags":[]}]'
    assert [route.protocol for number in (210, 186, 210) for route in known.read(line, number)] == [
        210,
        186,
        210,
    ]
