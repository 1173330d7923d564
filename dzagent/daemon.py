"""dzagentd: puts the parts together and runs the loop. It has no listening socket and is the only writer."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import click

from dzagent import __version__
from dzagent.age import boot_seconds
from dzagent.bgp.bird import Bird, BirdFiles
from dzagent.bgp.service import Bgp
from dzagent.bgp.speaker import Clocks
from dzagent.checkpoint import CheckpointFile, UndoneFile
from dzagent.config import DEFAULT_CONFIG, Config
from dzagent.configfile import load_config
from dzagent.desired import DesiredStore
from dzagent.drive import KERNEL
from dzagent.errors import DzagentError, StateError
from dzagent.foreign.firststart import take_over
from dzagent.foreign.record import boot_id
from dzagent.foreign.sight import Eyes, ForeignWatch
from dzagent.foreign.turns import Turns
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.journal import Journal, here
from dzagent.kernel.detached import detach, reap
from dzagent.kernel.generations import GenerationWatch
from dzagent.kernel.host import HostKernel
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.nft import TIMEOUT, Nft
from dzagent.kernel.run import Completed, Runner, run
from dzagent.kernel.watch import Watch
from dzagent.kernel.watched import WatchedKernel
from dzagent.kernel.watchlines import Touched
from dzagent.ledgerside import LedgerSide
from dzagent.maintain import check_files, remove_all
from dzagent.marks import ownership, write_marks
from dzagent.model import SERVICE_NAMES
from dzagent.notify import Pulse, pulse_of
from dzagent.outside import Outside
from dzagent.ownership import Ownership
from dzagent.parts import Parts
from dzagent.policy import SITE_POLICIES, find_policy, load_policy
from dzagent.reconcile import Reconciler
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.rollback import Rollback
from dzagent.share import places
from dzagent.suspects import running_managers
from dzagent.wake import Wake, WakeSocket

log = logging.getLogger(__name__)

GC_THRESHOLD = (50_000, 20, 50)
"""Thousands of routes are hundreds of thousands of objects without a cycle: looking for one too often costs more."""

LOCK_SECONDS, LOCK_STEP = 1.0, 0.05
"""How long, and how often, the reconciler's lock is tried."""


