"""A stand-in for an agent that dies: makes a change with a way back, by the agent's own parts, and then does nothing.

    python -m e2e.lab.unconfirmed CONFIG SECONDS

It runs in a network namespace of its own; the change is of rules, which every kernel has. It says "ready" when the
change is made.
"""

from __future__ import annotations

import signal
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

from dzagent.bootclock import boot_seconds
from dzagent.checkpoint import CheckpointFile, UndoneFile
from dzagent.configfile import load_config
from dzagent.confirming import Confirming, Files
from dzagent.dzagentd import helper_of
from dzagent.intent import IntentView
from dzagent.journal import Journal, here
from dzagent.kernel.execute import execute
from dzagent.kernel.iproute import IpRoute
from dzagent.lock import take_lock
from dzagent.marks import ownership
from dzagent.model import SERVICE_NAMES, Desired, Origin, Protected, Rule, Wanted
from dzagent.plan import interest, make_plan
from dzagent.policy import Policy
from dzagent.report import Reporter
from dzagent.screen import Screen

ANY = IPv4Network("0.0.0.0/0")
OLD = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
NEW = Rule(100, ANY, IPv4Network("203.0.112.0/24"), 100, 210)


def desired(*rules: Rule) -> Desired:
    """Return a state of rules alone."""
    return Desired(tuple(Wanted(rule, Origin("unicast", "unicast/rule.ip", 1)) for rule in rules))


def main() -> None:
    """Make the change, then hang until somebody kills us."""
    config = load_config(Path(sys.argv[1]))
    take_lock(config.paths.lock)
    policy, kernel = Policy(), IpRoute()
    owner = ownership(config, policy)
    execute(kernel, make_plan(desired(OLD), kernel.observe(interest(desired(OLD), owner)), owner))
    confirming = Confirming(
        Files(
            CheckpointFile(config.paths.checkpoint, owner, here()),
            UndoneFile(config.paths.undone, owner),
            config.paths.confirmation,
        ),
        kernel,
        Reporter(config, version="0", pid=0, clock=time.time),
        owner,
        Journal(config.paths.journal, here()),
        {name: config.links.of(name) for name in SERVICE_NAMES},
        boot_seconds,
        time.time,
        helper_of(config),
    )
    confirming.tick(IntentView(enabled=True))
    observed = kernel.observe(interest(desired(NEW), owner))
    plan = make_plan(desired(NEW), observed, owner)
    confirming.begin(plan, observed, int(sys.argv[2]), Screen(Protected()))
    execute(kernel, plan)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
