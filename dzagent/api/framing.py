"""Where an HTTP/1.1 request ends, told from the bytes that have arrived so far. Pure.

The server hands a request to a thread only when all of it is here, so this looks for its end; what the bytes mean
is the parser's business. A body that must not be read (too large, or of a length that only its end would tell) is
not waited for: the head alone is whole, and the connection ends after the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

MAX_HEAD = 32 * 1024
"""Largest request line and headers together, in bytes."""

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class More:
    """The request is not complete. `expects`: the client waits for "100 Continue" before it sends the body."""

    expects: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """The first `size` bytes are a request; after a `last` one nothing can be read from this connection."""

    size: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Whatever else arrives, this will never be a request: answer with `code` and `message`."""

    code: int
    message: str


Found: TypeAlias = More | Whole | Hopeless


def find_request(data: bytes | bytearray, *, max_body: int) -> Found:
    """Look for the end of the request at the start of `data`; bodies of up to `max_body` bytes are waited for."""
    start = (
        2 if data[:2] == b"\r\n" else 0
    )  # RFC 9112 section 2.2: one empty line before a request is ignored
    end = data.find(_END, start)
    if end < 0:
        if len(data) > MAX_HEAD:
            return Hopeless(431, f"the head of the request is larger than {MAX_HEAD} bytes")
        if data.count(b"\n") != data.count(b"\r\n"):
            return Hopeless(400, "lines of a request end with CR LF")
        return More()
    if end > MAX_HEAD:
        return Hopeless(431, f"the head of the request is larger than {MAX_HEAD} bytes")
    return _with_body(bytes(data[start:end]), end + len(_END), len(data), max_body)


def _with_body(head: bytes, body: int, have: int, max_body: int) -> Found:
    lengths: list[bytes] = []
    expects = False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length":
                lengths.append(value.strip())
            case b"transfer-encoding":
                return Whole(body, last=True)
            case b"expect":
                expects = True
    if not lengths:
        return Whole(body)
    # several lengths, no number, or too much: the parser or the application refuses it by the head alone
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18 or int(lengths[0]) > max_body:
        return Whole(body, last=True)
    size = body + int(lengths[0])
    if have >= size:
        return Whole(size)
    return More(expects and have == body)
