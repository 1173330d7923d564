"""A host and a device in namespaces of the running kernel, for BGP with the device's real timers.

The tunnel is GRE where the kernel has it, else vxlan stands in for it. The agent's loop is the real one, on a ledger
that always says the same; engine and agent are processes of their own, which tests kill.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dzagent.kernel.run import run
from e2e.lab.enter import ROOT
from e2e.lab.errors import LabError
from e2e.lab.netns import Namespace
from e2e.lab.processes import Process
from e2e.lab.routers import KINDS, Neighbour, Router
from e2e.lab.standin import Namespace as StandIn
from e2e.lab.wait import wait_for

CLIENT_IP, GATEWAY, DEVICE_IP = "198.51.100.7", "198.51.100.1", "192.0.2.1"
LOCAL, REMOTE = "169.254.0.5", "169.254.0.4"
LINK = "doublezero0"


@dataclass
class BgpLab:
    """The namespaces, the engine, the device and the agent."""

    name: str
    root: Path
    kind: str = "IBRL"
    dz_ip: str = CLIENT_IP
    router_kind: str = "bird"
    policy: str = ""
    user: str = "nobody"
    engine: Process = field(init=False)
    agent: Process = field(init=False)
    router: Router = field(init=False)

    def __post_init__(self) -> None:
        self.host, self.device = Namespace(f"{self.name}h"), Namespace(f"{self.name}d")
        self.stand_in = StandIn(self.host.name)
        (self.root / "policy.yaml").write_text(self.policy)
        launcher = [str(ROOT / "packaging/dzagent-bird"), "--state", str(self.root / "state")]
        launcher += ["--run", str(self.root / "run"), "--user", self.user]
        self.engine = Process("engine", self.host, launcher, self.root / "engine.log")
        agent = [
            sys.executable,
            "-m",
            "e2e.lab.bgpagent",
            str(self.root),
            self.host.name,
            self.kind,
            self.dz_ip,
        ]
        self.agent = Process("agent", Namespace(), agent, self.root / "agent.log")
        self.router = KINDS[self.router_kind](self.device, self.root / "device")

    # ---- making it -----------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the namespaces and connect them. Raises LabError."""
        for namespace in (self.host, self.device):
            Namespace().ip(f"netns add {namespace.name}")
        self.host.batch(
            "link set lo up",
            f"link add eth0 type veth peer name eth0 netns {self.device.name}",
            "link set eth0 up",
            f"addr add {CLIENT_IP}/24 dev eth0",
            f"route add default via {GATEWAY}",
        )
        self.device.batch(
            "link set lo up",
            f"addr add {DEVICE_IP}/32 dev lo",
            "link set eth0 up",
            f"addr add {GATEWAY}/24 dev eth0",
        )
        self.stand_in.gre = run("ip", [*f"-netns {self.host.name} link add probe0 type gre local 192.0.2.8 remote 192.0.2.9".split()]).code == 0  # fmt: skip
        if self.stand_in.gre:
            self.host.ip("link delete probe0")
        self.tunnel()

    def tunnel(self) -> None:
        """Make the device's end of the tunnel."""
        kind = "gre" if self.stand_in.gre else "vxlan id 1 dstport 4789"
        self.device.batch(
            f"link add user0 type {kind} local {DEVICE_IP} remote {CLIENT_IP} ttl 64",
            f"addr add {REMOTE}/31 dev user0",
            "link set user0 mtu 1400 up",
        )

    def remove(self) -> None:
        """End everything."""
        for process in (self.agent, self.engine, self.router.process):
            if process.running:
                process.send(signal.SIGKILL)
        for namespace in (self.host, self.device):
            for pid in namespace.pids():
                os.kill(pid, signal.SIGKILL)
            Namespace().run("ip", "netns", "delete", namespace.name)

    def host_process(self, name: str, command: Sequence[str]) -> Process:
        """Return another process of the host."""
        return Process(name, self.host, command, self.root / f"{name}.log")

    def neighbour(self, announce: Sequence[str] = (), **changes: Any) -> Neighbour:
        """Return the host as the device sees it."""
        return Neighbour("host", "user0", REMOTE, LOCAL, self.dz_ip, tuple(announce), **changes)

    def start(self, announce: Sequence[str] = (), *, agent: bool = True) -> None:
        """Start device, engine and agent, and wait for the session."""
        self.router.start([self.neighbour()], announce)
        self.engine.start()
        if agent:
            self.agent.start()
            self.up()

    # ---- looking at it -------------------------------------------------------------------------------------

    def document(self, name: str) -> dict[str, Any]:
        """Return what the agent publishes, {} if it has not."""
        try:
            found = json.loads((self.root / "run" / "agent" / name).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def session(self) -> dict[str, Any]:
        """Return the unicast session as status has it."""
        services = self.document("status.json").get("services", [])
        return dict(next((s["session"] for s in services if s["name"] == "unicast"), {}))

    def condition(self, kind: str) -> tuple[str, str]:
        """Return (status, reason) of a condition."""
        found = self.document("status.json").get("conditions", [])
        return next(((c["status"], c["reason"]) for c in found if c["type"] == kind), ("", ""))

    def codes(self) -> set[str]:
        """Return the codes of all problems."""
        return {problem["code"] for problem in self.document("status.json").get("problems", [])}

    def up(self, limit: float = 20) -> None:
        """Wait until the session is up. Raises LabError."""
        self.until("the session is up", lambda: self.session().get("status") == "BGP Session Up", limit)

    def until(self, what: str, look: Callable[[], object], limit: float = 10) -> float:
        """Wait for something; returns the seconds that it took. Raises LabError with what the agent says."""
        began = time.monotonic()
        try:
            wait_for(what, look, limit)
        except LabError as error:
            said = "\n".join(self.agent.said.splitlines()[-15:])
            raise LabError(
                f"{error}\n{self.document('status.json')}\n{said}\n{self.engine.said[-1500:]}\n{self.router.process.said[-1500:]}"
            ) from None
        return time.monotonic() - began

    def routes(self, table: str = "254") -> set[str]:
        """Return the destinations of our protocol in a table of the host."""
        listed = self.host.json(f"-4 route show table {table} proto 210")
        return {item["dst"] for item in listed}

    def count_of(self, start: str) -> int:
        """Return how many routes of the host's main table begin like this: fast, for many."""
        done = run("ip", ["-netns", self.host.name, "-4", "route", "show", "table", "main"])
        return done.stdout.count(b"\n" + start.encode()) + done.stdout.startswith(start.encode())


def missing() -> str | None:
    """Say why this lab cannot be made here, None if it can."""
    if os.geteuid() != 0 or run("ip", ["netns", "list"]).code != 0:
        return "Run as root, where `ip netns add` works."
    for program in ("bird", "birdc", "setpriv"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"{program} is not installed: e2e/lab/setup bgp does that."
    return None


@contextmanager
def bgp_lab(**options: Any) -> Iterator[BgpLab]:
    """Make the namespaces. Raises LabError where that is not possible."""
    why = missing()
    if why is not None:
        raise LabError(why)
    root = Path(tempfile.mkdtemp(prefix="dzagent-bgp-"))
    root.chmod(0o755)
    lab = BgpLab(f"dzb{os.getpid()}", root, **options)
    try:
        lab.build()
        yield lab
    finally:
        lab.remove()
        shutil.rmtree(root, ignore_errors=True)


def prefixes(count: int, first: int = 0) -> Iterable[str]:
    """Return /32s of the benchmarking range 198.18.0.0/15."""
    return [f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}/32" for n in range(first, first + count)]
