"""The transport: one blocking `call` over an ordered list of RPC endpoints.

solana's AsyncHTTPProvider makes the HTTP client. Its `make_request_unparsed` is not used: it reads and
decompresses a whole answer however large, raises errors that quote the URL (which may carry a token), and
sends an answer's cookies back. The provider's own httpx2 session is asked to stream instead, so that size and
total time are bounded here. The bodies are plain JSON, written and read by `jsonrpc`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import httpx2
import tenacity
from solana.rpc.providers.async_http import AsyncHTTPProvider

from dzagent.errors import InputError, LaggingNode, LedgerError, RateLimited, Unreachable, Unusable
from dzagent.ledger.jsonrpc import printable, read_answer, request_body

MAX_BODY = 16 * 1024 * 1024
"""Bytes, decompressed. An own poll is about 6 KB, all devices 0.3 MB, a whole mainnet answer 3 MB."""

RETURN_AFTER = 300.0
"""Seconds after which a working substitute is left and the first endpoint is tried again."""

GRACE = 1.0
"""Seconds that a cancelled request may take to close its socket before it is left behind."""

_MAX_RETRY_AFTER = 3600.0
_ATTEMPTS = 2
_RETRIED_STATUS = frozenset({502, 503, 504})
_ENCODINGS = frozenset({"", "identity", "gzip"})
_MIN_SECRET = 6

T = TypeVar("T")


class RpcClient(Protocol):
    """What the poller needs of a transport."""

    @property
    def endpoint(self) -> str:
        """The host that answered last (before the first answer: that will be asked first)."""

    def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Return the result of one call; raise Unreachable or Unusable."""


class _Dropped(Unreachable):
    """A failure that the very next attempt may not have: every call here only reads, so it is repeated."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL and the only name of it that may be shown: its host, numbered if another one has the same."""

    url: str
    label: str

    def redact(self, text: str) -> str:
        """Take the parts of the URL that may be a token out of a text of the other side."""
        parts = urlsplit(self.url)
        pieces = re.split(r"[/&=?]", f"{parts.path}?{parts.query}")
        secrets = {*pieces, *map(unquote, pieces), parts.username or "", parts.password or ""}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _MIN_SECRET:
                text = text.replace(secret, "***")
        return text


def endpoints(urls: Sequence[str]) -> tuple[Endpoint, ...]:
    """Check RPC URLs; raise InputError, which names the place in the list and never the URL."""
    if not urls:
        raise InputError("No RPC endpoint is configured: name at least one http:// or https:// URL.")
    hosts = [_host(url, place) for place, url in enumerate(urls, start=1)]
    seen: dict[str, int] = {}
    result = []
    for url, host in zip(urls, hosts, strict=True):
        seen[host] = seen.get(host, 0) + 1
        result.append(Endpoint(url, host if seen[host] == 1 else f"{host}#{seen[host]}"))
    return tuple(result)


def _host(url: str, place: int) -> str:
    wrong = InputError(
        f"RPC endpoint {place} is not usable: expected an http:// or https:// URL with a host."
    )
    try:
        parts, parsed = urlsplit(url), httpx2.URL(url)
        port = parts.port
    except (ValueError, httpx2.InvalidURL):
        raise wrong from None
    if not (parts.scheme in {"http", "https"} and parts.hostname and parsed.host) or port == 0:
        raise wrong
    if not url.isprintable() or " " in url:
        raise wrong
    return printable(parts.hostname, 100)


