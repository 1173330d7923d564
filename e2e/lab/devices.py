"""The far ends: a small controller that gives each device the tunnels that the ledger grants, as a real one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dzagent.ledger.snapshot import Snapshot
from e2e.lab.netns import Namespace
from e2e.lab.routers import Neighbour, Router
from e2e.lab.topology import PEER_DZ_IP

ACTIVATED = 1
UNSET = IPv4Address(0)

EXTRA = {"dev2": (f"{PEER_DZ_IP}/32",)}
"""What a device announces of users that are not its own; dev1 has the other user itself."""


@dataclass(frozen=True, slots=True)
class FarEnd:
    """A device's end of one user's tunnel."""

    device: str
    name: str
    local: IPv4Address
    remote: IPv4Address
    overlay: IPv4Network
    dz_ip: IPv4Address

    def commands(self) -> Iterator[str]:
        """Yield the `ip` commands that make it."""
        yield f"link add {self.name} type gre local {self.local} remote {self.remote} ttl 64"
        yield f"addr add {self.overlay[0]}/31 dev {self.name}"
        yield f"link set {self.name} up"
        if self.dz_ip not in {UNSET, self.remote}:
            yield f"route replace {self.dz_ip}/32 via {self.overlay[1]} dev {self.name} src {self.overlay[0]}"


def granted(snapshot: Snapshot) -> frozenset[FarEnd]:
    """Return the far ends of every activated user that a device can serve."""
    ends = []
    for user in snapshot.users.values():
        device = snapshot.devices.get(user.device_pk)
        net = user.tunnel_net
        if device is None or user.status != ACTIVATED or net is None or net.length != 31:
            continue
        overlay = IPv4Network((int(net.address), 31), strict=False)
        local = device.public_ip if user.tunnel_endpoint == UNSET else user.tunnel_endpoint
        name = f"user{int(overlay[0]) & 0xFFFF}"
        ends.append(FarEnd(device.code, name, local, user.client_ip, overlay, user.dz_ip))
    return frozenset(ends)


def neighbour(end: FarEnd) -> Neighbour:
    """Return a user as its device's router sees it."""
    return Neighbour(end.name, end.name, str(end.overlay[0]), str(end.overlay[1]), str(end.dz_ip))


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices' namespaces, the addresses each has, its router, and the users that it has from the start."""

    namespaces: Mapping[str, Namespace]
    endpoints: Mapping[str, frozenset[str]]
    routers: Mapping[str, Router]
    settled: Mapping[str, tuple[Neighbour, ...]]


class Controller:
    """Makes the devices' namespaces equal to what is granted; addresses that a device lacks are left out."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._present: frozenset[FarEnd] = frozenset()

    def sync(self, snapshot: Snapshot) -> None:
        """Remove what is no longer granted, then make what is missing. Raises LabError."""
        endpoints, namespaces = self._devices.endpoints, self._devices.namespaces
        wanted = frozenset(
            end for end in granted(snapshot) if str(end.local) in endpoints.get(end.device, frozenset())
        )
        for end in self._present - wanted:
            namespaces[end.device].ip(f"link delete {end.name}")
        for end in wanted - self._present:
            namespaces[end.device].batch(*end.commands())
        changed = {end.device for end in self._present ^ wanted}
        self._present = wanted
        for name in sorted(changed & self._devices.routers.keys()):
            self._devices.routers[name].configure(self._users(name), EXTRA.get(name, ()))

    def start(self) -> None:
        """Start the devices' routers."""
        for name, router in self._devices.routers.items():
            router.start(self._users(name), EXTRA.get(name, ()))

    def stop(self) -> None:
        """End them."""
        for router in self._devices.routers.values():
            router.stop()

    def _users(self, device: str) -> list[Neighbour]:
        ends = sorted((end for end in self._present if end.device == device), key=lambda end: end.name)
        return [*self._devices.settled.get(device, ()), *map(neighbour, ends)]
