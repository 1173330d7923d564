"""The state file's document: records <-> JSON values, by the types of their fields. Pure.

A file is read strictly, since people edit it: a wrong value is named with its place and what was expected.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Union

from dzagent.devledger import base58
from dzagent.devledger.records import CODE, MAX_TEXT, VERSION, State, version_numbers
from dzagent.errors import InputError

ADVICE = "correct it, or set it aside with `dzagent ledger reset --renew`"
"""What to do about a file that cannot be used."""


class _Wrong(Exception):
    """A value that does not fit; the message is `PLACE: what was expected`."""


def to_json(value: object) -> Any:
    """Write a record, or a value of one of its fields, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, (IPv4Address, IPv4Network)):
        return str(value)
    return value


def write_state(state: State) -> dict[str, Any]:
    """Return the document of a state."""
    return {"version": VERSION, **to_json(state)}


def read_state(document: Any, file: str) -> State:
    """Read a document; raises InputError that names the place in the file."""
    try:
        if not isinstance(document, dict) or "version" not in document:
            raise _Wrong('expected an object with "version"')
        version = document["version"]
        if version != VERSION or isinstance(version, bool):
            raise _Wrong(f"version: expected {VERSION}; the file was written by another dzagent")
        state: State = _record(State, {k: v for k, v in document.items() if k != "version"}, "")
    except _Wrong as wrong:
        raise InputError(f"{file} is not the file of a development ledger ({wrong}); {ADVICE}") from None
    return state


def _record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _Wrong(f"{place or 'document'}: expected an object")
    readers = _readers(kind)
    unknown = next((key for key in value if key not in readers), None)
    if unknown is not None:
        raise _Wrong(f"{_at(place, unknown)}: unknown key")
    needed = _needed(kind)
    missing = next((name for name in needed if name not in value), None)
    if missing is not None:
        raise _Wrong(f"{_at(place, missing)}: missing")
    return kind(**{key: readers[key](item, _at(place, key)) for key, item in value.items()})


def _at(place: str, key: object) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in str(key)[:60])
    return f"{place}.{shown}" if place else shown


Reader = Callable[[Any, str], Any]


@functools.cache
def _readers(kind: Any) -> dict[str, Reader]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {item.name: _reader(hints[item.name]) for item in dataclasses.fields(kind)}


@functools.cache
def _needed(kind: Any) -> tuple[str, ...]:
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return tuple(f.name for f in fields if f.default is missing and f.default_factory is missing)


def _reader(hint: Any) -> Reader:
    """Return the reader of a type: one of the few that records are made of."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _integer(args[1]) if args[0] is int else _TEXTS[args[1]]
    if origin is tuple:
        return _list_of(_reader(args[0]))
    if origin is Mapping:
        return _mapping_of(_reader(args[0]), _reader(args[1]))
    if origin in {Union, types.UnionType}:
        return _optional(_reader(args[0]))
    if dataclasses.is_dataclass(hint):
        return functools.partial(_record, hint)
    return _SIMPLE[hint]


def _integer(largest: int) -> Reader:
    def read(value: Any, place: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
            raise _Wrong(f"{place}: expected an integer from 0 to {largest}")
        return value

    return read


def _list_of(reader: Reader) -> Reader:
    def read(value: Any, place: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Wrong(f"{place}: expected a list")
        return tuple(reader(item, f"{place}[{number}]") for number, item in enumerate(value))

    return read


def _mapping_of(key_reader: Reader, reader: Reader) -> Reader:
    def read(value: Any, place: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise _Wrong(f"{place}: expected an object")
        return {
            key_reader(key, _at(place, key)): reader(item, _at(place, key)) for key, item in value.items()
        }

    return read


def _optional(reader: Reader) -> Reader:
    def read(value: Any, place: str) -> Any:
        return None if value is None else reader(value, place)

    return read


def _truth(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"{place}: expected true or false")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e15:
        raise _Wrong(f"{place}: expected a number")
    if not math.isfinite(value):
        raise _Wrong(f"{place}: expected a number")
    return float(value)


def _address(value: Any, place: str) -> IPv4Address:
    try:
        return IPv4Address(_string(value, place))
    except ValueError:
        raise _Wrong(f"{place}: expected an IPv4 address") from None


def _network(value: Any, place: str) -> IPv4Network:
    text = _string(value, place)
    try:
        if "/" in text:
            return IPv4Network(text)
    except ValueError:
        pass
    raise _Wrong(f"{place}: expected an IPv4 network such as 203.0.113.0/24")


def _string(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{place}: expected a string")
    return value


def _key(value: Any, place: str) -> str:
    text = _string(value, place)
    if not base58.is_key(text):
        raise _Wrong(f"{place}: expected the base58 text of 32 bytes")
    return text


def _code(value: Any, place: str) -> str:
    text = _string(value, place)
    if not CODE.fullmatch(text):
        raise _Wrong(f"{place}: expected a code of 1 to 32 letters, digits, '_', ':', '.', '-'")
    return text


def _text(value: Any, place: str) -> str:
    text = _string(value, place)
    if len(text) > MAX_TEXT or not text.isprintable():
        raise _Wrong(f"{place}: expected at most {MAX_TEXT} printable characters")
    return text


def _base64(value: Any, place: str) -> str:
    text = _string(value, place)
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Wrong(f"{place}: expected base64") from None
    return text


def _version(value: Any, place: str) -> str:
    text = _string(value, place)
    try:
        version_numbers(text)
    except ValueError as error:
        raise _Wrong(f"{place}: {error}") from None
    return text


_TEXTS: Mapping[str, Reader] = {
    "key": _key,
    "code": _code,
    "text": _text,
    "version": _version,
    "base64": _base64,
}
_SIMPLE: Mapping[Any, Reader] = {
    bool: _truth,
    float: _number,
    IPv4Address: _address,
    IPv4Network: _network,
}
