"""State -> the bytes of every account, with the counters that follow from who names whom. Pure."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Network

from dzagent.devledger import layout, records
from dzagent.devledger.records import ACTIVATED, NO_KEY, State
from dzagent.model import UserType

_HYBRID = 0
_READY_FOR_USERS = 3
_BGP_UNKNOWN = 0
_PAID = 1
_MAX_U16 = 2**16 - 1
_LOOPBACK, _VPNV4, _IPV4 = 1, 1, 2


@dataclass(frozen=True, slots=True)
class _Tally:
    """How often accounts are named: devices by (address, what for), everything else by address."""

    on_device: Counter[tuple[str, str]]
    named: Counter[str]
    publishers: Counter[str]
    subscribers: Counter[str]
    connections: Counter[tuple[str, str, str]]


def accounts(state: State) -> dict[str, bytes]:
    """Return the bytes of all accounts by address. Raises ValueError if a record does not fit its layout."""
    tally = _tally(state)
    made = {
        state.config.account: _config(state),
        state.program.account: layout.program_config(
            bump=state.program.bump,
            version=records.version_numbers(state.program.version),
            min_compatible=records.version_numbers(state.program.min_compatible),
        ),
        **{key: _exchange(state, key, item, tally) for key, item in state.exchanges.items()},
        **{key: _device(state, key, item, tally) for key, item in state.devices.items()},
        **{key: _group(state, key, item, tally) for key, item in state.groups.items()},
        **{key: _tenant(state, key, item, tally) for key, item in state.tenants.items()},
        **{key: user(item) for key, item in state.users.items()},
        **{key: _pass(item, tally) for key, item in state.passes.items()},
    }
    made.update((key, base64.b64decode(data)) for key, data in state.raw.items())
    return dict(sorted(made.items()))


def _tally(state: State) -> _Tally:
    tally = _Tally(Counter(), Counter(), Counter(), Counter(), Counter())
    for item in state.users.values():
        tally.on_device[item.device, "all"] += 1
        multicast = item.user_type == UserType.MULTICAST
        kind = "unicast" if not multicast else "publisher" if item.publishers else "subscriber"
        tally.on_device[item.device, kind] += 1
        tally.connections[str(item.client_ip), item.payer, "multicast" if multicast else "unicast"] += 1
        tally.named[item.tenant] += 1
        tally.publishers.update(set(item.publishers))
        tally.subscribers.update(set(item.subscribers))
    tally.named.update(device.exchange for device in state.devices.values())
    return tally


def _config(state: State) -> bytes:
    config = state.config
    return layout.global_config(
        owner=state.payer,
        bump=config.bump,
        asns=(config.local_asn, config.remote_asn),
        device_tunnel_block=config.device_tunnel_block,
        user_tunnel_block=config.user_tunnel_block,
        multicastgroup_block=config.multicastgroup_block,
        next_bgp_community=config.next_bgp_community,
        multicast_publisher_block=config.multicast_publisher_block,
    )


def _exchange(state: State, key: str, item: records.Exchange, tally: _Tally) -> bytes:
    first, second, *_ = [*(k for k, d in state.devices.items() if d.exchange == key), NO_KEY, NO_KEY]
    return layout.exchange(
        owner=state.payer,
        index=item.index,
        bump=item.bump,
        place=(item.lat, item.lng),
        bgp_community=item.bgp_community,
        status=item.status,
        code=item.code,
        name=item.name,
        reference_count=tally.named[key],
        devices=(first, second),
    )


def _device(state: State, key: str, item: records.Device, tally: _Tally) -> bytes:
    users = _u16(tally.on_device[key, "all"])
    most = item.max_users
    return layout.device(
        owner=state.payer,
        index=item.index,
        bump=item.bump,
        location=NO_KEY,
        exchange=item.exchange,
        device_type=_HYBRID,
        public_ip=item.public_ip,
        status=item.status,
        code=item.code,
        dz_prefixes=item.dz_prefixes,
        metrics_publisher=state.payer,
        contributor=NO_KEY,
        mgmt_vrf="default",
        interfaces=_interfaces(state, item),
        reference_count=tally.on_device[key, "all"],
        users=(users, most),
        health=_READY_FOR_USERS,
        desired_status=ACTIVATED,
        counters=(
            _u16(tally.on_device[key, "unicast"]),
            _u16(tally.on_device[key, "subscriber"]),
            most,
            most,
            0,
            _u16(tally.on_device[key, "publisher"]),
            most,
        ),
    )


def _interfaces(state: State, item: records.Device) -> tuple[layout.Interface, ...]:
    """Return the loopbacks that every device has, and one for each further place where tunnels may end."""
    block = state.config.device_tunnel_block
    own = IPv4Network(block[item.index % block.num_addresses])
    loopbacks = (
        layout.Interface("Loopback255", own, interface_type=_LOOPBACK, loopback_type=_VPNV4),
        layout.Interface("Loopback256", own, interface_type=_LOOPBACK, loopback_type=_IPV4),
    )
    ends = (
        layout.Interface(
            f"Loopback{number}",
            IPv4Network(address),
            interface_type=_LOOPBACK,
            user_tunnel_endpoint=True,
        )
        for number, address in enumerate(item.tunnel_endpoints, start=100)
    )
    return (*loopbacks, *ends)


def _group(state: State, key: str, item: records.Group, tally: _Tally) -> bytes:
    return layout.multicast_group(
        owner=state.payer,
        index=item.index,
        bump=item.bump,
        tenant=item.tenant,
        multicast_ip=item.multicast_ip,
        max_bandwidth=item.max_bandwidth,
        status=item.status,
        code=item.code,
        publishers=tally.publishers[key],
        subscribers=tally.subscribers[key],
    )


def _tenant(state: State, key: str, item: records.Tenant, tally: _Tally) -> bytes:
    return layout.tenant(
        owner=state.payer,
        bump=item.bump,
        code=item.code,
        vrf_id=item.vrf_id,
        reference_count=tally.named[key],
        administrators=(state.payer,),
        payment_status=_PAID,
        token_account=NO_KEY,
        metro_routing=item.metro_routing,
        route_liveness=item.route_liveness,
        billing=(0, 0),
        topologies=(),
    )


def user(item: records.User) -> bytes:
    """Return the bytes of a user, with BGP fields as they are before a device has reported any."""
    return layout.user(
        owner=item.payer,
        index=item.index,
        bump=item.bump,
        user_type=item.user_type,
        tenant=item.tenant,
        device=item.device,
        cyoa_type=records.GRE_OVER_DIA,
        client_ip=item.client_ip,
        dz_ip=item.dz_ip,
        tunnel_id=item.tunnel_id,
        tunnel_net=item.tunnel_net,
        status=item.status,
        publishers=item.publishers,
        subscribers=item.subscribers,
        validator=NO_KEY,
        tunnel_endpoint=item.tunnel_endpoint,
        tunnel_flags=int(item.created_as_publisher),
        bgp_status=_BGP_UNKNOWN,
        bgp_times=(0, 0, 0),
        feeds=(),
    )


def _pass(item: records.Pass, tally: _Tally) -> bytes:
    unicast = _u16(tally.connections[str(item.client_ip), item.payer, "unicast"])
    multicast = _u16(tally.connections[str(item.client_ip), item.payer, "multicast"])
    return layout.access_pass(
        owner=item.payer,
        bump=item.bump,
        kind=item.kind,
        key=None if item.kind == records.PASS_KINDS["prepaid"] else item.key,
        client_ip=item.client_ip,
        payer=item.payer,
        last_access_epoch=item.last_access_epoch,
        connections=_u16(unicast + multicast),
        status=records.PASS_STATUSES["connected"] if unicast + multicast else item.status,
        publish=item.publish,
        subscribe=item.subscribe,
        flags=0,
        tenants=item.tenants,
        users=(unicast, item.max_unicast_users, multicast, item.max_multicast_users),
    )


def _u16(count: int) -> int:
    return min(count, _MAX_U16)
