"""Polls the ledger in a thread of its own and keeps the newest sound answer for the loop.

A slow or dead RPC delays nothing but its own news: the loop reads `view()` and never waits.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any, Protocol
from urllib.parse import urlsplit

from dzagent.errors import LaggingNode, LedgerChanged, LedgerError, StateError
from dzagent.feedview import BUCKETS, FetchStats, LedgerView
from dzagent.ledger.poller import Cost
from dzagent.ledger.schedule import CONFIRM_SECONDS, Hints, Outcome, Pulse
from dzagent.ledger.snapshot import Snapshot
from dzagent.ledger.store import Stored

__all__ = [
    "BUCKETS",
    "CONFIRM_SECONDS",
    "Extras",
    "FetchStats",
    "LedgerFeed",
    "LedgerView",
    "Timing",
    "resolve_hosts",
    "restored_view",
    "rpc_hosts",
]

log = logging.getLogger(__name__)


class FeedPoller(Protocol):
    """What the poll thread needs of a poller."""

    @property
    def cost(self) -> Cost:
        """What the last poll took."""

    @property
    def refusal(self) -> str:
        """Why everything is fetched, "" if it is not."""

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        """Return what the ledger grants to these client IPs; raise Unreachable or Unusable."""

    def forget(self) -> None:
        """Forget this ledger: the next answer is the first one."""


class FeedStore(Protocol):
    """Where the last good snapshot is kept."""

    def save(self, snapshot: Snapshot, searched: frozenset[IPv4Address]) -> None:
        """Keep a snapshot."""

    def clear(self) -> None:
        """Forget what is kept; raise StateError."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks and chance, passed in: `now` unix seconds, `monotonic` seconds, `jitter` a factor around 1.

    `chance` gives a number from 0 to 1.
    """

    now: Callable[[], float]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    chance: Callable[[], float] = lambda: 0.0


@dataclass(frozen=True, slots=True)
class Extras:
    """What the poll thread does beside polling; every part may be left out.

    forget_asked: whether a person asked to forget the ledger since the last call. accept_change: another ledger
    is accepted as it comes. clock_offset: how far this host's clock is ahead of the RPC's, in seconds. health:
    more for ledger.json. followed: told after each sound answer what it was and for whom. rest: told when the
    agent is disabled.
    """

    store: FeedStore | None = None
    forget_asked: Callable[[], bool] = lambda: False
    accept_change: bool = False
    clock_offset: Callable[[], float | None] = lambda: None
    health: Callable[[], Mapping[str, Any]] = dict
    followed: Callable[[Snapshot, Sequence[IPv4Address]], None] = lambda _snapshot, _ips: None
    rest: Callable[[], None] = lambda: None


class LedgerFeed:
    """The poll thread. It polls only while somebody wants the agent enabled.

    `view` is what an earlier process left behind: it counts until the first answer, unless the agent was
    disabled in between.
    """

    def __init__(
        self,
        poller: FeedPoller,
        *,
        candidates: Callable[[], Sequence[IPv4Address]],
        on_news: Callable[[], None],
        publish: Callable[[dict[str, Any]], None],
        resolve: Callable[[], frozenset[IPv4Address]],
        endpoint: Callable[[], str],
        interval: float,
        timing: Timing,
        view: LedgerView | None = None,
        extras: Extras | None = None,
    ) -> None:
        self._poller = poller
        self._candidates = candidates
        self._on_news = on_news
        self._publish = publish
        self._resolve = resolve
        self._endpoint = endpoint
        self._interval = interval
        self._timing = timing
        self._extras = extras or Extras()
        self._view = view or LedgerView()
        self._stats = FetchStats()
        self._pulse = Pulse()
        self._hints = Hints(timing.monotonic, timing.chance)
        self._wanted = threading.Condition()
        self._enabled: bool | None = None
        self._era = self._view_era = 0
        self._since: float | None = None
        self._due = timing.monotonic()
        self._polled_at = float("-inf")
        self._poked = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def view(self) -> LedgerView:
        """Return the newest view; never waits. What was read before the agent was enabled proves nothing now."""
        view = replace(self._view, since=self._since)
        if self._view_era != self._era:
            return replace(
                view, snapshot=None, searched=frozenset(), fetched_at=0.0, read_at=None, restored=False
            )
        return view

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def enable(self, enabled: bool) -> None:
        """Poll (at once, if this is news) or rest: a disabled agent asks the ledger nothing."""
        with self._wanted:
            if enabled and not self._enabled:
                self._poked = True
                self._since = self._timing.monotonic()
                # The first word of this process starts no new era: what was stored still counts.
                self._era += self._enabled is not None
            resting = self._enabled is True and not enabled
            self._enabled = enabled
            self._wanted.notify_all()
        if resting:
            self._extras.rest()

    def poke(self) -> None:
        """Poll at once, if enabled."""
        with self._wanted:
            self._poked = True
            self._wanted.notify_all()

    def hint(self, slot: int = 0) -> None:
        """Something may have changed at a slot: poll soon. Never more than a nudge, and never too often."""
        with self._wanted:
            self._hints.hint(slot, self._polled_at)
            self._wanted.notify_all()

    def stop(self, timeout: float = 1.0) -> bool:
        """Ask the thread to end and tell whether it has; a call in flight is left behind (it is a daemon)."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wait_for_turn():
            self.poll_once()
            self._on_news()

    def _wait_for_turn(self) -> bool:
        with self._wanted:
            while not self._stopping:
                left = self._seconds_left()
                if left <= 0:
                    self._poked = False
                    return True
                self._wanted.wait(left)
            return False

    def _seconds_left(self) -> float:
        if not self._enabled:
            return threading.TIMEOUT_MAX
        if self._poked:
            return 0.0
        hinted = self._hints.due()
        due = self._due if hinted is None else min(self._due, hinted)
        return min(max(0.0, due - self._timing.monotonic()), threading.TIMEOUT_MAX)

    def poll_once(self) -> None:
        """Poll and take the answer in; whatever goes wrong leaves the last sound snapshot in place."""
        if self._extras.forget_asked():
            self._forget("a person asked for it")
        with self._wanted:
            era, wanted_slot = self._era, self._hints.polled()
        started = self._timing.monotonic()
        attempted_at = self._timing.now()
        searched = tuple(self._candidates())
        before = self._view
        view, outcome, addresses = self._attempt(searched, before, attempted_at, started)
        self._view = replace(
            view,
            attempted_at=attempted_at,
            rpc_addresses=before.rpc_addresses if addresses is None else addresses,
            clock_offset=self._extras.clock_offset(),
        )
        if view.error is None and not view.lagging:
            self._view_era = era
        if outcome is Outcome.PROVEN and view.snapshot is not None and view.snapshot.slot < wanted_slot:
            outcome = Outcome.UNPROVEN  # the change that woke us is not in this answer yet
        seconds = self._timing.monotonic() - started
        self._count(view, had_data=before.snapshot is not None, seconds=seconds)
        self._pulse = self._pulse.then(outcome)
        self._polled_at = self._timing.monotonic()
        self._due = self._polled_at + self._pulse.delay(self._interval, self._timing.jitter())
        self._tell(seconds)

    def _attempt(
        self, searched: tuple[IPv4Address, ...], before: LedgerView, attempted_at: float, started: float
    ) -> tuple[LedgerView, Outcome, frozenset[IPv4Address] | None]:
        try:
            snapshot = self._poller.poll(searched)
            addresses = self._resolve()
        except LaggingNode as error:
            log.info("ledger: %s", error)
            return replace(before, error=None, error_code="", lagging=str(error)), Outcome.UNPROVEN, None
        except LedgerError as error:
            log.warning("ledger: %s", error)
            if isinstance(error, LedgerChanged) and self._extras.accept_change:
                self._forget("the policy accepts another ledger")
                return LedgerView(error=str(error), error_code="LedgerChanged"), Outcome.UNPROVEN, None
            view = replace(before, error=str(error), error_code=type(error).__name__, lagging="")
            return view, Outcome.FAILED, None
        except Exception as error:  # the loop's boundary: a poll must never end the thread
            log.exception("ledger: unexpected failure of a poll")
            view = replace(before, error=f"internal error: {error!r}", error_code="InternalError", lagging="")
            return view, Outcome.FAILED, None
        self._keep(snapshot, searched)
        view = LedgerView(snapshot, frozenset(searched), attempted_at, read_at=started)
        return view, Outcome.PROVEN if snapshot.complete else Outcome.UNPROVEN, addresses

    def _keep(self, snapshot: Snapshot, searched: tuple[IPv4Address, ...]) -> None:
        try:
            if self._extras.store is not None:
                self._extras.store.save(snapshot, frozenset(searched))
            if self._enabled:
                self._extras.followed(snapshot, searched)
        except (
            Exception
        ):  # as at a poll: what is done with an answer must not end the thread, nor cost the answer
            log.exception("ledger: unexpected failure after a poll")

    def _forget(self, why: str) -> None:
        log.warning("ledger: what is known of it is forgotten: %s", why)
        self._poller.forget()
        self._view = LedgerView(rpc_addresses=self._view.rpc_addresses)
        try:
            if self._extras.store is not None:
                self._extras.store.clear()
        except StateError as error:
            log.warning("ledger: %s", error)

    def _count(self, view: LedgerView, *, had_data: bool, seconds: float) -> None:
        if view.lagging:
            self._stats = self._stats.count_lag()
            return
        ok = view.error is None
        self._stats = self._stats.count(ok=ok, had_data=had_data, seconds=seconds, error=view.error_code)

    def _tell(self, seconds: float) -> None:
        try:
            self._publish(self._report(seconds))
        except StateError as error:
            log.warning("ledger: %s", error)

    def _report(self, seconds: float) -> dict[str, Any]:
        view, cost = self._view, self._poller.cost
        return {
            "slot": view.snapshot.slot if view.snapshot else 0,
            "genesis_hash": view.snapshot.genesis_hash if view.snapshot else "",
            "fetched_at": view.fetched_at,
            "attempted_at": view.attempted_at,
            "endpoint": self._endpoint(),
            "error": view.error,
            "error_code": view.error_code,
            "lagging": view.lagging,
            "restored": view.restored,
            "clock_offset_seconds": None if view.clock_offset is None else round(view.clock_offset),
            "duration_seconds": round(seconds, 6),
            "mode": cost.mode,
            "mode_reason": self._poller.refusal,
            "poll": {
                "requests": cost.requests,
                "bytes_sent": cost.sent,
                "bytes_received": cost.received,
                "milliseconds": round(seconds * 1000, 1),
                "searched": cost.searched,
            },
            "hints": {"taken": self._hints.taken, "ignored": self._hints.ignored},
            **self._stats.as_json(),
            **self._extras.health(),
        }


def restored_view(stored: Stored | None, now: float, monotonic: float, max_age: float) -> LedgerView:
    """Return what to start from: the stored snapshot if it is young enough, else why it is not used."""
    if stored is None:
        return LedgerView(not_restored="there is no stored ledger data")
    why = stored.too_old(now, max_age)
    if why:
        return LedgerView(not_restored=why)
    age = max(0.0, now - stored.read_at)
    return LedgerView(
        stored.snapshot, stored.searched, stored.read_at, read_at=monotonic - age, restored=True
    )


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
