"""Which fields each account has, in the order of its bytes, and what is odd about some of them. Pure.

Layouts: malbeclabs/doublezero, smartcontract/programs/doublezero-serviceability/src/state. The account type, byte 0,
is not among the fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from dzagent.errors import DecodeError
from dzagent.ledger.cursor import Cursor, Layout
from dzagent.ledger.interfaces import read_legacy, read_sized
from dzagent.ledger.passes import read_payload


def _version(cursor: Cursor) -> tuple[int, int, int]:
    raw = Cursor(cursor.take(12))
    return raw.u32(), raw.u32(), raw.u32()


def _billing(cursor: Cursor) -> int:
    kind = cursor.u8()
    if kind != 0:
        raise DecodeError(f"a billing of form {kind} is at byte {cursor.at - 1} and only 0 is known")
    return kind


Finish: TypeAlias = Callable[[Cursor, dict[str, Any], tuple[str, ...]], None]
"""Looks at all values together: may change them and note problems."""


def as_read(_cursor: Cursor, _values: dict[str, Any], _missing: tuple[str, ...]) -> None:
    """Leave everything as it was read."""


def finish_exchange(cursor: Cursor, values: dict[str, Any], _missing: tuple[str, ...]) -> None:
    """Note a community outside the range that the program hands out."""
    community = values.get("bgp_community")
    if community is not None and not 10000 <= community <= 10999:
        cursor.field = "bgp_community"
        cursor.note(
            f"is {community}: 10000 to 10999 is needed; until October 2025 another number stood in its place"
        )


def finish_group(cursor: Cursor, _values: dict[str, Any], missing: tuple[str, ...]) -> None:
    """Note counts that are no counts: the bytes that follow tell an older layout."""
    if not missing and cursor.left >= 8:
        cursor.field = "publisher_count"
        cursor.note(
            f"and subscriber_count may mean nothing: {cursor.left} bytes follow them, as in groups from before "
            "October 2025, which have four lists of addresses in this place"
        )


def finish_device(cursor: Cursor, values: dict[str, Any], missing: tuple[str, ...]) -> None:
    """Settle what the device's interfaces are, from two lists that should hold the same."""
    legacy, sized = values.get("legacy_interfaces"), values.get("interfaces", ())
    broken = missing[:1] == ("interfaces",) and cursor.left > 0
    if legacy is None or broken:
        return
    values["interfaces"] = sized or legacy  # accounts from before the second list have one
    if sized and len(sized) != len(legacy):
        values["interfaces"] = None
        cursor.field = "interfaces"
        cursor.note(f"are not known: one list has {len(legacy)} of them and the other {len(sized)}")


CONFIG: Layout = (
    ("owner", Cursor.key),
    ("bump", Cursor.u8),
    ("local_asn", Cursor.u32),
    ("remote_asn", Cursor.u32),
    ("device_tunnel_block", Cursor.net),
    ("user_tunnel_block", Cursor.net),
    ("multicastgroup_block", Cursor.net),
    ("next_bgp_community", Cursor.u16),
    ("multicast_publisher_block", Cursor.net),
)
PROGRAM: Layout = (("bump", Cursor.u8), ("version", _version), ("min_compatible", _version))
_INDEXED: Layout = (("owner", Cursor.key), ("index", Cursor.u128), ("bump", Cursor.u8))
EXCHANGE: Layout = (
    *_INDEXED,
    ("lat", Cursor.f64),
    ("lng", Cursor.f64),
    ("bgp_community", Cursor.u16),
    ("unused", Cursor.u16),
    ("status", Cursor.u8),
    ("code", Cursor.text),
    ("name", Cursor.text),
    ("reference_count", Cursor.u32),
    ("device1_pk", Cursor.key),
    ("device2_pk", Cursor.key),
)
DEVICE: Layout = (
    *_INDEXED,
    ("location_pk", Cursor.key),
    ("exchange_pk", Cursor.key),
    ("device_type", Cursor.u8),
    ("public_ip", Cursor.ipv4),
    ("status", Cursor.u8),
    ("code", Cursor.text),
    ("dz_prefixes", Cursor.nets),
    ("metrics_publisher_pk", Cursor.key),
    ("contributor_pk", Cursor.key),
    ("mgmt_vrf", Cursor.text),
    ("legacy_interfaces", read_legacy),
    ("reference_count", Cursor.u32),
    ("users_count", Cursor.u16),
    ("max_users", Cursor.u16),
    ("device_health", Cursor.u8),
    ("desired_status", Cursor.u8),
    ("unicast_users_count", Cursor.u16),
    ("multicast_subscribers_count", Cursor.u16),
    ("max_unicast_users", Cursor.u16),
    ("max_multicast_subscribers", Cursor.u16),
    ("reserved_seats", Cursor.u16),
    ("multicast_publishers_count", Cursor.u16),
    ("max_multicast_publishers", Cursor.u16),
    ("interfaces", read_sized),
)
USER: Layout = (
    *_INDEXED,
    ("user_type", Cursor.u8),
    ("tenant_pk", Cursor.key),
    ("device_pk", Cursor.key),
    ("cyoa_type", Cursor.u8),
    ("client_ip", Cursor.ipv4),
    ("dz_ip", Cursor.ipv4),
    ("tunnel_id", Cursor.u16),
    ("tunnel_net", Cursor.net),
    ("status", Cursor.u8),
    ("publishers", Cursor.keys),
    ("subscribers", Cursor.keys),
    ("validator_pubkey", Cursor.key),
    ("tunnel_endpoint", Cursor.ipv4),
    ("tunnel_flags", Cursor.u8),
    ("bgp_status", Cursor.u8),
    ("last_bgp_up_at", Cursor.u64),
    ("last_bgp_reported_at", Cursor.u64),
    ("bgp_rtt_ns", Cursor.u64),
    ("feed_pks", Cursor.keys),
)
GROUP: Layout = (
    *_INDEXED,
    ("tenant_pk", Cursor.key),
    ("multicast_ip", Cursor.ipv4),
    ("max_bandwidth", Cursor.u64),
    ("status", Cursor.u8),
    ("code", Cursor.text),
    ("publisher_count", Cursor.u32),
    ("subscriber_count", Cursor.u32),
)
TENANT: Layout = (
    ("owner", Cursor.key),
    ("bump", Cursor.u8),
    ("code", Cursor.text),
    ("vrf_id", Cursor.u16),
    ("reference_count", Cursor.u32),
    ("administrators", Cursor.keys),
    ("payment_status", Cursor.u8),
    ("token_account", Cursor.key),
    ("metro_routing", Cursor.flag),
    ("route_liveness", Cursor.flag),
    ("billing", _billing),
    ("billing_rate", Cursor.u64),
    ("billing_last_deduction_dz_epoch", Cursor.u64),
    ("include_topologies", Cursor.keys),
)
PASS: Layout = (
    ("owner", Cursor.key),
    ("bump", Cursor.u8),
    ("tag", Cursor.u8),
    ("payload", read_payload),
    ("client_ip", Cursor.ipv4),
    ("user_payer", Cursor.key),
    ("last_access_epoch", Cursor.u64),
    ("connection_count", Cursor.u16),
    ("status", Cursor.u8),
    ("publisher_allowlist", Cursor.keys),
    ("subscriber_allowlist", Cursor.keys),
    ("flags", Cursor.u8),
    ("tenant_allowlist", Cursor.keys),
    ("unicast_user_count", Cursor.u16),
    ("max_unicast_users", Cursor.u16),
    ("multicast_user_count", Cursor.u16),
    ("max_multicast_users", Cursor.u16),
)
