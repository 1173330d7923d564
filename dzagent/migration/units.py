"""doublezerod's systemd unit: kept from starting, killed whole, given back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dzagent.errors import KernelError, MigrationError, StateError
from dzagent.files import write_atomic
from dzagent.kernel.run import Completed, Runner

MASK, DROP_IN = "mask", "drop-in"
"""How a unit is kept from starting: by `systemctl mask`, or, where its file is in /etc, by a drop-in of ours."""

_TEXT: Final = """\
# Written by `dzagent migrate`, removed by `dzagent migrate --undo`: dzagent has taken over from this service.
[Unit]
ConditionPathExists=/run/dzagent/doublezerod-may-run
[Service]
Restart=no
ExecStop=
ExecStopPost=
"""
_FILE: Final = "zz-dzagent-migrated.conf"
_PROPERTIES: Final = ("LoadState", "ActiveState", "UnitFileState", "FragmentPath", "ExecStart")
_ARGV: Final = re.compile(r"argv\[\]=(.*?) ; ")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd has it. load: loaded, masked, not-found; enabled: systemctl's word; command: its arguments."""

    name: str
    load: str = "not-found"
    active: bool = False
    enabled: str = ""
    command: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        """Whether there is such a unit at all."""
        return self.load != "not-found"


class Units(Protocol):
    """The service manager. Every method but `show` may raise MigrationError."""

    def show(self, name: str) -> Unit | None:
        """Return the unit; None where there is no systemd."""

    def hold(self, name: str) -> str:
        """Keep it from starting and from running its stop commands; returns how (MASK or DROP_IN)."""

    def release(self, name: str, how: str) -> None:
        """Undo `hold`."""

    def kill(self, name: str) -> None:
        """SIGKILL to every process of the unit: its clean stop would take the tunnels down."""

    def start(self, name: str) -> None:
        """Start it."""


class Systemd:
    """Implements `Units` by systemctl. `running` and `etc` are systemd's own places."""

    def __init__(
        self,
        runner: Runner,
        running: Path = Path("/run/systemd/system"),
        etc: Path = Path("/etc/systemd/system"),
    ) -> None:
        self._run = runner
        self._running = running
        self._etc = etc

    def show(self, name: str) -> Unit | None:
        """Return the unit; None where systemd does not run or does not answer."""
        if not self._running.is_dir():
            return None
        try:
            done = self._run("systemctl", ["show", name, *(f"--property={p}" for p in _PROPERTIES)])
        except KernelError:
            return None
        if done.code != 0:
            return None
        found = dict(
            line.split("=", 1) for line in done.stdout.decode(errors="replace").splitlines() if "=" in line
        )
        return _unit(name, found)

    def hold(self, name: str) -> str:
        """Mask it, which reloads the manager: from then on it restarts nothing and has no stop commands."""
        done = self._run("systemctl", ["mask", name])
        if done.code == 0:
            return MASK
        if "exists" not in done.message:
            raise MigrationError(f"{name} cannot be masked: {done.message}; nothing has been changed")
        try:
            write_atomic(self._drop_in(name), _TEXT.encode())
        except StateError as error:
            raise MigrationError(f"{name} can neither be masked nor get a drop-in: {error}") from error
        self._do("daemon-reload")
        return DROP_IN

    def release(self, name: str, how: str) -> None:
        """Unmask it, or remove the drop-in."""
        if how == MASK:
            self._do("unmask", name)
        elif how == DROP_IN:
            try:
                self._drop_in(name).unlink(missing_ok=True)
            except OSError as error:
                raise MigrationError(f"{self._drop_in(name)} cannot be removed ({error.strerror})") from error
            self._do("daemon-reload")

    def kill(self, name: str) -> None:
        """Send it; a unit without processes is no error."""
        done = self._run("systemctl", ["kill", "--signal=SIGKILL", name])
        if done.code != 0 and not _is_idle(done):
            raise MigrationError(f"{name} cannot be killed: {done.message}")

    def start(self, name: str) -> None:
        """Start it; a start that failed before is forgotten."""
        self._run("systemctl", ["reset-failed", name])
        self._do("start", name)

    def _do(self, *words: str) -> None:
        done = self._run("systemctl", words)
        if done.code != 0:
            raise MigrationError(f"`systemctl {' '.join(words)}` failed: {done.message}")

    def _drop_in(self, name: str) -> Path:
        return self._etc / f"{name}.d" / _FILE


def _is_idle(done: Completed) -> bool:
    return "No process" in done.message or "not loaded" in done.message


def _unit(name: str, found: Mapping[str, str]) -> Unit:
    command = _ARGV.search(found.get("ExecStart", ""))
    try:
        words = tuple(shlex.split(command[1])) if command else ()
    except ValueError:
        words = ()
    return Unit(
        name,
        found.get("LoadState", "not-found"),
        found.get("ActiveState") in {"active", "activating", "reloading", "deactivating"},
        found.get("UnitFileState", ""),
        words,
    )
