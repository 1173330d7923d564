"""BGP put together: engine, speaker, exclude lists and publisher in one thread, and what the loop asks of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from dzagent.bgp.changes import Changes
from dzagent.bgp.engine import Engine, Peer
from dzagent.bgp.exclude import ExcludeFile, Excludes, Listing, from_route_config
from dzagent.bgp.gate import Gate
from dzagent.bgp.joining import Installed, Learned
from dzagent.bgp.peers import PeerStore
from dzagent.bgp.publish import Publisher
from dzagent.bgp.render import peer_of
from dzagent.bgp.rules import ImportRules
from dzagent.bgp.speaker import Clocks, Limits, Speaker
from dzagent.bgp.view import BgpView
from dzagent.config import Paths
from dzagent.errors import StateError
from dzagent.files import absent, write_atomic
from dzagent.model import Route, ServiceName
from dzagent.policy import Policy
from dzagent.policyfiles import CODE
from dzagent.wishes import Wishes

log = logging.getLogger(__name__)

SLOW_PERIOD: Final = 0.5
"""Seconds between looks at files; documents are written every other time at most."""


ADOPTED: Final = frozenset({186, 196})
"""Protocol numbers whose routes FRR's zebra copies as its own when it starts, and keeps (8.4 and 10.3, measured)."""

ZEBRA_SOCKET: Final = Path("/run/frr/zserv.api")
_ZEBRA: Final = "FRR's zebra runs on this host and keeps copies of routes of protocol {}: set protocol to 210 in the policy"


class Bgp:
    """What the loop needs of BGP. `gate` is for whoever watches that routes work."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        paths: Paths,
        *,
        policy_list: Listing,
        clocks: Clocks,
        on_change: Callable[[str], None],
        zebra: Path = ZEBRA_SOCKET,
    ) -> None:
        self._policy = policy
        self._clocks = clocks
        self._on_change = on_change
        self._excludes = Excludes((policy_list, ExcludeFile(policy.bgp.route_config, from_route_config)))
        self._excludes.look()
        self._rules = ImportRules(policy.bgp.min_length, policy.bgp.max_routes, policy.bgp.martians)
        limits = Limits(policy.bgp.poll, policy.bgp.grace, policy.bgp.keep_stale, policy.protocol)
        self.gate = Gate()
        self._speaker = Speaker(
            engine,
            limits=limits,
            rules=replace(self._rules, exclude=self._excludes.all),
            gate=self.gate,
            clocks=clocks,
            on_change=self._changed,
        )
        self.gate.on_change = self._speaker.gate_changed
        self._publisher = Publisher(self._speaker, paths, clocks.monotonic)
        self._peers = PeerStore(paths.peers)
        self._zebra = zebra
        self._seen_file = paths.engine_seen
        self._seen = not absent(self._seen_file)
        self._stopping = threading.Event()
        self._poll = limits.poll
        self._slow_at = 0.0
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bgp", daemon=True)

    # ---- for the loop ------------------------------------------------------------------------------------

    def want(self, wishes: Wishes, installed: Iterable[Route]) -> frozenset[ServiceName]:
        """Have a session for every service. Returns the services whose routes must stay as they are.

        A service that is kept because nothing sound is known about it keeps the peer that it had. If that is lost
        too, nothing is changed until the ledger answers.
        """
        granted = {
            name: peer_of(service, self._policy.edge.table_to) for name, service in wishes.granted.items()
        }
        known = self._peers.read()
        peers: dict[ServiceName, Peer] = {}
        for name in (*wishes.texts, *wishes.kept):
            peer = granted.get(name) or known.get(name)
            if peer is not None:
                peers[name] = peer
        if any(name not in peers for name in wishes.texts):
            return frozenset(
                wishes.texts
            )  # the engine may have a session that nobody can name: it stays as it is
        self._speaker.want(peers, installed, self._publisher.stale)
        self._peers.write(peers)
        return frozenset()

    def learned(self) -> tuple[int, Learned]:
        """Return everything that may be installed now, and the version that this is."""
        return self._speaker.learned()

    def changes(self, since: int) -> Changes | None:
        """Return what changed after a version, None if the whole has to be taken."""
        return self._speaker.changes(since)

    def installed(self, routes: Installed) -> None:
        """Say which learned routes the kernel holds now."""
        self._publisher.installed(routes)

    def view(self) -> BgpView:
        """Return everything for people."""
        view = self._speaker.view()
        remarks = list(self._excludes.problems)
        if self._policy.protocol in ADOPTED and not absent(self._zebra):
            remarks.append(("ZebraAdopts", _ZEBRA.format(self._policy.protocol)))
        return replace(view, problems=(*view.problems, *remarks), expected=self._seen)

    # ---- the thread --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look at the engine from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; engine, sessions and routes stay."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(self._poll):
            self.look()
        self._speaker.close()

    def look(self) -> None:
        """Look once at the engine, and now and then at the files."""
        try:
            self._speaker.tick()
            now = self._clocks.monotonic()
            if self._news.is_set() or now - self._slow_at >= SLOW_PERIOD:
                self._news.clear()
                self._slow_at = now
                self._slowly()
        except Exception:  # the thread's boundary: a defect must not end the watch over the sessions
            log.exception("unexpected failure of a look at the BGP engine")

    def _remember_engine(self) -> None:
        """Remember for good that an engine answers here; a disk that is full is tried again later."""
        if not self._seen and self._speaker.view().engine:
            self._seen = True
            try:
                write_atomic(self._seen_file, b"A BGP engine has answered on this host.\n")
            except StateError as error:
                log.warning("BGP: %s", error)

    def _slowly(self) -> None:
        self._remember_engine()
        if self._excludes.look():
            for code, problem in self._excludes.problems:
                if code != CODE:  # which tells its own
                    log.warning("BGP: %s", problem)
            self._speaker.set_rules(replace(self._rules, exclude=self._excludes.all))
            self._on_change("policy")
        self._publisher.tick()

    def _changed(self, reason: str) -> None:
        if reason == "session":
            self._news.set()
        self._on_change(reason)
