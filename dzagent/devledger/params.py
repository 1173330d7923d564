"""Parameters of a call -> typed values, with the errors that Agave gives for what does not fit. Pure.

Agave reads parameters with serde: unknown keys of an object are ignored, null stands for "not given".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dzagent.devledger import base58

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
NODE_UNHEALTHY = -32005
KEY_EXCLUDED = -32010
MIN_CONTEXT_SLOT_NOT_REACHED = -32016

MAX_FILTERS = 4
MAX_MEMCMP_BYTES = 128
_MAX_MEMCMP_BASE58 = 175
_MAX_MEMCMP_BASE64 = 172
_MAX_U64 = 2**64 - 1

ENCODINGS = ("binary", "base64", "base58", "jsonParsed", "base64+zstd")
COMMITMENTS = ("processed", "confirmed", "finalized")
_OLD_COMMITMENTS = {
    "recent": "processed",
    "single": "confirmed",
    "singleGossip": "confirmed",
    "root": "finalized",
    "max": "finalized",
}

T = TypeVar("T")


class RpcError(Exception):
    """A JSON-RPC error answer; `data` is left out where it is None."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of the data that is asked for."""

    offset: int
    length: int

    def of(self, data: bytes) -> bytes:
        """Cut it out; what lies behind the end is left out."""
        return data[self.offset : self.offset + self.length]


@dataclass(frozen=True, slots=True)
class DataSize:
    """A filter: accounts of exactly this many bytes."""

    size: int

    def allows(self, data: bytes) -> bool:
        """Tell whether an account passes."""
        return len(data) == self.size


@dataclass(frozen=True, slots=True)
class Memcmp:
    """A filter: accounts that have these bytes at this offset."""

    offset: int
    wanted: bytes

    def allows(self, data: bytes) -> bool:
        """Tell whether an account passes; bytes that reach behind its end do not match."""
        return self.offset <= len(data) and data[self.offset : self.offset + len(self.wanted)] == self.wanted


@dataclass(frozen=True, slots=True)
class TokenAccounts:
    """A filter: accounts of the token program, which this ledger has none of."""

    def allows(self, _data: bytes) -> bool:
        """Tell whether an account passes."""
        return False


Filter = DataSize | Memcmp | TokenAccounts


@dataclass(frozen=True, slots=True)
class Options:
    """The configuration object of a call; `encoding` None is the method's default."""

    commitment: str = "finalized"
    min_context_slot: int | None = None
    encoding: str | None = None
    data_slice: Slice | None = None
    filters: tuple[Filter, ...] = ()
    with_context: bool = False
    sort_results: bool = True


def invalid(message: str) -> RpcError:
    """Return the error for parameters that do not fit."""
    return RpcError(INVALID_PARAMS, message)


def arguments(params: Any, least: int, most: int) -> Sequence[Any]:
    """Return the positional parameters, filled up to `most` with None; raises RpcError."""
    if params is None:
        params = []
    if isinstance(params, dict):
        raise invalid("Invalid params: invalid type: map, expected a sequence.")
    if len(params) < least:
        raise invalid(f"`params` should have at least {least} argument(s)")
    if len(params) > most:
        expected = f"from {least} to {most} parameters" if most else "no parameters"
        raise invalid(f"Invalid parameters: Expected {expected}. Got: {len(params)}")
    return [*params, *[None] * (most - len(params))]


def key(value: Any) -> str:
    """Return an address; raises RpcError with the two texts that Agave has for one that is none."""
    text = string(value)
    if len(text) > base58.MAX_KEY_TEXT:
        raise invalid("Invalid param: WrongSize")
    try:
        data = base58.decode(text)
    except ValueError:
        raise invalid("Invalid param: Invalid") from None
    if len(data) != base58.KEY_BYTES:
        raise invalid("Invalid param: WrongSize")
    return text


def options(value: Any) -> Options:
    """Read the configuration object; raises RpcError."""
    if value is None:
        return Options()
    if not isinstance(value, dict):
        raise _wrong_type(value, "a configuration object")
    return Options(
        commitment=_optional(value, "commitment", _commitment) or "finalized",
        min_context_slot=_optional(value, "minContextSlot", unsigned),
        encoding=_optional(value, "encoding", _encoding),
        data_slice=_optional(value, "dataSlice", _slice),
        filters=_optional(value, "filters", _filters) or (),
        with_context=_optional(value, "withContext", _truth) or False,
        sort_results=_optional(value, "sortResults", _truth) is not False,
    )


def string(value: Any) -> str:
    """Return a string; raises RpcError."""
    if not isinstance(value, str):
        raise _wrong_type(value, "a string")
    return value


