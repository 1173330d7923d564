"""The agent of the BGP lab: the real loop with the real engine, on a ledger that always says the same.

`python -m e2e.lab.bgpagent ROOT NAMESPACE KIND DZ_IP [TICKS]` runs until killed.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from dzagent.bgp.bird import Bird, BirdFiles
from dzagent.bgp.exclude import PolicyList
from dzagent.bgp.service import Bgp
from dzagent.bgp.speaker import Clocks
from dzagent.config import Config, Doublezerod, Paths
from dzagent.desired import DesiredStore
from dzagent.drive import KERNEL
from dzagent.dzagentd import GC_THRESHOLD
from dzagent.feed import LedgerView
from dzagent.foreign.record import boot_id
from dzagent.foreign.sight import Eyes, ForeignWatch
from dzagent.foreign.turns import Turns
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.watch import Watch
from dzagent.kernel.watched import WatchedKernel
from dzagent.model import UserType
from dzagent.parts import Parts
from dzagent.policy import Policy, load_policy
from dzagent.policyfiles import PolicyFiles
from dzagent.reconcile import Reconciler
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import find
from dzagent.state import Intent, write_intent
from dzagent.wake import Wake
from e2e.lab.standin import Namespace
from tests.service_fakes import CLIENT, IBRL, config, snapshot


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
class LabAgent:
    """The parts of a running agent."""

    loop: Reconciler
    bgp: Bgp
    wake: Wake
    kernel: WatchedKernel
    watch: Watch

    def run(self, stopping: threading.Event) -> None:
        """Run until told to stop."""
        self.watch.start()
        self.bgp.start()
        try:
            self.loop.run(self.wake, stopping.is_set)
        finally:
            self.bgp.stop()
            self.watch.stop()


def settings_of(root: Path) -> Config:
    """Return the configuration of the agent below `root`."""
    return Config(
        client_ip=CLIENT,
        paths=Paths(root / "state", root / "run"),
        templates=root / "none",
        doublezerod=Doublezerod(root / "doublezerod", root / "doublezerod.sock"),
    )


def make_agent(
    root: Path, netns: Namespace, kind: UserType, dz_ip: IPv4Address, asn: int = 65342
) -> LabAgent:
    """Put an enabled agent together that works in a namespace."""
    settings = settings_of(root)
    settings.paths.agent.mkdir(parents=True, exist_ok=True)
    write_intent(settings.paths.intent, Intent(True))
    policy_file = root / "policy.yaml"
    policy: Policy = load_policy(policy_file) if policy_file.read_text().strip() else Policy()
    wake = Wake()
    watch = Watch(lambda: wake.set(KERNEL), clock=time.monotonic, options=("-netns", netns.name))
    kernel = WatchedKernel(IpRoute(netns), watch, time.monotonic)
    user = replace(IBRL, kind=int(kind), dz_ip=str(dz_ip))
    templates = Templates((find("templates"),))
    bgp = Bgp(
        Bird(BirdFiles(settings.paths.engine, settings.paths.sessions, policy.bgp.port), templates),
        policy,
        settings.paths,
        policy_list=PolicyList(PolicyFiles(lambda trail: load_policy(policy_file, trail=trail))),
        clocks=Clocks(time.time, time.monotonic),
        on_change=wake.set,
    )
    loop = Reconciler(
        Parts(
            config=settings,
            policy=policy,
            kernel=kernel,
            feed=Feed(LedgerView(snapshot(user, config=config(remote=asn)), frozenset({CLIENT}))),
            store=DesiredStore(settings.paths),
            templates=templates,
            intent=IntentReader(settings.paths.intent),
            probe=HostProbe(
                settings, policy, kernel, clock=time.monotonic, ssh_sessions=lambda _: frozenset()
            ),
            reporter=Reporter(settings, version="lab", pid=os.getpid(), clock=time.time),
            now=time.monotonic,
            bgp=bgp,
            turn=Turns(
                settings.paths, ForeignWatch(Eyes(settings.doublezerod), time.monotonic), boot_id()
            ).turn,
            watched=kernel,
        )
    )
    return LabAgent(loop, bgp, wake, kernel, watch)


def main() -> None:
    """Run until killed."""
    root, name, kind, dz_ip = sys.argv[1:5]
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("sh").setLevel(logging.WARNING)
    gc.set_threshold(*GC_THRESHOLD)
    netns = Namespace(name)
    netns.gre = netns("ip", ["link", "add", "probe1", "type", "gre", "local", "192.0.2.8", "remote", "192.0.2.9"]).code == 0  # fmt: skip
    if netns.gre:
        netns.ip("link delete probe1")
    asn = int(os.environ.get("LAB_ASN", "65342"))
    make_agent(Path(root), netns, UserType[kind], IPv4Address(dz_ip), asn).run(threading.Event())


if __name__ == "__main__":
    main()
