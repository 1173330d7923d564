"""What a prefix would capture."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.model import Protected
from dzagent.protect import (
    GATEWAY,
    OWN_ADDRESS,
    RPC_ENDPOINT,
    SSH_LOCAL,
    SSH_PEER,
    TUNNEL_ENDPOINT,
    captured,
    protect,
    with_endpoints,
    without,
)

ME, GW, FAR, RPC, ADMIN = (IPv4Address(f"198.51.{n}.7") for n in range(5))
FACTS = protect(
    interfaces=[IPv4Interface(f"{ME}/24"), IPv4Interface("127.0.0.1/8")],
    gateways=[GW],
    endpoints=[FAR],
    rpc=[RPC],
    ssh=[(ME, ADMIN)],
)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
networks = st.builds(
    lambda a, n: IPv4Network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        (f"{GW}/32", GATEWAY),
        (f"{FAR}/32", TUNNEL_ENDPOINT),
        (f"{RPC}/32", RPC_ENDPOINT),
        (f"{ADMIN}/32", SSH_PEER),
        (f"{ME}/32", OWN_ADDRESS),
        ("198.51.0.128/25", "connected"),
        ("198.51.0.0/30", "connected"),
        ("0.0.0.0/0", GATEWAY),
    ],
)
def test_what_would_be_captured_is_named(prefix: str, what: str) -> None:
    reason = captured(IPv4Network(prefix), FACTS)
    assert reason is not None
    assert what in reason
    assert reason.startswith(prefix)


def test_a_prefix_beside_all_that_is_free() -> None:
    assert captured(IPv4Network("198.51.16.0/20"), FACTS) is None
    assert captured(IPv4Network("127.0.0.0/8"), FACTS) is None


def test_an_ignored_address_does_not_count_but_the_others_do() -> None:
    both = Protected({GW: GATEWAY, RPC: RPC_ENDPOINT})
    assert captured(IPv4Network(f"{GW}/32"), both, [GW]) is None
    assert captured(IPv4Network("198.51.0.0/16"), both, [GW]) is not None


def test_ssh_ranks_below_everything_else_and_endpoints_can_be_added() -> None:
    facts = protect(interfaces=[IPv4Interface(f"{ME}/32")], rpc=[RPC], ssh=[(ME, RPC), (GW, ADMIN)])
    assert facts.addresses == {RPC: RPC_ENDPOINT, ME: OWN_ADDRESS, ADMIN: SSH_PEER, GW: SSH_LOCAL}
    assert facts.networks == {}
    assert without(facts, SSH_PEER, SSH_LOCAL).addresses == {RPC: RPC_ENDPOINT, ME: OWN_ADDRESS}
    assert with_endpoints(facts, [ADMIN]).addresses[ADMIN] == TUNNEL_ENDPOINT


@given(networks, st.frozensets(addresses, max_size=4), st.frozensets(networks, max_size=3))
def test_captured_is_exactly_holding_an_address_or_overlapping_a_network(
    prefix: IPv4Network, protected: frozenset[IPv4Address], connected: frozenset[IPv4Network]
) -> None:
    facts = Protected(dict.fromkeys(protected, "x"), dict.fromkeys(connected, "y"))
    hit = any(address in prefix for address in protected) or any(prefix.overlaps(n) for n in connected)
    assert (captured(prefix, facts) is not None) == hit
