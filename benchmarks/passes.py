"""What a pass costs: without work, the first one, and a repair; and what the parts of an idle pass cost.

Needs root (a network namespace of the running kernel). Where that has no GRE a vxlan link stands in for it, which
makes the processes of a pass a little dearer. Times are medians in milliseconds; `x ip` is the ratio to starting
`ip -V` the way dzagent starts programs, measured in the same run.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dzagent.config import Config, Paths
from dzagent.desired import DesiredStore
from dzagent.feed import LedgerView
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import Completed, run
from dzagent.parts import Parts
from dzagent.plan import Ownership, interest, make_plan
from dzagent.policy import Contested, Policy
from dzagent.reconcile import Reconciler
from dzagent.render import Templates, parse_texts, render_service
from dzagent.report import Reporter
from dzagent.share import find
from dzagent.state import Intent, write_intent
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace
from tests.service_fakes import CLIENT, EDGE, IBRL, UserSpec, device, host, service, snapshot
from tests.service_fakes import run as decide

ROUNDS = 30
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})


@dataclass
class Counting:
    """Passes programs on and counts how many were started."""

    inner: Namespace
    started: int = 0

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        self.started += 1
        return self.inner(program, args, stdin)


@dataclass
class Feed:
    """A ledger that always says the same."""

    seen: LedgerView = field(default_factory=LedgerView)

    def view(self) -> LedgerView:
        return self.seen

    def enable(self, enabled: bool) -> None:
        """Nothing to start."""

    def poke(self) -> None:
        """Nothing to hurry."""


def median(work: Callable[[], object], rounds: int = ROUNDS, before: Callable[[], object] = int) -> float:
    """Return the median milliseconds of `work`; `before` runs before each round, untimed."""
    times = []
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def row(what: str, value: float, base: float) -> None:
    print(f"  {what:<44} {value:8.2f} ms  {value / base:6.1f} x ip")


def measure(net: Namespace, label: str, spec: UserSpec, prefixes: Sequence[str], base: float) -> None:
    """Measure one kind of user on a fresh agent."""
    with tempfile.TemporaryDirectory(prefix="dzagent-bench-") as name:
        root, devices = Path(name), device(prefixes=prefixes)
        config = Config(client_ip=CLIENT, paths=Paths(root / "state", root / "run"), templates=root / "none")
        config.paths.agent.mkdir(parents=True)
        write_intent(config.paths.intent, Intent(True))
        runner = Counting(net)
        kernel = IpRoute(runner)
        picture = snapshot(spec, device=devices)
        templates = Templates((find("templates"),))
        loop = Reconciler(
            Parts(
                config=config,
                policy=Policy(contested=Contested(after=1_000_000)),  # the repairs below are no fight
                kernel=kernel,
                feed=Feed(LedgerView(picture, frozenset({CLIENT}))),
                store=DesiredStore(config.paths),
                templates=templates,
                intent=IntentReader(config.paths.intent),
                probe=HostProbe(config, Policy(), kernel, clock=time.monotonic),
                reporter=Reporter(config, version="bench", pid=os.getpid(), clock=time.time),
                now=time.monotonic,
            )
        )
        print(f"\n{label}")
        began = time.perf_counter()
        loop.run_pass()
        row("first pass (render, make everything, verify)", (time.perf_counter() - began) * 1000, base)
        runner.started = 0
        row("pass without work", median(loop.run_pass), base)
        print(f"  {'  processes started by it':<44} {runner.started / ROUNDS:8.2f}")
        granted = service(decide(spec, at=host(), device=devices), "unicast")
        text = render_service(granted, Policy(), templates)
        desired = parse_texts({"unicast": text}, OWNER)
        want = interest(desired, OWNER)
        seen = kernel.observe(want)
        row("  of it: observe (one ip, decode)", median(lambda: kernel.observe(want)), base)
        row("  of it: decide", median(lambda: decide(spec, at=host(), device=devices)), base)
        row("  of it: render", median(lambda: render_service(granted, Policy(), templates)), base)
        row("  of it: parse", median(lambda: parse_texts({"unicast": text}, OWNER)), base)
        row("  of it: plan", median(lambda: make_plan(desired, seen, OWNER)), base)
        row(
            "repair: the link is gone",
            median(loop.run_pass, 10, lambda: net.ip("link delete doublezero0")),
            base,
        )
        if prefixes and spec.kind == EDGE.kind:
            rule = f"rule del priority 100 to {prefixes[0]} table 100"
            row("repair: a rule is gone", median(loop.run_pass, 10, lambda: net.ip(rule)), base)
        write_intent(config.paths.intent, Intent(False))
        loop.run_pass()  # leaves the namespace clean for the next one


def main() -> int:
    """Print the table; returns the exit status."""
    many = [f"148.{51 + n // 256}.{n % 256}.0/24" for n in range(400)]
    try:
        with namespace(f"dzagent-bench-{os.getpid()}") as net:
            base = median(lambda: run("ip", ["-V"]))
            stand_in = "" if net.gre else "; no GRE here: vxlan stands in"
            print(f"{ROUNDS} rounds, medians; starting `ip -V`: {base:.2f} ms{stand_in}")
            measure(net, "IBRL", IBRL, (), base)
            measure(net, "EdgeFiltering, 1 prefix", EDGE, many[:1], base)
            measure(net, "EdgeFiltering, 400 prefixes (800 rules)", EDGE, many, base)
    except LabError as error:
        print(f"not measured: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
