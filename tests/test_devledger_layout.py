"""The bytes that the development ledger makes: against upstream's own, and against the agent's decoder."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from dzagent.devledger import addresses, bank, base58, layout, people
from dzagent.devledger.records import NO_KEY
from dzagent.devledger.zstd import frame
from dzagent.ledger import pda
from dzagent.ledger.accounts import (
    AccessPass,
    Device,
    Exchange,
    GlobalConfig,
    MulticastGroup,
    ProgramConfig,
    Tenant,
    User,
    decode,
)
from dzagent.model import UserType
from tests.devledger_fakes import IP, PROGRAM, populated, with_user

FIXTURES = Path(__file__).parent / "fixtures" / "accounts"


class Fields:
    """The values of an upstream fixture, as Python values."""

    def __init__(self, name: str) -> None:
        document = json.loads((FIXTURES / f"{name}.json").read_text())
        self._values: Mapping[str, tuple[str, str]] = {
            field["name"]: (field["value"], field["typ"]) for field in document["fields"]
        }
        self.data = (FIXTURES / f"{name}.bin").read_bytes()

    def __getitem__(self, name: str) -> Any:
        value, kind = self._values[name]
        if kind in {"pubkey", "string"}:
            return value
        if kind == "ipv4":
            return IPv4Address(value)
        if kind == "networkv4":
            return IPv4Interface(value)
        if kind == "bool":
            return value == "true"
        return float(value) if kind == "f64" else int(value)

    def many(self, name: str) -> tuple[Any, ...]:
        """Return the items of a list."""
        return tuple(self[f"{name}{number}"] for number in range(self[f"{name}Len"]))


def test_a_user_is_what_upstream_writes() -> None:
    f = Fields("user")
    made = layout.user(
        owner=f["Owner"],
        index=f["Index"],
        bump=f["BumpSeed"],
        user_type=f["UserType"],
        tenant=f["TenantPk"],
        device=f["DevicePk"],
        cyoa_type=f["CyoaType"],
        client_ip=f["ClientIp"],
        dz_ip=f["DzIp"],
        tunnel_id=f["TunnelId"],
        tunnel_net=f["TunnelNet"],
        status=f["Status"],
        publishers=f.many("Publishers"),
        subscribers=f.many("Subscribers"),
        validator=f["ValidatorPubkey"],
        tunnel_endpoint=f["TunnelEndpoint"],
        tunnel_flags=f["TunnelFlags"],
        bgp_status=f["BgpStatus"],
        bgp_times=(f["LastBgpUpAt"], f["LastBgpReportedAt"], f["BgpRttNs"]),
        feeds=f.many("FeedPks"),
    )
    assert made == f.data


def _interface(f: Fields, number: int) -> layout.Interface:
    def of(name: str) -> Any:
        return f[f"NewInterface{number}{name}"]

    segments = tuple(
        (of(f"FlexAlgoNodeSegments{n}Topology"), of(f"FlexAlgoNodeSegments{n}NodeSegmentIdx"))
        for n in range(of("FlexAlgoNodeSegmentsLen"))
    )
    return layout.Interface(
        of("Name"),
        of("IpNet"),
        of("Status"),
        of("InterfaceType"),
        of("InterfaceCYOA"),
        of("InterfaceDIA"),
        of("LoopbackType"),
        of("Bandwidth"),
        of("Cir"),
        of("Mtu"),
        of("RoutingMode"),
        of("VlanId"),
        of("NodeSegmentIdx"),
        of("UserTunnelEndpoint"),
        segments,
    )


def test_a_device_is_what_upstream_writes() -> None:
    f = Fields("device")
    counters = (
        "UnicastUsersCount",
        "MulticastSubscribersCount",
        "MaxUnicastUsers",
        "MaxMulticastSubscribers",
        "ReservedSeats",
        "MulticastPublishersCount",
        "MaxMulticastPublishers",
    )
    made = layout.device(
        owner=f["Owner"],
        index=f["Index"],
        bump=f["BumpSeed"],
        location=f["LocationPk"],
        exchange=f["ExchangePk"],
        device_type=f["DeviceType"],
        public_ip=f["PublicIp"],
        status=f["Status"],
        code=f["Code"],
        dz_prefixes=f.many("DzPrefixes"),
        metrics_publisher=f["MetricsPublisherPk"],
        contributor=f["ContributorPk"],
        mgmt_vrf=f["MgmtVrf"],
        interfaces=[_interface(f, number) for number in range(f["NewInterfacesLen"])],
        reference_count=f["ReferenceCount"],
        users=(f["UsersCount"], f["MaxUsers"]),
        health=f["DeviceHealth"],
        desired_status=f["DesiredStatus"],
        counters=[f[name] for name in counters],
    )
    assert made == f.data


def test_configurations_are_what_upstream_writes() -> None:
    f = Fields("global_config")
    made = layout.global_config(
        owner=f["Owner"],
        bump=f["BumpSeed"],
        asns=(f["LocalAsn"], f["RemoteAsn"]),
        device_tunnel_block=f["DeviceTunnelBlock"],
        user_tunnel_block=f["UserTunnelBlock"],
        multicastgroup_block=f["MulticastGroupBlock"],
        next_bgp_community=f["NextBgpCommunity"],
        multicast_publisher_block=f["MulticastPublisherBlock"],
    )
    assert made == f.data
    f = Fields("program_config")
    parts = ("Major", "Minor", "Patch")
    made = layout.program_config(
        bump=f["BumpSeed"],
        version=[f[f"Version{part}"] for part in parts],
        min_compatible=[f[f"MinCompatibleVersion{part}"] for part in parts],
    )
    assert made == f.data


def test_exchange_group_and_tenant_are_what_upstream_writes() -> None:
    f = Fields("exchange")
    made = layout.exchange(
        owner=f["Owner"],
        index=f["Index"],
        bump=f["BumpSeed"],
        place=(f["Lat"], f["Lng"]),
        bgp_community=f["BgpCommunity"],
        status=f["Status"],
        code=f["Code"],
        name=f["Name"],
        reference_count=f["ReferenceCount"],
        devices=(f["Device1Pk"], f["Device2Pk"]),
    )
    assert made == f.data
    f = Fields("multicast_group")
    made = layout.multicast_group(
        owner=f["Owner"],
        index=f["Index"],
        bump=f["BumpSeed"],
        tenant=f["TenantPk"],
        multicast_ip=f["MulticastIp"],
        max_bandwidth=f["MaxBandwidth"],
        status=f["Status"],
        code=f["Code"],
        publishers=f["PublisherCount"],
        subscribers=f["SubscriberCount"],
    )
    assert made == f.data
    f = Fields("tenant")
    made = layout.tenant(
        owner=f["Owner"],
        bump=f["BumpSeed"],
        code=f["Code"],
        vrf_id=f["VrfId"],
        reference_count=f["ReferenceCount"],
        administrators=f.many("Administrators"),
        payment_status=f["PaymentStatus"],
        token_account=f["TokenAccount"],
        metro_routing=f["MetroRouting"],
        route_liveness=f["RouteLiveness"],
        billing=(f["BillingRate"], f["BillingLastDeductionDzEpoch"]),
        topologies=(),
    )
    assert made == f.data


@pytest.mark.parametrize("name", ["access_pass", "access_pass_validator"])
def test_an_access_pass_is_what_upstream_writes(name: str) -> None:
    f = Fields(name)
    made = layout.access_pass(
        owner=f["Owner"],
        bump=f["BumpSeed"],
        kind=f["AccessPassType"],
        key=f["AccessPassTypeValidatorPubkey"] if f["AccessPassType"] else None,
        client_ip=f["ClientIp"],
        payer=f["UserPayer"],
        last_access_epoch=f["LastAccessEpoch"],
        connections=f["ConnectionCount"],
        status=f["Status"],
        publish=f.many("MgroupPubAllowlist"),
        subscribe=f.many("MgroupSubAllowlist"),
        flags=f["Flags"],
        tenants=f.many("TenantAllowlist"),
        users=[
            f[part]
            for part in ("UnicastUserCount", "MaxUnicastUsers", "MulticastUserCount", "MaxMulticastUsers")
        ],
    )
    assert made == f.data


def test_a_key_of_another_size_is_never_written() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        layout.access_pass(
            owner="abc",
            bump=1,
            kind=0,
            key=None,
            client_ip=IP,
            payer=NO_KEY,
            last_access_epoch=0,
            connections=0,
            status=0,
            publish=(),
            subscribe=(),
            flags=0,
            tenants=(),
            users=(0, 0, 0, 0),
        )


# ---- the whole bank --------------------------------------------------------------------------------------


def test_the_agents_decoder_reads_every_account_in_the_present_layout() -> None:
    state, user = with_user(populated(), UserType.MULTICAST, publish=["blocks"], tenant="acme")
    state, done = people.add_pass(state, people.NewPass(IP, publish=["blocks"], tenants=["acme"]))
    decoded = {key: decode(data) for key, data in bank.accounts(state).items()}
    assert list(decoded) == sorted(decoded)
    kinds = [type(account) for account in decoded.values()]
    assert set(kinds) == {
        AccessPass, Device, Exchange, GlobalConfig, MulticastGroup, ProgramConfig, Tenant, User,
    }  # fmt: skip
    for account in decoded.values():
        assert (account.missing, account.trailing, account.problems) == ((), 0, ())
    assert isinstance(decoded[user], User)
    assert isinstance(decoded[done.account], AccessPass)


def _one(state: Any, kind: Any, code: str) -> Any:
    decoded = (decode(data) for data in bank.accounts(state).values())
    return next(item for item in decoded if isinstance(item, kind) and getattr(item, "code", "") == code)


def test_a_users_fields_arrive() -> None:
    state, account = with_user(
        populated(), UserType.MULTICAST, publish=["blocks"], subscribe=["blocks", "shreds"], tenant="acme"
    )
    user = decode(bank.accounts(state)[account])
    assert isinstance(user, User)
    codes = {key: group.code for key, group in state.groups.items()}
    assert (user.client_ip, user.user_type, user.status, user.tunnel_id) == (IP, 3, 1, 500)
    assert ([codes[k] for k in user.publishers], [codes[k] for k in user.subscribers]) == (
        ["blocks"],
        ["blocks", "shreds"],
    )
    assert (user.tunnel_flags, user.cyoa_type, user.bgp_status) == (1, 1, 0)
    assert state.devices[user.device_pk].code == "dev1"
    assert state.tenants[user.tenant_pk].code == "acme"


def test_counters_follow_from_who_names_whom() -> None:
    state, _ = with_user(populated(), UserType.IBRL, tenant="acme")
    state, _ = with_user(state, UserType.MULTICAST, publish=["blocks"], subscribe=["shreds"])
    device = _one(state, Device, "dev1")
    assert (device.users_count, device.unicast_users_count, device.reference_count) == (2, 1, 2)
    assert (device.multicast_publishers_count, device.multicast_subscribers_count) == (1, 0)
    assert (_one(state, Device, "dev2").users_count, _one(state, Tenant, "acme").reference_count) == (0, 1)
    blocks, shreds = _one(state, MulticastGroup, "blocks"), _one(state, MulticastGroup, "shreds")
    assert (blocks.publisher_count, blocks.subscriber_count) == (1, 0)
    assert (shreds.publisher_count, shreds.subscriber_count) == (0, 1)
    exchange = _one(state, Exchange, "xfra")
    assert exchange.reference_count == 1
    assert state.devices[exchange.device1_pk].code == "dev1"
    assert exchange.device2_pk == NO_KEY


def test_a_pass_counts_the_users_of_its_payer() -> None:
    state, done = people.add_pass(populated(), people.NewPass(IP))
    before = decode(bank.accounts(state)[done.account])
    state, _ = with_user(state, UserType.IBRL)
    state, _ = with_user(state, UserType.MULTICAST)
    after = decode(bank.accounts(state)[done.account])
    assert isinstance(before, AccessPass)
    assert isinstance(after, AccessPass)
    assert (before.status, before.connection_count) == (0, 0)
    assert (after.status, after.connection_count) == (1, 2)
    assert (after.unicast_user_count, after.multicast_user_count) == (1, 1)


def test_further_tunnel_endpoints_are_interfaces_of_the_device() -> None:
    device = _one(populated(), Device, "dev1")
    assert device.interfaces is not None
    ends = [item for item in device.interfaces if item.user_tunnel_endpoint]
    assert [(item.name, str(item.ip_net.address)) for item in ends] == [("Loopback100", "192.0.2.2")]
    assert device.legacy_interfaces is not None
    assert len(device.legacy_interfaces) == len(device.interfaces) == 3


def test_put_bytes_stand_whatever_the_records_say() -> None:
    state, account = with_user(populated())
    state = _with_raw(state, {account: "BwE="})
    assert bank.accounts(state)[account] == b"\x07\x01"


def _with_raw(state: Any, raw: Mapping[str, str]) -> Any:
    from dataclasses import replace

    return replace(state, raw=raw)


# ---- addresses, base58, zstd -----------------------------------------------------------------------------


def test_addresses_are_where_the_agent_looks() -> None:
    state, account = with_user(populated(), UserType.EDGE_FILTERING)
    assert state.config.account == pda.config_address(PROGRAM)
    assert state.program.account == pda.program_config_address(PROGRAM)
    assert account == pda.user_address(PROGRAM, IP, UserType.EDGE_FILTERING)
    assert list(state.tenants) == [pda.tenant_address(PROGRAM, "acme")]
    state, done = people.add_pass(state, people.NewPass(IP))
    assert done.account == pda.access_pass_address(PROGRAM, IP, state.payer)
    assert addresses.indexed(PROGRAM, "user", 9).account == pda.user_index_address(PROGRAM, 9)


def test_the_config_addresses_of_mainnet_are_the_real_ones() -> None:
    mainnet = "ser2VaTMAcYTaauMrTSfSrxBaUDq7BLNs2xfUugTAGv"
    assert addresses.derive(mainnet, b"config").account == "7jiLhZvcERnAPKnobALqAKGZwe7BR23cUYvrkZCgp5Sy"
    assert (
        addresses.derive(mainnet, b"programconfig").account == "AygqqJuwTuG8RQ3x1mT8jXcug3dbQKCLyXCKjC1yrxWD"
    )


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\x01", bytes(32), bytes(range(64)), b"\xff" * 32])
def test_base58_goes_both_ways(data: bytes) -> None:
    assert base58.decode(base58.encode(data)) == data


def test_base58_is_what_solana_writes() -> None:
    from solders.pubkey import Pubkey

    for data in (bytes(32), bytes(range(32)), b"\xff" * 32, b"\0\0" + b"\x07" * 30):
        assert base58.encode(data) == str(Pubkey(data))
        assert base58.is_key(str(Pubkey(data)))


@pytest.mark.parametrize("text", ["", "1", "0" * 32, "z" * 44, "1" * 33, "1" * 45, "ü" * 32])
def test_what_is_no_key_is_refused(text: str) -> None:
    assert not base58.is_key(text)


def test_a_frame_states_its_size_and_ends_with_a_last_block() -> None:
    data = bytes(300_000)
    made = frame(data)
    assert made[:4] == b"\x28\xb5\x2f\xfd"
    assert struct.unpack_from("<Q", made, 5) == (300_000,)
    blocks, offset = [], 13
    while offset < len(made):
        header = int.from_bytes(made[offset : offset + 3], "little")
        blocks.append((header & 1, header >> 1 & 3, header >> 3))
        offset += 3 + (header >> 3)
    assert blocks == [(0, 0, 131072), (0, 0, 131072), (1, 0, 37856)]
    assert frame(b"")[-3:] == b"\x01\x00\x00"
