"""Changes to devices, exchanges, groups and tenants: State -> (State, what was done). Pure; raises InputError."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from dzagent.devledger import addresses, checks, find
from dzagent.devledger.people import Done
from dzagent.devledger.records import (
    ACTIVATED,
    MAX_TEXT,
    NO_KEY,
    Device,
    Exchange,
    Group,
    State,
    Tenant,
)
from dzagent.errors import InputError

R = TypeVar("R")

FIRST_COMMUNITY, LAST_COMMUNITY = 10000, 10999


def add_device(
    state: State,
    code: str,
    public_ip: IPv4Address,
    dz_prefixes: Sequence[IPv4Network],
    *,
    exchange: str | None = None,
    tunnel_endpoints: Sequence[IPv4Address] = (),
    status: int = ACTIVATED,
    max_users: int = 128,
    force: bool = False,
) -> tuple[State, Done]:
    """Add a device. `exchange` is a code; `tunnel_endpoints` are addresses of it where more tunnels may end."""
    place = addresses.indexed(state.program_id, "device", state.next_index)
    device = Device(
        index=state.next_index,
        bump=place.bump,
        code=find.free_code(state.devices, "device", code),
        public_ip=checks.unicast(public_ip, "public_ip", force=force),
        dz_prefixes=_prefixes(dz_prefixes, force=force),
        exchange=find.named(state.exchanges, "exchange", exchange)[0] if exchange else NO_KEY,
        tunnel_endpoints=_endpoints(tunnel_endpoints, force=force),
        status=status,
        max_users=max_users,
    )
    shown = find.listed(map(str, device.dz_prefixes)) or "no prefix"
    after = replace(state, devices={**state.devices, place.account: device}, next_index=state.next_index + 1)
    return after, Done(place.account, f"device {code} added: {place.account}, {public_ip}, {shown}")


def set_device(
    state: State,
    text: str,
    *,
    public_ip: IPv4Address | None = None,
    dz_prefixes: Sequence[IPv4Network] = (),
    exchange: str | None = None,
    tunnel_endpoints: Sequence[IPv4Address] = (),
    status: int | None = None,
    force: bool = False,
) -> tuple[State, Done]:
    """Change fields of a device; None and empty lists leave a field as it is."""
    account, device = find.named(state.devices, "device", text)
    changed = replace(
        device,
        public_ip=device.public_ip
        if public_ip is None
        else checks.unicast(public_ip, "public_ip", force=force),
        dz_prefixes=_prefixes(dz_prefixes, force=force) or device.dz_prefixes,
        exchange=device.exchange if exchange is None else _exchange(state, exchange),
        tunnel_endpoints=_endpoints(tunnel_endpoints, force=force) or device.tunnel_endpoints,
        status=device.status if status is None else status,
    )
    if changed == device:
        return state, Done(account, f"device {device.code} is so already; nothing is changed")
    after = replace(state, devices={**state.devices, account: changed})
    return after, Done(account, f"device {device.code} is changed")


def delete_device(state: State, text: str, *, force: bool = False) -> tuple[State, Done]:
    """Close a device's account; users that are on it stand in the way unless forced."""
    account, device = find.named(state.devices, "device", text)
    _not_named(
        f"device {device.code}",
        (find.label(user) for user in state.users.values() if user.device == account),
        force,
    )
    devices = _without(state.devices, account)
    return replace(state, devices=devices), Done(account, f"device {device.code} is deleted")


def add_exchange(
    state: State,
    code: str,
    name: str,
    place: tuple[float, float] = (0.0, 0.0),
    status: int = ACTIVATED,
) -> tuple[State, Done]:
    """Add an exchange; `place` is latitude and longitude in degrees. It gets the next free BGP community."""
    where = addresses.indexed(state.program_id, "exchange", state.next_index)
    find.free_code(state.exchanges, "exchange", code)
    if not name or len(name) > MAX_TEXT or not name.isprintable():
        raise InputError(f"the name of an exchange has 1 to {MAX_TEXT} printable characters")
    taken = {item.bgp_community for item in state.exchanges.values()}
    community = _free_number(
        range(max(FIRST_COMMUNITY, state.config.next_bgp_community), LAST_COMMUNITY + 1),
        taken,
        "BGP community",
    )
    item = Exchange(state.next_index, where.bump, code, name, *place, community, status)
    after = replace(
        state,
        exchanges={**state.exchanges, where.account: item},
        next_index=state.next_index + 1,
        config=replace(state.config, next_bgp_community=community + 1),
    )
    return after, Done(where.account, f"exchange {code} added: {where.account}, {name}")


def delete_exchange(state: State, text: str, *, force: bool = False) -> tuple[State, Done]:
    """Close an exchange's account; devices that are in it stand in the way unless forced."""
    account, item = find.named(state.exchanges, "exchange", text)
    _not_named(
        f"exchange {item.code}",
        (device.code for device in state.devices.values() if device.exchange == account),
        force,
    )
    exchanges = _without(state.exchanges, account)
    return replace(state, exchanges=exchanges), Done(account, f"exchange {item.code} is deleted")