class _LoopThread:
    """An event loop in a thread of its own; a daemon thread, so that a stuck request cannot hold up the exit."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rpc", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Return what `work` returns; raise Unreachable when it has not ended after `timeout` seconds."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise Unreachable("did not let go of the connection in time") from None
        finally:
            future.cancel()

    def close(self) -> None:
        """End the loop; what still runs in it is cancelled."""
        with contextlib.suppress(Unreachable):
            self.run(_cancel_others(), GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GRACE)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


class Rpc:
    """A blocking JSON-RPC client with failover, for one calling thread at a time.

    `timeout` is the total time of a call in seconds over all endpoints and attempts: with n endpoints left,
    one is given 1/n of what is left. `max_body` bounds the decompressed answer in bytes. `clock` gives
    monotonic seconds. Raises InputError for a URL or limit that cannot work.
    """

    def __init__(
        self,
        urls: Sequence[str],
        timeout: float = 10.0,
        max_body: int = MAX_BODY,
        *,
        retry_delay: float = 0.2,
        return_after: float = RETURN_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (0 < timeout <= threading.TIMEOUT_MAX and max_body > 0):
            raise InputError("The RPC timeout and the size limit must be above zero.")
        # httpx2 logs whole URLs at level INFO; they may carry a token, whatever level the program logs at.
        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._endpoints = endpoints(urls)
        self._timeout = timeout
        self._max_body = max_body
        self._retry_delay = retry_delay
        self._return_after = return_after
        self._clock = clock
        self._ids = itertools.count(1)
        self._current = 0
        self._current_since = clock()
        self._rest_until = [clock()] * len(self._endpoints)
        self._sessions: dict[str, httpx2.AsyncClient] = {}
        self._loop: _LoopThread | None = None

    @property
    def endpoint(self) -> str:
        """The host that answered last; hosts that are listed twice are numbered (`localhost#2`)."""
        return self._endpoints[self._current].label

    def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Return the result of one call; raise Unreachable or Unusable within the timeout (and `GRACE`)."""
        start = self._clock()
        order = self._order(start)
        failures: list[LedgerError] = []
        for left, index in zip(range(len(order), 0, -1), order, strict=True):
            budget = (start + self._timeout - self._clock()) / left
            if budget <= 0:
                break
            try:
                result = self._ask(self._endpoints[index], method, params, budget)
            except LedgerError as error:
                self._note_failure(index, error)
                failures.append(error)
                continue
            self._note_success(index)
            return result
        raise _summary(failures)

    def close(self) -> None:
        """Close connections and the thread; the next call opens them again."""
        if self._loop is None:
            return
        loop, self._loop = self._loop, None
        sessions, self._sessions = list(self._sessions.values()), {}
        with contextlib.suppress(Unreachable):
            loop.run(_close_all(sessions), GRACE)
        loop.close()

    def _order(self, now: float) -> list[int]:
        """Endpoints to try: from the current one on, those that asked for rest last."""
        if self._current and now - self._current_since >= self._return_after:
            self._current, self._current_since = 0, now
        count = len(self._endpoints)
        ring = [(self._current + step) % count for step in range(count)]
        return sorted(ring, key=lambda index: self._rest_until[index] > now)

    def _note_success(self, index: int) -> None:
        if index != self._current:
            self._current, self._current_since = index, self._clock()

    def _note_failure(self, index: int, error: LedgerError) -> None:
        if isinstance(error, RateLimited) and error.retry_after is not None:
            self._rest_until[index] = self._clock() + error.retry_after

    def _ask(self, endpoint: Endpoint, method: str, params: Sequence[Any], budget: float) -> Any:
        request_id = next(self._ids)
        content = request_body(request_id, method, params)
        self._loop = self._loop or _LoopThread()
        try:
            body = self._loop.run(self._fetch(endpoint, content, budget), budget + GRACE)
            return read_answer(body, request_id, self._max_body)
        except LedgerError as error:
            raise _named(error, f"RPC endpoint {endpoint.label} {endpoint.redact(str(error))}.") from None

    async def _fetch(self, endpoint: Endpoint, content: bytes, budget: float) -> bytes:
        """Bound the time of everything: DNS, connecting, TLS, each byte, waiting between attempts, closing."""
        try:
            return await asyncio.wait_for(self._attempts(endpoint, content, budget), budget)
        except asyncio.TimeoutError:
            raise Unreachable(f"gave no complete answer within {budget:.3g} s") from None

    async def _attempts(self, endpoint: Endpoint, content: bytes, budget: float) -> bytes:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Dropped),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random(0, self._retry_delay),
            reraise=True,
        )
        return await retrying(self._attempt, endpoint, content, budget)

    async def _attempt(self, endpoint: Endpoint, content: bytes, budget: float) -> bytes:
        try:
            session = self._session(endpoint, budget)
            return await _post(session, endpoint.url, content, self._max_body)
        except httpx2.DecodingError:
            raise Unusable("answered with bytes that are not the gzip they claim to be") from None
        except httpx2.TimeoutException:
            raise Unreachable(f"gave no complete answer within {budget:.3g} s") from None
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError):
            raise _Dropped("broke the connection before its answer was complete") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
            # OSError and ValueError: an unusable proxy variable or certificate file of the environment.
            raise Unreachable(_connect_failure(error)) from None

    def _session(self, endpoint: Endpoint, timeout: float) -> httpx2.AsyncClient:
        session = self._sessions.get(endpoint.label)
        if session is None:
            session = AsyncHTTPProvider(endpoint.url, timeout=timeout).session
            self._sessions[endpoint.label] = session
        session.timeout = httpx2.Timeout(timeout)
        return session


