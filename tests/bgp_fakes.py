"""An engine in memory, a control socket that says what a test says, and times that pass when told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from dzagent.bgp.engine import EngineLook, Peer, PeerState, Rib
from dzagent.bgp.speaker import Clocks
from dzagent.errors import DzagentError
from dzagent.model import ServiceName

PEER = Peer(
    "unicast",
    "doublezero0",
    IPv4Address("169.254.0.5"),
    IPv4Address("169.254.0.4"),
    65000,
    65342,
    IPv4Address("198.51.100.7"),
    IPv4Address("198.51.100.7"),
    254,
)
VIA = "169.254.0.4 on doublezero0"
ACTIVE = PeerState("Active", "t0", "Socket: Connection refused", 0.9)


def rib(*hosts: int) -> dict[str, str]:
    """Return an announcement of 198.18.0.N/32 for each N."""
    return {f"198.18.0.{n}/32": VIA for n in hosts}


@dataclass
class Time:
    """Unix time and monotonic seconds, moving together."""

    wall: float = 1_800_000_000.0
    mono: float = 1_000.0

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.mono += seconds

    @property
    def clocks(self) -> Clocks:
        """Return both clocks."""
        return Clocks(lambda: self.wall, lambda: self.mono)


@dataclass
class FakeEngine:
    """Implements `Engine`; `announce` makes the session established with exactly these routes."""

    time: Time
    life: str = "boot 1"
    booted: float = 0.0
    peers: dict[ServiceName, PeerState] = field(default_factory=dict)
    ribs: dict[ServiceName, Rib] = field(default_factory=dict)
    error: DzagentError | None = None
    rib_error: DzagentError | None = None
    refuses: DzagentError | None = None
    configured: list[Mapping[ServiceName, Peer]] = field(default_factory=list)
    dumps: int = 0
    revived: list[ServiceName] = field(default_factory=list)
    refreshed: list[ServiceName] = field(default_factory=list)
    updates: int = 0

    def announce(self, routes: Rib, *, since: str = "up 1", full: bool = False) -> None:
        """Say what the peer announces now."""
        self.updates += 1
        self.ribs["unicast"] = dict(routes)
        state = PeerState("Established", since, updates=self.updates, imported=len(routes), full=full)
        self.peers["unicast"] = state

    def down(self, state: PeerState = ACTIVE) -> None:
        """Lose the session."""
        self.peers["unicast"] = state
        self.ribs.pop("unicast", None)

    def restart(self) -> None:
        """Be another process."""
        self.life, self.booted = self.life + "'", self.time.mono
        self.down(PeerState("Idle", "new"))

    # ---- Engine ----------------------------------------------------------------------------------------

    def look(self) -> EngineLook:
        if self.error is not None:
            raise self.error
        return EngineLook(self.life, "2.0.12", self.time.mono - self.booted, dict(self.peers))

    def rib(self, service: ServiceName) -> Rib:
        if self.rib_error is not None:
            raise self.rib_error
        self.dumps += 1
        return self.ribs.get(service, {})

    def configure(self, peers: Mapping[ServiceName, Peer], limit: int) -> bool:
        del limit
        if self.refuses is not None:
            raise self.refuses
        self.configured.append(dict(peers))
        return True

    def revive(self, service: ServiceName) -> None:
        self.revived.append(service)

    def refresh(self, service: ServiceName) -> None:
        self.refreshed.append(service)

    def close(self) -> None:
        pass


class FakeSocket:
    """A control socket: answers by command; None as an answer hangs up, and what is not known is refused."""

    def __init__(
        self, path: Path, answers: Mapping[str, bytes | None], banner: bytes = b"0001 BIRD 2.0.12 ready.\n"
    ) -> None:
        self.asked: list[str] = []
        self._answers, self._banner = answers, banner
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client:
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        client.sendall(self._banner)
        try:
            while data := client.recv(4096):
                command = data.decode().strip()
                self.asked.append(command)
                answer = self._answers.get(command, b"9001 syntax error\n")
                if answer is None:
                    return
                client.sendall(answer)
        except OSError:
            return

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(timeout=5)
