"""Which RPC endpoint is asked next, and how often: health, rest, failover and return, a budget. No effects.

Times are monotonic seconds of the caller's clock.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2

from dzagent.errors import InputError, LaggingNode, LedgerError, OverBudget, RateLimited
from dzagent.ledger.jsonrpc import printable

RETURN_AFTER = 300.0
"""Seconds after which a working substitute is left and the first endpoint is tried again."""

LAG_SECONDS = 60.0
"""How long an endpoint that was behind is asked only if no other one answers."""

FIRST_REST = 15.0
MAX_REST = 300.0
"""Rest in seconds of an endpoint that asked for fewer requests without saying for how long; doubled each time."""

_MIN_SECRET = 6


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


@dataclass(slots=True)
class Health:
    """What is known of one endpoint. `rest_until` is its own wish, `avoid_until` our doubt."""

    label: str
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    failed_in_a_row: int = 0
    rests_in_a_row: int = 0
    rest_until: float = float("-inf")
    avoid_until: float = float("-inf")
    last_error: str = ""


class Choice:
    """The order in which endpoints are asked: as configured, from the one that works on, those at rest not at all.

    `jitter` gives a factor of at least 1 for rests, so that hosts which were sent away together do not come back
    together. Not for several threads at once.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        return_after: float = RETURN_AFTER,
    ) -> None:
        self._health = [Health(label) for label in labels]
        self._clock = clock
        self._jitter = jitter
        self._return_after = return_after
        self._since = clock()
        self.current = 0

    def order(self) -> list[int]:
        """Return the endpoints to try; raise RateLimited if every one of them asked for rest."""
        now = self._clock()
        if self.current and now - self._since >= self._return_after:
            self.current, self._since = 0, now
        count = len(self._health)
        ring = [(self.current + step) % count for step in range(count)]
        awake = [index for index in ring if self._health[index].rest_until <= now]
        if not awake:
            left = min(health.rest_until for health in self._health) - now
            raise RateLimited(
                f"Every RPC endpoint asked for fewer requests; the next one is sent in {left:.0f} s.", left
            )
        return sorted(awake, key=lambda index: self._health[index].avoid_until > now)

    def asked(self, index: int) -> None:
        """Count a request."""
        self._health[index].requests += 1

    def succeeded(self, index: int) -> None:
        """An endpoint gave an answer: it stays in use."""
        health = self._health[index]
        health.failed_in_a_row = health.rests_in_a_row = 0
        health.last_error = ""
        if index != self.current:
            self.current, self._since = index, self._clock()

    def failed(self, index: int, error: LedgerError) -> None:
        """Count a failure; an endpoint that asks for rest gets it, one that is behind is asked last for a while."""
        health, now = self._health[index], self._clock()
        health.failures[type(error).__name__] += 1
        health.failed_in_a_row += 1
        health.last_error = str(error)
        if isinstance(error, RateLimited):
            rest = error.retry_after
            if rest is None:
                rest = min(MAX_REST, FIRST_REST * 2.0**health.rests_in_a_row)
                health.rests_in_a_row = min(health.rests_in_a_row + 1, 10)
            health.rest_until = now + rest * self._jitter()
        elif isinstance(error, LaggingNode):
            health.avoid_until = now + LAG_SECONDS

    def blame(self, error: LedgerError) -> None:
        """What the endpoint in use answered turned out to be no good: ask another one first for a while."""
        self.failed(self.current, error)
        self._health[self.current].avoid_until = self._clock() + LAG_SECONDS

    def as_json(self) -> list[dict[str, Any]]:
        """Return one entry per endpoint, in the order of the configuration."""
        now = self._clock()
        return [
            {
                "endpoint": health.label,
                "state": self._state(index, health, now),
                "requests": health.requests,
                "errors": dict(sorted(health.failures.items())),
                "failed_in_a_row": health.failed_in_a_row,
                "last_error": health.last_error,
            }
            for index, health in enumerate(self._health)
        ]

    def _state(self, index: int, health: Health, now: float) -> str:
        if health.rest_until > now:
            return "resting"
        if health.failed_in_a_row:
            return "failing"
        if index == self.current:
            return "in use"
        return "ready"


class Budget:
    """At most `per_minute` requests a minute, with a minute's worth at once after quiet (a token bucket)."""

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self._size = float(per_minute)
        self._clock = clock
        self._left = self._size
        self._at = clock()

    def spend(self) -> None:
        """Take one request out of the budget; raise OverBudget if nothing is left."""
        now = self._clock()
        self._left = min(self._size, self._left + max(0.0, now - self._at) * self._size / 60.0)
        self._at = now
        if self._left < 1.0:
            wait = (1.0 - self._left) * 60.0 / self._size
            raise OverBudget(
                f"The budget of {self._size:g} RPC requests a minute is used up; the next one is sent in {wait:.1f} s "
                "(rpc_budget in the configuration).",
                wait,
            )
        self._left -= 1.0

    @property
    def left(self) -> float:
        """Requests that may be sent at once, as of the last one."""
        return self._left
