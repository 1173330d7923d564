"""The thread beside the loop: looks at the engine several times a second, and wakes the loop on a change.

It writes nothing to the kernel. The loop says which peers are wanted (`want`), and asks what was learned: all of
it (`learned`), or what changed since it last asked (`changes`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from dzagent.bgp.changes import ChangeLog, Changes
from dzagent.bgp.engine import Engine, EngineLook, Peer, PeerState
from dzagent.bgp.following import Following, follow
from dzagent.bgp.gate import Gate
from dzagent.bgp.rules import ImportRules, Judge
from dzagent.bgp.view import BgpView, Trouble, peer_view
from dzagent.errors import DzagentError, EngineError, EngineGone
from dzagent.model import Route, ServiceName

log = logging.getLogger(__name__)

SERVICES: Final[tuple[ServiceName, ...]] = ("unicast", "multicast")

SHARE: Final = 5.0
"""After a change that took t seconds, RIBs are read again after (SHARE - 1) t at the earliest: flaps cost 1/SHARE."""

REVIVE: Final = (2.0, 60.0)
"""Seconds between attempts to start a session that the engine has given up: first and most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of the policy, in seconds: between looks, grace of a new engine, life of stale routes."""

    poll: float = 0.15
    grace: float = 10.0
    keep_stale: float = 86_400.0
    protocol: int = 210


@dataclass(frozen=True, slots=True)
class Clocks:
    """Unix time and monotonic seconds."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(slots=True)
class _Revival:
    """When a session that was given up may be started again."""

    due: float = 0.0
    wait: float = REVIVE[0]


