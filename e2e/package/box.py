"""A tree that is booted: a container with its own systemd (`systemd-nspawn`), and commands in it.

It is not registered with this machine's systemd, which may not even have one: a process starts it, and it ends with
that process. Its network is its own. It is entered by `nsenter`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from e2e.lab.errors import LabError
from e2e.lab.wait import SLOW, wait_for
from e2e.package.trees import ENV, Tree, run

BOOT_SECONDS = 60.0
STATES = ("running", "degraded")
"""What `systemctl is-system-running` says after a boot; degraded is one with a failed unit, for tests to name."""


class Box:
    """A booted copy of a tree. `connect` is called with its process 1 as soon as that is there: it may give it links."""

    def __init__(self, tree: Tree, log: Path, connect: Callable[[int], None] = lambda _: None) -> None:
        self.tree, self._log, self._connect = tree, log, connect
        self._process: subprocess.Popen[bytes] | None = None
        self.init = 0
        """Its process 1, as this machine numbers it; 0 while it is off."""

    def start(self) -> None:
        """Boot it, and wait until systemd is done. Raises LabError."""
        command = [
            *("setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit"),
            *("--private-network", "--console=pipe", "--machine=box", "-D", str(self.tree.root), "--boot"),
        ]
        _forget_cgroups()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.init = wait_for("the container's process 1", self._find, BOOT_SECONDS)
        self._connect(self.init)
        try:
            wait_for("the container has booted", self._booted, BOOT_SECONDS)
        except LabError as error:
            jobs = self.run("systemctl", "list-jobs", "--no-pager").stdout
            raise LabError(f"{error}: {jobs}{self._said()}") from None

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _find(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"systemd-nspawn has ended: {self._said()}")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for child in children.read_text().split():
            name = Path(f"/proc/{child}/comm").read_text().strip()
            if (
                name in {"systemd", "init"}
                and run("nsenter", "-t", child, "-a", "--", "true").returncode == 0
            ):
                return int(child)
        return 0

    def _booted(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise LabError("systemd-nspawn has ended while it booted: ")
        return self.run("systemctl", "is-system-running").stdout.strip() in STATES

    def stop(self) -> None:
        """Shut it down as a person does; what does not end then is killed."""
        if self._process is None:
            return
        self.run("systemctl", "poweroff")
        try:
            self._process.wait(45 * SLOW)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process, self.init = None, 0

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in it, as root."""
        words = [f"{name}={value}" for name, value in ENV.items()]
        return ["nsenter", "-t", str(self.init), "-a", "--", "env", "-i", *words, *command]

    def run(self, *command: str, limit: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command in it, whatever its exit status."""
        return run(*self.argv(command), limit=limit * SLOW)

    def must(self, *command: str, limit: float = 120.0) -> str:
        """Run a command in it; returns what it writes. Raises LabError if it fails."""
        done = self.run(*command, limit=limit)
        if done.returncode != 0:
            raise LabError(f"'{' '.join(command)}' failed: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout + done.stderr

    def as_user(self, user: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it as a user, with the groups that the user has."""
        return self.run("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command)

    # ---- units ---------------------------------------------------------------------------------------------

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def active(self, unit: str) -> bool:
        """Whether a unit is active now."""
        return self.show(unit, "ActiveState") == "active"

    def main_pid(self, unit: str) -> int:
        """Return the main process of a unit as the container numbers it, 0 if it has none."""
        return int(self.show(unit, "MainPID") or 0)

    def pids(self, unit: str) -> tuple[int, ...]:
        """Return all processes of a unit, as the container numbers them."""
        found = self.run("sh", "-c", f"grep -l '/{unit}$' /proc/[0-9]*/cgroup").stdout.split()
        return tuple(int(path.split("/")[2]) for path in found)

    def journal(self, *options: str) -> str:
        """Return what its journal holds."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", *options).stdout

    def host(self) -> Host:
        """Return it as testinfra sees a host."""
        return Host(_Entered(self))


def _forget_cgroups() -> None:
    """Remove what a container that has ended left behind: a cgroup that hands controllers on takes in no process."""
    for hierarchy in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        for folder, _, _ in os.walk(f"{hierarchy}/payload", topdown=False):
            with suppress(OSError):  # somebody lives there
                Path(folder).rmdir()


class _Entered(BaseBackend):  # type: ignore[misc] # testinfra is not typed for strict use
    """Testinfra's way into the container."""

    NAME = "nsenter"

    def __init__(self, box: Box, **options: Any) -> None:
        super().__init__("box", **options)
        self._box = box

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run a shell command in the container."""
        text = self.get_command(command, *args)
        return self.run_local(shlex.join(self._box.argv(["/bin/sh", "-c", text])))