def add_group(
    state: State,
    code: str,
    multicast_ip: IPv4Address | None = None,
    *,
    max_bandwidth: int = 10**9,
    tenant: str | None = None,
    status: int = ACTIVATED,
    force: bool = False,
) -> tuple[State, Done]:
    """Add a multicast group; without an address it gets the next free one of multicastgroup_block."""
    place = addresses.indexed(state.program_id, "multicastgroup", state.next_index)
    find.free_code(state.groups, "group", code)
    address = _group_ip(state) if multicast_ip is None else checks.group_address(multicast_ip, force=force)
    rival = next((item for item in state.groups.values() if item.multicast_ip == address), None)
    if rival is not None and not force:
        raise InputError(f"multicast_ip {address} is that of group {rival.code}; {checks.INSIST}")
    item = Group(
        index=state.next_index,
        bump=place.bump,
        code=code,
        multicast_ip=address,
        max_bandwidth=max_bandwidth,
        tenant=find.named(state.tenants, "tenant", tenant)[0] if tenant else NO_KEY,
        status=status,
    )
    after = replace(state, groups={**state.groups, place.account: item}, next_index=state.next_index + 1)
    return after, Done(place.account, f"group {code} added: {place.account}, {address}")


def set_group(
    state: State,
    text: str,
    *,
    multicast_ip: IPv4Address | None = None,
    max_bandwidth: int | None = None,
    status: int | None = None,
    force: bool = False,
) -> tuple[State, Done]:
    """Change fields of a group; None leaves a field as it is."""
    account, item = find.named(state.groups, "group", text)
    changed = replace(
        item,
        multicast_ip=item.multicast_ip
        if multicast_ip is None
        else checks.group_address(multicast_ip, force=force),
        max_bandwidth=item.max_bandwidth if max_bandwidth is None else max_bandwidth,
        status=item.status if status is None else status,
    )
    if changed == item:
        return state, Done(account, f"group {item.code} is so already; nothing is changed")
    return replace(state, groups={**state.groups, account: changed}), Done(
        account, f"group {item.code} is changed"
    )


def delete_group(state: State, text: str, *, force: bool = False) -> tuple[State, Done]:
    """Close a group's account; its publishers and subscribers stand in the way unless forced."""
    account, item = find.named(state.groups, "group", text)
    members = (
        find.label(user)
        for user in state.users.values()
        if account in user.publishers or account in user.subscribers
    )
    _not_named(f"group {item.code}", members, force)
    return replace(state, groups=_without(state.groups, account)), Done(
        account, f"group {item.code} is deleted"
    )


def add_tenant(
    state: State,
    code: str,
    vrf_id: int | None = None,
    *,
    metro_routing: bool = True,
    route_liveness: bool = False,
) -> tuple[State, Done]:
    """Add a tenant; without a number it gets the next free VRF."""
    find.free_code(state.tenants, "tenant", code)
    place = addresses.tenant(state.program_id, code)
    taken = {item.vrf_id for item in state.tenants.values()}
    number = _free_number(range(1, 2**16), taken, "VRF number") if vrf_id is None else vrf_id
    item = Tenant(place.bump, code, number, metro_routing, route_liveness)
    after = replace(state, tenants={**state.tenants, place.account: item})
    return after, Done(place.account, f"tenant {code} added: {place.account}, VRF {number}")


def delete_tenant(state: State, text: str, *, force: bool = False) -> tuple[State, Done]:
    """Close a tenant's account; its users and groups stand in the way unless forced."""
    account, item = find.named(state.tenants, "tenant", text)
    users = (find.label(user) for user in state.users.values() if user.tenant == account)
    groups = (group.code for group in state.groups.values() if group.tenant == account)
    _not_named(f"tenant {item.code}", [*users, *groups], force)
    tenants = _without(state.tenants, account)
    return replace(state, tenants=tenants), Done(account, f"tenant {item.code} is deleted")


def _prefixes(prefixes: Sequence[IPv4Network], *, force: bool) -> tuple[IPv4Network, ...]:
    return tuple(checks.prefix(prefix, force=force) for prefix in dict.fromkeys(prefixes))


def _endpoints(endpoints: Sequence[IPv4Address], *, force: bool) -> tuple[IPv4Address, ...]:
    return tuple(checks.unicast(end, "tunnel_endpoint", force=force) for end in dict.fromkeys(endpoints))


def _exchange(state: State, code: str) -> str:
    return find.named(state.exchanges, "exchange", code)[0] if code else NO_KEY


def _group_ip(state: State) -> IPv4Address:
    block = state.config.multicastgroup_block
    taken = {item.multicast_ip for item in state.groups.values()}
    for number in range(1, block.num_addresses):
        if block[number] not in taken:
            return block[number]
    raise InputError(f"no address of multicastgroup_block {block} is free: give one with --multicast-ip")


def _free_number(numbers: Iterable[int], taken: set[int], what: str) -> int:
    for number in numbers:
        if number not in taken:
            return number
    raise InputError(f"no {what} is free: delete something that has one")


def _not_named(what: str, by: Iterable[str], force: bool) -> None:
    names = list(by)
    if names and not force:
        raise InputError(
            f"{what} is named by {find.listed(names)}: change or delete them first; --force leaves them pointing nowhere"
        )


def _without(items: Mapping[str, R], account: str) -> dict[str, R]:
    return {key: item for key, item in items.items() if key != account}
