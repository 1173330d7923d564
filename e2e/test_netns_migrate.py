"""The move from doublezerod in namespaces of the running kernel: real `ip`, real BGP, and pings that count."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.lab.bgp import CLIENT_IP, DEVICE_IP, LINK, LOCAL, REMOTE, BgpLab, bgp_lab, prefixes
from e2e.lab.doublezerod import script
from e2e.lab.errors import LabError
from e2e.lab.netns import Monitor, Pinger
from e2e.lab.processes import Process
from e2e.lab.view import ifindex
from e2e.lab.wait import wait_for

DZ_IP, PREFIX, OTHER = "148.51.0.9", "148.51.0.0/24", "198.18.0.1"
"""A DoubleZero address and prefix of the lab's ledger, and another user's address behind the device."""
MANY = 2000


@dataclass
class Move:
    """A host that the stand-in for doublezerod has set up, and an agent that only looks."""

    lab: BgpLab
    root: Path
    old: Process

    def start(self, learned: Sequence[str]) -> None:
        self.lab.router.start([self.lab.neighbour()], learned)
        self.lab.device.batch(f"addr add {OTHER}/32 dev lo", f"route add {DZ_IP}/32 dev user0")
        self.old.start()
        wait_for("doublezerod is done", lambda: "provisioned" in self.old.said)
        self.lab.engine.start()
        self.lab.agent.start()
        self.hindered("DoublezerodRuns")

    def hindered(self, code: str) -> None:
        self.lab.until(f"the agent says {code}", lambda: self.lab.condition("ForeignDaemon")[1] == code, 30)

    def run(self, verb: str) -> str:
        """Run the migration inside the host."""
        argv = [sys.executable, "-m", "e2e.lab.migrating", str(self.root), self.lab.host.name, verb]
        done = self.lab.host.run(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rules(self) -> set[tuple[int, str]]:
        listed = self.lab.host.json("-4 rule show")
        return {(int(r["priority"]), str(r["protocol"])) for r in listed if r["priority"] in {100, 101}}

    def count(self, protocol: int) -> int:
        return len(self.lab.host.json(f"-4 route show table all proto {protocol}"))

    def alias(self) -> str:
        return str(self.lab.host.json(f"link show dev {LINK}")[0].get("ifalias", ""))


def moving(kind: str, dz_ip: str, learned: Sequence[str]) -> Iterator[Move]:
    try:
        with bgp_lab(kind=kind, dz_ip=dz_ip) as lab:
            edge = kind == "EDGE_FILTERING"
            up = script(
                ends=(CLIENT_IP, DEVICE_IP),
                overlay=(LOCAL, REMOTE),
                dz_ip=dz_ip if edge else "",
                prefixes=[PREFIX] if edge else [],
                learned=learned,
                source=dz_ip,
                kind="gre" if lab.stand_in.gre else "vxlan id 1 dstport 4789",
            )
            words = [
                "-m",
                "e2e.lab.doublezerod",
                str(up.write(lab.root / "script.json")),
                "-env",
                "mainnet-beta",
            ]
            old = lab.host_process("doublezerod", [sys.executable, *words])
            agent = ["-m", "e2e.lab.bgpagent", str(lab.root), lab.host.name, kind, dz_ip]
            lab.agent = lab.host_process("agent", [sys.executable, *agent])
            move = Move(lab, lab.root, old)
            try:
                move.start(learned)
                yield move
            finally:
                old.send(signal.SIGKILL)
    except LabError as error:
        if "Run as root" in str(error) or "is not installed" in str(error):
            pytest.skip(f"NOT TESTED: the move from doublezerod. {error}")
        raise


@pytest.fixture
def ibrl() -> Iterator[Move]:
    yield from moving("IBRL", CLIENT_IP, list(prefixes(MANY)))


@pytest.fixture
def edge() -> Iterator[Move]:
    yield from moving("EDGE_FILTERING", DZ_IP, [f"{OTHER}/32"])


def test_a_tunnel_with_many_routes_moves_and_loses_nothing(ibrl: Move, tmp_path: Path) -> None:
    lab, index = ibrl.lab, ifindex(ibrl.lab.host, LINK)
    with Monitor(lab.host, tmp_path / "monitor") as monitor:
        assert lab.document("plan.json")["steps"], "a plan is made and shown"
        lab.agent.send(signal.SIGTERM)
        lab.agent.start()
        ibrl.hindered("DoublezerodRuns")
        written = [line for line in monitor.changes() if "::" not in line]  # the kernel's own IPv6 addresses
        assert written == [], "while doublezerod runs nothing is written"
    near = Pinger(lab.host, REMOTE, tmp_path / "near", 0.005)
    far = Pinger(lab.host, OTHER, tmp_path / "far", 0.005)
    wait_for("the first answers", lambda: len(near.answered) >= 50 and len(far.answered) >= 50)
    said = ibrl.run("migrate")
    print(said)
    assert "done" in said
    assert (ibrl.count(186), ibrl.count(210)) == (0, MANY)
    up = lab.until("the session is up", lambda: lab.session().get("status") == "BGP Session Up", 20)
    print(f"the session is up {up:.1f} s later")
    lab.until("ready", lambda: lab.condition("Ready") == ("True", "Provisioned"), 30)
    lab.until("every route confirmed", lambda: lab.document("routes.json") and ibrl.count(210) == MANY)
    answered = len(far.answered)
    wait_for("answers afterwards", lambda: len(far.answered) >= answered + 100)
    assert (near.stop(), far.stop()) == ((), ())
    assert (ifindex(lab.host, LINK), ibrl.alias()) == (index, "dzagent:unicast")
    assert not ibrl.old.running


def test_what_the_device_no_longer_announces_goes_and_the_rest_never_blinks(
    ibrl: Move, tmp_path: Path
) -> None:
    lab = ibrl.lab
    lab.router.configure([lab.neighbour()], [f"{OTHER}/32"])
    with Monitor(lab.host, tmp_path / "monitor") as monitor:
        ibrl.run("migrate")
        lab.up()
        lab.until("the rest is withdrawn", lambda: ibrl.count(210) == 1, 30)
        gone = [line for line in monitor.changes() if line.startswith("Deleted") and f"{OTHER} " in line]
    assert all("proto bgp" in line or "proto 186" in line for line in gone), gone


def test_rules_and_routes_of_a_filtering_user_move_and_come_back(edge: Move, tmp_path: Path) -> None:
    lab, index = edge.lab, ifindex(edge.lab.host, LINK)
    lab.host.batch(
        f"rule add to {OTHER}/32 priority 90 table 100",
        "rule add to 203.0.113.0/24 priority 100 table 100 protocol kernel",
    )
    near = Pinger(lab.host, REMOTE, tmp_path / "near", 0.005)
    far = Pinger(lab.host, OTHER, tmp_path / "far", 0.005)
    wait_for("the first answers", lambda: len(near.answered) >= 50 and len(far.answered) >= 50)
    assert edge.rules() == {(100, "2"), (101, "2")}
    edge.run("migrate")
    lab.until("ready", lambda: lab.condition("Ready") == ("True", "Provisioned"), 30)
    assert edge.rules() == {(100, "210"), (101, "210"), (100, "2")}, "a rule of nobody's stays"
    edge.run("undo")
    assert edge.rules() == {(100, "2"), (101, "2")}
    assert (edge.count(210), edge.alias(), ifindex(lab.host, LINK)) == (0, "", index)
    edge.hindered("HandedBack")
    assert not edge.old.running
    edge.old.start()
    wait_for("doublezerod is done", lambda: edge.old.said.count("provisioned") == 2)
    assert (near.stop(), far.stop()) == ((), ())
    edge.old.send(signal.SIGTERM)
    assert not ifindex(lab.host, LINK), "it is doublezerod's to take down again"


def test_killed_in_the_middle_the_same_command_goes_on(edge: Move, tmp_path: Path) -> None:
    lab = edge.lab
    near = Pinger(lab.host, REMOTE, tmp_path / "near", 0.005)
    wait_for("the first answers", lambda: len(near.answered) >= 50)
    argv = [sys.executable, "-m", "e2e.lab.migrating", str(edge.root), lab.host.name, "migrate"]
    for _ in range(3):  # at three moments after doublezerod has ended
        broken = Process("migrating", lab.host, argv, tmp_path / "migrating.log")
        broken.start()
        wait_for("doublezerod has ended", lambda: not edge.old.running)
        broken.send(signal.SIGKILL)
    said = edge.run("migrate")
    assert "done" in said
    lab.until("ready", lambda: lab.condition("Ready") == ("True", "Provisioned"), 30)
    assert edge.rules() == {(100, "210"), (101, "210")}
    assert near.stop() == ()
