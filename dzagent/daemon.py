"""dzagentd: puts the parts together and runs the loop. It has no listening socket and is the only writer."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from dzagent import __version__
from dzagent.bgp.bird import Bird, BirdFiles
from dzagent.bgp.service import Bgp
from dzagent.bgp.speaker import Clocks
from dzagent.config import DEFAULT_CONFIG, Config, load_config
from dzagent.desired import DesiredStore
from dzagent.errors import ConfigError, DzagentError, StateError, Unreachable
from dzagent.feed import LedgerFeed, Timing, resolve_hosts, rpc_hosts
from dzagent.files import write_json
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.kernel.iproute import IpRoute
from dzagent.ledger.poller import DirectPoller
from dzagent.ledger.rpc import Rpc, RpcClient
from dzagent.policy import Policy, find_policy, load_policy
from dzagent.reconcile import Parts, Reconciler
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import places
from dzagent.wake import Wake, WakeSocket

log = logging.getLogger(__name__)

SITE_POLICIES = Path("/etc/dzagent/policies")
"""Where an operator's named policies are looked for first."""

GC_THRESHOLD = (50_000, 20, 50)
"""Thousands of routes are hundreds of thousands of objects without a cycle: looking for one too often costs more."""

JITTER = 0.2
"""Polls of many hosts are spread by this share of the interval, either way."""


class _NoRpc:
    """Stands in for an endpoint that is not configured yet: the agent runs, and says what is missing."""

    endpoint = ""

    def __init__(self, config: Config) -> None:
        self._config = config

    def call(self, _method: str, _params: Sequence[Any] = ()) -> Any:
        """Say what to configure."""
        try:
            self._config.require_rpc()
        except ConfigError as error:
            raise Unreachable(str(error)) from error


class Daemon:
    """The running agent: one loop, one thread that polls the ledger, one that watches BGP, one wake socket."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = threading.Event()
        self.wake = Wake()
        policy_file = find_policy(config.policy, (SITE_POLICIES, *places("policies")))
        policy = load_policy(policy_file)
        templates = Templates([config.templates, *places("templates")])
        kernel = IpRoute()
        rpc = Rpc(config.rpc, timeout=config.intervals.rpc_timeout) if config.rpc else _NoRpc(config)
        self._probe = HostProbe(config, policy, kernel, clock=time.monotonic)
        self._feed = self._make_feed(rpc, policy)
        self._socket = WakeSocket(config.paths.wake, self.wake)
        self._bgp = Bgp(
            Bird(BirdFiles(config.paths.engine, config.paths.sessions, policy.bgp.port), templates),
            policy,
            config.paths,
            policy_file=policy_file,
            clocks=Clocks(time.time, time.monotonic),
            on_change=self.wake.set,
        )
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
                now=time.monotonic,
                bgp=self._bgp,
            )
        )

    def _make_feed(self, rpc: RpcClient, policy: Policy) -> LedgerFeed:
        config = self._config
        hosts = rpc_hosts(config.rpc)
        chance = random.SystemRandom()
        return LedgerFeed(
            DirectPoller(rpc, config.program_id, absent_polls=policy.absent_polls),
            candidates=self._probe.candidates,
            on_news=lambda: self.wake.set("ledger"),
            publish=lambda report: write_json(config.paths.ledger, report),
            resolve=lambda: resolve_hosts(hosts),
            endpoint=lambda: rpc.endpoint,
            interval=config.intervals.poll,
            timing=Timing(time.time, time.monotonic, lambda: chance.uniform(1 - JITTER, 1 + JITTER)),
        )

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Tunnels, routes and rules stay: stop is not disable."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._socket.start()
        self._feed.start()
        self._bgp.start()
        log.info(
            "dzagentd %s started: network %s, mode %s", __version__, self._config.network, self._config.apply
        )
        try:
            self._reconciler.run(self.wake, self._stopping.is_set)
        finally:
            self._bgp.stop()
            self._feed.stop()
            self._socket.stop()
        log.info("dzagentd stopped; what it set up stays in place")

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()
        self.wake.set("stop")


def take_lock(path: Path) -> int:
    """Become the only reconciler of this run directory. Raises StateError if another one runs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StateError(f"another dzagentd runs already: it holds {path}") from error
    return fd


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Configuration file.")
@click.version_option(__version__, prog_name="dzagentd")
def main(config_file: Path | None) -> None:
    """Keep this host's DoubleZero tunnels equal to what the ledger says.

    Runs in the foreground and logs to standard error. Needs CAP_NET_ADMIN. SIGTERM ends it and leaves the
    tunnels as they are; `dzagent disable` takes them down.
    """
    try:
        config = load_config(config_file or DEFAULT_CONFIG, required=config_file is not None)
        logging.basicConfig(
            level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
        )
        for chatty in ("sh", "httpx2", "httpcore2"):  # a line for each process and request
            logging.getLogger(chatty).setLevel(logging.WARNING)
        lock = take_lock(config.paths.lock)
        gc.set_threshold(*GC_THRESHOLD)
        Daemon(config).run()
        os.close(lock)
    except DzagentError as error:
        click.echo(f"dzagentd: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
