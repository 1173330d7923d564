"""`dzagent ledger decode`: any account as JSON, without a host, a ledger or a right."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from dzagent.errors import InputError
from dzagent.ledger.document import document

MAX_INPUT = 16 * 1024 * 1024
"""Bytes read at most; the ledger's own limit for an account is 10 MiB."""

_STDIN = "-"
_SHOWN = 200
# Account bytes have some of these nearly always, text never: a zero byte is the first to appear.
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BLANK_TYPES = frozenset(b"\t\n\r")
"""Account types 9, 10 and 13, whose first byte looks like a blank."""


@click.command("decode")
@click.argument("source", required=False, metavar="[FILE|BASE64]")
def decode(source: str | None) -> None:
    """Print a ledger account as JSON.

    FILE holds the account's bytes, their base64 text, or the JSON that an RPC node gave for it; without an
    argument, or with -, the same is read from the standard input. What is no file is taken for base64.

    Addresses are base58, enums are {"value", "name"}. "missing" lists fields that the bytes do not hold, which
    have their defaults, "problems" says what is odd. Exits 2 where nothing can be read.
    """
    data = _from_stdin(source) if source is None or source == _STDIN else _from_argument(source)
    click.echo(json.dumps(document(data), indent=2, allow_nan=False))


# ---- where bytes come from -------------------------------------------------------------------------------


def _from_argument(source: str) -> bytes:
    if _exists(source):
        try:
            with Path(source).open("rb") as file:
                raw = _read(file, source)
        except OSError as error:
            raise InputError(f"it cannot be read: {error.strerror or error}.", file=source) from error
        return _account(raw, source)
    shown = _shown(source)
    if _names_a_file(source):
        raise InputError(f"There is no file {shown}.")
    if len(source) > MAX_INPUT:
        raise _too_large("the argument")
    text = source.strip()
    if text[:1] in {"{", "["}:
        return _from_json(text, "the argument")
    data = _from_base64(text)
    if not data:
        raise InputError(f"{shown} is neither a file nor the base64 text of an account.")
    return data


def _from_stdin(source: str | None) -> bytes:
    stdin: BinaryIO | None = getattr(sys.stdin, "buffer", None)  # no sys.stdin at all where it is closed
    if stdin is None or (source is None and stdin.isatty()):
        raise InputError("There is nothing to decode: name a FILE, give BASE64, or pipe an account in.")
    try:
        raw = _read(stdin, "standard input")
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror or error}.", file="standard input") from error
    if not raw.strip():
        raise InputError("it is empty: an account is needed.", file="standard input")
    return _account(raw, "standard input")


def _read(file: BinaryIO, where: str) -> bytes:
    raw = file.read(MAX_INPUT + 1)
    if len(raw) > MAX_INPUT:
        raise _too_large(where)
    if not raw:
        raise InputError("it is empty: an account is needed.", file=where)
    return raw


def _too_large(where: str) -> InputError:
    return InputError(f"it is larger than {MAX_INPUT // 2**20} MB, which no account is.", file=where)


def _shown(text: object) -> str:
    whole = str(text)
    return repr(whole if len(whole) <= _SHOWN else whole[:_SHOWN] + "...")


def _exists(source: str) -> bool:
    if not source.strip("/"):  # nothing, or base64 of bytes that are all ones
        return False
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # too long for a name, or a zero byte in it
        return False


def _names_a_file(source: str) -> bool:
    """Whether a path was meant: some, like /tmp/user, are base64 text as well."""
    folder = str(Path(source).parent)
    return "/" in source and folder != "." and _exists(folder)


# ---- what they are ---------------------------------------------------------------------------------------


def _account(raw: bytes, where: str) -> bytes:
    """Return the account's bytes, whichever of the three forms they came in."""
    text = _text(raw)
    if text is None:
        return raw
    if text[:1] in {"{", "[", '"'} or text == "null":
        return _from_json(text, where)
    data = _from_base64(text)
    if data:
        return data
    if raw[0] in _BLANK_TYPES:
        return raw
    raise InputError("it is text, and neither base64 nor the JSON of an account.", file=where)


def _text(raw: bytes) -> str | None:
    if _NOT_TEXT.search(raw):
        return None
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
        return None


def _from_json(text: str, where: str) -> bytes:
    try:
        # No number is needed, and a hostile one takes long to convert.
        content: Any = json.loads(text, parse_int=_no_number, parse_float=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"it looks like JSON and is not ({why}).", file=where) from error
    data = _from_base64(_base64_of(content, where))
    if data is None:
        raise InputError('the "data" of the account is not base64.', file=where)
    return data


def _no_number(_text: str) -> int:
    return 0


def _base64_of(content: Any, where: str) -> str:
    """Find the base64 text in an RPC answer, in an account of one, or in {"pubkey", "data"}."""
    while True:
        match content:
            case {"data": str(), "owner": _}:  # a node's answer to a request that names no encoding
                raise InputError("the account is encoded as base58: ask for base64.", file=where)
            case str(text) | {"data": [str(text), "base64"]} | {"data": str(text)}:
                return text
            case {"data": [str(), encoding]}:
                raise InputError(f"the account is encoded as {_shown(encoding)}: ask for base64.", file=where)
            case {"result": inner} | {"value": inner} | {"account": inner} | [inner]:
                content = inner
            case {"error": {"message": message}}:
                raise InputError(f"the answer is an error, {_shown(message)}.", file=where)
            case list():
                raise InputError(f"it lists {len(content)} accounts: one is needed.", file=where)
            case None:
                raise InputError("it is null: there is no such account.", file=where)
            case _:
                raise InputError('it is JSON without the "data" of an account.', file=where)
