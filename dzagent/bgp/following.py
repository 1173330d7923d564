"""One session followed: what a look at the engine means for its words and its routes. Pure: times are arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dzagent.bgp.engine import EngineLook, Peer, PeerState, Rib
from dzagent.bgp.rules import Judge
from dzagent.bgp.session import Session, SessionView
from dzagent.bgp.table import Learned
from dzagent.model import Route

SETTLED: Final = 1.0
"""Seconds after which an established session has sent its whole table (20,000 routes take 0.1 s)."""

Sign = tuple[str, int, int, int]
"""What changes whenever the RIB may have changed: life of the session, updates, withdraws, routes held."""


@dataclass(slots=True)
class Totals:
    """Counters of one peer since the agent started: updates, withdraws, and looks at the RIB."""

    updates: int = 0
    withdraws: int = 0
    dumps: int = 0


@dataclass(slots=True)
class Following:
    """A wanted peer, its session and its routes. `table` is None where nothing is installed."""

    peer: Peer
    session: Session
    table: Learned | None
    state: PeerState = field(default_factory=lambda: PeerState("Down"))
    sign: Sign | None = None
    totals: Totals = field(default_factory=Totals)
    met: bool = False
    """Whether this life of the engine has had the session up."""
    asked_at: float | None = None
    """Since when (unix seconds) the engine has been asked for this session, 0 if it had it already; None: not yet."""

    def asked(self, now: float, *, had: bool) -> None:
        """The engine has been told to have this session; `had`: it did before."""
        if self.asked_at is None:
            self.asked_at = 0.0 if had else now

    def see(self, state: PeerState, now: float) -> SessionView:
        """Take in the state of the session at unix time `now`."""
        before, self.state = self.state, state
        same = before.since == state.since and before.established
        self.met |= state.established
        if state.established:
            self.totals.updates += max(0, state.updates - (before.updates if same else 0))
            self.totals.withdraws += max(0, state.withdraws - (before.withdraws if same else 0))
        return self.session.see(state, now)

    def wants_rib(self) -> bool:
        """Tell whether the RIB may differ from the last snapshot."""
        return self.table is not None and self.state.established and self.sign != _sign(self.state)

    def sync(self, rib: Rib, look: EngineLook, now: float, grace: float) -> set[str]:
        """Take in a snapshot of the RIB that was read after `look`; returns the prefixes that changed."""
        if self.table is None:
            return set()
        self.sign = _sign(self.state)
        self.totals.dumps += 1
        return self.table.sync(rib, now, settled=self._settled(look, now, grace))

    def settle(self, look: EngineLook, now: float, grace: float) -> set[str]:
        """Without news: what was never confirmed is withdrawn once the session has settled."""
        table = self.table
        if table is None or not table.unconfirmed or not self._settled(look, now, grace):
            return set()
        return table.sync(table.rib, now, settled=True)

    def lost(self, look: EngineLook, now: float, grace: float) -> set[str]:
        """A live engine has no session. One that has just started, or that has just been asked for this session, has
        not had the time: that proves nothing.

        One that has had the session up, and has it no more, has lost it.
        """
        if self.table is None or self.state.established or (not self.met and self._young(look, now, grace)):
            return set()
        return self.forget(now)

    def _young(self, look: EngineLook, now: float, grace: float) -> bool:
        return look.age < grace or self.asked_at is None or now - self.asked_at < grace

    def forget(self, now: float) -> set[str]:
        """The session is certainly gone; returns the prefixes that changed."""
        self.sign = None
        return set() if self.table is None else self.table.lost(now)

    def restarted(self) -> None:
        """The engine lives anew."""
        self.sign, self.met = None, False
        if self.table is not None:
            self.table.restarted()

    def adopt(self, routes: Iterable[Route], stale: Mapping[str, float]) -> set[str]:
        """Take over those routes that an earlier process installed for this peer."""
        if self.table is None:
            return set()
        return self.table.adopt((route for route in routes if is_of(route, self.peer)), stale)

    def _settled(self, look: EngineLook, now: float, grace: float) -> bool:
        up = self.session.view.up_since
        return self.state.established and look.age >= grace and up > 0 and now - up >= SETTLED


def _sign(state: PeerState) -> Sign:
    return state.since, state.updates, state.withdraws, state.imported


def is_of(route: Route, peer: Peer) -> bool:
    """Tell whether a route of our protocol is one that was learned from this peer: the delete rule.

    Table, gateway, link and source, and no metric: whatever else carries our number is somebody else's business.
    """
    return (
        (route.table, route.via, route.dev, route.src, route.metric)
        == (peer.table, peer.remote, peer.link, peer.advertise, 0)
        and not route.extra
    )  # fmt: skip


def follow(peer: Peer, judge: Judge, limit: int, now: float, before: Following | None) -> Following:
    """Begin to follow a peer. What was learned from the same peer before stays."""
    table = Learned(judge, limit, peer.keep) if peer.install else None
    if (
        before is not None
        and before.table is not None
        and table is not None
        and same_routes(before.peer, peer)
    ):
        table = before.table
        table.keep = peer.keep
        table.judge = judge
    return Following(peer, Session(now), table)


def same_routes(one: Peer, other: Peer) -> bool:
    """Tell whether routes learned from one peer are those of the other: nothing that they are made of differs."""
    return (one.link, one.remote, one.table, one.advertise) == (
        other.link,
        other.remote,
        other.table,
        other.advertise,
    )
