"""What the poll thread has to show: the newest sound answer, how the last attempt went, and counters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

from dzagent.ledger.snapshot import Snapshot

BUCKETS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds in seconds of the fetch duration histogram (upstream: onchain/metrics.go)."""

CLOCK_TOLERANCE = 300.0
"""Seconds by which this host's clock and the RPC's may differ before it is worth saying."""


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The newest sound answer and how the last attempt went. Times are unix seconds, 0 for never.

    `searched` are the client IPs that the snapshot was asked about: it says nothing about any other.
    `read_at` is the time of the answer on the monotonic clock, None for never; `since` when waiting for one began.
    `lagging` says that the last answer was older than one seen before: no error, and nothing new.
    `restored` says that the snapshot is the one that an earlier process stored; `not_restored` why it is not.
    `clock_offset` is by how many seconds this host's clock was ahead of the RPC's.
    """

    snapshot: Snapshot | None = None
    searched: frozenset[IPv4Address] = frozenset()
    fetched_at: float = 0.0
    attempted_at: float = 0.0
    error: str | None = None
    error_code: str = ""
    rpc_addresses: frozenset[IPv4Address] = frozenset()
    read_at: float | None = None
    since: float | None = None
    lagging: str = ""
    restored: bool = False
    not_restored: str = ""
    clock_offset: float | None = None

    def age(self, now: float) -> float | None:
        """Return how many seconds old the data is at monotonic time `now`; without data, how long none came."""
        start = self.since if self.read_at is None else self.read_at
        return None if start is None else max(0.0, now - start)

    @property
    def clock_doubt(self) -> str:
        """Say in whole minutes, hours or days how far the clock is off, "" if it is not."""
        offset = self.clock_offset
        if offset is None or abs(offset) <= CLOCK_TOLERANCE:
            return ""
        way = "ahead of" if offset > 0 else "behind"
        return f"this host's clock is about {_about(abs(offset))} {way} the RPC's"


def _about(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 60:.0f} minutes"


@dataclass(frozen=True, slots=True)
class FetchStats:
    """Counters of this process, for metrics. `errors` are by the name of their class."""

    success: int = 0
    error_stale: int = 0
    error_no_cache: int = 0
    lagging: int = 0
    buckets: tuple[int, ...] = field(default=(0,) * (len(BUCKETS) + 1))
    total_seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)

    def count(self, *, ok: bool, had_data: bool, seconds: float, error: str = "") -> FetchStats:
        """Return the counters after one more fetch."""
        slot = bisect_left(BUCKETS, seconds)
        buckets = tuple(n + (i >= slot) for i, n in enumerate(self.buckets))
        errors = self.errors if not error else {**self.errors, error: self.errors.get(error, 0) + 1}
        return replace(
            self,
            success=self.success + ok,
            error_stale=self.error_stale + (not ok and had_data),
            error_no_cache=self.error_no_cache + (not ok and not had_data),
            buckets=buckets,
            total_seconds=self.total_seconds + seconds,
            errors=errors,
        )

    def count_lag(self) -> FetchStats:
        """Return the counters after an answer that was late: neither a success nor an error."""
        return replace(self, lagging=self.lagging + 1)

    def as_json(self) -> dict[str, Any]:
        """Return the part of ledger.json that metrics read."""
        names = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        errors = self.error_stale + self.error_no_cache
        return {
            "polls": {"success": self.success, "error": errors, "lagging": self.lagging},
            "fetch": {
                "success": self.success,
                "error_stale": self.error_stale,
                "error_no_cache": self.error_no_cache,
            },
            "fetch_buckets": dict(zip(names, self.buckets, strict=True)),
            "fetch_sum": round(self.total_seconds, 6),
            "fetch_count": self.buckets[-1],
            "errors": dict(sorted(self.errors.items())),
        }
