"""Changes with a way back, on a real kernel: by the loop, and by the process that outlives a killed agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dzagent.checkpoint import CheckpointFile, UndoneFile
from dzagent.config import Config
from dzagent.journal import here
from dzagent.kernel.iproute import IpRoute
from dzagent.marks import ownership
from dzagent.policy import Policy
from dzagent.reconcile import Reconciler
from dzagent.state import request_apply, request_confirm
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace
from e2e.lab.unconfirmed import NEW, OLD
from tests.service_fakes import EDGE
from tests.test_reconcile import World

FOREIGN = (
    "rule add priority 100 to 10.98.0.0/16 table 100 protocol 4",
    "route add 10.97.0.0/16 via 198.51.100.1 proto 186",
    "route add 10.96.0.0/16 dev eth0 table 100 proto 4",
)


@pytest.fixture
def netns() -> Iterator[Namespace]:
    try:
        with namespace(f"dzagent-rollback-{os.getpid()}") as made:
            for line in FOREIGN:
                made.ip(line)
            yield made
    except LabError as error:
        pytest.skip(f"NOT TESTED: the real kernel. {error}")


class RealWorld(World):
    """The loop of the unit tests, on the kernel of a namespace."""

    namespace: Namespace

    def restart(self) -> None:
        super().restart()
        self.kernel_now = IpRoute(self.namespace)
        parts = replace(self.loop._parts, kernel=self.kernel_now)  # noqa: SLF001 the same loop on another kernel
        self.loop = Reconciler(parts)


def dump(netns: Namespace) -> str:
    """Return every route and rule, and the links without what counts by itself."""
    links = "\n".join(line for line in netns.ip("-o -d link show").splitlines())
    return netns.ip("-4 route show table all") + netns.ip("rule show") + netns.ip("-4 -o addr show") + links


def test_the_loop_undoes_what_nobody_confirms(netns: Namespace, tmp_path: Path) -> None:
    RealWorld.namespace = netns
    world = RealWorld(tmp_path, apply="manual")
    world.say(enabled=True)
    world.ledger(EDGE)
    world.loop.run_pass()
    request_apply(world.config.paths.approval, world.plan()["id"])
    world.loop.run_pass()
    assert "remote 192.0.2.1" in netns.ip("-d link show doublezero0")
    before = dump(netns)

    def change() -> str:
        world.ledger(replace(EDGE, endpoint="192.0.2.9", net="169.254.0.8/31"))
        world.loop.run_pass()
        plan_id = str(world.plan()["id"])
        world.clock.now += 1
        request_apply(world.config.paths.approval, plan_id, 60)
        world.loop.run_pass()
        assert "remote 192.0.2.9" in netns.ip("-d link show doublezero0")
        return plan_id

    change()
    world.clock.now += 61
    world.restart()
    world.loop.run_pass()
    assert dump(netns) == before
    world.loop.run_pass()
    assert dump(netns) == before
    assert world.condition("Held") == ("True", "RolledBack")
    (world.config.paths.undone).unlink()
    world.restart()
    world.loop.run_pass()
    plan_id = change()
    world.clock.now += 1
    request_confirm(world.config.paths.confirmation, plan_id)
    world.loop.run_pass()
    world.clock.now += 100
    world.loop.run_pass()
    assert "remote 192.0.2.9" in netns.ip("-d link show doublezero0")
    for line in FOREIGN:
        assert line.split()[3 if "rule" in line else 2] in dump(netns)


# ---- an agent that is killed -----------------------------------------------------------------------------------


def wait_for(what: Callable[[], bool], limit: float = 60.0) -> None:
    for _ in range(int(limit / 0.1)):
        if what():
            return
        time.sleep(0.1)
    pytest.fail("it does not come")


def rules(netns: Namespace) -> set[str]:
    ours = (line for line in netns.ip("rule show").splitlines() if "proto" in line and "100" in line)
    return {word for line in ours for word in line.split() if word.startswith("203.0.")}


@pytest.fixture
def dying(netns: Namespace, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    config = tmp_path / "config.yaml"
    config.write_text(f"directories:\n  run: {tmp_path}/run\n  state: {tmp_path}/state\n")
    started: list[subprocess.Popen[str]] = []
    environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}

    def start(seconds: int) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", netns.name, sys.executable, "-m", "e2e.lab.unconfirmed"]
        process = subprocess.Popen(
            [*command, str(config), str(seconds)], stdout=subprocess.PIPE, text=True, env=environment
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_killed_agent_s_change_is_undone_by_the_process_that_outlives_it(
    netns: Namespace, tmp_path: Path, dying: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = dying(6)
    assert rules(netns) == {str(NEW.dst)}
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: rules(netns) == {str(OLD.dst)})
    owner = ownership(Config(), Policy())
    wait_for(lambda: not (tmp_path / "run" / "agent" / "rollback.json").exists())
    undone = UndoneFile(tmp_path / "state" / "undone.json", owner).read()
    assert undone is not None
    assert (undone.made, undone.removed) == ((NEW,), (OLD,))
    assert "10.98.0.0/16" in netns.ip("rule show")


def test_a_living_agent_is_left_to_do_it_by_itself(
    netns: Namespace, dying: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = dying(5)
    time.sleep(8)
    assert rules(netns) == {str(NEW.dst)}, "this agent hangs, and holds the lock"
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: rules(netns) == {str(OLD.dst)})


def test_a_confirmed_change_stays_when_the_agent_dies(
    netns: Namespace, tmp_path: Path, dying: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = dying(5)
    owner = ownership(Config(), Policy())
    CheckpointFile(tmp_path / "run" / "agent" / "rollback.json", owner, here()).clear()
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(7)
    assert rules(netns) == {str(NEW.dst)}
