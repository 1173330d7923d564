"""Account bytes with every field that decisions depend on, independent of the agent's decoder (little endian borsh)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from solders.pubkey import Pubkey

from dzagent.ledger.snapshot import Snapshot, build_snapshot
from dzagent.model import Keep, Protected, Provide, Service, ServiceName
from dzagent.policy import Policy
from dzagent.protect import protect
from dzagent.services import Decisions, Host, decide

ZERO = bytes(32)
LINKS: Mapping[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
CLIENT = IPv4Address("198.51.100.7")
DEVICE_IP = "192.0.2.1"
SOURCE = IPv4Address("198.51.100.7")
GATEWAY = IPv4Address("198.51.100.1")
RPC = IPv4Address("192.0.2.50")
SSH_FROM = IPv4Address("192.0.2.77")


def key(number: int) -> str:
    """Return an address of the test ledger."""
    return str(Pubkey((2**200 + number).to_bytes(32, "big")))


CONFIG, DEVICE, DEVICE2, USER, USER2, USER3, GROUP, GROUP2, STRANGER = (key(n) for n in range(9))


def net(text: str) -> bytes:
    """Write ADDRESS/LENGTH, valid or not."""
    address, _, length = text.partition("/")
    return IPv4Address(address).packed + bytes([int(length)])


def config(local: int = 65000, remote: int = 65342, block: str = "169.254.0.0/16") -> bytes:
    """Write a GlobalConfig of 64 bytes."""
    blocks = net("172.16.0.0/16") + net(block) + net("233.84.178.0/24")
    asns = struct.pack("<II", local, remote)
    return b"\2" + ZERO + b"\xfe" + asns + blocks + struct.pack("<H", 10000) + net("148.51.120.0/21")


def _keys(addresses: Sequence[str]) -> bytes:
    return struct.pack("<I", len(addresses)) + b"".join(bytes(Pubkey.from_string(a)) for a in addresses)


@dataclass(frozen=True)
class UserSpec:
    """A User account of 206 bytes and more."""

    kind: int = 0
    status: int = 1
    ip: str = str(CLIENT)
    dz_ip: str = str(CLIENT)
    net: str = "169.254.0.4/31"
    endpoint: str = "0.0.0.0"  # noqa: S104 - the ledger's "not set"
    device: str = DEVICE
    pub: tuple[str, ...] = ()
    sub: tuple[str, ...] = ()

    def data(self) -> bytes:
        """Write it."""
        head = b"\7" + ZERO + bytes(16) + b"\xfd" + bytes([self.kind]) + ZERO
        ips = IPv4Address(self.ip).packed + IPv4Address(self.dz_ip).packed
        middle = bytes(Pubkey.from_string(self.device)) + b"\1" + ips + struct.pack("<H", 500) + net(self.net)
        lists = bytes([self.status]) + _keys(self.pub) + _keys(self.sub)
        rest = ZERO + IPv4Address(self.endpoint).packed + b"\0\1" + struct.pack("<3Q", 1, 2, 3) + _keys(())
        return head + middle + lists + rest


IBRL = UserSpec()
ALLOCATED = UserSpec(kind=1, dz_ip="148.51.0.9")
EDGE = UserSpec(kind=2, dz_ip="148.51.0.9")
SUBSCRIBER = UserSpec(kind=3, dz_ip="0.0.0.0", net="169.254.0.6/31", endpoint="192.0.2.2", sub=(GROUP,))  # noqa: S104 - as above
PUBLISHER = replace(SUBSCRIBER, dz_ip="148.51.120.3", pub=(GROUP,), sub=())


def device(
    public_ip: str = DEVICE_IP, prefixes: Iterable[str] = ("148.51.0.0/24",), status: int = 1
) -> bytes:
    """Write a Device that ends after its users."""
    nets = [net(p) for p in prefixes]
    head = b"\5" + ZERO + bytes(16) + b"\xfc" + ZERO + ZERO + b"\0" + IPv4Address(public_ip).packed
    code = struct.pack("<I", 9) + b"fra-dz001"
    body = bytes([status]) + code + struct.pack("<I", len(nets)) + b"".join(nets)
    return head + body + ZERO + ZERO + struct.pack("<I", 0) * 2 + struct.pack("<IHH", 1, 1, 128)


def group(ip: str = "233.84.178.1", status: int = 1) -> bytes:
    """Write a MulticastGroup."""
    head = b"\x08" + ZERO + bytes(16) + b"\xfb" + ZERO + IPv4Address(ip).packed + struct.pack("<Q", 10**9)
    return head + bytes([status]) + struct.pack("<I", 4) + b"mg01" + struct.pack("<II", 1, 1)


def snapshot(
    users: Mapping[str, UserSpec] | UserSpec | None = None, *, complete: bool = True, **others: bytes
) -> Snapshot:
    """Build a snapshot; others are config=, device=, group=, group2= bytes in place of the usual ones."""
    if isinstance(users, UserSpec):
        users = {USER: users}
    accounts = {
        CONFIG: others.get("config", config()),
        DEVICE: others.get("device", device()),
        GROUP: others.get("group", group()),
        GROUP2: others.get("group2", group("233.84.178.2")),
        **{account: spec.data() for account, spec in (users or {}).items()},
    }
    return replace(build_snapshot(accounts.items(), slot=7), complete=complete)


def protected() -> Protected:
    """Protect what a usual host has."""
    uplink = IPv4Interface(f"{CLIENT}/24")
    return protect(interfaces=[uplink], gateways=[GATEWAY], rpc=[RPC], ssh=[(CLIENT, SSH_FROM)])


def host(installed: Iterable[str] = (), sources: Mapping[str, IPv4Address] | None = None) -> Host:
    """Return a usual host whose kernel reaches both tunnel destinations from SOURCE."""
    usual = {DEVICE_IP: SOURCE, "192.0.2.2": SOURCE}
    return Host(
        client_ip=CLIENT,
        tunnel_sources={IPv4Address(d): s for d, s in (usual if sources is None else sources).items()},
        protected=protected(),
        installed_prefixes=frozenset(IPv4Network(p) for p in installed),
        addresses=frozenset({CLIENT}),
    )


def run(
    users: Mapping[str, UserSpec] | UserSpec | None = None,
    *,
    at: Host | None = None,
    policy: Policy | None = None,
    complete: bool = True,
    **others: bytes,
) -> Decisions:
    """Decide about a usual host."""
    return decide(snapshot(users, complete=complete, **others), at or host(), policy or Policy(), LINKS)


def service(decisions: Decisions, name: ServiceName) -> Service:
    """Return the granted service."""
    decision = decisions.unicast if name == "unicast" else decisions.multicast
    assert isinstance(decision, Provide), decision
    return decision.service


def kept(decisions: Decisions, name: ServiceName) -> str:
    """Return the code of the problem for which a service is kept, after checking that it is well told."""
    decision = decisions.unicast if name == "unicast" else decisions.multicast
    assert isinstance(decision, Keep), decision
    assert decision.problem.service == name
    assert decision.problem.message.endswith(".")
    return decision.problem.code
