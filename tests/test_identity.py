"""Who this host is and what it must not lose."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.cli.advice import advice, with_advice
from dzagent.errors import ObservationError
from dzagent.identity import (
    MAX_CANDIDATES,
    RpcAddresses,
    candidates,
    choose_client_ip,
    gateways,
    host_addresses,
    installed_prefixes,
    is_public_ipv4,
    lookup_ipv4,
    protected_facts,
    read_ssh_sessions,
    ssh_peers,
    tunnel_endpoints,
    underlay,
)
from dzagent.model import Address, Link, Observed, Problem, Route, Rule, SeenLink
from dzagent.policy import Edge
from dzagent.protect import GATEWAY, OWN_ADDRESS, RPC_ENDPOINT, SSH_PEER, TUNNEL_ENDPOINT

OURS = ("doublezero0", "doublezero1")
PUBLIC, PUBLIC2 = IPv4Address("8.8.4.4"), IPv4Address("9.9.9.9")
PRIVATE, PRIVATE2 = IPv4Address("10.0.0.5"), IPv4Address("192.168.1.5")
GW, GW2 = IPv4Address("10.0.0.1"), IPv4Address("10.2.0.1")
FAR = IPv4Address("192.0.2.1")
ANY = IPv4Network("0.0.0.0/0")


def address(dev: str, interface: str, scope: str = "global") -> Address:
    return Address(dev, IPv4Interface(interface), scope)


HOST = Observed(
    links=(
        SeenLink("lo", 1, "", up=True, mtu=65536),
        SeenLink("eth0", 2, "", up=True, mtu=1500),
        SeenLink(
            "doublezero0", 3, "gre", up=True, mtu=1476, tunnel=Link("doublezero0", PRIVATE, FAR, 64, 1476, "")
        ),
        SeenLink("other", 4, "gre", up=True, mtu=1476, tunnel=Link("other", PRIVATE, PUBLIC, 64, 1476, "")),
    ),
    addresses=(
        address("lo", "127.0.0.1/8", "host"),
        address("eth0", f"{PRIVATE}/24"),
        address("eth0", f"{PUBLIC}/32"),
        address("doublezero0", "169.254.0.5/31", "link"),
        address("doublezero0", "148.51.0.9/32"),
    ),
    routes=(
        Route(ANY, GW, "eth0", 254, 3),
        Route(ANY, GW2, "eth1", 77, 3),
        Route(ANY, None, "ppp0", 254, 3, metric=5),
        Route(ANY, IPv4Address("169.254.0.4"), "doublezero0", 101, 210),
        Route(ANY, IPv4Address("169.254.0.4"), "doublezero0", 254, 210, metric=9),
        Route(IPv4Network("9.0.0.0/8"), PUBLIC2, "eth0", 254, 4),
    ),
    rules=(
        Rule(0, ANY, ANY, 255, 2),
        Rule(100, ANY, IPv4Network("148.51.0.0/24"), 100, 210),
        Rule(101, IPv4Network("148.51.1.0/24"), ANY, 101, 210),
        Rule(100, ANY, IPv4Network("5.5.5.0/24"), 100, 3),
        Rule(100, ANY, IPv4Network("6.6.6.0/24"), 77, 210),
    ),
)


# ---- the client IP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ip",
    [
        "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.1.1", "172.16.0.1",
        "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
def test_martians_are_not_public(ip: str) -> None:
    assert not is_public_ipv4(IPv4Address(ip))


@pytest.mark.parametrize(
    "ip",
    ["8.8.8.8", "198.18.0.1", "198.19.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.255", "192.0.1.1"],
)
def test_the_neighbours_of_martians_are_public(ip: str) -> None:
    assert is_public_ipv4(IPv4Address(ip))


def test_a_pin_is_used_as_it_is_and_the_configuration_s_comes_first() -> None:
    assert choose_client_ip(PRIVATE, PRIVATE2, PUBLIC, [], []) == (PRIVATE, "client_ip of the configuration")
    assert choose_client_ip(None, PRIVATE2, PUBLIC, [], []) == (PRIVATE2, "client_ip given to enable")


def test_a_public_default_source_comes_before_what_users_name() -> None:
    chosen = choose_client_ip(None, None, PUBLIC, [PUBLIC, PUBLIC2], {PUBLIC2})
    assert chosen == (PUBLIC, "source address of the default route")


@pytest.mark.parametrize("source", [None, PRIVATE])
def test_an_address_that_a_user_names_is_taken_where_the_default_source_is_not_public(
    source: IPv4Address | None,
) -> None:
    chosen = choose_client_ip(
        None, None, source, [PRIVATE, PUBLIC2, PUBLIC2], {PUBLIC2, IPv4Address("1.1.1.1")}
    )
    assert chosen == (PUBLIC2, "address of this host that an activated user names")


def test_of_several_named_ones_only_the_default_source_is_no_guess() -> None:
    chosen = choose_client_ip(None, None, PRIVATE, [PUBLIC2, PRIVATE], {PRIVATE, PUBLIC2})
    assert isinstance(chosen, tuple)
    assert chosen[0] == PRIVATE
    doubt = choose_client_ip(None, None, None, [PUBLIC2, PRIVATE], {PRIVATE, PUBLIC2})
    assert isinstance(doubt, Problem)
    assert doubt.code == "ClientIpAmbiguous"


def test_who_we_were_comes_after_the_one_that_is_named_now() -> None:
    before = (PRIVATE, "address of this host that was the client IP before")
    local = [PRIVATE, PUBLIC2]
    assert choose_client_ip(None, None, None, local, set(), PRIVATE) == before
    assert choose_client_ip(None, None, None, local, {PRIVATE, PUBLIC2}, PRIVATE) == before
    for named, default in (({PUBLIC2}, None), (set(), PUBLIC2)):
        chosen = choose_client_ip(None, None, default, local, named, PRIVATE)
        assert isinstance(chosen, tuple)
        assert chosen[0] == PUBLIC2
    assert isinstance(choose_client_ip(None, None, None, [PUBLIC2], set(), PRIVATE), Problem)


@pytest.mark.parametrize("source", [None, PRIVATE])
def test_an_unknown_client_ip_says_what_to_do(source: IPv4Address | None) -> None:
    doubt = choose_client_ip(None, None, source, [PRIVATE], {PUBLIC})
    assert isinstance(doubt, Problem)
    assert doubt.code == "ClientIpUnknown"
    assert "set client_ip" in doubt.message


def test_candidates_are_the_pin_or_the_public_source_alone() -> None:
    assert candidates(PRIVATE, PUBLIC, HOST, PUBLIC2, OURS) == (PRIVATE,)
    assert candidates(None, PRIVATE2, HOST, PUBLIC2, OURS) == (PRIVATE2,)
    assert candidates(None, None, HOST, PUBLIC, OURS) == (PUBLIC,)


def test_candidates_are_else_the_host_s_own_addresses() -> None:
    assert candidates(None, None, HOST, PRIVATE, OURS) == (PRIVATE, PUBLIC)
    assert candidates(None, None, HOST, None, OURS) == (PUBLIC, PRIVATE)
    assert candidates(None, None, Observed(), PRIVATE, OURS) == ()


def test_candidates_are_bounded() -> None:
    many = Observed(addresses=tuple(address("eth0", f"10.0.0.{n}/24") for n in range(1, 50)))
    found = candidates(None, None, many, IPv4Address("10.0.0.40"), OURS)
    assert len(found) == MAX_CANDIDATES
    assert found[0] == IPv4Address("10.0.0.40")


# ---- facts ------------------------------------------------------------------------------------------------------


def test_facts_leave_out_what_is_on_our_own_links() -> None:
    assert host_addresses(HOST, OURS) == (PRIVATE, PUBLIC)
    assert underlay(HOST, OURS) == (IPv4Interface(f"{PRIVATE}/24"), IPv4Interface(f"{PUBLIC}/32"))
    assert gateways(HOST, OURS) == (GW, GW2)
    assert tunnel_endpoints(HOST, OURS) == (PRIVATE, FAR)


def test_a_multipath_default_route_has_several_gateways() -> None:
    hops = (
        "nexthop via 10.0.0.1 dev eth0 weight 1",
        "nexthop via 10.2.0.1 dev eth1 weight 3",
        "nexthop via 169.254.0.0 dev doublezero0 weight 1",
        "nexthop dev ppp0 weight 1",
    )
    route = Route(IPv4Network("0.0.0.0/0"), None, None, 254, 3, extra=hops)
    beside = replace(route, dst=IPv4Network("10.9.0.0/16"), extra=("nexthop via 10.9.9.9 dev eth0 weight 1",))
    assert gateways(Observed(routes=(route, beside)), OURS) == (GW, GW2)


def test_installed_prefixes_are_those_of_our_rules_in_either_direction() -> None:
    found = installed_prefixes(HOST, 210, Edge())
    assert found == {IPv4Network("148.51.0.0/24"), IPv4Network("148.51.1.0/24")}


def test_protected_facts_hold_all_of_it() -> None:
    admin, new = IPv4Address("7.7.7.7"), IPv4Address("192.0.2.9")
    facts = protected_facts(HOST, OURS, endpoints=[new], rpc=[PUBLIC2], ssh=[(PUBLIC, admin)])
    assert facts.addresses == {
        GW: GATEWAY,
        GW2: GATEWAY,
        PRIVATE: TUNNEL_ENDPOINT,
        FAR: TUNNEL_ENDPOINT,
        new: TUNNEL_ENDPOINT,
        PUBLIC2: RPC_ENDPOINT,
        PUBLIC: OWN_ADDRESS,
        admin: SSH_PEER,
    }
    assert list(facts.networks) == [IPv4Network("10.0.0.0/24")]


# ---- SSH ----------------------------------------------------------------------------------------------------------

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0500000A:0016 07070707:C001 01 00000000:00000000 02:000A7214 00000000     0        0 2 2 0 20 4 30 10 -1
   2: 0500000A:0016 08080808:C002 06 00000000:00000000 03:00001771 00000000     0        0 0 3 0
   3: 0500000A:01BB 09090909:C003 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   4: 0100007F:0016 0100007F:C004 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 0000000000000000FFFF00000500000A:08AE 0000000000000000FFFF000001020304:D000 01 00000000:00000000
   1: 00000000000000000000000001000000:08AE 00000000000000000000000001000000:D001 01 00000000:00000000
   2: B80D0120000000000000000001000000:08AE B80D0120000000000000000002000000:D002 01 00000000:00000000
"""
SESSION = (PRIVATE, IPv4Address("7.7.7.7"))
MAPPED = (PRIVATE, IPv4Address("4.3.2.1"))


