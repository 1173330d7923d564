"""Whether doublezerod runs in this network namespace: seen in its unit's cgroup, in /proc, or at its socket.

No program is started. Each kind of evidence covers what hides from the others: a hardened unit may not see other
users' processes (ProtectProc=), a container has no unit, and a renamed binary still listens.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dzagent.config import Doublezerod

NAME: Final = "doublezerod"
"""The name of its process (comm), which is that of its program file."""

_COMM: Final = NAME.encode() + b"\n"

LOOK_SECONDS: Final = 5.0
"""How long "not seen" is good for; what was seen is looked at again in every pass, so that it heals at once."""

_CAP_NET_ADMIN: Final = 12
"""linux/capability.h."""
_LISTENS: Final = 0x10000
"""__SO_ACCEPTCON of the flags in /proc/net/unix."""
_CAPABILITIES: Final = re.compile(r"^CapEff:\s*([0-9a-fA-F]+)$", re.MULTILINE)
_STATE: Final = re.compile(r"^State:\s*(\S)", re.MULTILINE)
_CGROUPS: Final = ("system.slice", "systemd/system.slice", "unified/system.slice")
"""Where the cgroup of a service is: unified, legacy and hybrid hierarchies."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A doublezerod that runs. `pid` is None where only its unit or its socket was seen; `how` is for people."""

    how: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Eyes:
    """Where to look. `socket` is False where the agent's own API answers at that socket."""

    places: Doublezerod
    socket: bool = True
    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def look(self) -> Sighting | None:
        """Return the first sighting, None if there is none."""
        for pid in self.processes():
            return Sighting(f"process {pid}", pid)
        if self._unit_is_populated():
            return Sighting(f"unit {self.places.unit}")
        if self.socket and self._listens():
            return Sighting(f"it listens on {self.places.socket}")
        return None

    def processes(self) -> Iterator[int]:
        """Yield the processes of that name that could change this network namespace."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.proc):  # noqa: PTH208 - names are enough, and there are hundreds
                if name.isdecimal() and self.is_one(int(name)):
                    yield int(name)

    def is_one(self, pid: int) -> bool:
        """Tell whether a process is a doublezerod of this network namespace, as far as can be seen.

        Anybody may call a process so: without CAP_NET_ADMIN over this namespace it is no doublezerod.
        """
        if not self._is_called_so(pid):
            return False
        directory = self.proc / str(pid)
        try:
            status = (directory / "status").read_text(errors="replace")
            same_users = (directory / "uid_map").read_bytes() == (self.proc / "self/uid_map").read_bytes()
        except OSError:
            return False
        return same_users and _lives(status) and _may_administer(status) and self._same_network(directory)

    def _is_called_so(self, pid: int) -> bool:
        """Look at the name alone: of hundreds of processes nothing more is read, and in the cheapest way."""
        try:
            descriptor = os.open(f"{self.proc}/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.read(descriptor, 64) == _COMM
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _same_network(self, directory: Path) -> bool:
        """Tell whether it has our network namespace; where that may not be seen, it has."""
        try:
            return (directory / "ns/net").readlink() == (self.proc / "self/ns/net").readlink()
        except OSError:
            return True

    def _unit_is_populated(self) -> bool:
        """Tell whether the unit has processes: what is not to be found has none."""
        for place in _CGROUPS:
            directory = self.cgroups / place / self.places.unit
            with contextlib.suppress(OSError):
                if "populated 1" in (directory / "cgroup.events").read_text():
                    return True
            with contextlib.suppress(OSError):
                if (directory / "cgroup.procs").read_text().strip():
                    return True
        return False

    def _listens(self) -> bool:
        """Tell whether somebody listens on its socket; the name alone, which any namespace can use, is not enough."""
        path = str(self.places.socket)
        names = {path, f"/var{path}"} if path.startswith("/run/") else {path}
        try:
            if not stat.S_ISSOCK(self.places.socket.stat().st_mode):
                return False
            text = (self.proc / "net/unix").read_text(errors="replace")
        except OSError:
            return False
        return any(_listening_name(line) in names for line in text.splitlines())


def _lives(status: str) -> bool:
    state = _STATE.search(status)
    return state is not None and state[1] not in {"Z", "X"}


def _may_administer(status: str) -> bool:
    capabilities = _CAPABILITIES.search(status)
    return capabilities is not None and bool(int(capabilities[1], 16) >> _CAP_NET_ADMIN & 1)


def _listening_name(line: str) -> str:
    """Return the path of a line of /proc/net/unix, "" if nobody listens there."""
    fields = line.split(maxsplit=7)
    if len(fields) < 8:
        return ""
    try:
        listens = int(fields[3], 16) & _LISTENS
    except ValueError:
        return ""
    return fields[7] if listens else ""


class ForeignWatch:
    """Looks rarely, remembers what was seen; `clock` gives monotonic seconds."""

    def __init__(self, eyes: Eyes, clock: Callable[[], float]) -> None:
        self._eyes = eyes
        self._clock = clock
        self._seen: Sighting | None = None
        self._looked_at: float | None = None

    def look(self) -> Sighting | None:
        """Return the sighting of now, or of the last LOOK_SECONDS."""
        now = self._clock()
        if self._seen is not None:
            if self._seen.pid is None or not self._eyes.is_one(self._seen.pid):
                self._seen = self._eyes.look()
            self._looked_at = now
        elif self._looked_at is None or now - self._looked_at >= LOOK_SECONDS:
            self._seen, self._looked_at = self._eyes.look(), now
        return self._seen
