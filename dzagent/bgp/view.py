"""What is known of the engine and its sessions, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dzagent.bgp.engine import Peer
from dzagent.bgp.following import Following
from dzagent.bgp.rules import Refusals, summarize
from dzagent.bgp.session import SessionView
from dzagent.model import ServiceName


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the engine cannot be asked, and since when (unix seconds)."""

    code: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class PeerView:
    """One peer for people: its session, how much was learned from it, and what was refused."""

    peer: Peer
    session: SessionView
    learned: int = 0
    stale: Mapping[str, float] = field(default_factory=dict)
    refused: Refusals = field(default_factory=Refusals)
    unusable: int = 0
    full: bool = False
    updates: int = 0
    withdraws: int = 0


@dataclass(frozen=True, slots=True)
class BgpView:
    """Everything for people. `trouble` is None while the engine answers.

    expected: whether an engine has ever answered on this host; where none has, nobody waits for its sessions.
    """

    peers: Mapping[ServiceName, PeerView] = field(default_factory=dict)
    trouble: Trouble | None = None
    engine: str = ""
    problems: tuple[tuple[str, str], ...] = ()
    expected: bool = True


def peer_view(item: Following) -> PeerView:
    """Show one followed session."""
    table, state = item.table, item.state
    return PeerView(
        item.peer,
        item.session.view,
        0 if table is None else len(table.routes),
        {} if table is None else dict(table.stale),
        Refusals() if table is None else summarize(table.refused),
        state.refused,
        state.full,
        item.totals.updates,
        item.totals.withdraws,
    )
