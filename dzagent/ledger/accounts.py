"""Account bytes -> typed values, for the accounts that provisioning needs. Pure.

Layouts: malbeclabs/doublezero, smartcontract/programs/doublezero-serviceability/src/state. Programs only ever add
fields at the end, so an account that ends early is an old one: its other fields have defaults and are listed in
`missing`. Numbers of enums are kept as they are: a number that we do not know is never taken for one that we do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from dzagent.errors import DecodeError
from dzagent.ledger import layouts
from dzagent.ledger.cursor import NO_KEY, Cursor, Layout, Net, read_fields
from dzagent.ledger.interfaces import Interface, Segment
from dzagent.ledger.passes import FeedSeat, Payload, check_pass

__all__ = [
    "NO_KEY",
    "TYPE_NAMES",
    "AccessPass",
    "Account",
    "Device",
    "Exchange",
    "FeedSeat",
    "GlobalConfig",
    "Interface",
    "MulticastGroup",
    "Net",
    "Other",
    "ProgramConfig",
    "Segment",
    "Tenant",
    "User",
    "decode",
    "read",
    "refusal",
]

TYPE_NAMES: Mapping[int, str] = {
    1: "GlobalState",
    2: "GlobalConfig",
    3: "Location",
    4: "Exchange",
    5: "Device",
    6: "Link",
    7: "User",
    8: "MulticastGroup",
    9: "ProgramConfig",
    10: "Contributor",
    11: "AccessPass",
    12: "ResourceExtension",
    13: "Tenant",
    15: "Permission",
    16: "Index",
    17: "Topology",
    18: "Feed",
}
"""Account types by their number, the first byte (state/accounttype.rs); 14 was Reservation and is not used."""

UNSET = IPv4Address(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What every account has.

    missing: names of the fields from the first on that the bytes do not hold; they have their defaults.
    trailing: bytes after the last field. problems: what is odd, one sentence each without a full stop.
    """

    missing: tuple[str, ...] = ()
    trailing: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Account):
    """An account of a type that is not decoded, known (TYPE_NAMES) or not."""

    type_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalConfig(Account):
    """The one account of numbers that hold for all. A network with a length over 32 is None."""

    owner: str = NO_KEY
    bump: int = 0
    local_asn: int = 0
    remote_asn: int = 0
    device_tunnel_block: Net | None = None
    user_tunnel_block: Net | None = None
    multicastgroup_block: Net | None = None
    next_bgp_community: int = 0
    multicast_publisher_block: Net | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramConfig(Account):
    """The program's own version, and the oldest client version that it says it works with."""

    bump: int = 0
    version: tuple[int, int, int] = (0, 0, 0)
    min_compatible: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange(Account):
    """A metro. lat and lng are degrees, None if they are no numbers."""

    owner: str = NO_KEY
    index: int = 0
    bump: int = 0
    lat: float | None = 0.0
    lng: float | None = 0.0
    bgp_community: int = 0
    unused: int = 0
    status: int = 0
    code: str = ""
    name: str = ""
    reference_count: int = 0
    device1_pk: str = NO_KEY
    device2_pk: str = NO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Account):
    """A DoubleZero device. A dz_prefix with a length over 32 is None.

    legacy_interfaces and interfaces hold the same interfaces twice on the ledger; an account without the second
    list has the first in its place. None: they could not be read, or the two lists do not agree.
    """

    owner: str = NO_KEY
    index: int = 0
    bump: int = 0
    location_pk: str = NO_KEY
    exchange_pk: str = NO_KEY
    device_type: int = 0
    public_ip: IPv4Address = UNSET
    status: int = 0
    code: str = ""
    dz_prefixes: tuple[Net | None, ...] = ()
    metrics_publisher_pk: str = NO_KEY
    contributor_pk: str = NO_KEY
    mgmt_vrf: str = ""
    legacy_interfaces: tuple[Interface, ...] | None = None
    reference_count: int = 0
    users_count: int = 0
    max_users: int = 0
    device_health: int = 0
    desired_status: int = 0
    unicast_users_count: int = 0
    multicast_subscribers_count: int = 0
    max_unicast_users: int = 0
    max_multicast_subscribers: int = 0
    reserved_seats: int = 0
    multicast_publishers_count: int = 0
    max_multicast_publishers: int = 0
    interfaces: tuple[Interface, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Account):
    """One tunnel of one client IP. tunnel_endpoint 0.0.0.0 means the device's public_ip; times are slots."""

    owner: str = NO_KEY
    index: int = 0
    bump: int = 0
    user_type: int = 0
    tenant_pk: str = NO_KEY
    device_pk: str = NO_KEY
    cyoa_type: int = 0
    client_ip: IPv4Address = UNSET
    dz_ip: IPv4Address = UNSET
    tunnel_id: int = 0
    tunnel_net: Net | None = None
    status: int = 0
    publishers: tuple[str, ...] = ()
    subscribers: tuple[str, ...] = ()
    validator_pubkey: str = NO_KEY
    tunnel_endpoint: IPv4Address = UNSET
    tunnel_flags: int = 0
    bgp_status: int = 0
    last_bgp_up_at: int = 0
    last_bgp_reported_at: int = 0
    bgp_rtt_ns: int = 0
    feed_pks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastGroup(Account):
    """A multicast group; max_bandwidth in bit/s."""

    owner: str = NO_KEY
    index: int = 0
    bump: int = 0
    tenant_pk: str = NO_KEY
    multicast_ip: IPv4Address = UNSET
    max_bandwidth: int = 0
    status: int = 0
    code: str = ""
    publisher_count: int = 0
    subscriber_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant(Account):
    """A tenant; only its code is shown to people."""

    owner: str = NO_KEY
    bump: int = 0
    code: str = ""
    vrf_id: int = 0
    reference_count: int = 0
    administrators: tuple[str, ...] = ()
    payment_status: int = 0
    token_account: str = NO_KEY
    metro_routing: bool = False
    route_liveness: bool = False
    billing: int = 0
    billing_rate: int = 0
    billing_last_deduction_dz_epoch: int = 0
    include_topologies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPass(Account):
    """Who may create users. `payload` belongs to the tag, read by the tag's meaning of today."""

    owner: str = NO_KEY
    bump: int = 0
    tag: int = 0
    payload: Payload = None
    client_ip: IPv4Address = UNSET
    user_payer: str = NO_KEY
    last_access_epoch: int = 0
    connection_count: int = 0
    status: int = 0
    publisher_allowlist: tuple[str, ...] = ()
    subscriber_allowlist: tuple[str, ...] = ()
    flags: int = 0
    tenant_allowlist: tuple[str, ...] = ()
    unicast_user_count: int = 0
    max_unicast_users: int = 1
    multicast_user_count: int = 0
    max_multicast_users: int = 1