class Daemon:
    """The running agent: one loop, one thread that polls the ledger, one that watches BGP, one wake socket."""

    def __init__(
        self, config: Config, pulse: Pulse | None = None, helper: Callable[[], None] | None = None
    ) -> None:
        """helper: starts what undoes an unconfirmed change if this process dies; None where something else does."""
        self._config = config
        self._pulse = pulse or Pulse()
        self._stopping = threading.Event()
        self.wake = Wake()
        policy_file = find_policy(config.policy, (SITE_POLICIES, *places("policies")))
        policy = load_policy(policy_file)
        templates = Templates([config.templates, *places("templates")])
        self._marks = ownership(config, policy)
        runner = partial(beating, beat=self._pulse.beat)
        ip = IpRoute(runner(run))
        host = HostKernel(ip, Nft(runner(partial(run, timeout=TIMEOUT))))
        self._watch = Watch(lambda: self.wake.set(KERNEL), clock=time.monotonic)
        self._generations = GenerationWatch(lambda: self._watch.note(Touched(tables=True)))
        kernel = WatchedKernel(host, self._watch, time.monotonic, lambda: self._generations.healthy)
        self._probe = HostProbe(
            config, policy, kernel, clock=time.monotonic, outside=_outside(config, self.wake)
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
            policy_file=policy_file,
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

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Tunnels, routes and rules stay: stop is not disable."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
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
            self._reconciler.run(self.wake, self._stopping.is_set)
        finally:
            self._pulse.stopping()
            self._generations.stop()
            self._watch.stop()
            self._bgp.stop()
            self._ledger.stop()
            self._socket.stop()
        log.info("dzagentd stopped; what it set up stays in place")

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


def take_lock(
    path: Path, *, patience: float = LOCK_SECONDS, wait: Callable[[float], None] = time.sleep
) -> int:
    """Become the only reconciler of this run directory. Raises StateError if another one runs.

    patience: seconds to go on trying, since the API holds the lock for a moment when it looks whether we run.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateError(f"{path} cannot be opened ({error.strerror})") from error
    tries = max(1, round(patience / LOCK_STEP))
    for left in reversed(range(tries)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if left == 0:
                os.close(fd)
                raise StateError(f"another dzagentd runs already: it holds {path}") from error
            wait(LOCK_STEP)
        else:
            break
    return fd


def _rollback(config: Config) -> Rollback:
    """Put together what undoes a change without the rest of the agent."""
    policy = load_policy(find_policy(config.policy, (SITE_POLICIES, *places("policies"))))
    owner = ownership(config, policy)
    return Rollback(
        file=CheckpointFile(config.paths.checkpoint, owner, here()),
        undone=UndoneFile(config.paths.undone, owner),
        kernel=HostKernel(),
        owner=owner,
        journal=Journal(config.paths.journal, here()),
        links={name: config.links.of(name) for name in SERVICE_NAMES},
        take_lock=lambda: take_lock(config.paths.lock),
        give_back=os.close,
        now=boot_seconds,
        unix=time.time,
    )


def _helper(config: Config) -> Callable[[], None] | None:
    """Return what watches over an unconfirmed change from outside; None under our systemd unit, whose timer does."""
    if "NOTIFY_SOCKET" in os.environ:
        return None
    options = ("--config", config.file) if Path(config.file).exists() else ()
    started: list[int] = []

    def start() -> None:
        started[:] = [pid for pid in started if not reap(pid)]
        started.append(detach(("-m", "dzagent.daemon", *options, "--rollback", "--wait")))

    return start


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration; without it /etc/dzagent/config.yaml, or the defaults if that does not exist.",
)
@click.option("--check", is_flag=True, help="Only say whether configuration and policy can be used.")
@click.option("--teardown", is_flag=True, help="Take down everything of ours, stay disabled, and end.")
@click.option(
    "--rollback",
    is_flag=True,
    help="Undo the change that nobody confirmed, if its time has come and no agent runs, and end.",
)
@click.option("--wait", "waits", is_flag=True, help="With --rollback: wait until its time has come.")
@click.version_option(__version__, prog_name="dzagentd")
def main(config_file: Path | None, *, check: bool, teardown: bool, rollback: bool, waits: bool) -> None:
    """Keep this host's DoubleZero tunnels equal to what the ledger says.

    Runs in the foreground and logs to standard error. Needs CAP_NET_ADMIN. SIGTERM ends it and leaves the
    tunnels as they are; `dzagent disable` takes them down.

    --teardown needs neither a ledger nor a usable configuration; no other dzagentd may run.
    """
    if waits and not rollback:
        raise click.UsageError("--wait goes with --rollback")
    policies = (SITE_POLICIES, *places("policies"))
    if check:
        sys.exit(check_files(config_file, policies))
    if teardown:
        sys.exit(remove_all(config_file, policies, kernel=HostKernel(), lock=take_lock))
    try:
        config = load_config(config_file or DEFAULT_CONFIG, required=config_file is not None)
        logging.basicConfig(
            level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
        )
        for chatty in ("sh", "httpx2", "httpcore2"):  # a line for each process and request
            logging.getLogger(chatty).setLevel(logging.WARNING)
        if rollback:
            sys.exit(_rollback(config).run(wait=waits))
        lock = take_lock(config.paths.lock)
        gc.set_threshold(*GC_THRESHOLD)
        helper = _helper(config)  # first: the pulse takes the service manager's variables away
        Daemon(config, pulse_of(os.environ, os.getpid()), helper).run()
        os.close(lock)
    except DzagentError as error:
        click.echo(f"dzagentd: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
