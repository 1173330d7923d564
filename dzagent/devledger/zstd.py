"""Zstandard frames without compression: every decoder reads them, and no library is needed. Pure."""

from __future__ import annotations

import struct

_MAGIC = b"\x28\xb5\x2f\xfd"
_SINGLE_SEGMENT_U64 = 0xE0
"""Frame header: the content's size follows as a u64, and needs no window (RFC 8878, 3.1.1.1)."""
_MAX_BLOCK = 128 * 1024


def frame(data: bytes) -> bytes:
    """Return a frame of raw blocks (RFC 8878, 3.1.1.2) that holds the data."""
    parts = [data[start : start + _MAX_BLOCK] for start in range(0, len(data), _MAX_BLOCK)] or [b""]
    blocks = b"".join(
        ((len(part) << 3) | (number == len(parts))).to_bytes(3, "little") + part
        for number, part in enumerate(parts, start=1)
    )
    return _MAGIC + struct.pack("<BQ", _SINGLE_SEGMENT_U64, len(data)) + blocks
