"""The life of a connection: disable, ban, deletion, another device, restarts, a dead ledger."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from dzagent.model import UserType
from e2e.lab.liar import Lies
from e2e.lab.netns import Monitor, Pinger
from e2e.lab.topology import DEV2
from e2e.lab.view import NOTHING, learned
from e2e.lab.wait import SLOW, stays, wait_for
from e2e.lab.world import World, condition

DISABLE_SECONDS = 2.0


def disable_in_time(world: World) -> None:
    """Disable, and hold it to its time."""
    began = time.monotonic()
    world.agent.disable()
    world.becomes(NOTHING)
    assert time.monotonic() - began < DISABLE_SECONDS * SLOW


@pytest.mark.parametrize("kind", [UserType.IBRL, UserType.EDGE_FILTERING], ids=lambda kind: kind.label)
def test_disable_removes_everything_and_enable_brings_it_back(world: World, kind: UserType) -> None:
    granted = world.grant(kind)
    disable_in_time(world)
    world.says("disabled", lambda s: s["enabled"] is False and s["services"] == [])
    world.agent.enable()
    world.becomes(granted.view)


def test_the_command_line_waits_until_it_is_so(world: World) -> None:
    granted = world.grant(UserType.IBRL)
    done = world.agent.cli("disable", "--wait")
    assert (done.returncode, world.view()) == (0, NOTHING), done.stderr
    done = world.agent.cli("enable", "--wait")
    assert (done.returncode, world.view()) == (0, granted.view), done.stderr
    shown = world.agent.cli("status")
    assert shown.returncode == 0
    assert "doublezero0" in shown.stdout


def test_a_ban_ends_the_service(world: World) -> None:
    world.grant(UserType.EDGE_FILTERING)
    world.ledger.ban(UserType.EDGE_FILTERING)
    world.becomes(NOTHING)


def test_a_deletion_ends_the_service(world: World) -> None:
    world.grant(UserType.IBRL)
    world.ledger.delete(UserType.IBRL)
    world.becomes(NOTHING, 30)


def test_another_device_is_a_change_in_place(world: World) -> None:
    before = world.grant(UserType.IBRL)
    index = world.index("doublezero0")
    world.ledger.move(UserType.IBRL, "dev2")
    after = world.granted(UserType.IBRL)
    assert after.view != before.view
    assert after.view.links[0].remote == DEV2.public_ip
    world.becomes(after.view)
    assert world.index("doublezero0") == index
    assert world.host.pings(after.far)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_writes_nothing_and_loses_nothing(
    world: World, tmp_path: Path, how: signal.Signals
) -> None:
    granted = world.grant(UserType.EDGE_FILTERING)
    index = world.index("doublezero0")
    pinger = Pinger(world.host, granted.far, tmp_path / "ping")
    wait_for("the first answers", lambda: len(pinger.answered) >= 5)
    with Monitor(world.host, tmp_path / "monitor") as monitor:
        world.agent.daemon.send(how)
        assert world.view() == granted.view, "stop is not disable"
        world.agent.daemon.start()
        pid = world.agent.daemon.pid
        world.says(
            "the new process is ready",
            lambda s: s.get("pid") == pid and condition(s, "Ready")[0] == "True",
            30,
        )
        assert monitor.changes() == ()
    answered = len(pinger.answered)
    wait_for("answers after the restart", lambda: len(pinger.answered) >= answered + 5)
    assert pinger.stop() == ()
    assert (world.view(), world.index("doublezero0")) == (granted.view, index)


def test_a_changed_policy_is_taken_up_and_loses_nothing(world: World, tmp_path: Path) -> None:
    """The tunnel, its session and its routes stay; a bad policy changes nothing and is told with file and line."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("absent_polls: 2\n")
    world.agent.config.write_text(f"{world.agent.config.read_text()}policy: {policy}\n")
    world.agent.daemon.send(signal.SIGTERM)
    world.agent.daemon.start()
    granted = world.grant(UserType.EDGE_FILTERING)
    index, routes, pid = world.index("doublezero0"), learned(world.host), world.agent.daemon.pid
    pinger = Pinger(world.host, granted.far, tmp_path / "ping")
    wait_for("the first answers", lambda: len(pinger.answered) >= 5)
    log = world.agent.root / "dzagentd.log"
    with Monitor(world.host, tmp_path / "monitor") as monitor:
        policy.write_text("absent_polls: 3\n")
        wait_for("it is read", lambda: "it is used from now on" in log.read_text(), 30)
        world.says("a pass has ended", lambda s: condition(s, "Ready")[0] == "True", 30)
        world.connected(UserType.EDGE_FILTERING)
        assert monitor.changes() == ()
    policy.write_text("tunnel:\n  mtu: 1400\n")
    wait_for("the link is changed", lambda: "mtu 1400" in world.host.ip("link show doublezero0"), 30)
    policy.write_text("tunnel:\n  mtu: soon\n")
    refused = world.says("the mistake is told", lambda s: "PolicyRefused" in str(s["problems"]), 30)
    assert f"{policy}:2: " in str(refused["problems"])
    world.connected(UserType.EDGE_FILTERING)
    answered = len(pinger.answered)
    wait_for("answers after all this", lambda: len(pinger.answered) >= answered + 5)
    assert pinger.stop() == ()
    assert (world.index("doublezero0"), learned(world.host), world.agent.daemon.pid) == (index, routes, pid)


def test_a_rest_writes_nothing(world: World, tmp_path: Path) -> None:
    granted = world.grant(UserType.EDGE_FILTERING)
    world.says("ready", lambda s: condition(s, "Ready")[0] == "True")
    with Monitor(world.host, tmp_path / "monitor") as monitor:
        polls = world.agent.status()["ledger"]["polls"]["success"]
        world.says("three more polls", lambda s: s["ledger"]["polls"]["success"] >= polls + 3, 30)
        assert monitor.changes() == ()
    assert world.view() == granted.view


@pytest.mark.parametrize("mode", ["hang", "error", "garbage", "nobody"])
def test_a_dead_ledger_keeps_the_tunnel_and_obeys_disable(world: World, mode: str) -> None:
    granted = world.grant(UserType.IBRL)
    if mode == "nobody":
        world.ledger.stop_proxy()
    else:
        world.ledger.lie(Lies(mode=mode))
    try:
        world.says("the ledger is away", lambda s: condition(s, "LedgerReachable")[0] == "False", 30)
        stays("the tunnel", lambda: world.view() == granted.view, 1)
        world.host.ip("link delete doublezero0")
        world.becomes(granted.view)
        disable_in_time(world)
    finally:
        if mode == "nobody":
            world.ledger.start_proxy()