# ---- reading ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Type:
    """How one type is read; without the fields up to `needed` the account is of no use."""

    make: type[Account]
    layout: Layout
    needed: str
    finish: layouts.Finish = layouts.as_read


_TYPES: Mapping[int, _Type] = {
    2: _Type(GlobalConfig, layouts.CONFIG, "multicastgroup_block"),
    4: _Type(Exchange, layouts.EXCHANGE, "status", layouts.finish_exchange),
    5: _Type(Device, layouts.DEVICE, "dz_prefixes", layouts.finish_device),
    7: _Type(User, layouts.USER, "status"),
    8: _Type(MulticastGroup, layouts.GROUP, "status", layouts.finish_group),
    9: _Type(ProgramConfig, layouts.PROGRAM, "version"),
    11: _Type(AccessPass, layouts.PASS, "tag", check_pass),
    13: _Type(Tenant, layouts.TENANT, "code"),
}


def decode(data: bytes) -> Account:
    """Read an account; raise DecodeError for empty data and where fields that provisioning needs are missing."""
    account = read(data)
    why = refusal(account)
    if why is not None:
        raise DecodeError(why)
    return account


def read(data: bytes) -> Account:
    """Read an account as far as its bytes go; raise DecodeError for empty data only."""
    if not data:
        raise DecodeError("the account has no data")
    how = _TYPES.get(data[0])
    if how is None:
        return Other(type_number=data[0], trailing=len(data) - 1)
    cursor = Cursor(data, 1)
    values, missing = read_fields(cursor, how.layout)
    how.finish(cursor, values, missing)
    trailing = 0 if missing else cursor.left
    return how.make(missing=missing, trailing=trailing, problems=tuple(cursor.problems), **values)


def refusal(account: Account) -> str | None:
    """Say why an account ends too early to be used, None if it does not."""
    how = next((how for how in _TYPES.values() if type(account) is how.make), None)
    if how is None or how.needed not in account.missing:
        return None
    first, kind = account.missing[0], how.make.__name__
    return f"the {kind} account breaks off at {first}, and all of it up to {how.needed} is needed"
