"""Single fields of the ledger: one clear refusal for each kind of nonsense."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.ledger.accounts import GlobalConfig, Net, User
from dzagent.model import Protected, UserType
from dzagent.policy import Policy
from dzagent.protect import (
    GATEWAY,
    OWN_ADDRESS,
    RPC_ENDPOINT,
    SSH_LOCAL,
    SSH_PEER,
    TUNNEL_ENDPOINT,
    protect,
)
from dzagent.validate import (
    NOT_UNICAST,
    RESERVED_ASNS,
    Refusal,
    check_asns,
    check_dz_ip,
    check_endpoint,
    check_groups,
    check_overlay,
    martian,
    to_network,
)

POLICY = Policy()
CLIENT, DEVICE = IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1")
UPLINK = IPv4Interface("198.51.100.7/24")
FACTS = protect(
    interfaces=[UPLINK],
    gateways=[IPv4Address("198.51.100.1")],
    endpoints=[DEVICE],
    rpc=[IPv4Address("192.0.2.50")],
    ssh=[(CLIENT, IPv4Address("192.0.2.77"))],
)
NOWHERE = str(IPv4Address(0))


def net(text: str) -> Net:
    address, _, length = text.partition("/")
    return Net(IPv4Address(address), int(length))


CONFIG = GlobalConfig(local_asn=65000, remote_asn=65342, user_tunnel_block=net("169.254.0.0/16"))


def refused(answer: object, code: str) -> str:
    """Return why; every refusal is "FIELD VALUE: what was expected", without a full stop."""
    assert isinstance(answer, Refusal), answer
    assert answer.code == code
    assert ": " in answer.why
    assert not answer.why.endswith(".")
    return answer.why


# ---- the overlay -----------------------------------------------------------------------------------------------


def overlay(
    text: str, block: str = "169.254.0.0/16", policy: Policy = POLICY, facts: Protected = FACTS
) -> object:
    config = replace(CONFIG, user_tunnel_block=net(block))
    return check_overlay(net(text), config, policy, facts)


@pytest.mark.parametrize("text", ["169.254.0.0/31", "169.254.255.254/31", "169.254.7.9/31"])
def test_a_31_inside_both_blocks_is_an_overlay(text: str) -> None:
    assert overlay(text) == to_network(net(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("169.254.0.0/30", "a /31 is needed"),
        ("169.254.0.0/32", "a /31 is needed"),
        ("169.254.0.0/33", "a /31 is needed"),
        (f"{NOWHERE}/0", "a /31 is needed"),
        (f"{NOWHERE}/31", "user_tunnel_block"),
        ("169.253.255.254/31", "user_tunnel_block"),
        ("127.0.0.0/31", "user_tunnel_block"),
        ("224.0.0.0/31", "user_tunnel_block"),
    ],
)
def test_no_other_tunnel_net_is_one(text: str, said: str) -> None:
    why = refused(overlay(text), "InvalidOverlay")
    assert said in why
    assert f"tunnel_net {text}" in why


def test_a_tunnel_net_that_could_not_be_read_is_none() -> None:
    assert "over 32" in refused(check_overlay(None, CONFIG, POLICY, FACTS), "InvalidOverlay")
    unset = replace(CONFIG, user_tunnel_block=None)
    assert "user_tunnel_block cannot be used" in refused(
        check_overlay(net("169.254.0.0/31"), unset, POLICY, FACTS), "InvalidOverlay"
    )


def test_the_policy_holds_whatever_the_ledger_s_block_is() -> None:
    assert "overlay_block" in refused(overlay("10.0.0.0/31", block=f"{NOWHERE}/0"), "InvalidOverlay")
    wide = Policy(overlay_block=IPv4Network("10.0.0.0/8"))
    assert overlay("10.0.0.0/31", block="10.0.0.0/16", policy=wide) == IPv4Network("10.0.0.0/31")


@pytest.mark.parametrize(
    ("kind", "taken"),
    [(GATEWAY, True), (RPC_ENDPOINT, True), (OWN_ADDRESS, True), (SSH_PEER, False), (SSH_LOCAL, False)],
)
def test_an_overlay_takes_nothing_that_the_host_needs(kind: str, taken: bool) -> None:
    facts = Protected({IPv4Address("169.254.0.4"): kind})
    assert isinstance(overlay("169.254.0.4/31", facts=facts), Refusal) == taken
    assert overlay("169.254.0.6/31", facts=facts) == IPv4Network("169.254.0.6/31")


def test_a_management_controller_s_link_local_network_is_no_objection() -> None:
    facts = protect(interfaces=[IPv4Interface("169.254.3.1/16")])
    assert overlay("169.254.0.4/31", facts=facts) == IPv4Network("169.254.0.4/31")
    refused(overlay("169.254.3.0/31", facts=facts), "InvalidOverlay")


# ---- the endpoint ----------------------------------------------------------------------------------------------


def endpoint(text: str) -> object:
    return check_endpoint(
        IPv4Address(text), "tunnel_endpoint", {CLIENT, IPv4Address("203.0.113.5")}, POLICY, FACTS.networks
    )


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "8.8.8.8", "10.0.0.1", "198.51.100.1", "198.18.0.1", "223.255.255.255"]
)
def test_a_unicast_address_of_somebody_else_is_an_endpoint(text: str) -> None:
    assert endpoint(text) == IPv4Address(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NOWHERE, "this network"),
        ("0.1.2.3", "this network"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.0.1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("198.51.100.255", "broadcast address of 198.51.100.0/24"),
        ("198.51.100.0", "broadcast address of 198.51.100.0/24"),
        (str(CLIENT), "our own"),
        ("203.0.113.5", "our own"),
    ],
)
def test_no_other_address_is_one(text: str, said: str) -> None:
    why = refused(endpoint(text), "InvalidEndpoint")
    assert said in why
    assert f"tunnel_endpoint {text}" in why


def test_a_31_has_no_broadcast_address() -> None:
    pair = [IPv4Network("192.0.2.0/31")]
    for text in ("192.0.2.0", "192.0.2.1"):
        assert check_endpoint(IPv4Address(text), "x", (), POLICY, pair) == IPv4Address(text)


def test_an_overlay_block_of_the_site_s_own_is_no_place_for_an_endpoint() -> None:
    policy = Policy(overlay_block=IPv4Network("10.0.0.0/8"))
    why = refused(check_endpoint(IPv4Address("10.1.2.3"), "x", (), policy), "InvalidEndpoint")
    assert "overlay block 10.0.0.0/8" in why


# ---- the DoubleZero address ------------------------------------------------------------------------------------


def dz_ip(
    text: str, kind: UserType, publishers: tuple[str, ...] = ("g",), facts: Protected = FACTS
) -> object:
    user = User(dz_ip=IPv4Address(text), publishers=publishers)
    return check_dz_ip(user, kind, CLIENT, POLICY, facts)


@pytest.mark.parametrize("kind", UserType)
def test_an_address_of_doublezero_is_good_for_every_type(kind: UserType) -> None:
    assert dz_ip("203.0.113.9", kind) == IPv4Address("203.0.113.9")


@pytest.mark.parametrize("text", ["203.0.113.9", NOWHERE, "255.255.255.255"])
def test_a_subscriber_needs_none(text: str) -> None:
    assert dz_ip(text, UserType.MULTICAST, publishers=()) is None


@pytest.mark.parametrize("kind", UserType)
@pytest.mark.parametrize(
    "text", [NOWHERE, "0.0.0.9", "127.0.0.1", "169.254.0.9", "233.84.178.1", "255.255.255.255"]
)
def test_no_type_has_an_address_that_is_not_unicast(text: str, kind: UserType) -> None:
    assert "a unicast address is needed" in refused(dz_ip(text, kind), "InvalidDzIp")


@pytest.mark.parametrize(
    "kind", [UserType.IBRL_WITH_ALLOCATED_IP, UserType.EDGE_FILTERING, UserType.MULTICAST]
)
@pytest.mark.parametrize("text", ["198.51.100.1", "192.0.2.1", "192.0.2.50", "192.0.2.77", "198.51.100.99"])
def test_an_address_that_is_added_is_nobody_s_that_the_host_talks_to(text: str, kind: UserType) -> None:
    assert f"dz_ip {text}: {text}/32 " in refused(dz_ip(text, kind), "InvalidDzIp")


def test_ibrl_adds_none_and_so_may_name_any() -> None:
    assert dz_ip("198.51.100.99", UserType.IBRL) == IPv4Address("198.51.100.99")


def test_only_an_allocated_address_differs_from_the_client_ip() -> None:
    for kind in (UserType.IBRL, UserType.EDGE_FILTERING, UserType.MULTICAST):
        assert dz_ip(str(CLIENT), kind) == CLIENT
    refused(dz_ip(str(CLIENT), UserType.IBRL_WITH_ALLOCATED_IP), "InvalidDzIp")


def test_ibrl_s_client_ip_is_what_it_is_even_in_a_laboratory() -> None:
    private = IPv4Address("10.0.0.5")
    user = User(dz_ip=private)
    inside = Policy(overlay_block=IPv4Network("10.0.0.0/8"))
    assert check_dz_ip(user, UserType.IBRL, private, inside, FACTS) == private


def test_a_session_that_already_ends_at_the_address_is_no_objection() -> None:
    facts = Protected({IPv4Address("203.0.113.9"): SSH_LOCAL})
    assert dz_ip("203.0.113.9", UserType.EDGE_FILTERING, facts=facts) == IPv4Address("203.0.113.9")
    facts = Protected({IPv4Address("203.0.113.9"): TUNNEL_ENDPOINT})
    refused(dz_ip("203.0.113.9", UserType.EDGE_FILTERING, facts=facts), "InvalidDzIp")


# ---- numbers and groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "remote", "expected"),
    [(0, 0, (65000, 65001)), (1, 4294967294, (1, 4294967294)), (65534, 65536, (65534, 65536))],
)
def test_as_numbers(local: int, remote: int, expected: tuple[int, int]) -> None:
    assert check_asns(GlobalConfig(local_asn=local, remote_asn=remote)) == expected


@pytest.mark.parametrize("asn", [*RESERVED_ASNS, -1, 2**32])
def test_as_numbers_that_nobody_may_use(asn: int) -> None:
    assert f"local_asn {asn}" in refused(check_asns(replace(CONFIG, local_asn=asn)), "InvalidAsn")
    assert f"remote_asn {asn}" in refused(check_asns(replace(CONFIG, remote_asn=asn)), "InvalidAsn")


def groups(*texts: str) -> object:
    return check_groups((f"group{n}", IPv4Address(text)) for n, text in enumerate(texts))


def test_groups_keep_their_order_and_come_once() -> None:
    assert groups("233.84.178.2", "224.0.1.0", "233.84.178.2", "239.255.255.255") == tuple(
        map(IPv4Address, ("233.84.178.2", "224.0.1.0", "239.255.255.255"))
    )
    assert groups() == ()


@pytest.mark.parametrize(
    "text",
    [
        NOWHERE,
        "10.0.0.1",
        "223.255.255.255",
        "240.0.0.0",
        "255.255.255.255",
        "127.0.0.1",
        "224.0.0.0",
        "224.0.0.5",
        "224.0.0.255",
    ],
)
def test_what_is_no_group_is_named_with_its_account(text: str) -> None:
    why = refused(groups("233.84.178.1", text), "InvalidGroup")
    assert f"group group1 has multicast_ip {text}" in why


# ---- ranges ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_a_prefix_that_touches_a_range_is_named(number: int, length: int) -> None:
    prefix = IPv4Network((number, length), strict=False)
    touched = martian(prefix, POLICY.overlay_block)
    assert (touched is not None) == any(prefix.overlaps(network) for network in NOT_UNICAST)


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_host_bits_are_masked(number: int, length: int) -> None:
    network = to_network(Net(IPv4Address(number), length))
    assert IPv4Address(number) in network
    assert network.prefixlen == length
