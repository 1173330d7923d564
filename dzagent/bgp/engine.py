"""What dzagent needs from a BGP engine. Implemented by `bird.Bird`, and by fakes in the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Protocol, TypeAlias

from dzagent.model import ServiceName

Rib: TypeAlias = Mapping[str, str]
"""What a peer announces: prefix text such as "198.51.100.7/32" -> next hop and link, "169.254.0.0 on doublezero0".

Texts, not objects: a table is read at every change, and only what differs from the last one is looked at closely.
"""

NO_NEXT_HOP = ""
"""The next hop of a route that the engine cannot reach."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One wanted session. `advertise` is the address announced as a /32; None for a subscriber.

    install: whether what the peer announces becomes kernel routes (table, source `advertise`); a multicast
    service has a session only. keep: whether routes outlive a withdraw and the session (IBRLWithAllocatedIP).
    """

    service: ServiceName
    link: str
    local: IPv4Address
    remote: IPv4Address
    local_asn: int
    remote_asn: int
    router_id: IPv4Address
    advertise: IPv4Address | None
    table: int
    install: bool = True
    keep: bool = False


@dataclass(frozen=True, slots=True)
class PeerState:
    """A session as the engine tells it.

    state: the FSM's word (RFC 4271: Idle, Connect, Active, OpenSent, OpenConfirm, Established; Down: given up).
    since: the engine's text of the last change; another text is another life of the session. error: its words
    for the last failure, "" if none. retry: seconds until it tries again, None if it does not say.
    updates, withdraws, refused: counters of this session; `refused` are updates that the engine itself could not
    use. imported: routes held. full: the import limit is reached, more is dropped.
    """

    state: str
    since: str = ""
    error: str = ""
    retry: float | None = None
    updates: int = 0
    withdraws: int = 0
    refused: int = 0
    imported: int = 0
    full: bool = False

    @property
    def established(self) -> bool:
        return self.state == "Established"


@dataclass(frozen=True, slots=True)
class EngineLook:
    """One look at the engine: its life (another text is another life) and its sessions.

    age: seconds since it was started.
    """

    life: str
    version: str
    age: float
    peers: Mapping[ServiceName, PeerState] = field(default_factory=dict)


class Engine(Protocol):
    """A running BGP engine. Every method may raise EngineError; all are bounded in time and size."""

    def look(self) -> EngineLook:
        """Read the state of all sessions: cheap, since it is done several times a second."""

    def rib(self, service: ServiceName) -> Rib:
        """Read everything that the peer of this service announces now."""

    def configure(self, peers: Mapping[ServiceName, Peer], limit: int) -> bool:
        """Make the engine hold exactly these sessions; others than changed ones never flap.

        limit: routes accepted from one peer. Returns whether anything had to be changed.
        """

    def revive(self, service: ServiceName) -> None:
        """Start a session again that the engine has given up."""

    def refresh(self, service: ServiceName) -> None:
        """Ask the peer for all its routes again."""

    def close(self) -> None:
        """Let go of the engine; it runs on."""