def unsigned(value: Any) -> int:
    """Return a u64; raises RpcError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(value, "u64")
    if not 0 <= value <= _MAX_U64:
        raise invalid(f"Invalid params: invalid value: integer `{value}`, expected u64.")
    return value


def _optional(value: Mapping[str, Any], name: str, reader: Callable[[Any], T]) -> T | None:
    item = value.get(name)
    return None if item is None else reader(item)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "a boolean")
    return value


def _commitment(value: Any) -> str:
    text = string(value)
    text = _OLD_COMMITMENTS.get(text, text)
    if text not in COMMITMENTS:
        raise _unknown_variant(text, COMMITMENTS)
    return text


def _encoding(value: Any) -> str:
    text = string(value)
    if text not in ENCODINGS:
        raise _unknown_variant(text, ENCODINGS)
    return text


def _slice(value: Any) -> Slice:
    if not isinstance(value, dict):
        raise _wrong_type(value, "struct UiDataSliceConfig")
    return Slice(_field(value, "offset", unsigned), _field(value, "length", unsigned))


def _filters(value: Any) -> tuple[Filter, ...]:
    if not isinstance(value, list):
        raise _wrong_type(value, "a sequence")
    if len(value) > MAX_FILTERS:
        raise invalid(f"Too many filters provided; max {MAX_FILTERS}")
    return tuple(map(_filter, value))


def _filter(value: Any) -> Filter:
    if value == "tokenAccountState":
        return TokenAccounts()
    if not isinstance(value, dict):
        raise _wrong_type(value, "enum RpcFilterType")
    if len(value) != 1:
        raise invalid("Invalid params: invalid value: map, expected map with a single key.")
    name, body = next(iter(value.items()))
    if name == "dataSize":
        return DataSize(unsigned(body))
    if name == "memcmp":
        return _memcmp(body)
    raise _unknown_variant(name, ("dataSize", "memcmp", "tokenAccountState"))


def _memcmp(value: Any) -> Memcmp:
    if not isinstance(value, dict):
        raise _wrong_type(value, "struct Memcmp")
    offset = _field(value, "offset", unsigned)
    wanted = _field(value, "bytes", lambda item: item)
    encoding = _optional(value, "encoding", string)
    if isinstance(wanted, list):
        if encoding not in {None, "bytes"}:
            raise invalid("Invalid params: invalid type: sequence, expected a string.")
        data = _byte_list(wanted)
    else:
        data = _encoded(string(wanted), encoding or "base58")
    if len(data) > MAX_MEMCMP_BYTES:
        raise invalid("Invalid param: DataTooLarge")
    return Memcmp(offset, data)


def _encoded(text: str, encoding: str) -> bytes:
    """Read the bytes of a memcmp filter; the text is bounded first, since base58 is slow."""
    if encoding in {"base58", "binary"}:
        if len(text) > _MAX_MEMCMP_BASE58:
            raise invalid("Invalid param: DataTooLarge")
        try:
            return base58.decode(text)
        except ValueError:
            raise invalid("Invalid param: Base58DecodeError") from None
    if encoding == "base64":
        if len(text) > _MAX_MEMCMP_BASE64:
            raise invalid("Invalid param: DataTooLarge")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
            raise invalid("Invalid param: Base64DecodeError") from None
    if encoding == "bytes":
        raise _wrong_type(text, "a sequence")
    raise _unknown_variant(encoding, ("base58", "base64", "bytes"))


def _byte_list(items: list[Any]) -> bytes:
    if len(items) > MAX_MEMCMP_BYTES:
        raise invalid("Invalid param: DataTooLarge")
    for item in items:
        if not 0 <= unsigned(item) <= 255:
            raise invalid(f"Invalid params: invalid value: integer `{item}`, expected u8.")
    return bytes(items)


def _field(value: Mapping[str, Any], name: str, reader: Callable[[Any], T]) -> T:
    if name not in value:
        raise invalid(f"Invalid params: missing field `{name}`.")
    return reader(value[name])


def _wrong_type(value: Any, expected: str) -> RpcError:
    return invalid(f"Invalid params: invalid type: {_kind(value)}, expected {expected}.")


def _kind(value: Any) -> str:
    """Name a JSON value as serde does; strings are cut, since they come back in the answer."""
    match value:
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value[:60]}"'
        case _:
            return "map" if isinstance(value, dict) else "sequence" if isinstance(value, list) else "null"


def _unknown_variant(found: str, known: Sequence[str]) -> RpcError:
    choice = ", ".join(f"`{word}`" for word in known)
    return invalid(f"Invalid params: unknown variant `{found[:60]}`, expected one of {choice}.")
