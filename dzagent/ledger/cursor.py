"""A reader over account bytes: little endian borsh, no padding. Pure.

Every read checks what is left before it takes or allocates anything, so a count in the data is never trusted.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, TypeAlias, TypeVar

from solders.pubkey import Pubkey

from dzagent.errors import DecodeError

NO_KEY = str(Pubkey(bytes(32)))
"""The base58 text of 32 zero bytes: how accounts say "none"."""

MAX_PROBLEMS = 32
"""Problems kept of one account; a hostile one could have a million."""

MAX_LENGTH = 32
"""Bits of an IPv4 address, the longest prefix."""

_T = TypeVar("_T")
_F64 = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class Net:
    """An IPv4 address with a prefix length of 0 to 32; host bits may be set."""

    address: IPv4Address
    length: int

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


class Cursor:
    """A position in account bytes. Reads raise DecodeError where too little is left; `field` names what is read."""

    __slots__ = ("_end", "_noted", "at", "data", "field", "problems")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.field = ""
        self.problems: list[str] = []
        self._end = len(data)
        self._noted = 0

    @property
    def left(self) -> int:
        """Bytes that follow."""
        return self._end - self.at

    def end_at(self, end: int) -> int:
        """Let the data end at byte `end`, which must be in it; return where it ended before."""
        before, self._end = self._end, end
        return before

    def note(self, text: str) -> None:
        """Keep a problem of the current field; the first MAX_PROBLEMS are kept, one line counts the others."""
        self._noted += 1
        if self._noted <= MAX_PROBLEMS:
            self.problems.append(f"{self.field} {text}")
        else:
            self.problems[MAX_PROBLEMS:] = [f"{self._noted - MAX_PROBLEMS} more such problems are not listed"]

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start, end = self.at, self.at + size
        if end > self._end:
            raise DecodeError(f"{size} bytes are needed at byte {start} and {self._end - start} are left")
        self.at = end
        return self.data[start:end]

    def count(self, least: int) -> int:
        """Read the count of a vector; raise DecodeError if its items, of `least` bytes each, cannot be there."""
        count = self.u32()
        if count * least > self.left:
            announced = f"{count} items of at least {least} bytes are announced at byte {self.at - 4}"
            raise DecodeError(f"{announced} and {self.left} bytes are left")
        return count

    def u8(self) -> int:
        """Read an unsigned number of 1 byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Read an unsigned number of 2 bytes."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """Read an unsigned number of 4 bytes."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Read an unsigned number of 8 bytes."""
        return int.from_bytes(self.take(8), "little")

    def u128(self) -> int:
        """Read an unsigned number of 16 bytes."""
        return int.from_bytes(self.take(16), "little")

    def i64(self) -> int:
        """Read a signed number of 8 bytes."""
        return int.from_bytes(self.take(8), "little", signed=True)

    def flag(self) -> bool:
        """Read a bool; any byte but 0 is true."""
        return self.take(1)[0] != 0

    def f64(self) -> float | None:
        """Read a number; None for infinity and for what is none, which cannot be compared or written as JSON."""
        value: float = _F64.unpack(self.take(8))[0]
        if math.isfinite(value):
            return value
        self.note(f"is {value}: a finite number is needed")
        return None

    def text(self) -> str:
        """Read a string; bytes that are not UTF-8 become U+FFFD."""
        raw = self.take(self.count(1))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self.note(f"is not UTF-8 at its byte {error.start}")
            return raw.decode(errors="replace")

    def key(self) -> str:
        """Read an address, as base58."""
        return str(Pubkey(self.take(32)))

    def keys(self) -> tuple[str, ...]:
        """Read a vector of addresses."""
        return self.vector(32, Cursor.key)

    def ipv4(self) -> IPv4Address:
        """Read an IPv4 address."""
        return IPv4Address(self.take(4))

    def net(self) -> Net | None:
        """Read a network; None if its length is over 32, since no other network may be made of it."""
        raw = self.take(5)
        if raw[4] <= MAX_LENGTH:
            return Net(IPv4Address(raw[:4]), raw[4])
        self.note(f"is {IPv4Address(raw[:4])}/{raw[4]}: a prefix length of 0 to {MAX_LENGTH} is needed")
        return None

    def nets(self) -> tuple[Net | None, ...]:
        """Read a vector of networks."""
        return self.vector(5, Cursor.net)

    def vector(self, least: int, item: Callable[[Cursor], _T]) -> tuple[_T, ...]:
        """Read a vector of items of at least `least` bytes; a problem of an item names it FIELD[N]."""
        name, items = self.field, []
        for n in range(self.count(least)):
            self.field = f"{name}[{n}]"
            items.append(item(self))
        self.field = name
        return tuple(items)


Reader: TypeAlias = Callable[[Cursor], Any]
Layout: TypeAlias = tuple[tuple[str, Reader], ...]
"""Fields in the order of the bytes."""


def read_fields(cursor: Cursor, layout: Layout, prefix: str = "") -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read fields until one does not fit; return the values, and the names from the first missing one on.

    Bytes that end between two fields are an older form. Ending within one is a problem as well, and then the
    cursor stands where that field begins. Problems name a field with `prefix` before it.
    """
    values: dict[str, Any] = {}
    for n, (name, reader) in enumerate(layout):
        cursor.field, start = prefix + name, cursor.at
        try:
            values[name] = reader(cursor)
        except DecodeError as error:
            cursor.at = start
            if cursor.left:
                cursor.field = prefix + name
                cursor.note(f"cannot be read: {error}")
            return values, tuple(missing for missing, _ in layout[n:])
    return values, ()
