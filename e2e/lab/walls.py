"""A host with an uplink and two tunnels in network namespaces, to send packets at its firewall.

host: eth0 198.51.100.7/24; doublezero0 169.254.0.1/31 and doublezero1 169.254.0.3/31, dz_ip 203.0.113.9. They are veth
pairs whose other ends are in `net` (eth0) and in `dz` (dz0, dz1): what the rules know of a tunnel is its name. Of its
own accord this host would take any source address, so that what is dropped is dropped by the table.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from dzagent.journal import Journal
from dzagent.kernel.nft import Nft
from dzagent.kernel.run import Completed, Runner, run
from dzagent.model import Desired, Observed, Outcome, Plan, Service, ServiceName, UserType
from dzagent.nftmodel import NftTable
from dzagent.ownership import Ownership
from dzagent.plan import make_plan
from dzagent.plan_nft import table_handle
from dzagent.policy import Policy
from dzagent.render import Templates, parse_texts, render_service
from dzagent.share import find
from e2e.lab.errors import LabError
from e2e.lab.packets import ICMP, Packet, icmp, received, socket_in, token, wire

LINKS: dict[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
OWNER = Ownership(210, {link: f"dzagent:{name}" for name, link in LINKS.items()})
UPLINK, DZ_IP, FAR = "198.51.100.7", "203.0.113.9", "198.51.100.99"
OWN, PEER = "169.254.0.1", "169.254.0.0"
UNICAST = Service(
    "unicast",
    UserType.EDGE_FILTERING,
    LINKS["unicast"],
    IPv4Address(UPLINK),
    IPv4Address("192.0.2.1"),
    IPv4Network("169.254.0.0/31"),
    IPv4Address(DZ_IP),
    65000,
    65342,
    "11111111111111111111111111111112",
    "11111111111111111111111111111113",
    prefixes=(IPv4Network("203.0.113.0/24"),),
)
MULTICAST = Service(
    "multicast",
    UserType.MULTICAST,
    LINKS["multicast"],
    IPv4Address(UPLINK),
    IPv4Address("192.0.2.2"),
    IPv4Network("169.254.0.2/31"),
    IPv4Address("203.0.113.10"),
    65000,
    65342,
    "11111111111111111111111111111114",
    "11111111111111111111111111111115",
    publish=(IPv4Address("233.84.178.1"),),
    subscribe=(IPv4Address("233.84.178.2"),),
)
_MAC = {"doublezero0": "02:00:00:00:00:10", "doublezero1": "02:00:00:00:00:11", "eth0": "02:00:00:00:00:12"}
_OTHER = {"doublezero0": ("dz", "dz0"), "doublezero1": ("dz", "dz1"), "eth0": ("net", "up0")}


@dataclass
class Walls:
    """The namespaces, and the agent's nftables part in the host's."""

    tag: str
    nft: Nft = field(init=False)
    runner: Runner = field(init=False)
    journal: Journal = field(default_factory=Journal)

    def __post_init__(self) -> None:
        self.runner = partial(self._runner, "host")
        self.nft = Nft(self.runner)

    # ---- the table -------------------------------------------------------------------------------------------

    def load(self, policy: Policy, services: Sequence[Service] = (UNICAST, MULTICAST)) -> tuple[Outcome, ...]:
        """Make the table what a pass of the agent would make it; the second plan must be empty."""
        desired = wanted(policy, services)
        outcomes = tuple(self.nft.apply(step) for step in self.plan(desired).steps)
        rest = self.plan(desired)
        assert (rest.steps, rest.conflicts) == ((), ()), (rest, outcomes)
        return outcomes

    def plan(self, desired: Desired) -> Plan:
        """Plan as a pass of the agent does, which knows its table by mark and journal."""
        seen, claims = self.nft.observe(), self.journal.claims
        owner = self.journal.settle(
            OWNER, (), table_handle(seen, replace(OWNER, claims=claims), claims.table)
        )
        return make_plan(desired, Observed(nft=seen), owner)

    # ---- what a person does ----------------------------------------------------------------------------------

    def run(self, where: str, *command: str, stdin: str = "") -> str:
        """Run a command in a namespace; returns what it prints."""
        done = self._runner(where, command[0], command[1:], stdin)
        assert done.code == 0, (command, done.message)
        return done.stdout.decode()

    def _runner(self, where: str, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        return run("ip", ["netns", "exec", f"{self.tag}{where}", program, *args], stdin)

    def open(self, where: str, kind: int, protocol: int, family: int = socket.AF_INET) -> socket.socket:
        """Open a socket in a namespace."""
        return socket_in(f"{self.tag}{where}", family, kind, protocol)

    def wire(self, link: str) -> socket.socket:
        """Open a socket at the other end of a link of the host."""
        where, interface = _OTHER[link]
        return wire(f"{self.tag}{where}", interface)

    # ---- packets ---------------------------------------------------------------------------------------------

    @contextmanager
    def joined(self, group: str, link: str) -> Iterator[None]:
        """Be a member of a multicast group on a link of the host."""
        index = int(self.run("host", "cat", f"/sys/class/net/{link}/ifindex"))
        with self.open("host", socket.SOCK_DGRAM, 0) as member:
            request = socket.inet_aton(group) + bytes(4) + struct.pack("=i", index)
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            yield

    def comes_in(self, packet: Packet, mark: bytes, link: str = "doublezero0") -> bool:
        """Send a packet to the host by a link, and tell whether it gets past the input hook.

        A raw socket gets what input lets through. A packet that always passes follows, and ends the waiting.
        """
        ends = {
            "doublezero0": (PEER, OWN),
            "doublezero1": ("169.254.0.2", "169.254.0.3"),
            "eth0": (FAR, UPLINK),
        }
        last = token()
        with (
            self.open("host", socket.SOCK_RAW, packet.protocol) as listening,
            self.open("host", socket.SOCK_RAW, ICMP) as waiting,
            self.wire(link) as sending,
        ):
            hardware = bytes.fromhex(_MAC[link].replace(":", ""))
            sending.send(packet.frame(hardware))
            sending.send(icmp(*ends[link], 0, 0, last).frame(hardware))
            found = received(waiting, last)
            if packet.protocol != ICMP:
                listening.setblocking(False)
                found = _drained(listening)
            return any(mark in one for one in found)

    def goes_out(self, packet: Packet, mark: bytes, link: str) -> list[bytes]:
        """Send a packet from the host, and return what of it (IPv4, with this mark) leaves by a link."""
        last = token()
        ends = {
            "doublezero0": (OWN, PEER),
            "doublezero1": ("169.254.0.3", "169.254.0.2"),
            "eth0": (UPLINK, FAR),
        }
        with self.wire(link) as watching, self.open("host", socket.SOCK_RAW, socket.IPPROTO_RAW) as sending:
            for one in (packet, icmp(*ends[link], 0, 0, last)):
                try:
                    sending.sendto(one.raw(), (one.dst, 0))
                except PermissionError:  # the kernel tells a local sender that the packet was dropped
                    assert one is packet
            return [frame[14:] for frame in received(watching, last) if mark in frame]

    def goes_through(self, packet: Packet, mark: bytes, source: str, target: str) -> list[bytes]:
        """Send a packet to the host by one link, and return what of it is forwarded by another."""
        last = token()
        hardware = bytes.fromhex(_MAC[source].replace(":", ""))
        end = icmp(packet.src, packet.dst, 0, 0, last)
        with self.wire(target) as watching, self.wire(source) as sending:
            sending.send(packet.frame(hardware))
            sending.send(end.frame(hardware))
            return [frame[14:] for frame in received(watching, last) if mark in frame]


def wanted(policy: Policy, services: Sequence[Service] = (UNICAST, MULTICAST)) -> Desired:
    """Return the table that the agent would have for these services."""
    templates = Templates((find("templates"),))
    texts = {s.name: render_service(s, policy, templates, links=tuple(LINKS.values())) for s in services}
    items = parse_texts(texts, OWNER).wanted
    return Desired(tuple(item for item in items if isinstance(item.obj, NftTable)))


def _drained(opened: socket.socket) -> list[bytes]:
    """Return what has come already."""
    found = []
    while True:
        try:
            found.append(opened.recv(65535))
        except BlockingIOError:
            return found


@contextmanager
def walls(tag: str = "") -> Iterator[Walls]:
    """Make the namespaces. Raises LabError where they cannot be made."""
    if os.geteuid() != 0:
        raise LabError("Run as root, where `ip netns add` works.")
    made = Walls(f"dzw{os.getpid()}{tag}-")
    names = [f"{made.tag}{where}" for where in ("host", "net", "dz")]
    try:
        for name in names:
            if run("ip", ["netns", "add", name]).code != 0:
                raise LabError("`ip netns add` does not work here.")
        for name in ("all", "default"):
            for key, value in (
                ("rp_filter", 0),
                ("accept_local", 1),
                ("route_localnet", 1),
                ("send_redirects", 0),
            ):
                made.run("host", "sysctl", "-qw", f"net.ipv4.conf.{name}.{key}={value}")
        made.run("host", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        made.run("host", "ip", "link", "set", "lo", "up")
        for link, (where, other) in _OTHER.items():
            _cable(made, link, where, other)
        for line in (
            f"addr add {UPLINK}/24 dev eth0",
            f"route add default via {FAR} dev eth0",
            f"addr add {OWN}/31 dev doublezero0",
            f"addr add {DZ_IP}/32 dev doublezero0",
            "addr add 169.254.0.3/31 dev doublezero1",
            "addr add 203.0.113.10/32 dev doublezero1",
            "route add 192.0.2.128/25 via 169.254.0.0 dev doublezero0",
            "route add 233.84.178.1/32 via 169.254.0.2 dev doublezero1",
        ):
            made.run("host", "ip", *line.split())
        for address, link in ((FAR, "eth0"), (PEER, "doublezero0"), ("169.254.0.2", "doublezero1")):
            made.run("host", *f"ip neigh replace {address} lladdr 02:00:00:00:00:aa dev {link}".split())
        yield made
    finally:
        for name in names:
            run("ip", ["netns", "delete", name])


def _cable(made: Walls, link: str, where: str, other: str) -> None:
    host, far = f"{made.tag}host", f"{made.tag}{where}"
    mtu = "1500" if link == "eth0" else "1476"
    for line in (
        f"link add {link} netns {host} mtu {mtu} address {_MAC[link]} type veth "
        f"peer name {other} netns {far} mtu {mtu} address 02:00:00:00:00:aa",
        f"-netns {host} link set {link} up",
        f"-netns {far} link set {other} up",
        f"-netns {far} link set {other} promisc on",
    ):
        done = run("ip", line.split())
        if done.code != 0:
            raise LabError(done.message)
