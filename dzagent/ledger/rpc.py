"""The transport: one blocking `call` over an ordered list of RPC endpoints.

solana's AsyncHTTPProvider makes the HTTP client. Its `make_request_unparsed` is not used: it reads and
decompresses a whole answer however large, raises errors that quote the URL (which may carry a token), and
sends an answer's cookies back. The provider's own httpx2 session is asked to stream instead, so that size and
total time are bounded here. The bodies are plain JSON, written and read by `jsonrpc`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from solana.rpc.providers.async_http import AsyncHTTPProvider

from dzagent.errors import InputError, LedgerError, OverBudget, Unreachable, Unusable
from dzagent.ledger.endpoints import RETURN_AFTER, Budget, Choice, Endpoint, endpoints
from dzagent.ledger.httpfailures import Dropped, check_head, connect_failure, reworded, summary
from dzagent.ledger.jsonrpc import read_answer, request_body
from dzagent.ledger.loopthread import GRACE, LoopThread
from dzagent.ledger.transport import MAX_BODY, Traffic

BUDGET = 120
"""Requests a minute; a steady poll needs about 8."""

_ATTEMPTS = 2

_CHANCE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class _Answer:
    """One body, its size on the wire in bytes, and the server's clock (an HTTP date, "" if it gave none)."""

    body: bytearray
    wire: int
    date: str


