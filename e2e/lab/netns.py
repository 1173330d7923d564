"""Network namespaces and what is run in them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from e2e.lab.errors import LabError
from e2e.lab.wait import wait_for

if TYPE_CHECKING:
    from typing_extensions import Self

_SEQUENCE = re.compile(r"icmp_seq=(\d+) ttl")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace; the one without a name is the lab's own: the host that runs the agent."""

    name: str = ""

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in here."""
        return ["ip", "netns", "exec", self.name, *command] if self.name else list(command)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit status."""
        return subprocess.run(
            self.argv(command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    def ip(self, command: str) -> str:
        """Run `ip` with these words. Raises LabError if it fails."""
        prefix = ["-netns", self.name] if self.name else []
        done = subprocess.run(
            ["ip", *prefix, *command.split()],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise LabError(f"ip {command} in {self.name or 'host'}: {done.stderr.strip()}")
        return done.stdout

    def batch(self, *commands: str) -> None:
        """Run many `ip` commands as one process. Raises LabError if one fails."""
        prefix = ["-netns", self.name] if self.name else []
        done = subprocess.run(
            ["ip", *prefix, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"ip -batch in {self.name or 'host'}: {done.stderr.strip()}")

    def sysctl(self, name: str, value: int) -> None:
        """Set an IPv4 parameter. Raises LabError."""
        done = self.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}")
        if done.returncode != 0:
            raise LabError(f"net/ipv4/{name} cannot be set in {self.name or 'host'}: {done.stderr.strip()}")

    def json(self, command: str) -> list[dict[str, Any]]:
        """Return what `ip -N -j -d COMMAND` lists; a missing object is an empty list."""
        prefix = ["-netns", self.name] if self.name else []
        done = subprocess.run(
            ["ip", *prefix, "-N", "-d", "-j", *command.split()],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        found = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        return cast("list[dict[str, Any]]", [item for item in found if item])

    def pids(self) -> tuple[int, ...]:
        """Return the processes in here; none in the lab's own, which is everybody's."""
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return tuple(int(pid) for pid in done.stdout.split()) if self.name else ()

    def pings(self, address: str, *options: str) -> bool:
        """Whether one ping is answered within a second."""
        return self.run("ping", "-n", "-c", "1", "-W", "1", *options, address).returncode == 0


class Pinger:
    """A stream of pings, one every `interval` seconds, that remembers which were answered."""

    def __init__(self, namespace: Namespace, address: str, log: Path, interval: float = 0.05) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                namespace.argv(["ping", "-n", "-i", f"{interval:g}", address]),
                stdout=out,
                stdin=subprocess.DEVNULL,
            )

    @property
    def answered(self) -> tuple[int, ...]:
        """The sequence numbers of the answered pings."""
        return tuple(int(number) for number in _SEQUENCE.findall(self._log.read_text()))

    def stop(self) -> tuple[int, ...]:
        """End it; returns the numbers of lost pings (one on its way at the end is not lost)."""
        self._process.terminate()
        self._process.wait()
        answered = self.answered
        return tuple(sorted(set(range(1, max(answered, default=0))) - set(answered)))


class Monitor:
    """Collects what changes in a namespace while the block runs: lines of `ip monitor`, one a change."""

    _PRIORITY = 29999

    def __init__(self, namespace: Namespace, log: Path) -> None:
        self._namespace, self._log, self._marks = namespace, log, 0
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                namespace.argv(["ip", "-o", "monitor", "link", "address", "route", "rule"]),
                stdout=out,
                stdin=subprocess.DEVNULL,
            )

    def __enter__(self) -> Self:
        wait_for("ip monitor listens", lambda: self._seen(self._mark()))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _mark(self) -> str:
        """Make and undo a change of our own: its line in the log tells that everything before it is there too."""
        self._marks += 1
        rule = f"priority {self._PRIORITY} fwmark {self._marks:#x} table {self._PRIORITY}"
        self._namespace.batch(f"rule add {rule}", f"rule del {rule}")
        return f"Deleted {self._PRIORITY}:\tfrom all fwmark {self._marks:#x} "

    def _seen(self, mark: str) -> bool:
        return mark in self._log.read_text()

    def changes(self) -> tuple[str, ...]:
        """Return every change up to now, in order; each is one line."""
        mark = self._mark()
        wait_for("ip monitor has seen everything", lambda: self._seen(mark))
        lines = self._log.read_text().splitlines()
        return tuple(line for line in lines if f"{self._PRIORITY}:" not in line)
