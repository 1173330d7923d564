"""The outside look-up of this host's address: asked of a web server, only where nothing nearer tells it.

What comes back decides who this host is, so it must be exactly one public IPv4 address, and it counts until another
one is told. The server learns this host's address; the configuration can name another server, or none.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx2

from dzagent.errors import Unreachable, Unusable
from dzagent.identity import is_public_ipv4

log = logging.getLogger(__name__)

SECONDS = 5.0
"""Total time of one attempt."""

MAX_ANSWER = 256
"""Bytes of an answer that are read."""

REFRESH = 3600.0
RETRY = 30.0
"""Seconds after which a known address is asked for again, and after which a failure is tried again."""

Fetch: TypeAlias = Callable[[str], bytes]


def read_address(answer: bytes) -> IPv4Address:
    """Read the answer of an outside server; raise Unusable for anything but one public IPv4 address."""
    try:
        address = IPv4Address(answer.decode("ascii").strip())
    except (UnicodeDecodeError, AddressValueError):
        raise Unusable("the outside look-up did not answer with an IPv4 address") from None
    if not is_public_ipv4(address):
        raise Unusable(f"the outside look-up answered with {address}, which is not a public address")
    return address


def fetch(url: str) -> bytes:
    """Get at most MAX_ANSWER bytes within SECONDS; raise Unreachable. Redirects are not followed."""
    try:
        return asyncio.run(asyncio.wait_for(_get(url), SECONDS))
    except asyncio.TimeoutError:
        raise Unreachable(f"the outside look-up gave no answer within {SECONDS:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
        raise Unreachable(f"the outside look-up failed ({type(error).__name__})") from None


async def _get(url: str) -> bytes:
    async with (
        httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False) as client,
        client.stream(
            "GET", url, headers={"Accept": "text/plain", "Accept-Encoding": "identity"}
        ) as response,
    ):
        if response.status_code != 200:
            raise Unreachable(f"the outside look-up answered HTTP {response.status_code}")
        found = b""
        async for chunk in response.aiter_raw(MAX_ANSWER + 1):
            found += chunk
            if len(found) > MAX_ANSWER:
                raise Unreachable("the outside look-up sent more than an address")
        return found


class Outside:
    """Asks in a thread of its own; the caller never waits. `clock` gives monotonic seconds."""

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float],
        on_news: Callable[[], None] = lambda: None,
        fetch: Fetch = fetch,
    ) -> None:
        self._url = url
        self._clock = clock
        self._on_news = on_news
        self._fetch = fetch
        self._lock = threading.Lock()
        self._running = False
        self._due = float("-inf")
        self._address: IPv4Address | None = None
        self._error = ""

    @property
    def server(self) -> str:
        """The host that is asked."""
        return urlsplit(self._url).hostname or "?"

    @property
    def error(self) -> str:
        """Why the last look-up failed, "" if it did not."""
        return self._error

    def known(self) -> IPv4Address | None:
        """Return the address that was told last."""
        return self._address

    def again(self) -> None:
        """Ask again at the next `ask`: this host's addresses or routes have changed."""
        self._due = float("-inf")

    def ask(self) -> None:
        """Ask if it is due; returns at once."""
        with self._lock:
            if self._running or self._clock() < self._due:
                return
            self._running = True
        threading.Thread(target=self.look_up, name="outside", daemon=True).start()

    def look_up(self) -> None:
        """Ask once, and wait for it."""
        before = self._address
        try:
            self._address, self._error = read_address(self._fetch(self._url)), ""
        except (Unreachable, Unusable) as error:
            self._error = str(error)
            log.warning("client IP: %s", error)
        except (
            Exception
        ) as error:  # the thread's boundary: a defect must not leave the look-up "running" for ever
            self._error = f"the outside look-up failed ({type(error).__name__})"
            log.exception("unexpected failure of the outside look-up")
        self._due = self._clock() + (RETRY if self._error else REFRESH)
        with self._lock:
            self._running = False
        if self._address != before:
            self._on_news()
