"""What must stay reachable the way it is, and whether a prefix would take it away. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from dzagent.model import Protected

GATEWAY = "a gateway of this host"
TUNNEL_ENDPOINT = "an endpoint of a tunnel"
RPC_ENDPOINT = "an address of the RPC endpoint"
OWN_ADDRESS = "an address of this host"
UNDERLAY = "a network that this host is connected to"
SSH_PEER = "the far end of an established SSH session"
SSH_LOCAL = "this host's end of an established SSH session"

_LOOPBACK = IPv4Network("127.0.0.0/8")


def protect(
    *,
    interfaces: Iterable[IPv4Interface] = (),
    gateways: Iterable[IPv4Address] = (),
    endpoints: Iterable[IPv4Address] = (),
    rpc: Iterable[IPv4Address] = (),
    ssh: Iterable[tuple[IPv4Address, IPv4Address]] = (),
) -> Protected:
    """Put the facts about a host together.

    interfaces: addresses with their networks, without those on our own tunnels. endpoints: outer addresses of
    the tunnels. ssh: (local, peer) pairs. An address that is several things is named after the first of the
    order gateway, endpoint, RPC, own address, SSH: what SSH alone protects is treated with less force.
    """
    kept = [interface for interface in interfaces if interface.ip not in _LOOPBACK]
    sessions = tuple(ssh)
    named = (
        (GATEWAY, gateways),
        (TUNNEL_ENDPOINT, endpoints),
        (RPC_ENDPOINT, rpc),
        (OWN_ADDRESS, (interface.ip for interface in kept)),
        (SSH_PEER, (peer for _, peer in sessions)),
        (SSH_LOCAL, (local for local, _ in sessions)),
    )
    addresses: dict[IPv4Address, str] = {}
    for what, members in named:
        for address in members:
            addresses.setdefault(address, what)
    networks = {interface.network: UNDERLAY for interface in kept if interface.network.prefixlen < 32}
    return Protected(addresses, networks)


def with_endpoints(protected: Protected, endpoints: Iterable[IPv4Address]) -> Protected:
    """Protect the outer addresses of tunnels as well; they outrank what else these addresses are."""
    return replace(protected, addresses={**protected.addresses, **dict.fromkeys(endpoints, TUNNEL_ENDPOINT)})


def without(protected: Protected, *kinds: str) -> Protected:
    """Leave out the addresses of some kinds, such as SSH_PEER."""
    addresses = {address: what for address, what in protected.addresses.items() if what not in kinds}
    return replace(protected, addresses=addresses)


def captured(prefix: IPv4Network, protected: Protected, ignore: Iterable[IPv4Address] = ()) -> str | None:
    """Say in one sentence why `prefix` must not be routed into a tunnel; None if it may.

    ignore: protected addresses that do not count, such as the DoubleZero address itself.
    """
    return Shield(protected, ignore).captured(prefix)


class Shield:
    """Protected destinations, prepared for many prefixes: a peer can announce thousands of routes at once."""

    def __init__(self, protected: Protected, ignore: Iterable[IPv4Address] = ()) -> None:
        ignored = frozenset(ignore)
        kept = [(int(a), a, what) for a, what in protected.addresses.items() if a not in ignored]
        self._order = {address: number for number, (_, address, _) in enumerate(kept)}
        self._kept = sorted(kept, key=lambda item: item[0])
        self._numbers = [number for number, _, _ in self._kept]
        self._networks = [
            (int(network.network_address), int(network.broadcast_address), network, what)
            for network, what in protected.networks.items()
        ]

    def captured(self, prefix: IPv4Network) -> str | None:
        """Say in one sentence why `prefix` must not be routed into a tunnel; None if it may."""
        first = int(prefix.network_address)
        last = first | (0xFFFFFFFF >> prefix.prefixlen)
        low = bisect_left(self._numbers, first)
        if low < len(self._numbers) and self._numbers[low] <= last:
            inside = self._kept[low : bisect_right(self._numbers, last)]
            _, address, what = min(inside, key=lambda item: self._order[item[1]])
            return f"{prefix} holds {address}, {what}."
        for start, end, network, what in self._networks:
            if first <= end and start <= last:
                return f"{prefix} overlaps {network}, {what}."
        return None
