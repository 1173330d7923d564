"""Whether a value makes sense on a ledger. Pure. A person can insist, to see what an agent does with nonsense."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from dzagent.errors import InputError

INSIST = "--force writes it all the same, to see what an agent does with it"

MULTICAST = IPv4Network("224.0.0.0/4")
_LOCAL_CONTROL = IPv4Network("224.0.0.0/24")
_SHORTEST_PREFIX = 8
_TUNNEL_LENGTH = 31
_MAX_ASN = 2**32 - 1

_NOT_UNICAST = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    MULTICAST: "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
}


def unicast(address: IPv4Address, field: str, *, force: bool) -> IPv4Address:
    """Return a unicast address; raises InputError for any other that is not forced."""
    wrong = next((what for net, what in _NOT_UNICAST.items() if address in net), None)
    if wrong and not force:
        raise InputError(f"{field} {address} is a {wrong} address, where a unicast one belongs; {INSIST}")
    return address


def group_address(address: IPv4Address, *, force: bool) -> IPv4Address:
    """Return a multicast address that can be routed; raises InputError for any other that is not forced."""
    if (address not in MULTICAST or address in _LOCAL_CONTROL) and not force:
        raise InputError(
            f"multicast_ip {address} is not in 224.0.0.0/4 without 224.0.0.0/24, where groups are; {INSIST}"
        )
    return address


def prefix(network: IPv4Network, *, force: bool) -> IPv4Network:
    """Return a prefix of unicast addresses; raises InputError for any other that is not forced."""
    wrong = next((what for net, what in _NOT_UNICAST.items() if network.overlaps(net)), None)
    if network.prefixlen < _SHORTEST_PREFIX:
        wrong = f"most of the Internet (shorter than /{_SHORTEST_PREFIX})"
    if wrong and not force:
        raise InputError(f"dz_prefix {network} holds {wrong} addresses, which no device has; {INSIST}")
    return network


def tunnel_block(network: IPv4Network, *, force: bool) -> IPv4Network:
    """Return a block that holds at least one /31; raises InputError for any other that is not forced."""
    if not _SHORTEST_PREFIX <= network.prefixlen <= _TUNNEL_LENGTH and not force:
        raise InputError(
            f"a tunnel block {network} is not from /{_SHORTEST_PREFIX} to /{_TUNNEL_LENGTH}; {INSIST}"
        )
    return network


def tunnel_net(network: IPv4Network, block: IPv4Network, *, force: bool) -> IPv4Network:
    """Return a /31 of the block; raises InputError for any other that is not forced."""
    if (network.prefixlen != _TUNNEL_LENGTH or not network.subnet_of(block)) and not force:
        raise InputError(f"tunnel_net {network} is not a /31 of user_tunnel_block {block}; {INSIST}")
    return network


def asn(number: int, field: str) -> int:
    """Return an AS number as the account can hold it; raises InputError."""
    if not 0 <= number <= _MAX_ASN:
        raise InputError(f"{field} {number} is not from 0 to {_MAX_ASN}")
    return number
