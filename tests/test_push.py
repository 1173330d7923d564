"""Hints over a websocket, against a loopback server: what wakes a poll, and what never harms."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from dzagent.ledger import push
from dzagent.ledger.push import MAX_DELAY, MESSAGES_A_MINUTE, Push, delay, program_request
from tests.ledger_fakes import DEVICE, IP, PROGRAM, UNICAST
from tests.test_rpc import free_port

TOKEN = "s3cret-token-0123456789"  # noqa: S105 - a made-up token, to see that it is never shown
WAIT = 30.0
Talk = Callable[["Node", ServerConnection], Any]


class Node:
    """A websocket server in a thread; `talk` is run for each connection."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self.port = 0
        self.connections = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/{TOKEN}"

    def __enter__(self) -> Node:  # noqa: PYI034 - Self needs Python 3.11
        self._thread.start()
        assert self._ready.wait(WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(self._serve, "127.0.0.1", 0, max_size=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections += 1
        with contextlib.suppress(Exception):
            await self.talk(self, connection)

    async def read(self, connection: ServerConnection, count: int) -> None:
        for _ in range(count):
            request = json.loads(await connection.recv())
            self.requests.put(request)
            await connection.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": 23}))


def notice(slot: Any, method: str = "programNotification") -> str:
    result = {"context": {"slot": slot}, "value": {"pubkey": UNICAST}}
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": {"result": result, "subscription": 23}})


@contextlib.contextmanager
def listening(*urls: str, hints: queue.Queue[int] | None = None) -> Iterator[tuple[Push, queue.Queue[int]]]:
    found: queue.Queue[int] = hints or queue.Queue()
    pusher = Push(urls, PROGRAM, on_hint=found.put, chance=lambda: 0.0)
    pusher.start()
    try:
        yield pusher, found
    finally:
        pusher.stop()


def test_it_subscribes_to_own_users_and_accounts_and_passes_slots_on() -> None:
    async def talk(node: Node, connection: ServerConnection) -> None:
        await node.read(connection, 2)
        await connection.send(notice(7))
        await connection.send(notice(9, "accountNotification"))
        await connection.wait_closed()

    with Node(talk) as node, listening(node.url) as (pusher, hints):
        pusher.watch([IP], [DEVICE])
        first, second = node.requests.get(timeout=WAIT), node.requests.get(timeout=WAIT)
        assert (first["method"], first["params"]) == program_request(PROGRAM, IP, "finalized")
        assert [f["memcmp"]["offset"] for f in first["params"][1]["filters"]] == [0, 116]
        assert (second["method"], second["params"][0]) == ("accountSubscribe", DEVICE)
        assert [hints.get(timeout=WAIT) for _ in range(3)] == [0, 7, 9]
        state = pusher.state
        assert (state.connected, state.endpoint, state.subscriptions, state.notices) == (
            True,
            "127.0.0.1",
            2,
            2,
        )
        assert TOKEN not in json.dumps(state.as_json())


def test_what_is_wanted_later_is_asked_on_the_same_connection() -> None:
    async def talk(node: Node, connection: ServerConnection) -> None:
        await node.read(connection, 3)
        await connection.wait_closed()

    with Node(talk) as node, listening(node.url) as (pusher, _):
        pusher.watch([IP], [])
        node.requests.get(timeout=WAIT)
        pusher.watch([IP], [DEVICE, UNICAST])
        assert {node.requests.get(timeout=WAIT)["params"][0] for _ in range(2)} == {DEVICE, UNICAST}
        assert node.connections == 1


def test_nothing_to_listen_to_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "FIRST_DELAY", 0.01)
    ended = threading.Event()

    async def talk(node: Node, connection: ServerConnection) -> None:
        await node.read(connection, 1)
        await connection.wait_closed()
        ended.set()

    with Node(talk) as node, listening(node.url) as (pusher, hints):
        pusher.watch([IP], [])
        node.requests.get(timeout=WAIT)
        pusher.watch([], [])
        assert ended.wait(WAIT)
        pusher.watch([IP], [])
        assert [hints.get(timeout=WAIT) for _ in range(2)] == [0, 0]


def test_it_connects_again_and_hints_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "FIRST_DELAY", 0.01)

    async def talk(node: Node, connection: ServerConnection) -> None:
        await node.read(connection, 1)
        if node.connections < 3:
            await connection.close(1001)
        await connection.wait_closed()

    with Node(talk) as node, listening(node.url) as (pusher, hints):
        pusher.watch([IP], [])
        assert [hints.get(timeout=WAIT) for _ in range(3)] == [0, 0, 0]
        assert pusher.state.connections == 3


def test_the_next_url_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "FIRST_DELAY", 0.01)

    async def talk(node: Node, connection: ServerConnection) -> None:
        await node.read(connection, 1)
        await connection.wait_closed()

    with Node(talk) as node, listening(f"ws://127.0.0.1:{free_port()}/", node.url) as (pusher, hints):
        pusher.watch([IP], [])
        assert hints.get(timeout=WAIT) == 0
        assert pusher.state.connected


def ending(talk: Talk) -> str:
    """Return what is said of a server that ends a connection, or that is left."""
    with Node(talk) as node, listening(node.url) as (pusher, hints):
        pusher.watch([IP], [])
        hints.get(timeout=WAIT)
        ended = threading.Event()
        for _ in range(3000):
            if pusher.state.last_error or ended.wait(0.01):
                break
        return pusher.state.last_error


def test_a_flood_of_messages_is_left_alone() -> None:
    async def talk(_node: Node, connection: ServerConnection) -> None:
        for _ in range(MESSAGES_A_MINUTE * 3):
            await connection.send(notice(1))
        await connection.wait_closed()

    assert "more than 600 messages" in ending(talk)


def test_a_huge_frame_ends_the_connection() -> None:
    async def talk(_node: Node, connection: ServerConnection) -> None:
        await connection.send("x" * (2 << 20))
        await connection.wait_closed()

    assert ending(talk) == "closed the connection"


JUNK: list[Any] = [
    "",
    "{",
    "[]",
    "7",
    b"\xff\xfe",
    "[" * 100_000,
    json.dumps({"method": "otherNotification", "params": {}}),
    json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}),
    json.dumps({"id": 1, "result": None}),
]


def test_junk_is_passed_over_and_odd_notices_have_no_slot() -> None:
    async def talk(node: Node, connection: ServerConnection) -> None:
        await node.read(connection, 1)
        for message in JUNK:
            await connection.send(message)
        odd: list[Any] = ["9", None, True, -1, 2**64, [], {}]
        for slot in odd:
            await connection.send(notice(slot))
        await connection.send(json.dumps({"method": "accountNotification"}))
        await connection.send(notice(5))
        await connection.wait_closed()

    with Node(talk) as node, listening(node.url) as (pusher, hints):
        pusher.watch([IP], [])
        assert [hints.get(timeout=WAIT) for _ in range(10)] == [0] * 9 + [5]
        assert (pusher.state.refused, pusher.state.connected) == (1, True)


def test_nobody_to_connect_to_is_no_thread() -> None:
    pusher = Push((), PROGRAM, on_hint=lambda _: None, chance=lambda: 0.0)
    pusher.start()
    pusher.watch([IP], [])
    pusher.stop()
    assert not pusher.state.connected


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_delays_grow_and_are_spread(failures: int, chance: float) -> None:
    assert 0 < delay(failures, chance) <= MAX_DELAY
    assert delay(failures, 0.0) <= delay(failures, 1.0) / 9
    assert delay(failures, chance) <= delay(failures + 1, chance)
