"""The running agent: puts the parts together and runs the loop. No listening socket; the only writer of the kernel."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType

from dzagent import __version__
from dzagent.bgp.bird import Bird, BirdFiles
from dzagent.bgp.exclude import PolicyList
from dzagent.bgp.service import Bgp
from dzagent.bgp.speaker import Clocks
from dzagent.bootclock import boot_seconds
from dzagent.config import Config
from dzagent.desired import DesiredStore
from dzagent.drive import KERNEL
from dzagent.errors import StateError
from dzagent.foreign.firststart import take_over
from dzagent.foreign.record import boot_id
from dzagent.foreign.sight import Eyes, ForeignWatch
from dzagent.foreign.turns import Turns
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.journal import Journal, here
from dzagent.kernel.generations import GenerationWatch
from dzagent.kernel.host import HostKernel
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.nft import TIMEOUT, Nft
from dzagent.kernel.run import Completed, Runner, run
from dzagent.kernel.watch import Watch
from dzagent.kernel.watched import WatchedKernel
from dzagent.kernel.watchlines import Touched
from dzagent.ledgerside import LedgerSide
from dzagent.maintain import policy_places
from dzagent.marks import ownership, write_marks
from dzagent.notify import Pulse
from dzagent.outside import Outside
from dzagent.ownership import Ownership
from dzagent.parts import Parts
from dzagent.policyfiles import PolicyFiles, loader
from dzagent.reconcile import Reconciler
from dzagent.remembered import RememberedIp
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import places
from dzagent.suspects import running_managers
from dzagent.wake import Wake, WakeSocket

log = logging.getLogger(__name__)


class Life:
    """What a process keeps while a new policy replaces everything else in it."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError if there is no policy to use."""
        self.stopping = threading.Event()
        self.policies = PolicyFiles(loader(config.policy, policy_places()), config.paths.last_policy)


class Daemon:
    """The running agent: one loop, one thread that polls the ledger, one that watches BGP, one wake socket."""

    def __init__(
        self,
        config: Config,
        pulse: Pulse | None = None,
        helper: Callable[[], None] | None = None,
        life: Life | None = None,
    ) -> None:
        """helper: starts what undoes an unconfirmed change if this process dies; None where something else does."""
        self._config = config
        self._pulse = pulse or Pulse()
        life = life or Life(config)
        self._stopping, self._policies = life.stopping, life.policies
        self._renewed = False
        self.wake = Wake()
        policy = self._policies.take()
        templates = Templates([config.templates, *places("templates")])
        self._marks = ownership(config, policy)
        runner = partial(beating, beat=self._pulse.beat)
        ip = IpRoute(runner(run))
        host = HostKernel(ip, Nft(runner(partial(run, timeout=TIMEOUT))))
        self._watch = Watch(lambda: self.wake.set(KERNEL), clock=time.monotonic)
        self._generations = GenerationWatch(lambda: self._watch.note(Touched(tables=True)))
        kernel = WatchedKernel(host, self._watch, time.monotonic, lambda: self._generations.healthy)
        self._probe = HostProbe(
            config,
            policy,
            kernel,
            clock=time.monotonic,
            outside=_outside(config, self.wake),
            remembered=RememberedIp(config.paths.client_ip),
        )
        self._ledger = LedgerSide(
            config,
            policy,
            candidates=self._probe.candidates,
            on_news=lambda: self.wake.set("ledger"),
        )
        self._feed = self._ledger.feed
        self._socket = WakeSocket(config.paths.wake, self.wake)
        self._bgp = Bgp(
            Bird(BirdFiles(config.paths.engine, config.paths.sessions, policy.bgp.port), templates),
            policy,
            config.paths,
            policy_list=PolicyList(self._policies),
            clocks=Clocks(time.time, time.monotonic),
            on_change=self.wake.set,
        )
        watch = ForeignWatch(Eyes(config.doublezerod, socket=not config.compat_socket), time.monotonic)
        turns = Turns(config.paths, watch, boot_id())
        self._reconciler = Reconciler(
            Parts(
                config=config,
                policy=policy,
                kernel=kernel,
                feed=self._feed,
                store=DesiredStore(config.paths),
                templates=templates,
                intent=IntentReader(config.paths.intent),
                probe=self._probe,
                reporter=Reporter(config, version=__version__, pid=os.getpid(), clock=time.time),
                now=boot_seconds,
                bgp=self._bgp,
                turn=turns.turn,
                taken_over=take_over(config.paths, config.doublezerod, time.time),
                helper=helper,
                watched=kernel,
                pulse=self._pulse,
                journal=Journal(config.paths.journal, here()),
                managers=running_managers,
                around=ip,
            )
        )

    def run(self) -> bool:
        """Run until SIGTERM or SIGINT, or a new policy (true). Tunnels, routes and rules stay: stop is not disable."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        _record(self._config, self._marks)
        self._socket.start()
        self._watch.start()
        self._generations.start()
        self._ledger.start()
        self._bgp.start()
        for remark in self._config.remarks:
            log.warning("%s", remark)
        log.info(
            "dzagentd %s started: network %s, mode %s", __version__, self._config.network, self._config.apply
        )
        try:
            self._reconciler.run(self.wake, self._ends)
        finally:
            if not self._renewed:
                self._pulse.stopping()
            self._generations.stop()
            self._watch.stop()
            self._bgp.stop()
            self._ledger.stop()
            self._socket.stop()
        if not self._renewed:
            log.info("dzagentd stopped; what it set up stays in place")
        return self._renewed

    def _ends(self) -> bool:
        """Whether the loop ends: for good, or for another policy, which everything is made anew from."""
        self._renewed = not self._stopping.is_set() and self._policies.renewed
        return self._renewed or self._stopping.is_set()

    def _reload(self, _signal: int, _frame: FrameType | None) -> None:
        self._policies.again()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()
        self.wake.set("stop")


def beating(runner: Runner, beat: Callable[[], None]) -> Runner:
    """Return a runner that beats after every program: a pass of many steps is slow, and alive."""

    def run_and_beat(program: str, args: Sequence[str], stdin: str = "") -> Completed:
        try:
            return runner(program, args, stdin)
        finally:
            beat()

    return run_and_beat


def _record(config: Config, owner: Ownership) -> None:
    """Keep the marks for a teardown whose configuration is another; without it the configuration has to do."""
    try:
        write_marks(config, owner)
    except StateError as error:
        log.warning("%s", error)


def _outside(config: Config, wake: Wake) -> Outside | None:
    """Return who is asked for this host's address where nothing nearer tells it."""
    if not config.outside_lookup:
        return None
    return Outside(config.outside_lookup, clock=time.monotonic, on_news=lambda: wake.set("client-ip"))