async def _post(session: httpx2.AsyncClient, url: str, content: bytes, max_body: int) -> bytes:
    session.cookies.clear()  # a node has no use for cookies, and a hostile one could make them grow for ever
    headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
    body = bytearray()
    async with session.stream("POST", url, content=content, headers=headers) as response:
        _check_head(response.status_code, response.headers)
        # httpx2 decompresses in pieces of at most 1 MiB, so a gzip bomb ends here and not in memory.
        async with contextlib.aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                if len(body) + len(chunk) > max_body:
                    raise Unreachable(f"sent an answer larger than {max_body} bytes")
                body += chunk
    return bytes(body)


def _check_head(status: int, headers: httpx2.Headers) -> None:
    if status == 429:
        raise RateLimited("asks for fewer requests (HTTP 429)", _retry_after(headers))
    if status in _RETRIED_STATUS:
        raise _Dropped(f"answered HTTP {status}")
    if 300 <= status < 400:
        raise Unreachable(
            f"answered HTTP {status}, a redirect, which is not followed; configure the final URL"
        )
    if status in {401, 403}:
        raise Unreachable(f"refused access with HTTP {status}; check the token in its URL")
    if status != 200:
        raise Unreachable(f"answered HTTP {status}")
    # Several encodings on top of each other can grow without giving one byte to count: only one is allowed.
    if headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise Unusable("answered with a content encoding that was not asked for")


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Read Retry-After in seconds; its other form, a date, needs a clock that both sides agree on."""
    text = headers.get("retry-after", "").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return min(float(text), _MAX_RETRY_AFTER)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _connect_failure(error: BaseException) -> str:
    """Say what happened from the chain of causes: httpx2's own text may quote the URL."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"failed in TLS: {printable(getattr(cause, 'verify_message', '') or cause.reason or 'broken')}"
        if isinstance(cause, socket.gaierror):
            return "has a name that cannot be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return "refused the connection"
    return f"cannot be reached ({type(error).__name__})"


def _named(error: LedgerError, message: str) -> LedgerError:
    """Return an error of the same public class with another message."""
    if isinstance(error, _Dropped):
        return Unreachable(message)
    if isinstance(error, RateLimited):
        return RateLimited(message, error.retry_after)
    return type(error)(message)


def _summary(failures: Sequence[LedgerError]) -> LedgerError:
    """One error for all endpoints: of the class they share, else Unreachable.

    A lagging node among them says that the ledger is there: then the answer was late, not missing.
    """
    message = " ".join(str(error) for error in failures)
    for error in failures:
        if isinstance(error, LaggingNode) or len(failures) == 1:
            return _named(error, message)
    for kind in (RateLimited, Unusable):
        if failures and all(isinstance(error, kind) for error in failures):
            return _named(failures[0], message)
    return Unreachable(message or "No RPC endpoint could be asked within the timeout.")


async def _close_all(sessions: Sequence[httpx2.AsyncClient]) -> None:
    for session in sessions:
        await session.aclose()
