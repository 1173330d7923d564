"""Websocket subscriptions: a hint that something changed, so that the next poll is made at once.

Nothing that a notice says is believed, and nothing is concluded from silence: a program subscription gives no notice
of an account that was closed. A connection that breaks costs speed, never soundness. The loop and its thread are
this module's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from dzagent.errors import LedgerError, OverBudget
from dzagent.ledger.asker import base58
from dzagent.ledger.endpoints import Budget
from dzagent.ledger.jsonrpc import parse, printable
from dzagent.ledger.search import user_filter

log = logging.getLogger(__name__)

MAX_FRAME = 1024 * 1024
"""Bytes of one message; a device account is 3 KB."""

MAX_WATCHED = 32
"""Accounts that are watched by address, besides the searches."""

MESSAGES_A_MINUTE = 600
"""A server that sends more is left alone for a while."""

FIRST_DELAY = 2.0
MAX_DELAY = 300.0
STEADY_SECONDS = 60.0
"""Delays in seconds before a new connection: doubled after each failure, forgotten after a steady connection."""

_NOT_WANTED = "is not needed now"

OPEN_SECONDS = 10.0
PING_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class PushState:
    """What there is to show of the connection. `refused` are subscriptions that the server does not give."""

    connected: bool = False
    endpoint: str = ""
    subscriptions: int = 0
    refused: int = 0
    notices: int = 0
    connections: int = 0
    last_error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the part of ledger.json that is about pushes."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def program_request(program_id: str, ip: IPv4Address, commitment: str) -> tuple[str, list[Any]]:
    """Return method and parameters of the subscription to all users of a client IP."""
    filters = [
        {"memcmp": {"offset": offset, "encoding": "base58", "bytes": base58(data)}}
        for offset, data in user_filter(ip).items()
    ]
    return "programSubscribe", [
        program_id,
        {"encoding": "base64", "commitment": commitment, "filters": filters},
    ]


def account_request(address: str, commitment: str) -> tuple[str, list[Any]]:
    """Return method and parameters of the subscription to one account."""
    return "accountSubscribe", [address, {"encoding": "base64", "commitment": commitment}]


def delay(failures: int, chance: float) -> float:
    """Return seconds to wait after so many failures in a row; `chance` from 0 to 1 spreads hosts apart.

    The whole range is used from the second failure on: hosts that a restart cut off together come back one by one.
    """
    longest = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures, 20))
    return longest * (0.1 + 0.9 * chance)


class Push:
    """One connection at a time to the first URL that works, in a thread of its own.

    `on_hint` is called in that thread with the slot of a change, 0 if unknown. `chance` gives a number from 0 to 1,
    `clock` monotonic seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        program_id: str,
        *,
        on_hint: Callable[[int], None],
        commitment: str = "finalized",
        chance: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._urls = tuple(urls)
        self._program_id = program_id
        self._on_hint = on_hint
        self._commitment = commitment
        self._chance = chance
        self._clock = clock
        self._wanted: tuple[tuple[str, list[Any]], ...] = ()
        self._state = PushState()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    @property
    def state(self) -> PushState:
        """Return what there is to show."""
        return self._state

    def start(self) -> None:
        """Start the thread, if there is anybody to connect to."""
        if self._urls:
            self._thread.start()
            self._ready.wait()

    def stop(self, timeout: float = 2.0) -> None:
        """Close the connection and end the thread."""
        if self._loop is None or self._task is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout)

    def watch(self, ips: Iterable[IPv4Address], accounts: Iterable[str]) -> None:
        """Say what to listen to: users of these client IPs, and these accounts; nothing ends the connection.

        May be called from any thread.
        """
        wanted = (
            *(program_request(self._program_id, ip, self._commitment) for ip in ips),
            *(account_request(key, self._commitment) for key in list(dict.fromkeys(accounts))[:MAX_WATCHED]),
        )
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if self._loop is not None and self._changed is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changed.set)

    # ---- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        self._task = asyncio.current_task()
        self._ready.set()
        failures = 0
        while True:
            while not self._wanted:
                self._changed.clear()
                await self._changed.wait()
            url = self._urls[failures % len(self._urls)]
            started = self._clock()
            why = await self._connection(url)
            if self._clock() - started >= STEADY_SECONDS or why == _NOT_WANTED:
                failures = 0
            self._state = replace(self._state, connected=False, subscriptions=0, refused=0, last_error=why)
            log.info("ledger push: %s %s", _host(url), why)
            await asyncio.sleep(delay(failures, self._chance()))
            failures += 1

    async def _connection(self, url: str) -> str:
        """Listen until something ends it; return what that was, without the URL, which may carry a token."""
        try:
            async with connect(
                url,
                open_timeout=OPEN_SECONDS,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=1.0,
                max_size=MAX_FRAME,
                max_queue=16,
                compression=None,  # a small message could unpack to a large one
            ) as websocket:
                await self._listen(websocket, url)
        except OverBudget:
            return f"sent more than {MESSAGES_A_MINUTE} messages a minute"
        except InvalidStatus as error:
            return f"answered HTTP {error.response.status_code} instead of a websocket"
        except ConnectionClosed:
            return "closed the connection"
        except (asyncio.TimeoutError, TimeoutError):
            return f"did not open a connection within {OPEN_SECONDS:g} s"
        except (OSError, WebSocketException, ValueError, EOFError) as error:
            return f"cannot be used ({type(error).__name__})"
        return _NOT_WANTED

    async def _listen(self, websocket: ClientConnection, url: str) -> None:
        session = _Session(websocket, self._clock)
        before = self._state
        self._state = replace(
            before, connected=True, endpoint=_host(url), connections=before.connections + 1, last_error=""
        )
        self._on_hint(0)  # whatever changed while nobody listened
        changed = self._changed
        reader = asyncio.ensure_future(self._read(session))
        try:
            while changed is not None and self._wanted and not reader.done():
                changed.clear()
                await session.subscribe(self._wanted)
                self._state = replace(self._state, subscriptions=session.count)
                waiter = asyncio.ensure_future(changed.wait())
                await asyncio.wait({reader, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
            if self._wanted:
                await reader
        finally:
            reader.cancel()

    async def _read(self, session: _Session) -> None:
        while True:
            message = await session.receive()
            if _is_refusal(message):
                self._state = replace(self._state, refused=self._state.refused + 1)
            elif _is_notice(message):
                self._state = replace(self._state, notices=self._state.notices + 1)
                self._on_hint(_slot(message))


class _Session:
    """What was asked for on one connection. `count` is how many subscriptions were sent."""

    def __init__(self, websocket: ClientConnection, clock: Callable[[], float]) -> None:
        self._websocket = websocket
        self._budget = Budget(MESSAGES_A_MINUTE, clock)
        self._sent: list[tuple[str, list[Any]]] = []

    @property
    def count(self) -> int:
        return len(self._sent)

    async def subscribe(self, wanted: Sequence[tuple[str, list[Any]]]) -> None:
        """Ask for what was not asked for yet. What is no longer wanted stays: a hint too many does no harm."""
        for method, params in wanted:
            if (method, params) in self._sent:
                continue
            self._sent.append((method, params))
            body = {"jsonrpc": "2.0", "id": len(self._sent), "method": method, "params": params}
            await self._websocket.send(json.dumps(body))

    async def receive(self) -> Any:
        """Return the next message, None for one that cannot be read; raise OverBudget for a flood."""
        data = await self._websocket.recv()
        self._budget.spend()
        try:
            return parse(data.encode() if isinstance(data, str) else data, MAX_FRAME)
        except LedgerError:
            return None


def _is_refusal(message: Any) -> bool:
    return isinstance(message, dict) and message.get("error") is not None


def _is_notice(message: Any) -> bool:
    return isinstance(message, dict) and message.get("method") in {
        "programNotification",
        "accountNotification",
    }


def _slot(message: Any) -> int:
    """Return the slot that a notice names, 0 for anything else."""
    try:
        slot = message["params"]["result"]["context"]["slot"]
    except (KeyError, TypeError, IndexError):
        return 0
    return slot if isinstance(slot, int) and not isinstance(slot, bool) and 0 <= slot < 2**63 else 0


def _host(url: str) -> str:
    return printable(urlsplit(url).hostname or "?", 100)
