"""Which announced routes may be installed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from dzagent.bgp.rules import MAX_LISTED, Exclude, ImportRules, Judge, Refusal, read_exclude, summarize
from dzagent.model import Route
from tests.bgp_fakes import PEER, VIA

RULES = ImportRules(min_length=16, limit=100)


def judge(rules: ImportRules = RULES) -> Judge:
    return Judge(PEER, rules, 210)


def code(prefix: str, via: str = VIA, rules: ImportRules = RULES) -> str:
    verdict = judge(rules).verdict(prefix, via)
    return verdict.code if isinstance(verdict, Refusal) else ""


def test_a_good_route_has_everything_of_its_peer() -> None:
    route = Route(IPv4Network("198.18.0.1/32"), PEER.remote, "doublezero0", 254, 210, PEER.advertise)
    assert judge().verdict("198.18.0.1/32", VIA) == route


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("0.0.0.0/0", "Default"),
        ("0.0.0.0/1", "Martian"),
        ("128.0.0.0/1", "Martian"),
        ("127.0.0.1/32", "Martian"),
        ("224.0.0.5/32", "Martian"),
        ("255.255.255.255/32", "Martian"),
        ("169.254.0.4/32", "Martian"),
        ("198.0.0.0/8", "TooShort"),
        ("198.18.0.0/15", "TooShort"),
        ("198.18.0.0/16", ""),
        ("198.51.100.7/32", "OwnPrefix"),
        ("10.1.2.3/32", ""),
        ("198.18.0.1/24", "Malformed"),
        ("198.18.0.256/32", "Malformed"),
        ("198.18.0.1/33", "Malformed"),
        ("nonsense", "Malformed"),
        ("", "Malformed"),
        ("1.2.3/24", "Malformed"),
        ("-1.2.3.4/32", "Malformed"),
    ],
)
def test_the_form_of_a_prefix(prefix: str, why: str) -> None:
    assert code(prefix) == why


@pytest.mark.parametrize("via", ["169.254.0.6 on doublezero0", "169.254.0.4 on eth0", "10.0.0.1 on eth0", ""])
def test_the_next_hop_must_be_the_peer(via: str) -> None:
    assert code("198.18.0.1/32", via) == "NextHop"


def test_the_overlay_is_refused_wherever_the_policy_puts_it() -> None:
    rules = replace(RULES, martians=())
    assert code("169.254.0.4/31", rules=rules) == "Martian"
    assert code("169.254.9.0/24", rules=rules) == ""


def test_a_plain_address_excludes_what_starts_there_and_a_prefix_what_is_inside() -> None:
    rules = replace(RULES, exclude=read_exclude(["198.18.0.0", "198.19.0.0/24"]))
    assert code("198.18.0.0/24", rules=rules) == "Excluded"
    assert code("198.18.0.0/32", rules=rules) == "Excluded"
    assert code("198.18.0.1/32", rules=rules) == ""
    assert code("198.19.0.77/32", rules=rules) == "Excluded"
    assert code("198.19.0.0/23", rules=rules) == ""


@pytest.mark.parametrize("entry", ["x", "1.2.3", "1.2.3.4/33", "1.2.3.4/24", "::1", "1.2.3.4;rm"])
def test_a_wrong_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="is not an IPv4"):
        read_exclude([entry])


def test_lists_add_up() -> None:
    both = read_exclude(["192.0.2.1"]) | read_exclude(["192.0.2.0/24", "192.0.2.2"])
    hosts = frozenset({IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")})
    assert both == Exclude(hosts, (IPv4Network("192.0.2.0/24"),))


def test_refusals_are_counted_and_the_first_are_listed() -> None:
    refused = {f"10.{n}.0.0/16": Refusal("Martian", "why") for n in range(200)} | {
        "0.0.0.0/0": Refusal("Default", "d")
    }
    found = summarize(refused)
    assert found.counts == {"Default": 1, "Martian": 200}
    assert len(found.listed) == MAX_LISTED
    assert found.listed[0][0] == "0.0.0.0/0"


def test_a_flapping_route_is_the_same_object() -> None:
    one = judge()
    assert one.verdict("198.18.0.1/32", VIA) is one.verdict("198.18.0.1/32", VIA)
    assert isinstance(one.verdict("198.18.0.1/32", ""), Refusal)
