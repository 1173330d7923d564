"""`dzagent migrate` with real GRE: the whole command line, from a tunnel of doublezerod's and back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dzagent.model import UserType
from e2e.lab.doublezerod import script
from e2e.lab.netns import Monitor, Pinger
from e2e.lab.processes import Process
from e2e.lab.topology import CLIENT_IP, DEV1, DEV2, PEER_DZ_IP
from e2e.lab.view import NOTHING, learned
from e2e.lab.wait import wait_for
from e2e.lab.world import SESSION_UP, Granted, World, condition


@pytest.fixture
def old(world: World, tmp_path: Path) -> Iterator[tuple[Process, Granted]]:
    """A host that the stand-in for doublezerod has set up, with an agent that was started after it."""
    world.agent.daemon.send(signal.SIGTERM)
    granted = world.add(UserType.EDGE_FILTERING)
    overlay = next(a.split("/")[0] for a in granted.view.addresses if "/31" in a)
    up = script(
        ends=(CLIENT_IP, DEV1.public_ip),
        overlay=(overlay, granted.far),
        dz_ip=granted.dz_ip,
        prefixes=[DEV1.prefix, DEV2.prefix],
        learned=[f"{PEER_DZ_IP}/32"],
        source=granted.dz_ip,
    )
    words = ["-m", "e2e.lab.doublezerod", str(up.write(tmp_path / "script.json")), "-env", "localnet"]
    process = Process("doublezerod", world.host, [sys.executable, *words], tmp_path / "doublezerod.log")
    process.start()
    wait_for("doublezerod is done", lambda: "provisioned" in process.said)
    world.agent.daemon.start()
    yield process, granted
    process.send(signal.SIGKILL)


def foreign(world: World, reason: str) -> None:
    world.says(reason, lambda s: condition(s, "ForeignDaemon")[1] == reason, 30)


def protocols(world: World) -> list[str]:
    return [str(r["protocol"]) for r in world.host.json("-4 rule show") if r["priority"] in {100, 101}]


def test_a_host_moves_and_moves_back_without_a_lost_packet(
    world: World, old: tuple[Process, Granted], tmp_path: Path
) -> None:
    process, granted = old
    foreign(world, "DoublezerodRuns")
    index = world.index("doublezero0")
    with Monitor(world.host, tmp_path / "monitor") as monitor:
        world.says("a plan is shown", lambda s: condition(s, "InSync") == ("False", "DoublezerodRuns"))
        assert monitor.changes() == ()
    pinger = Pinger(world.host, granted.far, tmp_path / "ping")
    wait_for("the first answers", lambda: len(pinger.answered) >= 5)

    done = world.agent.cli("migrate", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr + world.report()
    assert "--undo" in done.stdout
    assert not process.running
    assert (world.view(), world.index("doublezero0")) == (granted.view, index)
    assert world.agent.request("GET", "/status")[1][0]["doublezero_status"]["session_status"] == SESSION_UP
    route = f"{PEER_DZ_IP}/32 via {granted.far} dev doublezero0 src {granted.dz_ip} table 100"
    assert learned(world.host) == {route}
    assert set(protocols(world)) == {"210"}

    back = world.agent.cli("migrate", "--undo", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr + world.report()
    assert (world.index("doublezero0"), protocols(world)) == (index, ["2"] * 4)
    process.start()
    wait_for("doublezerod goes on", lambda: process.said.count("provisioned") == 2)
    answered = len(pinger.answered)
    wait_for("answers afterwards", lambda: len(pinger.answered) >= answered + 5)
    assert pinger.stop() == ()
    assert world.index("doublezero0") == index
    process.send(signal.SIGTERM)
    assert world.view() == NOTHING
