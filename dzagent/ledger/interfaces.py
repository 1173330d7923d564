"""The interfaces of a Device account, in both of its lists. Pure.

Layouts: malbeclabs/doublezero, smartcontract/programs/doublezero-serviceability/src/state/interface.rs.
"""

from __future__ import annotations

from dataclasses import dataclass

from dzagent.errors import DecodeError
from dzagent.ledger.cursor import Cursor, Layout, Net, read_fields

_LEAST_LEGACY = 18
"""Bytes of a V1 interface without a name, the shortest that there is, with its discriminant."""

_LEAST_SIZED = 45
"""Bytes of a sized interface without a name and without segments."""

_HEAD = 3
"""Bytes of the size, which counts itself, and the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The node segment of an interface in one topology (base58 address)."""

    topology: str
    node_segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface of a device. `version` is the number before it; fields that its version lacks are 0."""

    version: int
    status: int = 0
    name: str = ""
    type: int = 0
    cyoa: int = 0
    dia: int = 0
    loopback: int = 0
    bandwidth: int = 0
    cir: int = 0
    mtu: int = 0
    routing_mode: int = 0
    vlan: int = 0
    ip_net: Net | None = None
    node_segment: int = 0
    user_tunnel_endpoint: bool = False
    flex_algo_node_segments: tuple[Segment, ...] = ()


def _segment(cursor: Cursor) -> Segment:
    return Segment(topology=cursor.key(), node_segment=cursor.u16())


def _segments(cursor: Cursor) -> tuple[Segment, ...]:
    return cursor.vector(34, _segment)


_V1: Layout = (
    ("status", Cursor.u8),
    ("name", Cursor.text),
    ("type", Cursor.u8),
    ("loopback", Cursor.u8),
    ("vlan", Cursor.u16),
    ("ip_net", Cursor.net),
    ("node_segment", Cursor.u16),
    ("user_tunnel_endpoint", Cursor.flag),
)
_V2: Layout = (
    ("status", Cursor.u8),
    ("name", Cursor.text),
    ("type", Cursor.u8),
    ("cyoa", Cursor.u8),
    ("dia", Cursor.u8),
    ("loopback", Cursor.u8),
    ("bandwidth", Cursor.u64),
    ("cir", Cursor.u64),
    ("mtu", Cursor.u16),
    ("routing_mode", Cursor.u8),
    ("vlan", Cursor.u16),
    ("ip_net", Cursor.net),
    ("node_segment", Cursor.u16),
    ("user_tunnel_endpoint", Cursor.flag),
)
_V3: Layout = (*_V2, ("flex_algo_node_segments", _segments))

_LEGACY = {0: _V1, 1: _V2, 2: _V2, 3: _V3}


def read_legacy(cursor: Cursor) -> tuple[Interface, ...]:
    """Read the first list. Raises DecodeError for an unknown form: its length is not known, nor what follows."""
    return cursor.vector(_LEAST_LEGACY, _legacy)


def read_sized(cursor: Cursor) -> tuple[Interface, ...]:
    """Read the second list, whose entries say their size. Raises DecodeError where a size cannot be."""
    return cursor.vector(_LEAST_SIZED, _sized)


def _legacy(cursor: Cursor) -> Interface:
    version = cursor.u8()
    layout = _LEGACY.get(version)
    if layout is None:
        raise DecodeError(f"an interface of form {version} is at byte {cursor.at - 1} and 0 to 3 are known")
    name, values = cursor.field, {}
    for part, reader in layout:
        cursor.field = f"{name}.{part}"
        values[part] = reader(cursor)
    return Interface(version=version, **values)


def _sized(cursor: Cursor) -> Interface:
    """Read what is known within the size; what a later version adds stands behind it and is passed over."""
    name, start, left = cursor.field, cursor.at, cursor.left
    size = cursor.u16()
    if not _HEAD <= size <= left:
        raise DecodeError(f"an interface of {size} bytes is announced at byte {start} and {left} are left")
    end = cursor.end_at(start + size)
    version = cursor.u8()
    values, _missing = read_fields(cursor, _V3, f"{name}.")
    cursor.end_at(end)
    cursor.at = start + size
    return Interface(version=version, **values)
