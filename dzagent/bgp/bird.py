"""BIRD 2 or 3 as the engine: its control socket, and the services file that it includes.

The engine is not our child: dzagent-bird.service (or whoever supervises it) runs packaging/dzagent-bird. We write
the file, let `bird -p` check it before it takes the place of the last good one, and say `configure`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dzagent.bgp.birdtext import read_boot, read_peers, read_routes
from dzagent.bgp.control import ControlSocket
from dzagent.bgp.engine import EngineLook, Peer, PeerState, Rib
from dzagent.bgp.render import render_services
from dzagent.errors import EngineError, EngineRefused, KernelError, StateError
from dzagent.files import write_atomic
from dzagent.kernel.run import Runner, run
from dzagent.model import SERVICE_NAMES, ServiceName
from dzagent.render import Templates

OLDEST: Final = (2, 0, 7)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_LOOK: Final = 'show protocols all "dz_*"'
_ALWAYS: Final = "protocol device dz_device { }\n"
_NAMES: Final[Mapping[str, ServiceName]] = {f"dz_{name}": name for name in SERVICE_NAMES}


@dataclass(frozen=True, slots=True)
class BirdFiles:
    """Where things are. services: what the engine includes. port: where it listens, on overlay addresses only."""

    socket: Path
    services: Path
    port: int = 11179

    @property
    def candidate(self) -> Path:
        """The next services file, until it is checked."""
        return self.services.with_suffix(".candidate")


class Bird:
    """Implements `Engine`."""

    def __init__(
        self,
        files: BirdFiles,
        templates: Templates,
        *,
        runner: Runner = run,
        control: ControlSocket | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._templates = templates
        self._run = runner
        self._control = control or ControlSocket(files.socket)
        self._now = monotonic
        self._seen = 0
        self._life, self._boot = "", 0.0
        self._told: str | None = None

    def look(self) -> EngineLook:
        """Read the state of all sessions."""
        text = self._command(_LOOK)
        if self._seen != self._control.connections:
            self._meet()
        peers = read_peers(text)
        known = {_NAMES[name]: state for name, state in peers.items() if name in _NAMES}
        return EngineLook(self._life, self._control.version, self._now() - self._boot, known)

    def _command(self, text: str) -> str:
        try:
            return self._control.command(text)
        except EngineRefused as error:
            if "No protocols match" in str(error):
                raise EngineError(
                    f"the BIRD on {self._files.socket} is not dzagent's: it has no session dz_device"
                ) from error
            raise

    def _meet(self) -> None:
        """Look who it is that answers on a new connection."""
        version = self._control.version
        match = _VERSION.match(version)
        if match is None or tuple(int(part or 0) for part in match.groups()) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise EngineError(f"BIRD {version} is too old: dzagent needs {oldest} or later")
        life, age = read_boot(self._control.command("show status"))
        if life != self._life:
            self._life, self._boot = life, self._now() - age
            self._told = None
        self._seen = self._control.connections

    def rib(self, service: ServiceName) -> Rib:
        """Read everything that the peer of this service announces now."""
        return read_routes(self._control.command(f"show route table dzt_{service} protocol dz_{service}"))

    def configure(self, peers: Mapping[ServiceName, Peer], limit: int) -> bool:
        """Make the engine hold exactly these sessions; returns whether it had to be told.

        Raises EngineError if the check or the engine says no (the last good file stays), if BIRD is not
        installed, or if the file cannot be written; TemplateError if it cannot be rendered.
        """
        wanted = [peers[name] for name in SERVICE_NAMES if name in peers]
        text = render_services(wanted, self._templates, port=self._files.port, limit=limit)
        if text == self._told:
            return False
        before = self._read()
        if text != before:
            self._check(text)
            self._write(self._files.services, text)
        try:
            self._control.command("configure")
        except EngineRefused:
            if before is not None and text != before:
                self._write(self._files.services, before)
            raise
        self._told = text
        return True

    def _read(self) -> str | None:
        try:
            return self._files.services.read_text(encoding="ascii", errors="replace")
        except OSError:
            return None

    def _check(self, text: str) -> None:
        # a file without any protocol is an error for `bird -p`; the base configuration has this one
        self._write(self._files.candidate, f"{text}\n{_ALWAYS}")
        try:
            done = self._run("bird", ["-p", "-c", str(self._files.candidate)])
        except KernelError as error:
            raise EngineError(str(error)) from error
        finally:
            self._files.candidate.unlink(missing_ok=True)
        if done.code != 0:
            raise EngineRefused(
                f"`bird -p` refuses the rendered sessions; the last good ones stay: {done.message}"
            )

    @staticmethod
    def _write(path: Path, text: str) -> None:
        try:
            write_atomic(path, text.encode("ascii"), mode=0o640)
        except (StateError, UnicodeEncodeError) as error:
            raise EngineError(f"the sessions cannot be written: {error}") from error

    def revive(self, service: ServiceName) -> None:
        """Start a session again that the engine has given up, such as one whose port was taken."""
        self._control.command(f"enable dz_{service}")

    def refresh(self, service: ServiceName) -> None:
        """Ask the peer for all its routes again."""
        self._control.command(f"reload in dz_{service}")

    def close(self) -> None:
        """Let go of the engine; it runs on."""
        self._control.close()


def absent(state: PeerState | None) -> PeerState:
    """A session that the engine does not show is one that it does not have."""
    return state or PeerState("Down")
