"""HTTP/1.1 as far as a JSON-RPC server needs it: reading a request within limits, and writing an answer.

Bytes come from an asyncio stream; nothing here waits for ever, since callers bound the time.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD = 16 * 1024
MAX_BODY = 50 * 1024
"""Bytes of a request, as Agave has it: 100 addresses are 5 KB."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VERSION = re.compile(r"HTTP/1\.[01]", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_NOT_WANTED = re.compile(r"\s*q=0(\.0*)?\s*")
_GZIP_LEVEL = 1
_MAX_TRAILERS = 100


class BadRequest(Exception):
    """A request that cannot be read; the connection ends after the answer."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and headers; names of headers in lower case."""

    method: str
    target: str
    version: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to go on with this connection."""
        words = _words(self.headers.get("connection", ""))
        return "keep-alive" in words if self.version == "HTTP/1.0" else "close" not in words

    @property
    def wants_gzip(self) -> bool:
        """Whether the client can read gzip (RFC 9110, 12.5.3)."""
        codings: dict[str, bool] = {}
        for item in self.headers.get("accept-encoding", "").lower().split(","):
            coding, _, quality = item.partition(";")
            codings[coding.strip()] = not _NOT_WANTED.fullmatch(quality)
        return codings.get("gzip", codings.get("x-gzip", codings.get("*", False)))

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for leave to send its body."""
        return self.version == "HTTP/1.1" and self.headers.get("expect", "").lower() == "100-continue"


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in text.split(","))


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read up to the empty line; None if the client went away between requests. Raises BadRequest.

    The reader's limit must be MAX_HEAD.
    """
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial.strip():
            return None
        raise BadRequest(HTTPStatus.BAD_REQUEST, "The request is cut off.") from None
    except asyncio.LimitOverrunError:
        raise BadRequest(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The head is larger than {MAX_HEAD} bytes."
        ) from None
    # Some clients send an empty line too much after a body (RFC 9112, 2.2).
    return parse_head(block.lstrip(b"\r\n"))


def parse_head(block: bytes) -> Head:
    """Read request line and headers. Raises BadRequest."""
    line, *rest = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = _request_line(line)
    headers: dict[str, str] = {}
    for item in rest:
        name, colon, value = item.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or any(char in value for char in "\r\n\0"):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "A header line cannot be read.")
        name, value = name.lower(), value.strip(" \t")
        if name in {"content-length", "transfer-encoding"} and headers.get(name, value) != value:
            raise BadRequest(HTTPStatus.BAD_REQUEST, f"The header {name} comes twice.")
        headers[name] = f"{headers[name]}, {value}" if _joins(name, headers) else value
    return Head(method, target, version, headers)


def _joins(name: str, headers: Mapping[str, str]) -> bool:
    return name in headers and name in {"accept-encoding", "connection"}


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1]:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "This is not an HTTP request.")
    if not _VERSION.fullmatch(parts[2]):
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here.")
    return parts[0], parts[1], parts[2]


def body_length(head: Head) -> int | None:
    """Return how long the body is, None if it comes in chunks. Raises BadRequest, also for one that is too long."""
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Bodies are read uncompressed only.")
    text, coding = head.headers.get("content-length"), head.headers.get("transfer-encoding")
    if coding is not None and text is None and coding.lower() == "chunked":
        return None
    if coding is not None or not _LENGTH.fullmatch(text or "0"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "The length of the body cannot be told.")
    length = int(text or "0")
    if length > MAX_BODY:
        raise _too_large()
    return length


async def read_body(length: int | None, reader: asyncio.StreamReader) -> bytes:
    """Read a body of this length (see body_length). Raises BadRequest."""
    try:
        return await (_read_chunks(reader) if length is None else reader.readexactly(length))
    except asyncio.IncompleteReadError:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "The body is cut off.") from None
    except asyncio.LimitOverrunError:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "A chunk's line is too long.") from None


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size_text = line.split(b";")[0].strip()
        if not _CHUNK_SIZE.fullmatch(size_text):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "A chunk cannot be read.")
        size = int(size_text, 16)
        if len(body) + size > MAX_BODY:
            raise _too_large()
        if size == 0:
            break
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise BadRequest(HTTPStatus.BAD_REQUEST, "A chunk cannot be read.")
    for _ in range(_MAX_TRAILERS):  # they mean nothing here
        if await reader.readuntil(b"\r\n") == b"\r\n":
            return bytes(body)
    raise BadRequest(HTTPStatus.BAD_REQUEST, "The trailer does not end.")


def _too_large() -> BadRequest:
    return BadRequest(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {MAX_BODY} bytes, the limit of a node."
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it is written."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json; charset=utf-8"
    extra: tuple[tuple[str, str], ...] = ()


def text_answer(text: str, status: HTTPStatus = HTTPStatus.OK, *extra: tuple[str, str]) -> Answer:
    """Return an answer in plain text."""
    return Answer(f"{text}\n".encode(), status, "text/plain; charset=utf-8", extra)


def write_answer(answer: Answer, *, keep_alive: bool, compress: bool, headless: bool = False) -> bytes:
    """Return the bytes of an answer; `headless` leaves the body out (for HEAD)."""
    body = gzip.compress(answer.body, _GZIP_LEVEL, mtime=0) if compress and answer.body else answer.body
    headers = [
        ("content-type", answer.content_type),
        ("content-length", str(len(body))),
        ("vary", "accept-encoding"),
        *([("content-encoding", "gzip")] if body is not answer.body else []),
        ("connection", "keep-alive" if keep_alive else "close"),
        *answer.extra,
    ]
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", *(f"{k}: {v}" for k, v in headers)]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if headless else head + body
