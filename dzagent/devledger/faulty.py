"""The HTTP server of a node that can be told to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from dzagent.devledger.faults import TRANSPORT, Fault, FaultFile, spoil
from dzagent.devledger.http1 import Answer, Head, write_answer
from dzagent.devledger.node import Source
from dzagent.devledger.server import Limits, Listen, RpcServer

HANG_SECONDS = 3600.0
DRIP_SECONDS = 1.0
LOOK_SECONDS = 0.1
RETRY_AFTER = 7

_BOMB_BYTES = 256 << 20
_PAGE = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n"


class FaultyServer(RpcServer):
    """Serves a source, with the faults of a file in its answers. Batches are answered as they are."""

    def __init__(
        self, source: Source, listen: Listen, faults: FaultFile, limits: Limits | None = None
    ) -> None:
        super().__init__(source, listen, limits)
        self._faults = faults
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> Listen:
        """Listen; returns where. Raises InputError if that is not possible there."""
        where = await super().start()
        self._listen = where
        self._watching = asyncio.ensure_future(self._watch())
        return where

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._watching is not None:
            self._watching.cancel()
        await super().stop()

    async def _watch(self) -> None:
        """Stop listening while the file says so, as a node that is down."""
        down = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._faults.refuses() == down:
                continue
            down = not down
            if down:
                await super().stop()
            else:
                with contextlib.suppress(Exception):  # somebody took the port meanwhile: tried again
                    await super().start()

    async def _answer(self, head: Head, body: bytes, writer: asyncio.StreamWriter) -> None:
        request = _request(body) if head.method == "POST" else None
        fault = None if request is None else self._faults.take(str(request.get("method")))
        if fault is None or request is None:
            await super()._answer(head, body, writer)
        elif fault.name in TRANSPORT:
            await self._misbehave(fault, head, body, writer)
        else:
            said = self._respond(head, body)
            lie = Answer(spoil(fault, request, said.body), said.status, said.content_type, said.extra)
            await self._send(writer, write_answer(lie, keep_alive=head.keep_alive, compress=head.wants_gzip))

    async def _misbehave(self, fault: Fault, head: Head, body: bytes, writer: asyncio.StreamWriter) -> None:
        status = fault.name.removeprefix("http-")
        if fault.name in {"reset", "refuse"}:
            raise ConnectionResetError
        if fault.name == "hang":
            await asyncio.sleep(HANG_SECONDS)
        elif fault.name == "drip":
            await self._drip(
                write_answer(self._respond(head, body), keep_alive=False, compress=False), writer
            )
        elif status.isdigit():
            extra = (("retry-after", str(RETRY_AFTER)),) if status == "429" else ()
            page = Answer(_PAGE, HTTPStatus(int(status)), "text/html", extra)
            await self._send(writer, write_answer(page, keep_alive=head.keep_alive, compress=False))
        else:
            await self._send(writer, _odd_bytes(fault.name, self._respond(head, body).body))
            raise ConnectionResetError

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for place in range(len(data)):
            await self._send(writer, data[place : place + 1])
            await asyncio.sleep(DRIP_SECONDS)


def _request(body: bytes) -> Mapping[str, Any] | None:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) else None


def _odd_bytes(name: str, said: bytes) -> bytes:
    """Return the bytes of a whole answer that cannot be read."""
    if name == "cut-body":
        return _http(said)[: -max(1, len(said) // 2)]
    if name == "bad-gzip":
        return _http(said, "gzip")
    if name == "gzip-bomb":
        return _http(_bomb(), "gzip")
    if name == "junk":
        return _http(random.Random(0).randbytes(8 << 20))  # noqa: S311 - noise, nothing secret
    if name == "deep":
        return _http(b"[" * 1_000_000)
    return _http(_PAGE)


def _http(body: bytes, encoding: str = "") -> bytes:
    coded = f"content-encoding: {encoding}\r\n" if encoding else ""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{coded}\r\n"
    return head.encode() + body


def _bomb() -> bytes:
    """Return a gzip stream of a megabyte that unpacks to 256, made without holding that."""
    packer, block = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(_BOMB_BYTES >> 20)]
    return b"".join([*parts, packer.flush()])
