"""What a host must hold for a user, from the account alone: upstream's services (doublezerod, Setup of each type).

Written apart from the agent's own code on purpose. Protocol number and alias are ours; the rest is upstream's.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from dzagent.ledger.accounts import User
from dzagent.ledger.snapshot import Snapshot
from dzagent.model import UserType
from e2e.lab.topology import CLIENT_IP, DEVICES
from e2e.lab.view import MAIN_TABLE, LinkView, View, gre


def overlay(user: User) -> IPv4Network:
    """Return the /31 of a user."""
    assert user.tunnel_net is not None
    return IPv4Network((int(user.tunnel_net.address), user.tunnel_net.length), strict=False)


def expected(snapshot: Snapshot, *users: User) -> View:
    """Return everything that the host must hold for these users, and nothing else."""
    parts = [_one(snapshot, user) for user in users]
    return View(
        tuple(sorted((link for part in parts for link in part.links), key=lambda link: link.name)),
        frozenset().union(*(part.addresses for part in parts)),
        frozenset().union(*(part.routes for part in parts)),
        frozenset().union(*(part.rules for part in parts)),
    )


def _one(snapshot: Snapshot, user: User) -> View:
    kind = UserType(user.user_type)
    device, local = overlay(user)
    dev = "doublezero1" if kind is UserType.MULTICAST else "doublezero0"
    addresses = {f"{local}/31 dev {dev} scope link"}
    if kind in {UserType.IBRL_WITH_ALLOCATED_IP, UserType.EDGE_FILTERING} or user.publishers:
        addresses.add(f"{user.dz_ip}/32 dev {dev} scope global")
    return View(
        (_link(snapshot, user, dev, kind),),
        frozenset(addresses),
        frozenset(_routes(snapshot, user, kind, device, dev)),
        frozenset(_rules() if kind is UserType.EDGE_FILTERING else ()),
    )


def _link(snapshot: Snapshot, user: User, dev: str, kind: UserType) -> LinkView:
    unset = user.tunnel_endpoint == IPv4Address(0)
    remote = snapshot.devices[user.device_pk].public_ip if unset else user.tunnel_endpoint
    return gre(dev, kind.service, CLIENT_IP, str(remote))


def _routes(snapshot: Snapshot, user: User, kind: UserType, device: IPv4Address, dev: str) -> Iterator[str]:
    if kind is UserType.EDGE_FILTERING:
        yield f"0.0.0.0/0 via {device} dev {dev} src {user.dz_ip} table 101"
    for group in user.publishers:
        address = snapshot.groups[group].multicast_ip
        yield f"{address}/32 via {device} dev {dev} src {user.dz_ip} table {MAIN_TABLE}"
    for group in user.subscribers:
        if group not in user.publishers:
            yield f"{snapshot.groups[group].multicast_ip}/32 via {device} dev {dev} table {MAIN_TABLE}"


def _rules() -> Iterator[str]:
    for site in DEVICES:
        yield f"100: from all to {site.prefix} lookup 100"
        yield f"101: from {site.prefix} to all lookup 101"
