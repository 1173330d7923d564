"""Checks of single fields that the ledger gave: each returns a typed value or a Refusal. Pure.

Limits and meanings: upstream's request building (client/doublezerod/internal/api) trusts these fields; nothing
here does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from dzagent.ledger.accounts import GlobalConfig, Net, User
from dzagent.model import Protected, UserType
from dzagent.policy import Policy
from dzagent.protect import SSH_LOCAL, SSH_PEER, captured, without

DEFAULT_LOCAL_ASN = 65000
DEFAULT_REMOTE_ASN = 65001

RESERVED_ASNS = {
    23456: "AS_TRANS, RFC 6793",
    65535: "reserved, RFC 7300",
    4294967295: "reserved, RFC 7300",
}

UNSPECIFIED = IPv4Address("0.0.0.0")  # noqa: S104 - the ledger's "not set", nothing is bound to it

NOT_UNICAST = {
    IPv4Network("0.0.0.0/8"): "this network, 0.0.0.0/8",
    IPv4Network("127.0.0.0/8"): "loopback, 127.0.0.0/8",
    IPv4Network("169.254.0.0/16"): "link-local, 169.254.0.0/16",
    IPv4Network("224.0.0.0/4"): "multicast, 224.0.0.0/4",
    IPv4Network("240.0.0.0/4"): "reserved or broadcast, 240.0.0.0/4",
}
"""Ranges that no tunnel endpoint, DoubleZero address or prefix may touch."""

_MULTICAST = IPv4Network("224.0.0.0/4")
_LOCAL_CONTROL = IPv4Network("224.0.0.0/24")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field cannot be used: `code` of the Problem, `why` as "FIELD VALUE: what was expected"."""

    code: str
    why: str


def to_network(net: Net) -> IPv4Network:
    """Return the network of an address and a length, host bits masked."""
    return IPv4Network((int(net.address), net.length), strict=False)


@lru_cache(maxsize=8192)  # of thousands of prefixes, none is new in most passes
def martian(prefix: IPv4Network, overlay_block: IPv4Network) -> str | None:
    """Name the range that a unicast prefix must not touch and does; None if it touches none."""
    named = next((what for network, what in NOT_UNICAST.items() if prefix.overlaps(network)), None)
    if named is None and prefix.overlaps(overlay_block):
        return f"the overlay block {overlay_block}"
    return named


def check_overlay(
    net: Net | None, config: GlobalConfig, policy: Policy, protected: Protected
) -> IPv4Network | Refusal:
    """Return the /31 of a user: inside both blocks and holding nothing that must stay reachable."""
    if net is None:
        return Refusal("InvalidOverlay", "tunnel_net has a prefix length over 32: a /31 is needed")
    shown = f"tunnel_net {net.address}/{net.length}"
    if net.length != 31:
        return Refusal("InvalidOverlay", f"{shown}: a /31 is needed")
    if config.user_tunnel_block is None:
        return Refusal("InvalidOverlay", f"{shown}: GlobalConfig's user_tunnel_block cannot be used")
    overlay = to_network(net)
    block = to_network(config.user_tunnel_block)
    if not overlay.subnet_of(block):
        return Refusal(
            "InvalidOverlay", f"{shown}: a /31 inside GlobalConfig's user_tunnel_block {block} is needed"
        )
    if not overlay.subnet_of(policy.overlay_block):
        return Refusal(
            "InvalidOverlay",
            f"{shown}: a /31 inside the policy's overlay_block {policy.overlay_block} is needed",
        )
    # Networks do not count: management controllers put 169.254/16 on a host, and a /31 beside it is harmless.
    hit = captured(overlay, Protected(without(protected, SSH_PEER, SSH_LOCAL).addresses))
    return Refusal("InvalidOverlay", f"{shown}: {hit.rstrip('.')}") if hit else overlay


def check_endpoint(
    address: IPv4Address,
    field: str,
    ours: Collection[IPv4Address],
    policy: Policy,
    connected: Iterable[IPv4Network] = (),
) -> IPv4Address | Refusal:
    """Return the far end of the tunnel: a unicast address that is not this host's.

    connected: networks of this host's links; their first and last addresses mean all hosts there.
    """
    wrong = martian(IPv4Network(address), policy.overlay_block) or _broadcast(address, connected)
    if wrong:
        return Refusal("InvalidEndpoint", f"{field} {address}: a unicast address is needed, this is {wrong}")
    if address in ours:
        return Refusal(
            "InvalidEndpoint", f"{field} {address}: the device's address is needed, this is our own"
        )
    return address


def _broadcast(address: IPv4Address, connected: Iterable[IPv4Network]) -> str | None:
    """Name the connected network of which this is a broadcast address; a /31 has none (RFC 3021)."""
    for network in connected:
        if network.prefixlen <= 30 and address in {network.network_address, network.broadcast_address}:
            return f"a broadcast address of {network}, which this host is connected to"
    return None


def check_dz_ip(
    user: User, kind: UserType, client_ip: IPv4Address, policy: Policy, protected: Protected
) -> IPv4Address | Refusal | None:
    """Return the DoubleZero address; None for a multicast user who only subscribes and so needs none.

    IBRL's is the client IP, whatever range that is from: it is on the host already and never added. The others
    are added to the tunnel as a /32, which makes them local, so it must be nobody's that this host talks to.
    EdgeFiltering and publishers may have the client IP.
    """
    if kind is UserType.MULTICAST and not user.publishers:
        return None
    if kind is UserType.IBRL and user.dz_ip == client_ip:
        return user.dz_ip
    wrong = martian(IPv4Network(user.dz_ip), policy.overlay_block)
    if wrong:
        return Refusal("InvalidDzIp", f"dz_ip {user.dz_ip}: a unicast address is needed, this is {wrong}")
    if kind is UserType.IBRL:
        return user.dz_ip
    own_is_fine = kind is not UserType.IBRL_WITH_ALLOCATED_IP and user.dz_ip == client_ip
    hit = None if own_is_fine else captured(IPv4Network(user.dz_ip), without(protected, SSH_LOCAL))
    return Refusal("InvalidDzIp", f"dz_ip {user.dz_ip}: {hit.rstrip('.')}") if hit else user.dz_ip


def check_asns(config: GlobalConfig) -> tuple[int, int] | Refusal:
    """Return (local, remote) AS numbers; 0 stands for upstream's defaults."""
    asns = (config.local_asn or DEFAULT_LOCAL_ASN, config.remote_asn or DEFAULT_REMOTE_ASN)
    for field, asn in zip(("local_asn", "remote_asn"), asns, strict=True):
        if asn in RESERVED_ASNS or not 0 < asn < 2**32:
            why = RESERVED_ASNS.get(asn, "out of range")
            return Refusal(
                "InvalidAsn", f"GlobalConfig {field} {asn}: an AS number that may be used is needed ({why})"
            )
    return asns


def check_groups(
    addresses: Iterable[tuple[str, IPv4Address]],
) -> tuple[IPv4Address, ...] | Refusal:
    """Return the group addresses in order, each once; pairs are (group account, multicast_ip)."""
    groups: dict[IPv4Address, None] = {}
    for account, group in addresses:
        if group not in _MULTICAST:
            return Refusal(
                "InvalidGroup", f"group {account} has multicast_ip {group}: one inside 224.0.0.0/4 is needed"
            )
        if group in _LOCAL_CONTROL:
            why = "224.0.0.0/24 belongs to the routing protocols of a link"
            return Refusal("InvalidGroup", f"group {account} has multicast_ip {group}: {why}")
        groups[group] = None
    return tuple(groups)
