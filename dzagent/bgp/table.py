"""What was learned from one peer and shall be in the kernel: keep and flush, on the difference of two snapshots.

Pure: no clock, no socket. Three kinds of evidence come in (`table.sync` a snapshot of a live session,
`table.lost` the end of a session that a live engine reports, `table.restarted` another life of the engine), and
each changes only what it proves. An empty table after the engine's restart is not "all withdrawn".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dzagent.bgp.engine import Rib
from dzagent.bgp.rules import Judge, Refusal
from dzagent.model import Route


@dataclass(slots=True)
class Learned:
    """Routes of one peer. Keys are prefix texts.

    rib: the last snapshot of this life of the engine. routes: what shall be in the kernel. refused: what is not,
    and why. stale: of `routes`, those that outlived their withdraw or session, and since when (unix seconds).
    unconfirmed: of `routes`, those that no snapshot of this life of the engine has shown yet.
    """

    judge: Judge
    limit: int
    keep: bool
    rib: Rib = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    stale: dict[str, float] = field(default_factory=dict)
    unconfirmed: set[str] = field(default_factory=set)

    def adopt(self, routes: Iterable[Route], stale: Mapping[str, float]) -> set[str]:
        """Take over what an earlier process installed, until a snapshot says more; returns what is new."""
        added = set()
        for route in routes:
            prefix = str(route.dst)
            if prefix not in self.routes:
                self.routes[prefix] = route
                self.unconfirmed.add(prefix)
                added.add(prefix)
                if prefix in stale and self.keep:
                    self.stale[prefix] = stale[prefix]
        return added

    def restarted(self) -> None:
        """The engine lives anew: it has forgotten everything, and that proves nothing."""
        self.rib = {}
        self.refused = {}
        self.unconfirmed = set(self.routes)

    def sync(self, rib: Rib, now: float, *, settled: bool) -> set[str]:
        """Take in a snapshot of an established session; returns the prefixes whose route changed.

        settled: whether the engine and its session have lived long enough that what is missing is withdrawn.
        A prefix that this life of the engine has shown and shows no more is withdrawn in any case.
        """
        before, self.rib = self.rib, rib
        changed: set[str] = set()
        gone = before.keys() - rib.keys()
        for prefix in gone:
            self.refused.pop(prefix, None)
            self._withdraw(prefix, now, changed)
        for prefix, via in sorted(rib.items() - before.items()):
            self._take(prefix, via, changed)
        if settled and self.unconfirmed:
            for prefix in self.unconfirmed - rib.keys():
                self._withdraw(prefix, now, changed)
            self.unconfirmed.clear()
        if gone:
            self._fill(changed)
        return changed

    def lost(self, now: float) -> set[str]:
        """A live engine says that the session is down; returns the prefixes whose route changed."""
        self.rib = {}
        self.refused = {}
        self.unconfirmed.clear()
        changed: set[str] = set()
        for prefix in list(self.routes):
            self._withdraw(prefix, now, changed)
        return changed

    def expire(self, before: float) -> set[str]:
        """Drop what is stale since before that time; returns the prefixes whose route changed."""
        old = {prefix for prefix, since in self.stale.items() if since < before}
        for prefix in old:
            del self.stale[prefix], self.routes[prefix]
            self.unconfirmed.discard(prefix)
        return old

    def rejudge(self, judge: Judge, limit: int) -> set[str]:
        """Judge everything again by other rules; returns the prefixes whose route changed."""
        self.judge, self.limit = judge, limit
        old = dict(self.routes)
        for prefix in list(self.routes):
            via = self.rib.get(prefix, f"{judge.peer.remote} on {judge.peer.link}")
            if isinstance(judge.verdict(prefix, via), Refusal):
                self._drop(prefix)
        self.refused = {}
        for prefix, via in sorted(self.rib.items()):
            if prefix not in self.routes:
                self._take(prefix, via, set())
        return {p for p in old.keys() | self.routes.keys() if old.get(p) != self.routes.get(p)}

    # ---- one prefix ------------------------------------------------------------------------------------

    def _take(self, prefix: str, via: str, changed: set[str]) -> None:
        verdict = self.judge.verdict(prefix, via)
        known = self.routes.get(prefix)
        if isinstance(verdict, Route) and known is None and len(self.routes) >= self.limit:
            verdict = self.judge.full()
        if isinstance(verdict, Refusal):
            self.refused[prefix] = verdict
            if known is not None:
                self._drop(prefix)
                changed.add(prefix)
            return
        self.refused.pop(prefix, None)
        self.unconfirmed.discard(prefix)
        if self.stale.pop(prefix, None) is not None or known != verdict:
            changed.add(prefix)
        self.routes[prefix] = verdict

    def _withdraw(self, prefix: str, now: float, changed: set[str]) -> None:
        if prefix not in self.routes:
            return
        self.unconfirmed.discard(prefix)
        if self.keep:
            if prefix not in self.stale:
                self.stale[prefix] = now
                changed.add(prefix)
            return
        self._drop(prefix)
        changed.add(prefix)

    def _drop(self, prefix: str) -> None:
        self.routes.pop(prefix, None)
        self.stale.pop(prefix, None)
        self.unconfirmed.discard(prefix)

    def _fill(self, changed: set[str]) -> None:
        """Give room that became free to what was refused for lack of it."""
        waiting = sorted(prefix for prefix, refusal in self.refused.items() if refusal.code == "TooMany")
        for prefix in waiting[: max(0, self.limit - len(self.routes))]:
            self._take(prefix, self.rib[prefix], changed)
