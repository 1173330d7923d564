"""The far ends: a small controller that gives each device the tunnels that the ledger grants, as a real one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dzagent.ledger.snapshot import Snapshot
from e2e.lab.netns import Namespace

ACTIVATED = 1
UNSET = IPv4Address(0)


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


class Controller:
    """Makes the devices' namespaces equal to what is granted; addresses that a device lacks are left out."""

    def __init__(self, devices: Mapping[str, Namespace], endpoints: Mapping[str, frozenset[str]]) -> None:
        self._devices = devices
        self._endpoints = endpoints
        self._present: frozenset[FarEnd] = frozenset()

    def sync(self, snapshot: Snapshot) -> None:
        """Remove what is no longer granted, then make what is missing. Raises LabError."""
        wanted = frozenset(
            end for end in granted(snapshot) if str(end.local) in self._endpoints.get(end.device, frozenset())
        )
        for end in self._present - wanted:
            self._devices[end.device].ip(f"link delete {end.name}")
        for end in wanted - self._present:
            self._devices[end.device].batch(*end.commands())
        self._present = wanted
