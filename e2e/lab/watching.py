"""An agent's loop with the real watch in a namespace, on a ledger and a BGP that always say the same.

It runs in a thread of the test or benchmark; where the kernel has no GRE, vxlan stands in for it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from dzagent.bgp.changes import Changes
from dzagent.bgp.joining import Installed, Learned
from dzagent.bgp.view import BgpView
from dzagent.config import Config, Intervals, Paths
from dzagent.desired import DesiredStore
from dzagent.drive import KERNEL
from dzagent.feed import LedgerView
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.kernel.generations import GenerationWatch, open_generations
from dzagent.kernel.host import HostKernel
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.nft import Nft
from dzagent.kernel.run import Completed, Runner, run
from dzagent.kernel.watch import Watch
from dzagent.kernel.watched import WatchedKernel
from dzagent.kernel.watchlines import Touched
from dzagent.model import MAIN_TABLE, Route, ServiceName
from dzagent.parts import Parts
from dzagent.policy import Policy
from dzagent.reconcile import Reconciler
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import find
from dzagent.state import Intent, write_intent
from dzagent.wake import Wake
from dzagent.wishes import Wishes
from e2e.lab.standin import Namespace, namespace
from e2e.lab.wait import wait_for
from tests.service_fakes import CLIENT, EDGE, UserSpec, device, snapshot

SPEC = EDGE
PROTOCOL = 210
_CLONE_NEWNET = 0x40000000


@dataclass
class Feed:
    """A ledger that always says the same."""

    seen: LedgerView = field(default_factory=LedgerView)

    def view(self) -> LedgerView:
        """What it says."""
        return self.seen

    def enable(self, enabled: bool) -> None:
        """Nothing to start."""

    def poke(self) -> None:
        """Nothing to hurry."""


@dataclass
class Bgp:
    """A session that has learned routes, and never learns another."""

    routes: Mapping[str, Route]

    def want(self, wishes: Wishes, installed: Iterable[Route]) -> frozenset[ServiceName]:
        """Every service has its session."""
        del wishes, installed
        return frozenset()

    def learned(self) -> tuple[int, Learned]:
        """Return all of them; a copy, as the real one."""
        return 1, {"unicast": dict(self.routes)}

    def changes(self, since: int) -> Changes | None:
        """Nothing changes."""
        return Changes(1) if since == 1 else None

    def installed(self, routes: Installed) -> None:
        """Nobody to tell."""

    def view(self) -> BgpView:
        """Return nothing for people."""
        return BgpView()


def learned_routes(count: int, table: int = MAIN_TABLE, source: IPv4Address = CLIENT) -> dict[str, Route]:
    """Return /32s of the benchmarking range 198.18.0.0/15, through the tunnel."""
    first, via = int(IPv4Address("198.18.0.1")), IPv4Address("169.254.0.4")
    found = (IPv4Network((first + n, 32)) for n in range(count))
    return {str(dst): Route(dst, via, "doublezero0", table, PROTOCOL, source) for dst in found}


@dataclass
class WatchedAgent:
    """The running loop. `kernel` is the whole of it, `watch` and `generations` its watches, `wake` what wakes it."""

    net: Namespace
    root: Path
    config: Config
    kernel: WatchedKernel
    watch: Watch
    generations: GenerationWatch
    wake: Wake
    loop: Reconciler
    passes: list[float] = field(default_factory=list)
    busy: bool = False
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        inner = self.loop.run_pass

        def counted() -> object:
            began, self.busy = time.perf_counter(), True
            try:
                return inner()
            finally:
                self.busy = False
                self.passes.append(time.perf_counter() - began)

        self.loop.run_pass = counted  # type: ignore[method-assign,assignment] # the benchmark counts passes

    def start(self) -> None:
        """Start it, and wait until nothing is left to do and the watch listens."""
        self.watch.start()
        self.generations.start()
        self._thread.start()
        wait_for("the watch listens and a pass has run", lambda: self.watch.healthy and bool(self.passes), 30)
        self.calm()

    def nft(self, *words: str) -> Completed:
        """Do what somebody else does to nftables."""
        return nft_in(self.net.name)("nft", words)

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """The threads of the agent: the loop, and the one that reads the monitor."""
        return self._thread, self.watch._thread  # noqa: SLF001 - benchmarks look

    def calm(self, seconds: float = 0.3, limit: float = 60) -> None:
        """Wait until no pass has run for a while."""

        def quiet() -> bool:
            before = len(self.passes)
            time.sleep(seconds)
            return len(self.passes) == before and not self.busy

        wait_for("the agent rests", quiet, limit)

    def stop(self) -> None:
        """End the loop; what it made stays."""
        self._stopping.set()
        self.wake.set("stop")
        self._thread.join(30)
        self.generations.stop()
        self.watch.stop()

    def _run(self) -> None:
        self.loop.run(self.wake, self._stopping.is_set)


def nft_in(name: str) -> Runner:
    """Return what runs `nft` in a namespace."""

    def runner(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        return run("ip", ["netns", "exec", name, program, *args], stdin)

    return runner


def in_namespace(name: str) -> socket.socket:
    """Open the socket of generations in a namespace: a thread goes there for a moment. Raises OSError."""
    opened: list[socket.socket | OSError] = []

    def work() -> None:
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            opened.append(open_generations())
        except OSError as error:
            opened.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(opened[0], OSError):
        raise opened[0]
    return opened[0]


def make_agent(
    net: Namespace,
    root: Path,
    routes: Mapping[str, Route],
    spec: UserSpec = SPEC,
    prefixes: tuple[str, ...] = ("148.51.120.0/21",),
    policy: Policy = Policy(),  # noqa: B008 - frozen
    clock: Callable[[], float] = time.monotonic,
) -> WatchedAgent:
    """Put an enabled agent together."""
    config = Config(
        client_ip=CLIENT,
        paths=Paths(root / "state", root / "run"),
        templates=root / "none",
        intervals=Intervals(resync=60),
    )
    config.paths.agent.mkdir(parents=True, exist_ok=True)
    write_intent(config.paths.intent, Intent(True))
    wake = Wake()
    watch = Watch(lambda: wake.set(KERNEL), clock=clock, options=("-netns", net.name))
    generations = GenerationWatch(lambda: watch.note(Touched(tables=True)), lambda: in_namespace(net.name))
    ip = IpRoute(net)
    host = HostKernel(ip, Nft(nft_in(net.name)))
    kernel = WatchedKernel(host, watch, clock, lambda: generations.healthy)
    picture = snapshot(spec, device=device(prefixes=prefixes))
    loop = Reconciler(
        Parts(
            config=config,
            policy=policy,
            kernel=kernel,
            feed=Feed(LedgerView(picture, frozenset({CLIENT}))),
            store=DesiredStore(config.paths),
            templates=Templates((find("templates"),)),
            intent=IntentReader(config.paths.intent),
            probe=HostProbe(config, policy, kernel, clock=clock, ssh_sessions=lambda _: frozenset()),
            reporter=Reporter(config, version="lab", pid=os.getpid(), clock=time.time),
            now=clock,
            bgp=Bgp(routes),
            around=ip,
            watched=kernel,
        )
    )
    return WatchedAgent(net, root, config, kernel, watch, generations, wake, loop)


@contextmanager
def watched_agent(routes: Mapping[str, Route], **options: object) -> Iterator[WatchedAgent]:
    """Run an agent in a namespace of its own. Raises LabError."""
    with (
        namespace(f"dzw{os.getpid()}") as net,
        tempfile.TemporaryDirectory(prefix="dzagent-watch-") as name,
    ):
        agent = make_agent(net, Path(name), routes, **options)  # type: ignore[arg-type] # passed on
        agent.start()
        try:
            yield agent
        finally:
            agent.stop()
