"""Tells people about BGP: bgp.json, routes.json, and desired/learned/SERVICE.routes, at most once a second each."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dzagent.bgp.engine import Peer
from dzagent.bgp.learnedfile import Lines, file_of, read_stale
from dzagent.bgp.session import SessionView
from dzagent.bgp.speaker import Speaker
from dzagent.bgp.view import BgpView, PeerView
from dzagent.config import Paths
from dzagent.errors import DzagentError
from dzagent.files import MAX_BYTES, write_atomic, write_json
from dzagent.model import SERVICE_NAMES, Route, ServiceName

log = logging.getLogger(__name__)

PERIOD: Final = 1.0
"""Seconds between two writes of the same document."""

UPDATE_BOUNDS: Final = tuple(0.0001 * 2**n for n in range(15))
"""Buckets of doublezero_bgp_handle_update_duration_seconds (bgp/metrics.go), in seconds."""

UP_BOUNDS: Final = tuple(1.5**n for n in range(12))
"""Buckets of doublezero_session_established_duration_seconds."""

Installed = Mapping[tuple[ServiceName, str], Route]


class Publisher:
    """Writes what changed; called by the speaker's thread. `installed` is for the loop's."""

    def __init__(self, speaker: Speaker, paths: Paths, monotonic: Callable[[], float]) -> None:
        self._speaker = speaker
        self._paths = paths
        self._now = monotonic
        self._lock = threading.Lock()
        self._installed: Installed = {}
        self._installs = 0
        self._counts: Mapping[ServiceName, int] = dict.fromkeys(SERVICE_NAMES, 0)
        self._lines: dict[ServiceName, Lines] = {name: Lines() for name in SERVICE_NAMES}
        self._texts: dict[Path, str] = {}
        self._said: Any = None
        self._written: tuple[int, int, str] | None = None
        self._pending: tuple[int, int, str] | None = None
        self._said_at = self._written_at = -PERIOD
        self._update_seconds = Histogram(UPDATE_BOUNDS)
        self._up_seconds: dict[str, Histogram] = {}
        self._counted: set[tuple[ServiceName, Peer]] = set()

    def installed(self, routes: Installed) -> None:
        """Take in which learned routes the kernel holds now."""
        counts = Counter(name for name, _ in routes)
        with self._lock:
            self._installed = routes
            self._installs += 1
            self._counts = counts

    def stale(self) -> Mapping[ServiceName, Mapping[str, float]]:
        """Return since when an earlier process had kept which prefixes."""
        found = {}
        for name in SERVICE_NAMES:
            try:
                with (self._paths.desired / file_of(name)).open("rb") as file:
                    text = file.read(MAX_BYTES).decode("ascii", "replace")
            except OSError:
                continue
            found[name] = read_stale(text, name)
        return found

    def tick(self) -> None:
        """Write what is due and has changed; failing to is logged, and tried again."""
        view = self._speaker.view()
        self._count(view)
        try:
            self._say(view)
            self._write(view)
        except (DzagentError, OSError) as error:
            log.warning("BGP: %s", error)
            self._said_at = self._written_at = self._now()

    # ---- bgp.json ----------------------------------------------------------------------------------------

    def _count(self, view: BgpView) -> None:
        for seconds in self._speaker.timings():
            self._update_seconds.add(seconds)
        for name, item in view.peers.items():
            if item.session.waited is not None and (name, item.peer) not in self._counted:
                self._counted.add((name, item.peer))
                histogram = self._up_seconds.setdefault(str(item.peer.remote), Histogram(UP_BOUNDS))
                histogram.add(item.session.waited)

    def _say(self, view: BgpView) -> None:
        if self._now() - self._said_at < PERIOD:
            return
        with self._lock:
            counts = self._counts
        document = {
            "engine": view.engine,
            "trouble": None if view.trouble is None else _trouble(view),
            "problems": [{"code": code, "message": message} for code, message in view.problems],
            "peers": {name: peer_document(item, counts.get(name, 0)) for name, item in view.peers.items()},
            "update_seconds": self._update_seconds.document(),
            "up_seconds": {peer: histogram.document() for peer, histogram in self._up_seconds.items()},
        }
        if document != self._said:
            write_json(self._paths.bgp, document)
            self._said, self._said_at = document, self._now()

    # ---- routes ------------------------------------------------------------------------------------------

    def _write(self, view: BgpView) -> None:
        with self._lock:
            installed, installs = self._installed, self._installs
        state = (self._speaker.version, installs, self._place())
        if state == self._written:
            return
        if state != self._pending:  # what has just changed is still being carried out
            self._pending = state
            return
        if self._now() - self._written_at < PERIOD:
            return
        _, learned = self._speaker.learned()
        for name in SERVICE_NAMES:
            stale = view.peers[name].stale if name in view.peers else {}
            self._write_file(name, learned.get(name, {}), stale)
        write_json(self._paths.routes, {"services": routes_document(view, learned, installed)})
        self._written, self._written_at = state, self._now()

    def _place(self) -> str:
        """Return where `desired` leads: every new generation needs the file anew."""
        try:
            return str(self._paths.desired.readlink())
        except OSError:
            return ""

    def _write_file(self, name: ServiceName, routes: Mapping[str, Route], stale: Mapping[str, float]) -> None:
        """Write the file of a service that has learned something; a service that has not has none."""
        try:
            generation = self._paths.desired.resolve(strict=True)
        except OSError:
            return
        path = generation / file_of(name)
        if not routes:
            path.unlink(missing_ok=True)
            self._texts.pop(path, None)
            return
        text = self._lines[name].text(routes, stale)
        if self._texts.get(path) != text:
            write_atomic(path, text.encode("ascii"), durable=False)
            self._texts = {path: text}


def _trouble(view: BgpView) -> dict[str, Any]:
    trouble = view.trouble
    return (
        {} if trouble is None else {"code": trouble.code, "message": trouble.message, "since": trouble.since}
    )


def session_document(session: SessionView) -> dict[str, Any]:
    """Return a session as the status document has it; times are unix seconds."""
    return {
        "status": session.status,
        "last_update": int(session.last_update),
        "reason": session.reason,
        "message": session.message,
        "failures": session.failures,
        "failed_at": int(session.failed_at),
        "up_since": int(session.up_since),
    }


def peer_document(item: PeerView, installed: int) -> dict[str, Any]:
    """Return one peer: its session, and what was learned, installed, kept and refused."""
    return {
        "peer": str(item.peer.remote),
        "src": "" if item.peer.advertise is None else str(item.peer.advertise),
        "local_asn": item.peer.local_asn,
        "remote_asn": item.peer.remote_asn,
        "session": session_document(item.session),
        "updates": item.updates,
        "withdraws": item.withdraws,
        "learned": item.learned,
        "installed": installed,
        "stale": len(item.stale),
        "refused": dict(item.refused.counts),
        "refused_routes": [
            {"prefix": prefix, "code": refusal.code, "message": refusal.message}
            for prefix, refusal in item.refused.listed
        ],
        "unusable_updates": item.unusable,
        "full": item.full,
    }


def routes_document(
    view: BgpView, learned: Mapping[ServiceName, Mapping[str, Route]], installed: Installed
) -> dict[str, Any]:
    """Return the learned routes of each service: what they have in common once, then prefixes.

    present, absent: whether the kernel holds it. stale: unix seconds since when nobody announces it.
    """
    found: dict[str, Any] = {}
    for name, routes in learned.items():
        if not routes or name not in view.peers:
            continue
        any_route = next(iter(routes.values()))
        present = [prefix for prefix in routes if (name, prefix) in installed]
        found[name] = {
            "via": str(any_route.via),
            "dev": any_route.dev,
            "src": str(any_route.src or ""),
            "table": any_route.table,
            "present": sorted(present),
            "absent": sorted(routes.keys() - set(present)),
            "stale": {p: int(since) for p, since in sorted(view.peers[name].stale.items()) if p in routes},
        }
    return found


class Histogram:
    """Counts durations in seconds by upper bounds, as Prometheus has it."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def document(self) -> dict[str, Any]:
        """Return cumulative buckets, sum and count."""
        total, buckets = 0, {}
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            total += count
            buckets["+Inf" if bound is None else f"{bound:g}"] = total
        return {"buckets": buckets, "sum": self._sum, "count": total}
