"""What the development ledger holds: frozen records, without the numbers that follow from other records.

Accounts name each other by address, as on the ledger. Integers carry their width: `document` checks it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from dzagent.model import UserType

VERSION = 1
"""Of the state file's format."""

U8 = Annotated[int, 2**8 - 1]
U16 = Annotated[int, 2**16 - 1]
U32 = Annotated[int, 2**32 - 1]
U64 = Annotated[int, 2**64 - 1]
U128 = Annotated[int, 2**128 - 1]
PassKind = Annotated[int, 2]
Key = Annotated[str, "key"]
Code = Annotated[str, "code"]
Text = Annotated[str, "text"]
Version = Annotated[str, "version"]
Base64 = Annotated[str, "base64"]

NO_KEY = "11111111111111111111111111111111"
"""The key of 32 zero bytes: "none" in every field that holds a key."""
UNSET = IPv4Address("0.0.0.0")  # noqa: S104 - the ledger's "not set", nothing is bound to it

CODE = re.compile(r"[A-Za-z0-9_:.-]{1,32}", re.ASCII)
MAX_TEXT = 128
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", re.ASCII)

ACTIVATED, BANNED = 1, 6
USER_STATUSES: Mapping[str, int] = {
    "pending": 0,
    "activated": ACTIVATED,
    "suspended": 2,
    "deleting": 3,
    "rejected": 4,
    "pending-ban": 5,
    "banned": BANNED,
    "updating": 7,
    "out-of-credits": 8,
}
DEVICE_STATUSES: Mapping[str, int] = {
    "pending": 0,
    "activated": ACTIVATED,
    "suspended": 2,
    "deleting": 3,
    "rejected": 4,
    "drained": 5,
    "device-provisioning": 6,
    "link-provisioning": 7,
}
GROUP_STATUSES: Mapping[str, int] = {
    "pending": 0,
    "activated": ACTIVATED,
    "suspended": 2,
    "deleting": 3,
    "rejected": 4,
}
EXCHANGE_STATUSES: Mapping[str, int] = {"pending": 0, "activated": ACTIVATED, "suspended": 2}
PASS_STATUSES: Mapping[str, int] = {"requested": 0, "connected": 1, "disconnected": 2, "expired": 3}
PASS_KINDS: Mapping[str, int] = {"prepaid": 0, "validator": 1, "rpc": 2}
"""Kinds of access passes that can be made here: tag 0 has no payload, 1 and 2 hold one key."""

USER_TYPES: Mapping[str, int] = {kind.label: int(kind) for kind in UserType}
GRE_OVER_DIA = 1


@dataclass(frozen=True, slots=True)
class Config:
    """The GlobalConfig account."""

    account: Key
    bump: U8
    local_asn: U32 = 65000
    remote_asn: U32 = 65342
    device_tunnel_block: IPv4Network = IPv4Network("172.16.0.0/16")
    user_tunnel_block: IPv4Network = IPv4Network("169.254.0.0/16")
    multicastgroup_block: IPv4Network = IPv4Network("233.84.178.0/24")
    next_bgp_community: U16 = 10000
    multicast_publisher_block: IPv4Network = IPv4Network("148.51.120.0/21")


@dataclass(frozen=True, slots=True)
class Program:
    """The ProgramConfig account: versions as `MAJOR.MINOR.PATCH`."""

    account: Key
    bump: U8
    version: Version = "0.34.0"
    min_compatible: Version = "0.30.0"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A metro; devices are in one."""

    index: U128
    bump: U8
    code: Code
    name: Text
    lat: float
    lng: float
    bgp_community: U16
    status: U8 = ACTIVATED


@dataclass(frozen=True, slots=True)
class Device:
    """A DoubleZero device; `tunnel_endpoints` are addresses of its own beside public_ip where tunnels may end."""

    index: U128
    bump: U8
    code: Code
    public_ip: IPv4Address
    dz_prefixes: tuple[IPv4Network, ...]
    exchange: Key = NO_KEY
    tunnel_endpoints: tuple[IPv4Address, ...] = ()
    status: U8 = ACTIVATED
    max_users: U16 = 128


@dataclass(frozen=True, slots=True)
class Group:
    """A multicast group; `max_bandwidth` in bit/s."""

    index: U128
    bump: U8
    code: Code
    multicast_ip: IPv4Address
    max_bandwidth: U64 = 10**9
    tenant: Key = NO_KEY
    status: U8 = ACTIVATED


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant; only its code is shown to users."""

    bump: U8
    code: Code
    vrf_id: U16
    metro_routing: bool = True
    route_liveness: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """A connection that is granted to a host. `index` is 0 at the address made of client IP and type."""

    index: U128
    bump: U8
    payer: Key
    user_type: U8
    device: Key
    client_ip: IPv4Address
    dz_ip: IPv4Address
    tunnel_id: U16
    tunnel_net: IPv4Network
    status: U8 = ACTIVATED
    tenant: Key = NO_KEY
    tunnel_endpoint: IPv4Address = UNSET
    publishers: tuple[Key, ...] = ()
    subscribers: tuple[Key, ...] = ()
    created_as_publisher: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """An access pass: what a payer may do for a client IP. `key` is the validator's or RPC node's, if any."""

    bump: U8
    client_ip: IPv4Address
    payer: Key
    kind: PassKind = 0
    key: Key = NO_KEY
    status: U8 = 0
    last_access_epoch: U64 = 2**64 - 1
    publish: tuple[Key, ...] = ()
    subscribe: tuple[Key, ...] = ()
    tenants: tuple[Key, ...] = ()
    max_unicast_users: U16 = 1
    max_multicast_users: U16 = 1


@dataclass(frozen=True, slots=True)
class Node:
    """How the RPC node presents itself: an unhealthy one says so in getHealth, excluded programs are not listed."""

    healthy: bool = True
    slots_behind: U64 | None = None
    excluded: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The whole ledger. `slot` was reached at `slot_time` (unix seconds), when it was last changed.

    `revision` counts changes. `raw` holds bytes (base64) that stand at an address whatever the records say.
    """

    program_id: Key
    genesis_hash: Key
    payer: Key
    slot: U64
    slot_time: float
    config: Config
    program: Program
    revision: U64 = 1
    next_index: U128 = 1
    node: Node = field(default_factory=Node)
    exchanges: Mapping[Key, Exchange] = field(default_factory=dict)
    devices: Mapping[Key, Device] = field(default_factory=dict)
    groups: Mapping[Key, Group] = field(default_factory=dict)
    tenants: Mapping[Key, Tenant] = field(default_factory=dict)
    users: Mapping[Key, User] = field(default_factory=dict)
    passes: Mapping[Key, Pass] = field(default_factory=dict)
    raw: Mapping[Key, Base64] = field(default_factory=dict)


def version_numbers(text: str) -> tuple[int, int, int]:
    """Read `MAJOR.MINOR.PATCH`; raises ValueError."""
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text!r} is not a version such as 0.34.0")
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


def name_of(names: Mapping[str, int], value: int) -> str:
    """Return the name of a number of the ledger, the number itself where it has none."""
    return next((name for name, number in names.items() if number == value), str(value))