def test_established_sessions_of_the_ssh_ports_are_read() -> None:
    assert ssh_peers(TCP, [22], "little") == {SESSION}
    assert ssh_peers(TCP, [22, 443], "little") == {SESSION, (PRIVATE, PUBLIC2)}
    assert ssh_peers(TCP, [], "little") == frozenset()


def test_mapped_sessions_are_read_and_ipv6_is_passed_over() -> None:
    assert ssh_peers(TCP6, [2222], "little") == {MAPPED}


def test_big_endian_machines_print_the_words_the_other_way_round() -> None:
    text = "0: 0A000005:0016 01020304:D000 01\n1: 00000000000000000000FFFF0A000005:0016 00000000000000000000FFFF05060708:1 01 0"
    assert ssh_peers(text, [22], "big") == {
        (PRIVATE, IPv4Address("1.2.3.4")),
        (PRIVATE, IPv4Address("5.6.7.8")),
    }


@given(st.text(alphabet="0123456789ABCDEF: \n\txz\u0661", max_size=200))
def test_odd_lines_are_passed_over(text: str) -> None:
    assert ssh_peers(text, [22], "little") == frozenset()


def test_both_files_are_read_and_a_kernel_without_ipv6_is_fine(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(TCP)
    assert read_ssh_sessions([22, 2222], tmp_path, "little") == {SESSION}
    (tmp_path / "tcp6").write_text(TCP6)
    assert read_ssh_sessions([22, 2222], tmp_path, "little") == {SESSION, MAPPED}


def test_sessions_that_cannot_be_read_are_an_error_and_not_none(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="missing"):
        read_ssh_sessions([22], tmp_path)
    (tmp_path / "tcp").mkdir()
    with pytest.raises(ObservationError, match="cannot be read"):
        read_ssh_sessions([22], tmp_path)


# ---- RPC ----------------------------------------------------------------------------------------------------------


class Resolver:
    """A resolver that can fail, and a clock."""

    def __init__(self) -> None:
        self.answers: dict[str, frozenset[IPv4Address] | Exception] = {}
        self.asked: list[str] = []
        self.now = 1000.0

    def __call__(self, host: str) -> frozenset[IPv4Address]:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_rpc_hosts_are_looked_up_once_in_a_while() -> None:
    resolver = Resolver()
    resolver.answers = {"a": frozenset({PUBLIC}), "b": frozenset({PUBLIC2})}
    rpc = RpcAddresses(["a", "b", "a"], clock=lambda: resolver.now, lookup=resolver, seconds=300)
    assert rpc.addresses() == {PUBLIC, PUBLIC2}
    resolver.now += 299
    rpc.addresses()
    assert resolver.asked == ["a", "b"]
    resolver.answers["a"] = frozenset({PRIVATE})
    resolver.now += 1
    assert rpc.addresses() == {PRIVATE, PUBLIC2}


@pytest.mark.parametrize("trouble", [OSError("no"), UnicodeError("label too long"), frozenset[IPv4Address]()])
def test_a_broken_resolver_does_not_unprotect_the_rpc_and_is_asked_again(
    trouble: Exception | frozenset[IPv4Address],
) -> None:
    resolver = Resolver()
    resolver.answers = {"a": frozenset({PUBLIC})}
    rpc = RpcAddresses(["a"], clock=lambda: resolver.now, lookup=resolver)
    rpc.addresses()
    resolver.answers["a"] = trouble
    resolver.now += 1000
    assert rpc.addresses() == {PUBLIC}
    resolver.answers["a"] = frozenset({PUBLIC2})
    assert rpc.addresses() == {PUBLIC2}


def test_an_address_needs_no_resolver() -> None:
    assert lookup_ipv4("127.0.0.1") == {IPv4Address("127.0.0.1")}


def test_what_to_do_about_an_unknown_client_ip_is_said_once() -> None:
    doubt = choose_client_ip(None, None, None, [], [])
    assert isinstance(doubt, Problem)
    condition = {"type": "IdentityKnown", "status": "False", "message": doubt.message}
    said = with_advice(doubt.message, advice(condition, {}))
    assert said.count("set client_ip") == 1
