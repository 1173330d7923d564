"""Values that the ledger chooses itself: the next free tunnel network, tunnel id and DoubleZero address. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from dzagent.devledger.records import UNSET, Device, State, User
from dzagent.errors import InputError
from dzagent.model import UserType

FIRST_TUNNEL_ID, LAST_TUNNEL_ID = 500, 4595
_TUNNEL_LENGTH = 31
_COUNTED_LENGTH = 16
"""Shortest tunnel network whose addresses are counted as taken: a forced 0.0.0.0/0 would take all."""


def tunnel_net(state: State, users: Iterable[User]) -> IPv4Network:
    """Return the lowest /31 of user_tunnel_block that none of these users has; raises InputError."""
    block = state.config.user_tunnel_block
    if block.prefixlen <= _TUNNEL_LENGTH:
        taken = set(chain.from_iterable(_pairs(user.tunnel_net) for user in users))
        for base in range(int(block.network_address), int(block.broadcast_address) + 1, 2):
            if base not in taken:
                return IPv4Network((base, _TUNNEL_LENGTH))
    raise InputError(
        f"no /31 of user_tunnel_block {block} is free: set a larger one with `dzagent ledger config set`"
    )


def _pairs(network: IPv4Network) -> Iterable[int]:
    if network.prefixlen < _COUNTED_LENGTH:
        return ()
    return range(int(network.network_address) & ~1, int(network.broadcast_address) + 1, 2)


def tunnel_id(device_account: str, code: str, users: Iterable[User]) -> int:
    """Return the lowest tunnel id that none of these users has on the device; raises InputError."""
    taken = {user.tunnel_id for user in users if user.device == device_account}
    for number in range(FIRST_TUNNEL_ID, LAST_TUNNEL_ID + 1):
        if number not in taken:
            return number
    raise InputError(f"device {code} has no tunnel id left ({FIRST_TUNNEL_ID} to {LAST_TUNNEL_ID} are taken)")


def dz_ip(
    state: State,
    wanted: UserType,
    client_ip: IPv4Address,
    device: Device,
    users: Iterable[User],
    *,
    publishes: bool,
) -> IPv4Address:
    """Return the DoubleZero address of a user; raises InputError where no address is left.

    IBRL has its client IP, the other unicast types one of the device's prefixes, a publisher one of
    multicast_publisher_block, and who only subscribes has none.
    """
    if wanted is UserType.IBRL:
        return client_ip
    if wanted is UserType.MULTICAST:
        if not publishes:
            return UNSET
        blocks: tuple[IPv4Network, ...] = (state.config.multicast_publisher_block,)
        source = f"multicast_publisher_block {blocks[0]}"
    else:
        blocks = device.dz_prefixes
        source = f"the dz_prefixes of device {device.code}"
    taken = {user.dz_ip for user in users} | {device.public_ip, *device.tunnel_endpoints}
    for address in chain.from_iterable(_hosts(block) for block in blocks):
        if address not in taken:
            return address
    raise InputError(f"no address of {source} is free: give one with --dz-ip")


def _hosts(network: IPv4Network) -> Iterator[IPv4Address]:
    """Yield the addresses of a network without its first and last, where it has more than two."""
    first, last = int(network.network_address), int(network.broadcast_address)
    inner = network.prefixlen < _TUNNEL_LENGTH
    for number in range(first + inner, last + 1 - inner):
        yield IPv4Address(number)


def tunnel_endpoint(
    device: Device, others: Iterable[User], devices: Mapping[str, Device]
) -> IPv4Address | None:
    """Return where a tunnel ends on a device: UNSET for its public_ip, None where every place is taken.

    `others` are the other users of the same client IP: two GRE tunnels between the same addresses cannot exist.
    """
    taken = {end_of(user, devices) for user in others}
    if device.public_ip not in taken:
        return UNSET
    return next((address for address in device.tunnel_endpoints if address not in taken), None)


def end_of(user: User, devices: Mapping[str, Device]) -> IPv4Address:
    """Return where the tunnel of a user ends; UNSET if its device is not there."""
    if user.tunnel_endpoint != UNSET:
        return user.tunnel_endpoint
    device = devices.get(user.device)
    return UNSET if device is None else device.public_ip
