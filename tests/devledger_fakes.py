"""A development ledger in memory, clocks that tests move, and a server in a thread of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from dzagent.config import PROGRAM_IDS
from dzagent.devledger import bank, fleet, people, world
from dzagent.devledger.dispatch import answer
from dzagent.devledger.node import Clocks, LiveNode, Source, View
from dzagent.devledger.people import NewUser
from dzagent.devledger.records import State
from dzagent.devledger.server import Limits, Listen, RpcServer
from dzagent.devledger.store import Store
from dzagent.model import UserType

PROGRAM = PROGRAM_IDS["localnet"]
IP = IPv4Address("198.51.100.7")
OTHER_IP = IPv4Address("198.51.100.8")
START = 1_790_000_000.0
"""Unix seconds at which the ledgers of these tests begin."""


def ip(text: str) -> IPv4Address:
    """Return an address."""
    return IPv4Address(text)


def net(text: str) -> IPv4Network:
    """Return a network."""
    return IPv4Network(text)


def entropy(size: int) -> bytes:
    """Return bytes that are always the same."""
    return bytes(range(1, size + 1))


def empty(now: float = START) -> State:
    """Return a ledger with nothing on it."""
    return world.fresh(PROGRAM, now, entropy)


def populated() -> State:
    """Return a ledger with a metro, two devices, two groups and a tenant, and no user."""
    state = empty()
    state, _ = fleet.add_exchange(state, "xfra", "Frankfurt", (50.1, 8.6))
    state, _ = fleet.add_device(
        state,
        "dev1",
        ip("192.0.2.1"),
        [net("203.0.113.0/29")],
        exchange="xfra",
        tunnel_endpoints=[ip("192.0.2.2")],
    )
    state, _ = fleet.add_device(state, "dev2", ip("192.0.2.9"), [net("203.0.113.64/29")])
    state, _ = fleet.add_group(state, "blocks", ip("233.84.178.1"))
    state, _ = fleet.add_group(state, "shreds", ip("233.84.178.2"))
    state, _ = fleet.add_tenant(state, "acme")
    return state


def with_user(
    state: State,
    kind: UserType = UserType.IBRL,
    client_ip: IPv4Address = IP,
    device: str = "dev1",
    **more: Any,
) -> tuple[State, str]:
    """Return the state with one more user, and its account."""
    state, done = people.add_user(state, NewUser(client_ip, kind, device, **more))
    return state, done.account


def only_user(state: State) -> Any:
    """Return the one user there is."""
    (user,) = state.users.values()
    return user


@dataclass
class Clock:
    """Seconds that only tests move."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class Fixed:
    """A source that always gives the same view."""

    view_: View

    def view(self, _commitment: str) -> View:
        """Return it."""
        return self.view_

    @classmethod
    def of(cls, state: State, slot: int = 100) -> Fixed:
        """Return the source of a state at a slot."""
        return cls(View(slot, state.genesis_hash, state.program_id, bank.accounts(state), state.node))


def ask(source: Source, method: str, *params: Any) -> Any:
    """Return the answer to one call, as a client parses it."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return json.loads(answer(source, json.dumps(body).encode()))


def result(source: Source, method: str, *params: Any) -> Any:
    """Return the result of one call."""
    return ask(source, method, *params)["result"]


def error(source: Source, method: str, *params: Any) -> tuple[int, str]:
    """Return code and message of a call that must fail."""
    found = ask(source, method, *params)["error"]
    return found["code"], found["message"]


@dataclass
class Ledger:
    """A state file, its clocks, and the node that serves it."""

    path: Path
    wall: Clock = field(default_factory=Clock)
    monotonic: Clock = field(default_factory=lambda: Clock(5000.0))
    warnings: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """The file."""
        return Store(self.path, self.wall)

    def node(self) -> LiveNode:
        """Start a node on the file."""
        return LiveNode(self.store, Clocks(self.wall, self.monotonic), self.warnings.append)

    def pass_(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall.pass_(seconds)
        self.monotonic.pass_(seconds)

    @classmethod
    def make(cls, path: Path, state: State | None = None) -> Ledger:
        """Return a ledger whose file holds this state."""
        ledger = cls(path)
        ledger.store.create(lambda now: replace(state or populated(), slot_time=now))
        return ledger


@contextmanager
def serving(source: Source, limits: Limits | None = None) -> Iterator[Listen]:
    """Serve in a thread; yields where."""
    begun: queue.Queue[tuple[Listen, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        server, over = RpcServer(source, Listen(port=0), limits), asyncio.Event()
        begun.put((await server.start(), asyncio.get_running_loop(), over))
        await over.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    where, loop, over = begun.get(timeout=20)
    try:
        yield where
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        assert not thread.is_alive()


def post(
    where: Listen,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    path: str = "/",
) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request; returns status, headers (lower case) and body."""
    connection = http.client.HTTPConnection(where.host, where.port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()
