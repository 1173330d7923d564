"""Polls the ledger in a thread of its own and keeps the newest sound answer for the loop.

A slow or dead RPC delays nothing but its own news: the loop reads `view()` and never waits.
"""

from __future__ import annotations

import logging
import socket
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import urlsplit

from dzagent.errors import LedgerError
from dzagent.ledger.poller import Poller
from dzagent.ledger.snapshot import Snapshot

log = logging.getLogger(__name__)

BUCKETS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds in seconds of the fetch duration histogram (upstream: onchain/metrics.go)."""

CONFIRM_SECONDS = 2.0
"""How soon an answer that leaves absence unproven is followed by the next poll."""


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The newest sound answer and how the last attempt went. Times are unix seconds, 0 for never.

    `searched` are the client IPs that the snapshot was asked about: it says nothing about any other.
    """

    snapshot: Snapshot | None = None
    searched: frozenset[IPv4Address] = frozenset()
    fetched_at: float = 0.0
    attempted_at: float = 0.0
    error: str | None = None
    error_code: str = ""
    rpc_addresses: frozenset[IPv4Address] = frozenset()


@dataclass(frozen=True, slots=True)
class FetchStats:
    """Counters of this process, for metrics."""

    success: int = 0
    error_stale: int = 0
    error_no_cache: int = 0
    buckets: tuple[int, ...] = field(default=(0,) * (len(BUCKETS) + 1))
    total_seconds: float = 0.0

    def count(self, *, ok: bool, had_data: bool, seconds: float) -> FetchStats:
        """Return the counters after one more fetch."""
        slot = bisect_left(BUCKETS, seconds)
        buckets = tuple(n + (i >= slot) for i, n in enumerate(self.buckets))
        return replace(
            self,
            success=self.success + ok,
            error_stale=self.error_stale + (not ok and had_data),
            error_no_cache=self.error_no_cache + (not ok and not had_data),
            buckets=buckets,
            total_seconds=self.total_seconds + seconds,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the part of ledger.json that metrics read."""
        names = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        errors = self.error_stale + self.error_no_cache
        return {
            "polls": {"success": self.success, "error": errors},
            "fetch": {
                "success": self.success,
                "error_stale": self.error_stale,
                "error_no_cache": self.error_no_cache,
            },
            "fetch_buckets": dict(zip(names, self.buckets, strict=True)),
            "fetch_sum": round(self.total_seconds, 6),
            "fetch_count": self.buckets[-1],
        }


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks and chance, passed in: `now` unix seconds, `monotonic` seconds, `jitter` a factor around 1."""

    now: Callable[[], float]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]


class LedgerFeed:
    """The poll thread. It polls only while somebody wants the agent enabled."""

    def __init__(
        self,
        poller: Poller,
        *,
        candidates: Callable[[], Sequence[IPv4Address]],
        on_news: Callable[[], None],
        publish: Callable[[dict[str, Any]], None],
        resolve: Callable[[], frozenset[IPv4Address]],
        endpoint: Callable[[], str],
        interval: float,
        timing: Timing,
    ) -> None:
        self._poller = poller
        self._candidates = candidates
        self._on_news = on_news
        self._publish = publish
        self._resolve = resolve
        self._endpoint = endpoint
        self._interval = interval
        self._timing = timing
        self._view = LedgerView()
        self._stats = FetchStats()
        self._wanted = threading.Condition()
        self._enabled = False
        self._enabled_at = 0.0
        self._poked = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def view(self) -> LedgerView:
        """Return the newest view; never waits. What was read before the agent was enabled proves nothing now."""
        view = self._view
        if view.fetched_at < self._enabled_at:
            return replace(view, snapshot=None, searched=frozenset(), fetched_at=0.0)
        return view

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def enable(self, enabled: bool) -> None:
        """Poll (at once, if this is news) or rest: a disabled agent asks the ledger nothing."""
        with self._wanted:
            if enabled and not self._enabled:
                self._poked = True
                self._enabled_at = self._timing.now()
            self._enabled = enabled
            self._wanted.notify_all()

    def poke(self) -> None:
        """Poll at once, if enabled."""
        with self._wanted:
            self._poked = True
            self._wanted.notify_all()

    def stop(self, timeout: float = 1.0) -> None:
        """Ask the thread to end; a call in flight is left behind (the thread is a daemon)."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._wait_for_turn():
            self.poll_once()
            self._on_news()

    def _wait_for_turn(self) -> bool:
        with self._wanted:
            self._wanted.wait_for(lambda: self._stopping or self._poked, timeout=self._delay())
            self._wanted.wait_for(lambda: self._stopping or self._enabled)
            self._poked = False
            return not self._stopping

    def _delay(self) -> float:
        if self._view.attempted_at == 0:
            return 0.0
        snapshot = self._view.snapshot
        unproven = self._view.error is None and snapshot is not None and not snapshot.complete
        base = min(self._interval, CONFIRM_SECONDS) if unproven else self._interval
        return base * self._timing.jitter()

    def poll_once(self) -> None:
        """Poll and take the answer in; whatever goes wrong leaves the last sound snapshot in place."""
        started = self._timing.monotonic()
        attempted_at = self._timing.now()
        searched = tuple(self._candidates())
        before = self._view
        try:
            snapshot = self._poller.poll(searched)
            addresses = self._resolve()
        except LedgerError as error:
            log.warning("ledger: %s", error)
            view = replace(before, error=str(error), error_code=type(error).__name__)
        except Exception as error:  # the loop's boundary: a poll must never end the thread
            log.exception("ledger: unexpected failure of a poll")
            view = replace(before, error=f"internal error: {error!r}", error_code="InternalError")
        else:
            view = LedgerView(snapshot, frozenset(searched), attempted_at, rpc_addresses=addresses)
        self._view = replace(view, attempted_at=attempted_at)
        seconds = self._timing.monotonic() - started
        had_data = before.snapshot is not None
        self._stats = self._stats.count(ok=self._view.error is None, had_data=had_data, seconds=seconds)
        self._publish(self._report(seconds))

    def _report(self, seconds: float) -> dict[str, Any]:
        view = self._view
        return {
            "slot": view.snapshot.slot if view.snapshot else 0,
            "genesis_hash": view.snapshot.genesis_hash if view.snapshot else "",
            "fetched_at": view.fetched_at,
            "attempted_at": view.attempted_at,
            "endpoint": self._endpoint(),
            "error": view.error,
            "duration_seconds": round(seconds, 6),
            **self._stats.as_json(),
        }


def rpc_hosts(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the host names of RPC URLs: the only part that may be shown, since paths carry tokens."""
    return tuple(urlsplit(url).hostname or "?" for url in urls)


def resolve_hosts(hosts: Sequence[str]) -> frozenset[IPv4Address]:
    """Look up the IPv4 addresses of the RPC hosts, to protect their routes. Unknown names give none."""
    found: set[IPv4Address] = set()
    for host in hosts:
        try:
            answers = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            continue
        found.update(IPv4Address(str(answer[4][0])) for answer in answers)
    return frozenset(found)