class Rpc:
    """A blocking JSON-RPC client with failover, for one calling thread at a time.

    `timeout` is the total time of a call in seconds over all endpoints and attempts: with n endpoints left,
    one is given 1/n of what is left. `max_body` bounds the decompressed answer in bytes, `budget` the requests
    a minute. `clock` gives monotonic seconds, `now` unix seconds, `chance` a number from 0 to 1. Raises
    InputError for a URL or limit that cannot work.
    """

    def __init__(
        self,
        urls: Sequence[str],
        timeout: float = 10.0,
        max_body: int = MAX_BODY,
        *,
        retry_delay: float = 0.2,
        return_after: float = RETURN_AFTER,
        budget: float = BUDGET,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = _CHANCE.random,
    ) -> None:
        if not (0 < timeout <= threading.TIMEOUT_MAX and max_body > 0 and budget > 0):
            raise InputError("The RPC timeout, the size limit and the budget must be above zero.")
        # httpx2 logs whole URLs at level INFO; they may carry a token, whatever level the program logs at.
        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._endpoints = endpoints(urls)
        self._timeout = timeout
        self._max_body = max_body
        self._retry_delay = retry_delay
        self._clock = clock
        self._now = now
        self._chance = chance
        self._ids = itertools.count(1)
        self._choice = Choice(
            [endpoint.label for endpoint in self._endpoints],
            clock=clock,
            jitter=lambda: 1.0 + 0.2 * chance(),
            return_after=return_after,
        )
        self._budget = Budget(budget, clock)
        self._traffic = Traffic()
        self._server_clock: tuple[str, float] = ("", 0.0)
        self._sessions: dict[str, httpx2.AsyncClient] = {}
        self._loop: LoopThread | None = None

    @property
    def endpoint(self) -> str:
        """The host that answered last; hosts that are listed twice are numbered (`localhost#2`)."""
        return self._endpoints[self._choice.current].label

    @property
    def traffic(self) -> Traffic:
        """What was sent and received so far."""
        return self._traffic

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which this host's clock was ahead of the last server's; None if no server told its time."""
        date, seen_at = self._server_clock
        try:
            return seen_at - email.utils.parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, OverflowError, IndexError):
            return None

    def health(self) -> list[dict[str, Any]]:
        """Return what is known of each endpoint, as status shows it."""
        return self._choice.as_json()

    def blame(self, error: LedgerError) -> None:
        """Say that the last answer turned out to be no good: another endpoint is asked first for a while."""
        self._choice.blame(error)

    def call(self, method: str, params: Sequence[Any] = (), *, max_body: int | None = None) -> Any:
        """Return the result of one call; raise Unreachable or Unusable within the timeout (and `GRACE`)."""
        start = self._clock()
        order = self._choice.order()
        failures: list[LedgerError] = []
        for left, index in zip(range(len(order), 0, -1), order, strict=True):
            seconds = (start + self._timeout - self._clock()) / left
            if seconds <= 0:
                break
            try:
                self._budget.spend()
                self._choice.asked(index)
                result = self._ask(
                    self._endpoints[index], method, params, seconds, max_body or self._max_body
                )
            except OverBudget as error:
                failures.append(error)
                break
            except LedgerError as error:
                self._choice.failed(index, error)
                failures.append(error)
                continue
            self._choice.succeeded(index)
            return result
        raise summary(failures)

    def close(self) -> None:
        """Close connections and the thread; the next call opens them again."""
        if self._loop is None:
            return
        loop, self._loop = self._loop, None
        sessions, self._sessions = list(self._sessions.values()), {}
        with contextlib.suppress(Unreachable):
            loop.run(_close_all(sessions), GRACE)
        loop.close()

    def _ask(
        self, endpoint: Endpoint, method: str, params: Sequence[Any], seconds: float, max_body: int
    ) -> Any:
        request_id = next(self._ids)
        content = request_body(request_id, method, params)
        self._loop = self._loop or LoopThread()
        try:
            answer = self._loop.run(self._fetch(endpoint, content, seconds, max_body), seconds + GRACE)
            self._server_clock = (answer.date, self._now())
            return read_answer(answer.body, request_id, max_body)
        except LedgerError as error:
            raise reworded(error, f"RPC endpoint {endpoint.label} {endpoint.redact(str(error))}.") from None

    def _count(self, sent: int, received: int) -> None:
        before = self._traffic
        self._traffic = Traffic(before.requests + 1, before.sent + sent, before.received + received)

    async def _fetch(self, endpoint: Endpoint, content: bytes, seconds: float, max_body: int) -> _Answer:
        """Bound the time of everything: DNS, connecting, TLS, each byte, waiting between attempts, closing."""
        try:
            return await asyncio.wait_for(self._attempts(endpoint, content, seconds, max_body), seconds)
        except asyncio.TimeoutError:
            raise Unreachable(f"gave no complete answer within {seconds:.3g} s") from None

    async def _attempts(self, endpoint: Endpoint, content: bytes, seconds: float, max_body: int) -> _Answer:
        for _ in range(1, _ATTEMPTS):
            try:
                return await self._attempt(endpoint, content, seconds, max_body)
            except Dropped:
                await asyncio.sleep(self._retry_delay * self._chance())
        return await self._attempt(endpoint, content, seconds, max_body)

    async def _attempt(self, endpoint: Endpoint, content: bytes, seconds: float, max_body: int) -> _Answer:
        received = 0
        try:
            answer = await _post(self._session(endpoint, seconds), endpoint.url, content, max_body)
            received = answer.wire
        except httpx2.DecodingError:
            raise Unusable("answered with bytes that are not the gzip they claim to be") from None
        except httpx2.TimeoutException:
            raise Unreachable(f"gave no complete answer within {seconds:.3g} s") from None
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError):
            raise Dropped("broke the connection before its answer was complete") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
            # OSError and ValueError: an unusable proxy variable or certificate file of the environment.
            raise connect_failure(error) from None
        else:
            return answer
        finally:
            self._count(len(content), received)

    def _session(self, endpoint: Endpoint, timeout: float) -> httpx2.AsyncClient:
        session = self._sessions.get(endpoint.label)
        if session is None:
            session = AsyncHTTPProvider(endpoint.url, timeout=timeout).session
            self._sessions[endpoint.label] = session
        session.timeout = httpx2.Timeout(timeout)
        return session


async def _post(session: httpx2.AsyncClient, url: str, content: bytes, max_body: int) -> _Answer:
    session.cookies.clear()  # a node has no use for cookies, and a hostile one could make them grow for ever
    headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
    body = bytearray()
    async with session.stream("POST", url, content=content, headers=headers) as response:
        check_head(response.status_code, response.headers)
        # httpx2 decompresses in pieces of at most 1 MiB, so a gzip bomb ends here and not in memory.
        async with contextlib.aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                if len(body) + len(chunk) > max_body:
                    raise Unreachable(f"sent an answer larger than {max_body} bytes")
                body += chunk
        return _Answer(body, response.num_bytes_downloaded, response.headers.get("date", "")[:64])


async def _close_all(sessions: Sequence[httpx2.AsyncClient]) -> None:
    for session in sessions:
        await session.aclose()
