"""Values -> account bytes in the present layouts of the serviceability program (little endian borsh, no padding).

Written apart from the agent's decoder on purpose. Each function makes one whole account; arguments stand in the
order in which the program writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeAlias

from dzagent.devledger import base58

Net: TypeAlias = IPv4Network | IPv4Interface
Version: TypeAlias = Sequence[int]

_INTERFACE_VERSION = 4
_LEGACY_V2 = 1
"""Discriminant of an old interface record that has the body of version 2."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a device; bandwidth and cir in bit/s. `segments` are (topology key, node segment)."""

    name: str
    ip_net: Net
    status: int = 3
    interface_type: int = 1
    cyoa: int = 0
    dia: int = 0
    loopback_type: int = 0
    bandwidth: int = 0
    cir: int = 0
    mtu: int = 9000
    routing_mode: int = 0
    vlan_id: int = 0
    node_segment: int = 0
    user_tunnel_endpoint: bool = False
    segments: tuple[tuple[str, int], ...] = ()


def global_config(
    *,
    owner: str,
    bump: int,
    asns: tuple[int, int],
    device_tunnel_block: Net,
    user_tunnel_block: Net,
    multicastgroup_block: Net,
    next_bgp_community: int,
    multicast_publisher_block: Net,
) -> bytes:
    """Make a GlobalConfig (64 bytes); `asns` are local and remote."""
    blocks = _net(device_tunnel_block) + _net(user_tunnel_block) + _net(multicastgroup_block)
    head = b"\x02" + _key(owner) + struct.pack("<BII", bump, *asns)
    return head + blocks + struct.pack("<H", next_bgp_community) + _net(multicast_publisher_block)


def program_config(*, bump: int, version: Version, min_compatible: Version) -> bytes:
    """Make a ProgramConfig (26 bytes)."""
    return b"\x09" + struct.pack("<B3I3I", bump, *version, *min_compatible)


def exchange(
    *,
    owner: str,
    index: int,
    bump: int,
    place: tuple[float, float],
    bgp_community: int,
    status: int,
    code: str,
    name: str,
    reference_count: int,
    devices: tuple[str, str],
) -> bytes:
    """Make an Exchange; `place` is latitude and longitude in degrees."""
    body = struct.pack("<ddHHB", *place, bgp_community, 0, status)
    tail = struct.pack("<I", reference_count) + _key(devices[0]) + _key(devices[1])
    return _head(4, owner, index, bump) + body + _text(code) + _text(name) + tail


def device(
    *,
    owner: str,
    index: int,
    bump: int,
    location: str,
    exchange: str,
    device_type: int,
    public_ip: IPv4Address,
    status: int,
    code: str,
    dz_prefixes: Sequence[Net],
    metrics_publisher: str,
    contributor: str,
    mgmt_vrf: str,
    interfaces: Sequence[Interface],
    reference_count: int,
    users: tuple[int, int],
    health: int,
    desired_status: int,
    counters: Sequence[int],
) -> bytes:
    """Make a Device.

    users: count and maximum. counters: unicast users, multicast subscribers, maximum unicast users, maximum
    subscribers, reserved seats, publishers, maximum publishers. The interfaces are written twice, as the program
    does: in the old list and, with their sizes, at the end.
    """
    fixed = _key(location) + _key(exchange) + bytes([device_type]) + public_ip.packed + bytes([status])
    prefixes = _count(dz_prefixes) + b"".join(map(_net, dz_prefixes))
    keys = _key(metrics_publisher) + _key(contributor)
    legacy = _count(interfaces) + b"".join(bytes([_LEGACY_V2]) + _interface(item) for item in interfaces)
    numbers = struct.pack("<IHHBB7H", reference_count, *users, health, desired_status, *counters)
    sized = _count(interfaces) + b"".join(map(_sized_interface, interfaces))
    head = _head(5, owner, index, bump) + fixed
    return head + _text(code) + prefixes + keys + _text(mgmt_vrf) + legacy + numbers + sized


