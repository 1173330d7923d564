"""Websocket subscriptions as Agave has them: accounts, programs, slots.

As there, a program subscription gives no notice of an account that was closed, and an account subscription shows it
with nothing in it. Changes are found by looking at the source a few times a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from dzagent.devledger.methods import API_VERSION, encode
from dzagent.devledger.node import Source, View
from dzagent.devledger.params import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    Options,
    RpcError,
    arguments,
    invalid,
    key,
    options,
    unsigned,
)
from dzagent.devledger.server import Listen
from dzagent.errors import InputError

LOOK_SECONDS = 0.1
MAX_MESSAGE = 64 * 1024
MAX_SUBSCRIPTIONS = 100
MAX_CONNECTIONS = 256
PING_SECONDS = 20.0

SYSTEM_PROGRAM = "1" * 32


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one client wants to hear of; `subject` is an address, a program, or "" for slots."""

    number: int
    kind: str
    subject: str
    asked: Options


@dataclass(frozen=True, slots=True)
class Notice:
    """What a subscription is told: the value and the slot of its context."""

    slot: int
    value: Any


def notices(subscription: Subscription, before: View, after: View) -> list[Notice]:
    """Return what changed for a subscription between two views at its commitment. Pure."""
    if subscription.kind == "slot":
        moved = range(max(before.slot, after.slot - 32) + 1, after.slot + 1)
        return [Notice(n, {"slot": n, "parent": n - 1, "root": max(0, n - 32)}) for n in moved]
    if before.accounts is after.accounts:
        return []
    if subscription.kind == "account":
        return _account_notices(subscription, before, after)
    return _program_notices(subscription, before, after)


def _account_notices(subscription: Subscription, before: View, after: View) -> list[Notice]:
    address, asked = subscription.subject, subscription.asked
    data = after.accounts.get(address)
    if data == before.accounts.get(address):
        return []
    if data is not None:
        return [Notice(after.slot, encode(after, data, asked.data_slice, asked.encoding or "binary"))]
    empty: Any = "" if asked.encoding in {None, "binary"} else ["", asked.encoding]
    closed = {"data": empty, "executable": False, "lamports": 0, "owner": SYSTEM_PROGRAM}
    return [Notice(after.slot, {**closed, "rentEpoch": 2**64 - 1, "space": 0})]


def _program_notices(subscription: Subscription, before: View, after: View) -> list[Notice]:
    asked = subscription.asked
    if subscription.subject != after.program_id:
        return []
    return [
        Notice(
            after.slot,
            {
                "account": encode(after, data, asked.data_slice, asked.encoding or "binary"),
                "pubkey": address,
            },
        )
        for address, data in after.accounts.items()
        if before.accounts.get(address) != data and all(item.allows(data) for item in asked.filters)
    ]


class Client:
    """The subscriptions of one connection. `numbers` gives ids that no other connection has."""

    def __init__(self, source: Source, numbers: Callable[[], int]) -> None:
        self._source = source
        self._numbers = numbers
        self._subscriptions: dict[int, tuple[Subscription, View]] = {}

    def answer(self, message: str | bytes) -> str:
        """Answer one request."""
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return _write(
                {"jsonrpc": "2.0", "error": {"code": PARSE_ERROR, "message": "Parse error"}, "id": None}
            )
        request_id = request.get("id") if isinstance(request, dict) else None
        try:
            result = self._call(request)
        except RpcError as error:
            shown = {"code": error.code, "message": error.message}
            return _write({"jsonrpc": "2.0", "error": shown, "id": request_id})
        return _write({"jsonrpc": "2.0", "result": result, "id": request_id})

    def _call(self, request: Any) -> Any:
        method = request.get("method") if isinstance(request, dict) else None
        if not isinstance(method, str):
            raise RpcError(INVALID_REQUEST, "Invalid request")
        kind, _, verb = (
            method.partition("Subscribe") if "Subscribe" in method else method.partition("Unsubscribe")
        )
        if verb or kind not in {"account", "program", "slot"}:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        if method.endswith("Unsubscribe"):
            return self._unsubscribe(request.get("params"))
        return self._subscribe(kind, request.get("params"))

    def _subscribe(self, kind: str, params: Any) -> int:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise invalid("Too many subscriptions")
        subject, asked = "", Options(commitment="processed")
        if kind == "slot":
            arguments(params, 0, 0)
        else:
            subject, config = arguments(params, 1, 2)
            subject, asked = key(subject), options(config)
        found = Subscription(self._numbers(), kind, subject, asked)
        self._subscriptions[found.number] = (found, self._source.view(asked.commitment))
        return found.number

    def _unsubscribe(self, params: Any) -> bool:
        (number,) = arguments(params, 1, 1)
        if self._subscriptions.pop(unsigned(number), None) is None:
            raise invalid("Invalid subscription id.")
        return True

    def news(self) -> list[str]:
        """Return the notices that are due, as they are sent."""
        told: list[str] = []
        views: dict[str, View] = {}
        for number, (subscription, before) in list(self._subscriptions.items()):
            commitment = subscription.asked.commitment
            after = views.setdefault(commitment, self._source.view(commitment))
            self._subscriptions[number] = (subscription, after)
            with contextlib.suppress(RpcError):  # an account that the encoding asked for cannot hold
                told.extend(_notification(subscription, one) for one in notices(subscription, before, after))
        return told


def _notification(subscription: Subscription, notice: Notice) -> str:
    result = notice.value
    if subscription.kind != "slot":
        result = {"context": {"apiVersion": API_VERSION, "slot": notice.slot}, "value": notice.value}
    params = {"result": result, "subscription": subscription.number}
    return _write({"jsonrpc": "2.0", "method": f"{subscription.kind}Notification", "params": params})


def _write(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


class PubSubServer:
    """Serves subscriptions to a source on one address; `look_seconds` is how often changes are looked for."""

    def __init__(self, source: Source, listen: Listen, look_seconds: float = LOOK_SECONDS) -> None:
        self._source = source
        self._listen = listen
        self._look_seconds = look_seconds
        self._numbers = itertools.count(1)
        self._connections = 0
        self._server: Server | None = None

    async def start(self) -> Listen:
        """Listen; returns where. Raises InputError if that is not possible there."""
        try:
            self._server = await serve(
                self._serve,
                self._listen.host,
                self._listen.port,
                max_size=MAX_MESSAGE,
                ping_interval=PING_SECONDS,
                close_timeout=1.0,
                compression=None,
            )
        except OSError as error:
            raise InputError(
                f"cannot listen on {self._listen} for websockets ({error.strerror or error}); choose another place "
                "with --websocket"
            ) from error
        host, port, *_ = next(iter(self._server.sockets)).getsockname()
        return Listen(host, port)

    async def stop(self) -> None:
        """Close every connection (1001, going away) and stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        if self._connections >= MAX_CONNECTIONS:
            await connection.close(1013, "too many connections")
            return
        self._connections += 1
        client = Client(self._source, lambda: next(self._numbers))
        teller = asyncio.ensure_future(self._tell(client, connection))
        try:
            async for message in connection:
                await connection.send(client.answer(message))
        except ConnectionClosed:
            pass
        finally:
            self._connections -= 1
            teller.cancel()

    async def _tell(self, client: Client, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self._look_seconds)
                for text in client.news():
                    await connection.send(text)