class Speaker:
    """Follows the wanted sessions. All methods but `tick` and `close` are for other threads."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits,
        rules: ImportRules,
        gate: Gate,
        clocks: Clocks,
        on_change: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._rules = rules
        self._gate = gate
        self._clocks = clocks
        self._on_change = on_change
        self._lock = threading.Lock()
        self._following: dict[ServiceName, Following] = {}
        self._wanted: Mapping[ServiceName, Peer] | None = None
        self._configured: tuple[str, Mapping[ServiceName, Peer]] | None = None
        self._log = ChangeLog()
        self._gates: dict[ServiceName, frozenset[str] | None] = {}
        self._life = ""
        self._trouble: Trouble | None = None
        self._config_trouble: tuple[str, str] | None = None
        self._gone_at: float | None = None
        self._rib_after = 0.0
        self._revivals: dict[ServiceName, _Revival] = {}
        self._unreadable = False
        self._was_full: set[ServiceName] = set()
        self._retry_configure = 0.0
        self._seconds: deque[float] = deque(maxlen=1024)
        self._version_text = ""

    # ---- for the loop ------------------------------------------------------------------------------------

    def want(
        self,
        peers: Mapping[ServiceName, Peer],
        installed: Iterable[Route],
        stale: Callable[[], Mapping[ServiceName, Mapping[str, float]]],
    ) -> None:
        """Say which sessions are wanted from now on.

        installed: routes of our protocol in the kernel; those learned from a new peer are taken over. stale: tells since
        when an earlier process had kept which prefix; asked only if something is new.
        """
        with self._lock:
            if self._wanted == peers:
                return
            now = self._clocks.wall()
            before, self._following = self._following, {}
            routes, kept = tuple(installed), stale()
            for name, peer in peers.items():
                old = before.get(name)
                if old is not None and old.peer == peer:
                    self._following[name] = old
                    continue
                new = follow(
                    peer, Judge(peer, self._rules, self._limits.protocol), self._rules.limit, now, old
                )
                new.adopt(routes, kept.get(name, {}))
                self._following[name] = new
            self._wanted = dict(peers)
            self._log.restart()

    def learned(self) -> tuple[int, Mapping[ServiceName, Mapping[str, Route]]]:
        """Return everything that may be installed now, and the version that this is."""
        with self._lock:
            return self._log.version, {name: self._passing(name) for name in self._following}

    @property
    def version(self) -> int:
        """The version of what `learned` would return."""
        return self._log.version

    def changes(self, since: int) -> Changes | None:
        """Return what changed after a version; None if that is too long ago, or too much was replaced."""
        with self._lock:
            keys = self._log.since(since)
            if keys is None:
                return None
            return Changes(self._log.version, {key: self._now_of(*key) for key in keys})

    def set_rules(self, rules: ImportRules) -> None:
        """Judge everything again by other rules."""
        with self._lock:
            if rules == self._rules:
                return
            self._rules = rules
            for name, item in self._following.items():
                if item.table is not None:
                    judge = Judge(item.peer, rules, self._limits.protocol)
                    self._log.note(name, item.table.rejudge(judge, rules.limit))
        self._on_change("routes")

    def gate_changed(self) -> None:
        """Look at the gate again; to be called by whoever changed it."""
        with self._lock:
            noted = [self._note_gate(name) for name in self._following]
        if any(noted):
            self._on_change("routes")

    def view(self) -> BgpView:
        """Return everything for people."""
        with self._lock:
            problems = () if self._config_trouble is None else (self._config_trouble,)
            peers = {name: peer_view(item) for name, item in self._following.items()}
            return BgpView(peers, self._trouble, self._version_text, problems)

    def timings(self) -> tuple[float, ...]:
        """Return and forget how long changes took, in seconds, from the look to the new routes."""
        with self._lock:
            taken = tuple(self._seconds)
            self._seconds.clear()
            return taken

    # ---- the thread --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the engine; sessions and routes stay."""
        self._engine.close()

    def tick(self) -> None:
        """Look once."""
        began = self._clocks.monotonic()
        try:
            look = self._engine.look()
        except DzagentError as error:
            self._silent(error)
            return
        self._answered(look)
        look = self._configure(look)
        if look.life != self._life:
            self._answered(look)
        news = self._take(look)
        news |= self._read_ribs(look, began)
        self._help(look)
        for reason in sorted(news):
            self._on_change(reason)

    def _silent(self, error: DzagentError) -> None:
        """The engine cannot be asked. Only one that is not there at all has certainly lost its sessions."""
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        changed = False
        with self._lock:
            code = type(error).__name__
            same = self._trouble is not None and (self._trouble.code, self._trouble.message) == (
                code,
                str(error),
            )
            if not same:
                self._trouble = Trouble(code, str(error), wall)
                needed = logging.WARNING if self._following else logging.INFO
                log.log(needed, "BGP: %s", error)
            if not isinstance(error, EngineGone):
                self._gone_at = None
            elif self._gone_at is None:
                self._gone_at = now
            elif now - self._gone_at >= self._limits.grace:
                for name, item in self._following.items():
                    item.see(PeerState("Down"), wall)
                    changed |= self._log.note(name, item.forget(wall))
            changed |= self._expire(wall)
        if not same:
            self._on_change("session")
        if changed:
            self._on_change("routes")

    def _answered(self, look: EngineLook) -> None:
        with self._lock:
            recovered = self._trouble is not None and not self._unreadable
            if recovered:
                log.info("BGP: the engine answers (BIRD %s)", look.version)
            self._gone_at, self._version_text = None, look.version
            if recovered:
                self._trouble = None
            if look.life != self._life:
                if self._life:
                    log.warning("BGP: the engine was started anew; routes stay until its sessions are up")
                self._life = look.life
                for item in self._following.values():
                    item.restarted()
        if recovered:
            self._on_change("session")

    def _configure(self, look: EngineLook) -> EngineLook:
        """Tell the engine what is wanted, if that or the engine changed. The last good sessions stay on failure."""
        with self._lock:
            wanted = self._wanted
        now = self._clocks.monotonic()
        if wanted is None or self._configured == (look.life, wanted) or now < self._retry_configure:
            return look
        try:
            told = self._engine.configure(wanted, self._rules.limit)
            found = self._engine.look() if told else look
        except DzagentError as error:
            self._configured, self._retry_configure = None, now + REVIVE[0]
            self._config_problem((type(error).__name__, str(error)))
            return look
        self._configured = (look.life, wanted)
        self._config_problem(None)
        with self._lock:
            for name, item in self._following.items():
                if wanted.get(name) == item.peer:
                    item.asked(self._clocks.wall(), had=name in look.peers)
        if told:
            log.info("BGP: the engine holds %s", ", ".join(wanted) or "no session")
        return found

    def _config_problem(self, problem: tuple[str, str] | None) -> None:
        with self._lock:
            changed = self._config_trouble != problem
            self._config_trouble = problem
        if changed:
            if problem is not None:
                log.warning("BGP: %s", problem[1])
            self._on_change("session")

    def _take(self, look: EngineLook) -> set[str]:
        """Take in the state of every session; a lost one takes its routes along."""
        wall, news = self._clocks.wall(), set()
        with self._lock:
            for name, item in self._following.items():
                before = item.session.view
                after = item.see(look.peers.get(name, PeerState("Down")), wall)
                if replace(after, failed_at=0.0) != replace(before, failed_at=0.0):
                    news.add("session")
                if before.status != after.status:
                    log.info(
                        "BGP: %s: %s%s", name, after.status, f" ({after.message})" if after.message else ""
                    )
                changed = item.lost(look, wall, self._limits.grace)
                changed |= item.settle(look, wall, self._limits.grace)
                if self._log.note(name, changed):
                    news.add("routes")
            if self._expire(wall):
                news.add("routes")
        return news

    def _read_ribs(self, look: EngineLook, began: float) -> set[str]:
        """Read the RIBs that may have changed; back-to-back changes wait, so that flaps cost a share of a core."""
        now = self._clocks.monotonic()
        with self._lock:
            due = [name for name, item in self._following.items() if item.wants_rib()]
        if not due or now < self._rib_after:
            return set()
        news: set[str] = set()
        for name in due:
            try:
                rib = self._engine.rib(name)
            except EngineError as error:
                self._silent(error)
                self._unreadable, self._rib_after = True, now + REVIVE[0]
                return news
            with self._lock:
                self._unreadable = False
                item = self._following.get(name)
                if item is None or not item.state.established:
                    continue
                changed = item.sync(rib, look, self._clocks.wall(), self._limits.grace)
                if self._log.note(name, changed):
                    news.add("routes")
        spent = self._clocks.monotonic() - began
        with self._lock:
            self._seconds.append(spent)
        self._rib_after = self._clocks.monotonic() + (SHARE - 1) * spent
        return news

    def _help(self, look: EngineLook) -> None:
        """Start again what the engine has given up; ask for everything again after a full table has room."""
        now = self._clocks.monotonic()
        with self._lock:
            states = {name: item.state for name, item in self._following.items()}
        for name, state in states.items():
            if state.state != "Down" or name not in look.peers:
                self._revivals.pop(name, None)
            elif now >= self._revivals.setdefault(name, _Revival(now + REVIVE[0])).due:
                revival = self._revivals[name]
                revival.wait = min(revival.wait * 2, REVIVE[1])
                revival.due = now + revival.wait
                self._ask(self._engine.revive, name)
            if state.full:
                self._was_full.add(name)
            elif name in self._was_full and state.established:
                self._was_full.discard(name)
                self._ask(self._engine.refresh, name)

    def _ask(self, what: Callable[[ServiceName], None], name: ServiceName) -> None:
        try:
            what(name)
        except EngineError as error:
            log.warning("BGP: %s", error)

    # ---- bookkeeping; the lock is held ---------------------------------------------------------------------

    def _passing(self, name: ServiceName) -> Mapping[str, Route]:
        table, open_ = self._following[name].table, self._gates.get(name)
        if table is None:
            return {}
        if open_ is None:
            return dict(table.routes)
        return {prefix: route for prefix, route in table.routes.items() if prefix in open_}

    def _now_of(self, name: ServiceName, prefix: str) -> Route | None:
        item, open_ = self._following.get(name), self._gates.get(name)
        if item is None or item.table is None or (open_ is not None and prefix not in open_):
            return None
        return item.table.routes.get(prefix)

    def _note_gate(self, name: ServiceName) -> bool:
        before, after = self._gates.get(name), self._gate.of(name)
        self._gates[name] = after
        table = self._following[name].table
        if table is None or before == after:
            return False
        was = table.routes.keys() if before is None else before
        is_ = table.routes.keys() if after is None else after
        return self._log.note(name, set(was) ^ set(is_))

    def _expire(self, wall: float) -> bool:
        before = wall - self._limits.keep_stale
        found = False
        for name, item in self._following.items():
            if item.table is not None and item.table.stale:
                found |= self._log.note(name, item.table.expire(before))
        return found
