"""What is ours and what is not, on a real kernel: adoption, cleared marks, conflicts, fights.

In a network namespace of the running kernel, with a stand-in for GRE where it has none (e2e/lab/standin.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dzagent.config import Config, Paths
from dzagent.desired import DesiredStore
from dzagent.feed import LedgerView
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.journal import Journal, here
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import Completed
from dzagent.model import Action, Link, Step
from dzagent.parts import Parts
from dzagent.policy import Contested, Policy
from dzagent.reconcile import Reconciler
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import find
from dzagent.state import Intent, write_intent
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace
from tests.service_fakes import CLIENT, DEVICE_IP, EDGE, GATEWAY, snapshot

RULE = "priority 100 from 0.0.0.0/0 to 148.51.0.0/24 table 100 protocol 210"
MAKE = f"link add name doublezero0 mtu 1476 type gre local {CLIENT} remote {DEVICE_IP} ttl 64 nopmtudisc\n"
PATIENCE = 30.0
"""Seconds until something that takes one or two is given up; nothing here is a measured figure."""


@dataclass
class Counting:
    """Passes programs on and counts those that write."""

    inner: Namespace
    writes: int = 0

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        self.writes += tuple(args) == ("-force", "-batch", "-")
        return self.inner(program, args, stdin)


@dataclass
class Ledger:
    """A ledger that grants an EdgeFiltering user."""

    seen: LedgerView = field(
        default_factory=lambda: LedgerView(snapshot(EDGE), frozenset({CLIENT}), time.time(), time.monotonic())
    )

    def view(self) -> LedgerView:
        return self.seen

    def enable(self, enabled: bool) -> None:
        """Nothing to start."""

    def poke(self) -> None:
        """Nothing to hurry."""


class Agent:
    """The loop in this process, on the kernel of a namespace; `restart` is a new process on the same files."""

    def __init__(self, net: Namespace, root: Path, contested: Contested) -> None:
        self.net, self.kernel, self.policy = net, Counting(net), Policy(contested=contested)
        self.config = Config(
            client_ip=CLIENT, paths=Paths(root / "state", root / "run"), templates=root / "t"
        )
        self.config.paths.agent.mkdir(parents=True)
        self.say(enabled=True)
        self.restart()

    def restart(self) -> None:
        config, kernel = self.config, IpRoute(self.kernel)
        self.journal = Journal(config.paths.journal, here())
        self.loop = Reconciler(
            Parts(
                config=config,
                policy=self.policy,
                kernel=kernel,
                feed=Ledger(),
                store=DesiredStore(config.paths),
                templates=Templates((find("templates"),)),
                intent=IntentReader(config.paths.intent),
                probe=HostProbe(
                    config, self.policy, kernel, clock=time.monotonic, ssh_sessions=lambda _: frozenset()
                ),
                reporter=Reporter(config, version="e2e", pid=os.getpid(), clock=time.time),
                now=time.monotonic,
                journal=self.journal,
                managers=lambda: ("a test runs",),
                around=kernel,
            )
        )

    def say(self, *, enabled: bool) -> None:
        write_intent(self.config.paths.intent, Intent(enabled))

    def run(self, passes: int = 1) -> int:
        """Run passes; return how many processes wrote to the kernel."""
        before = self.kernel.writes
        for _ in range(passes):
            self.loop.run_pass()
        return self.kernel.writes - before

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Run passes until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"not in {PATIENCE:g} s: {what}"
            self.loop.run_pass()
            time.sleep(0.05)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.config.paths.status.read_text())
        return document

    def holds(self, kind: str) -> bool:
        return any(c["type"] == kind and c["status"] == "True" for c in self.status()["conditions"])

    def index(self) -> str:
        return self.net.ip("-o link show doublezero0").split(":")[0]


@contextmanager
def agent_of(root: Path, contested: Contested) -> Iterator[Agent]:
    try:
        with namespace(f"dzagent-own-{os.getpid()}") as net:
            yield Agent(net, root, contested)
    except LabError as error:
        pytest.skip(f"NOT TESTED: the real kernel. {error}")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with agent_of(tmp_path, Contested(after=1000)) as made:
        yield made


def up(agent: Agent) -> None:
    agent.run(2)
    assert agent.holds("InSync")
    assert agent.run(2) == 0


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("edit", ['alias ""', "alias theirs", 'alias "" mtu 1300', 'alias "" down'])
def test_a_link_that_lost_its_mark_is_repaired_in_place(agent: Agent, edit: str, restart: bool) -> None:
    up(agent)
    index = agent.index()
    done = agent.net("ip", ("-batch", "-"), f"link set dev doublezero0 {edit}\n")
    assert done.code == 0, done.message
    if restart:
        agent.restart()
    agent.run(2)
    assert agent.index() == index
    assert "alias dzagent:unicast" in agent.net.ip("link show doublezero0")
    assert agent.holds("InSync")
    assert agent.run(2) == 0


def test_a_renamed_link_is_made_again_and_no_second_one_stays(agent: Agent) -> None:
    up(agent)
    agent.net.ip("link set doublezero0 down")
    agent.net.ip("link set doublezero0 name gre7")
    agent.run(2)
    assert agent.holds("InSync")
    assert "gre7" not in agent.net.ip("link show")


def test_a_link_that_replaced_ours_is_a_conflict_and_stays(agent: Agent) -> None:
    up(agent)
    agent.net.ip("link delete doublezero0")
    agent.net.ip("link add doublezero0 type bridge")
    index = agent.index()
    agent.run(3)
    assert agent.holds("Conflict")
    assert agent.index() == index
    agent.net.ip("link delete doublezero0")
    agent.run(2)
    assert not agent.holds("Conflict")
    assert agent.holds("InSync")


def test_an_unmarked_link_is_adopted_if_it_is_what_we_would_make(agent: Agent) -> None:
    assert agent.net("ip", ("-batch", "-"), MAKE).code == 0
    index = agent.index()
    agent.run(2)
    assert agent.holds("InSync")
    assert agent.index() == index
    assert "alias dzagent:unicast" in agent.net.ip("link show doublezero0")


@pytest.mark.parametrize("edit", ["mtu 1400", "alias theirs"])
def test_an_unmarked_link_with_another_parameter_is_left_alone(agent: Agent, edit: str) -> None:
    assert agent.net("ip", ("-batch", "-"), f"{MAKE}link set dev doublezero0 {edit}\n").code == 0
    before = agent.net.ip("-d link show doublezero0")
    assert agent.run(3) == 0
    assert agent.holds("Conflict")
    assert agent.net.ip("-d link show doublezero0") == before
    agent.say(enabled=False)
    assert agent.run(2) == 0
    assert agent.net.ip("-d link show doublezero0") == before


def test_what_a_killed_process_had_half_made_is_swept(agent: Agent) -> None:
    agent.run()
    agent.say(enabled=False)
    agent.run()
    link = Link("doublezero0", CLIENT, GATEWAY, 64, 1476, "dzagent:unicast")
    agent.journal.begin([Step(Action.ADD, None, link, "missing")])
    assert agent.net("ip", ("-batch", "-"), MAKE.replace(DEVICE_IP, str(GATEWAY))).code == 0
    agent.restart()
    agent.run()
    assert "doublezero0" not in agent.net.ip("link show")


def test_a_foreign_route_in_our_table_is_named_until_it_leaves(agent: Agent) -> None:
    agent.net.ip(f"route add default via {GATEWAY} table 101 proto 186")
    agent.run(2)
    (conflict,) = agent.status()["conflicts"]
    assert "table 101 of protocol 186 (bgp)" in conflict["owner"]
    assert "proto bgp" in agent.net.ip("route show table 101")
    agent.net.ip("route delete default table 101 proto 186")
    agent.run(2)
    assert agent.holds("InSync")
    assert not agent.holds("Conflict")


@pytest.mark.parametrize(
    ("command", "code", "conflict"),
    [
        ("route add blackhole 192.0.2.1/32", "EndpointUnrouted", False),
        ("rule add priority 100 from all lookup 777", "PriorityShared", True),
        (f"route add 148.51.0.128/25 via {GATEWAY} table 100 proto static", "TableShared", True),
    ],
)
def test_others_in_our_places_are_named_and_stay(
    agent: Agent, command: str, code: str, conflict: bool
) -> None:
    agent.net.ip(command)
    shows = ("rule show", "route show table main", "route show table 100")
    agent.run(2)
    assert [problem["code"] for problem in agent.status()["problems"]] == [code]
    assert (agent.holds("Conflict"), agent.holds("InSync")) == (conflict, True)
    agent.say(enabled=False)
    agent.run(2)
    left = [agent.net("ip", show.split()).stdout.decode() for show in shows]
    assert any(word in "".join(left) for word in ("blackhole 192.0.2.1", "777", "148.51.0.128/25"))


@pytest.mark.parametrize("contest", [Contested(after=5, within=60, longest=1.0, calm=1.0)])
def test_a_fight_is_noticed_kept_calm_and_over_when_the_other_ends(
    tmp_path: Path, contest: Contested
) -> None:
    with agent_of(tmp_path, contest) as agent:
        up(agent)
        loop = f"while :; do ip -netns {agent.net.name} rule del {RULE} 2>/dev/null; sleep 0.05; done"
        with subprocess.Popen(["/bin/sh", "-c", loop]) as foe:
            try:
                agent.until("the fight is noticed", lambda: agent.holds("Contested"))
                (shown,) = agent.status()["contested"]
                assert shown["object"].startswith("rule priority 100 ")
                assert shown["suspects"] == ["a test runs"]
                began, writes = time.monotonic(), agent.kernel.writes
                while time.monotonic() - began < 5:
                    agent.loop.run_pass()
                    time.sleep(0.02)
                assert agent.kernel.writes - writes <= 3 * 8, (
                    "about one repair a second, in rounds of at most three"
                )
                assert agent.holds("Contested")
                assert "priority 101" in agent.net.ip("rule show") or "101:" in agent.net.ip("rule show")
            finally:
                foe.kill()
        agent.until("it is repaired", lambda: agent.holds("InSync"))
        agent.until("it is over", lambda: not agent.holds("Contested"))
        assert agent.run(3) == 0
