"""The HTTP server: many connections, each bounded in time and size, none able to stop the others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass
from http import HTTPStatus

from dzagent.devledger.dispatch import answer
from dzagent.devledger.http1 import (
    MAX_HEAD,
    Answer,
    BadRequest,
    Head,
    body_length,
    read_body,
    read_head,
    text_answer,
    write_answer,
)
from dzagent.devledger.node import Source
from dzagent.errors import InputError

LOOPBACK = "127.0.0.1"

_ALLOW = ("allow", "POST, OPTIONS")
_HEAR_OUT_SECONDS = 2.0
_HEAR_OUT_BYTES = 16 * 1024 * 1024
_STOP_SECONDS = 2.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, with no time: closing then drops what is unsent (socket(7))."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server gives its clients.

    Seconds: `idle` for the head of the next request, `request` for its body, `answer` for a client to take its
    answer. `connections` at once; `unsent` bytes of answers that clients have not taken yet, over all connections.
    """

    idle: float = 60.0
    request: float = 10.0
    answer: float = 30.0
    connections: int = 256
    unsent: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 is any free one."""

    host: str = LOOPBACK
    port: int = 8899

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Read IP:PORT, [IPV6]:PORT or :PORT; raises InputError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535:
        with contextlib.suppress(ValueError):
            return Listen(str(ipaddress.ip_address(host)) if host else LOOPBACK, int(port))
    raise InputError(f"--listen {text!r} is not IP:PORT, such as 127.0.0.1:8899")


class RpcServer:
    """Serves a source of views on one address."""

    def __init__(self, source: Source, listen: Listen, limits: Limits | None = None) -> None:
        self._source = source
        self._listen = listen
        self._limits = limits or Limits()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        # Those that wait for a request, the one that has waited longest first: they make room for new ones.
        self._idle: dict[asyncio.Task[None], None] = {}
        self._unsent = 0

    async def start(self) -> Listen:
        """Listen; returns where. Raises InputError if that is not possible there."""
        try:
            self._server = await asyncio.start_server(
                self._connected,
                self._listen.host,
                self._listen.port,
                limit=MAX_HEAD,
                backlog=self._limits.connections,
            )
        except OSError as error:
            raise InputError(f"cannot listen on {self._listen}: {_why(error)}") from error
        host, port, *_ = self._server.sockets[0].getsockname()
        return Listen(host, port)

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_STOP_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - start_server always makes one
            return
        self._connections.add(task)
        try:
            if len(self._connections) > self._limits.connections and not self._make_room():
                busy = text_answer("Too many connections.", HTTPStatus.SERVICE_UNAVAILABLE)
                await self._send(writer, write_answer(busy, keep_alive=False, compress=False))
            else:
                await self._converse(task, reader, writer)
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            # Gone, too slow, or asked to make room: there is nobody to tell.
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            self._idle.pop(task, None)
            writer.close()

    def _make_room(self) -> bool:
        oldest = next(iter(self._idle), None)
        if oldest is None:
            return False
        del self._idle[oldest]
        oldest.cancel()
        return True

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer requests until one side has had enough. Raises OSError and TimeoutError."""
        # Waiting for the answer to be taken means all of it, so that what is unsent can be counted.
        writer.transport.set_write_buffer_limits(high=0)
        going_on = True
        while going_on:
            try:
                self._idle[task] = None
                head = await asyncio.wait_for(read_head(reader), self._limits.idle)
                self._idle.pop(task, None)
                if head is None:
                    return
                length = body_length(head)
                if head.expects_continue:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await asyncio.wait_for(read_body(length, reader), self._limits.request)
            except BadRequest as error:
                refusal = text_answer(error.text, error.status)
                await self._send(writer, write_answer(refusal, keep_alive=False, compress=False))
                await self._hear_out(reader, writer)
                return
            going_on = head.keep_alive
            await self._answer(head, body, writer)

    async def _answer(self, head: Head, body: bytes, writer: asyncio.StreamWriter) -> None:
        said = write_answer(
            self._respond(head, body),
            keep_alive=head.keep_alive,
            compress=head.wants_gzip,
            headless=head.method == "HEAD",
        )
        if self._unsent + len(said) > self._limits.unsent:
            busy = text_answer("Too many answers wait for their clients.", HTTPStatus.SERVICE_UNAVAILABLE)
            said = write_answer(busy, keep_alive=head.keep_alive, compress=False)
        await self._send(writer, said)

    def _respond(self, head: Head, body: bytes) -> Answer:
        if head.method == "POST":
            return Answer(answer(self._source, body))
        if head.method == "GET" and head.path == "/health":
            return Answer(_health(self._source).encode(), content_type="text/plain; charset=utf-8")
        if head.method == "OPTIONS":
            return text_answer("", HTTPStatus.OK, _ALLOW)
        message = "Used HTTP Method is not allowed. POST or OPTIONS is required"
        return text_answer(message, HTTPStatus.METHOD_NOT_ALLOWED, _ALLOW)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self._unsent += len(data)
        try:
            writer.write(data)
            await asyncio.wait_for(writer.drain(), self._limits.answer)
        except asyncio.TimeoutError:
            # What the kernel holds for this client goes too, not only what is held here.
            peer: socket.socket = writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise
        finally:
            self._unsent -= len(data)

    @staticmethod
    async def _hear_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read on a little after a refusal: closing at once would take the answer away from a client that sends."""
        if writer.can_write_eof():
            writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard(reader), _HEAR_OUT_SECONDS)


async def _discard(reader: asyncio.StreamReader) -> None:
    left = _HEAR_OUT_BYTES
    while left > 0 and (data := await reader.read(MAX_HEAD)):
        left -= len(data)


def _health(source: Source) -> str:
    """Return what GET /health says (Agave: rpc_service.rs)."""
    node = source.view("processed").node
    if node.healthy:
        return "ok"
    return "unknown" if node.slots_behind is None else "behind"


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "something listens there already; end it, or choose another port with --listen"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address; choose another with --listen"
    if error.errno == errno.EACCES:
        return "that port needs root; choose one from 1024 up with --listen"
    return error.strerror or str(error)