def user(
    *,
    owner: str,
    index: int,
    bump: int,
    user_type: int,
    tenant: str,
    device: str,
    cyoa_type: int,
    client_ip: IPv4Address,
    dz_ip: IPv4Address,
    tunnel_id: int,
    tunnel_net: Net,
    status: int,
    publishers: Sequence[str],
    subscribers: Sequence[str],
    validator: str,
    tunnel_endpoint: IPv4Address,
    tunnel_flags: int,
    bgp_status: int,
    bgp_times: tuple[int, int, int],
    feeds: Sequence[str],
) -> bytes:
    """Make a User; `bgp_times` are last up and last report (slots) and round trip (ns)."""
    fixed = bytes([user_type]) + _key(tenant) + _key(device) + bytes([cyoa_type])
    ips = client_ip.packed + dz_ip.packed + struct.pack("<H", tunnel_id) + _net(tunnel_net)
    groups = bytes([status]) + _keys(publishers) + _keys(subscribers)
    tunnel = _key(validator) + tunnel_endpoint.packed + bytes([tunnel_flags])
    bgp = struct.pack("<B3Q", bgp_status, *bgp_times)
    return _head(7, owner, index, bump) + fixed + ips + groups + tunnel + bgp + _keys(feeds)


def multicast_group(
    *,
    owner: str,
    index: int,
    bump: int,
    tenant: str,
    multicast_ip: IPv4Address,
    max_bandwidth: int,
    status: int,
    code: str,
    publishers: int,
    subscribers: int,
) -> bytes:
    """Make a MulticastGroup; max_bandwidth in bit/s."""
    body = _key(tenant) + multicast_ip.packed + struct.pack("<QB", max_bandwidth, status)
    return _head(8, owner, index, bump) + body + _text(code) + struct.pack("<II", publishers, subscribers)


def tenant(
    *,
    owner: str,
    bump: int,
    code: str,
    vrf_id: int,
    reference_count: int,
    administrators: Sequence[str],
    payment_status: int,
    token_account: str,
    metro_routing: bool,
    route_liveness: bool,
    billing: tuple[int, int],
    topologies: Sequence[str],
) -> bytes:
    """Make a Tenant; `billing` is a flat rate and the last epoch it was taken for."""
    head = b"\x0d" + _key(owner) + bytes([bump]) + _text(code)
    numbers = struct.pack("<HI", vrf_id, reference_count) + _keys(administrators)
    payment = bytes([payment_status]) + _key(token_account) + bytes([metro_routing, route_liveness])
    return head + numbers + payment + struct.pack("<BQQ", 0, *billing) + _keys(topologies)


def access_pass(
    *,
    owner: str,
    bump: int,
    kind: int,
    key: str | None,
    client_ip: IPv4Address,
    payer: str,
    last_access_epoch: int,
    connections: int,
    status: int,
    publish: Sequence[str],
    subscribe: Sequence[str],
    flags: int,
    tenants: Sequence[str],
    users: Sequence[int],
) -> bytes:
    """Make an AccessPass; `key` for the kinds that hold one, `users` unicast count, maximum, multicast the same."""
    head = b"\x0b" + _key(owner) + bytes([bump, kind]) + (b"" if key is None else _key(key))
    body = client_ip.packed + _key(payer) + struct.pack("<QHB", last_access_epoch, connections, status)
    lists = _keys(publish) + _keys(subscribe) + bytes([flags]) + _keys(tenants)
    return head + body + lists + struct.pack("<4H", *users)


def _head(account_type: int, owner: str, index: int, bump: int) -> bytes:
    return bytes([account_type]) + _key(owner) + index.to_bytes(16, "little") + bytes([bump])


def _interface(item: Interface) -> bytes:
    head = bytes([item.status]) + _text(item.name)
    kinds = bytes([item.interface_type, item.cyoa, item.dia, item.loopback_type])
    rates = struct.pack("<QQHBH", item.bandwidth, item.cir, item.mtu, item.routing_mode, item.vlan_id)
    tail = struct.pack("<HB", item.node_segment, item.user_tunnel_endpoint)
    return head + kinds + rates + _net(item.ip_net) + tail


def _sized_interface(item: Interface) -> bytes:
    segments = b"".join(_key(topology) + struct.pack("<H", number) for topology, number in item.segments)
    body = bytes([_INTERFACE_VERSION]) + _interface(item) + _count(item.segments) + segments
    return struct.pack("<H", len(body) + 2) + body


def _key(text: str) -> bytes:
    data = base58.decode(text)
    if len(data) != base58.KEY_BYTES:
        raise ValueError(f"{text} is not a key of {base58.KEY_BYTES} bytes")
    return data


def _keys(keys: Sequence[str]) -> bytes:
    return _count(keys) + b"".join(map(_key, keys))


def _count(items: Sequence[object]) -> bytes:
    return struct.pack("<I", len(items))


def _net(net: Net) -> bytes:
    if isinstance(net, IPv4Interface):
        return net.ip.packed + bytes([net.network.prefixlen])
    return net.network_address.packed + bytes([net.prefixlen])


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data
