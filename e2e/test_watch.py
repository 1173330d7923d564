"""The watch over a real kernel: what somebody deletes comes back at once, storms and killed monitors change nothing.

No timer can do the repair here: the next look at everything is a minute away. Times are not asserted but in waits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dzagent.policy import Contested, Policy
from e2e.lab.bgp import BgpLab, bgp_lab, missing
from e2e.lab.errors import LabError
from e2e.lab.netns import Monitor, Pinger
from e2e.lab.netns import Namespace as Netns
from e2e.lab.wait import stays, wait_for
from e2e.lab.watching import WatchedAgent, learned_routes, watched_agent

ROUTES = 40
PATIENT = Policy(contested=Contested(after=1_000_000))
"""One object is changed many times here, which is not the fight that it looks like."""
LIMIT = 10.0
"""Seconds for a repair on a busy machine; a full look would take a minute."""

SHOWS = (
    "-4 route show table 100",
    "-4 route show table 101",
    "-4 rule show",
    "-4 -br addr show dev doublezero0",
    "-br link show dev doublezero0",
)


@pytest.fixture(scope="module")
def agent() -> Iterator[WatchedAgent]:
    """Run an agent with every kind of object."""
    try:
        with watched_agent(
            learned_routes(ROUTES, table=100, source=IPv4Address("148.51.0.9")), policy=PATIENT
        ) as made:
            yield made
    except LabError as error:
        pytest.skip(f"NOT TESTED on a real kernel: {error}")


def state(agent: WatchedAgent) -> list[list[str]]:
    """Return everything of ours, in no order, without what differs from one link to the next."""
    found = []
    for show in SHOWS:
        done = agent.net("ip", show.split())
        words = [" ".join(line.split()[:3]) for line in done.stdout.decode().splitlines()]
        found.append(sorted(words) if show.startswith("-4") else words and [words[0].split()[0]])
    return found


def repaired(agent: WatchedAgent, *edits: str) -> None:
    """Do this, and wait until everything is as it was."""
    agent.calm()
    before = state(agent)
    for edit in edits:
        agent.net.ip(edit)
    wait_for(f"{edits} is repaired", lambda: state(agent) == before, LIMIT)


@pytest.mark.parametrize(
    "edits",
    [
        ("route del 198.18.0.7 table 100 proto 210",),
        ("route replace 198.18.0.8 via 169.254.0.4 dev doublezero0 table 100 proto 210 mtu 1200",),
        ("route del default table 101 proto 210",),
        ("route flush table 100 proto 210",),
        ("rule del priority 100 to 148.51.120.0/21 table 100",),
        (
            "rule del priority 100 to 148.51.120.0/21 table 100",
            "rule del priority 101 from 148.51.120.0/21 table 101",
        ),
        ("rule add priority 99 from 10.77.0.0/16 table 101 protocol 210",),
        ("addr del 169.254.0.5/31 dev doublezero0",),
        ("addr add 10.77.0.1/24 dev doublezero0",),
        ("addr flush dev doublezero0",),
        ("link set doublezero0 down",),
        ("link set doublezero0 mtu 1300",),
        ("link delete doublezero0",),
        ("link delete doublezero0", "rule del priority 100 to 148.51.120.0/21 table 100"),
        ("route add 198.19.1.1 via 169.254.0.4 dev doublezero0 table 100 proto 210",),
    ],
)
def test_what_somebody_changes_comes_back(agent: WatchedAgent, edits: tuple[str, ...]) -> None:
    repaired(agent, *edits)


@pytest.mark.parametrize(
    "edit",
    [
        "flush table inet dzagent",
        "delete table inet dzagent",
        "add rule inet dzagent unicast_input counter drop",
        "delete chain inet dzagent unicast_input",
    ],
)
def test_what_somebody_does_to_the_table_is_undone(agent: WatchedAgent, edit: str) -> None:
    def listed() -> str:
        done = agent.nft("-s", "list", "table", "inet", "dzagent")
        return done.stdout.decode()

    if not agent.generations.healthy:
        pytest.skip("NOT TESTED: nftables cannot be listened to here")
    agent.calm()
    before = listed()
    assert "chain" in before
    if agent.nft(*edit.split()).code != 0:
        assert edit.startswith("delete chain")  # a chain with rules in it stays
        agent.nft("flush", "chain", "inet", "dzagent", "unicast_input")
        assert agent.nft(*edit.split()).code == 0
    wait_for(f"{edit} is undone", lambda: sorted(listed().splitlines()) == sorted(before.splitlines()), LIMIT)


def test_nothing_is_done_while_nothing_happens(agent: WatchedAgent, tmp_path: Path) -> None:
    agent.calm(1)
    passes = len(agent.passes)
    with Monitor(Netns(agent.net.name), tmp_path / "log") as monitor:
        time.sleep(3)
        assert [line for line in monitor.changes() if "proto 210" in line] == []
    # the marks of the monitor are foreign rules: a look each, and no write
    assert len(agent.passes) - passes <= 6


def test_own_writes_do_not_wake_it_into_a_loop(agent: WatchedAgent) -> None:
    agent.calm(1)
    passes, tried = len(agent.passes), agent.loop.tried
    repaired(agent, "link delete doublezero0")
    agent.calm(1)
    assert len(agent.passes) - passes <= 6
    tried = agent.loop.tried - tried
    stays("nothing more is tried", lambda: agent.loop.tried == agent.loop.tried and tried > 0, 1)


def test_a_foreign_owner_of_a_learned_route_is_a_conflict_and_it_heals(agent: WatchedAgent) -> None:
    agent.calm()
    agent.net.ip("route replace 198.18.0.9 via 198.51.100.1 dev eth0 table 100 proto 186")

    def conflicts() -> list[str]:
        document = json.loads(agent.config.paths.status.read_text())
        return [conflict["object"] for conflict in document["conflicts"]]

    wait_for("a conflict is named", lambda: any("198.18.0.9" in text for text in conflicts()), LIMIT)
    assert "proto 186" in agent.net.ip("-N route show table 100")
    agent.net.ip("route del 198.18.0.9 table 100 proto 186")
    wait_for("the route is ours again", lambda: "proto 186" not in agent.net.ip("-N route show table 100"))
    wait_for("the conflict is over", lambda: not conflicts(), LIMIT)
    assert "198.18.0.9" in agent.net.ip("route show table 100")


@pytest.mark.parametrize(
    ("there", "code"),
    [
        ("route add blackhole 192.0.2.1", "EndpointUnrouted"),
        ("route add prohibit 192.0.2.0/24", "EndpointUnrouted"),
        ("rule add priority 10 to 192.0.2.1 unreachable", "EndpointUnrouted"),
        ("route add 192.0.2.1 via 169.254.0.4 dev doublezero0", "EndpointLooped"),
        ("route add default via 198.51.100.1 table 100", "TableShared"),
        ("route prepend 198.18.0.9 via 198.51.100.1 dev eth0 table 100", "TableShared"),
    ],
)
def test_others_in_our_places_are_told_at_once_and_no_longer_than_they_stay(
    agent: WatchedAgent, there: str, code: str
) -> None:
    """The next look at everything is a minute away."""

    def told() -> bool:
        document = json.loads(agent.config.paths.status.read_text())
        return code in [problem["code"] for problem in document["problems"]]

    agent.calm()
    before = state(agent)
    assert not told()
    agent.net.ip(there)
    wait_for(f"{there} is told", told, LIMIT)
    agent.net.ip(there.replace(" add ", " del ").replace(" prepend ", " del "))
    wait_for(f"{there} is forgotten", lambda: not told(), LIMIT)
    assert state(agent) == before


def test_a_route_with_a_nexthop_object_makes_room(agent: WatchedAgent) -> None:
    agent.net.ip("nexthop add id 5 via 198.51.100.1 dev eth0")
    route = "198.18.0.7 table 100 proto 210"
    repaired(agent, f"route del {route}", f"route add {route} nhid 5")
    agent.net.ip("nexthop del id 5")


def test_an_alternative_name_is_a_conflict_and_it_heals(agent: WatchedAgent) -> None:
    def conflicts() -> list[str]:
        document = json.loads(agent.config.paths.status.read_text())
        return [conflict["owner"] for conflict in document["conflicts"]]

    agent.calm()
    before = state(agent)
    agent.net.ip("link delete doublezero0")
    done = agent.net("ip", ["link", "property", "add", "dev", "eth0", "altname", "doublezero0"])
    if done.code == 0:  # else the agent was faster
        wait_for("it is told", lambda: any("alternative name" in owner for owner in conflicts()), LIMIT)
        agent.net.ip("link property del dev eth0 altname doublezero0")
    wait_for("it heals", lambda: state(agent) == before and not conflicts(), LIMIT)


def test_a_killed_monitor_is_started_again(agent: WatchedAgent) -> None:
    restarts = agent.watch.view().restarts
    for number in range(1, 4):
        child = agent.watch._child  # noqa: SLF001 - the test is somebody who kills it
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        _wait_for_restarts(agent, restarts + number)
        wait_for("another one listens", lambda: agent.watch.healthy, LIMIT)
        repaired(agent, "route del 198.18.0.7 table 100 proto 210")


def _wait_for_restarts(agent: WatchedAgent, count: int) -> None:
    wait_for("it ended", lambda: agent.watch.view().restarts == count, LIMIT)


def test_a_storm_of_foreign_routes_changes_nothing(agent: WatchedAgent) -> None:
    """Five thousand changes a second, for three seconds: no pass comes of it, and repairs go on."""
    agent.calm()
    passes = len(agent.passes)
    storm = subprocess.Popen(
        ["ip", "-netns", agent.net.name, "-force", "-batch", "-"], stdin=subprocess.PIPE, text=True
    )
    assert storm.stdin is not None
    for tick in range(300):
        first = tick * 25
        for n in range(first, first + 25):
            there = f"10.{n // 256 % 256}.{n % 256}.0/24 via 198.51.100.1 dev eth0 proto 12"
            storm.stdin.write(f"route add {there}\nroute del {there}\n")
        storm.stdin.flush()
        if tick == 150:
            assert len(agent.passes) - passes <= 2
            agent.net.ip("route del 198.18.0.7 table 100 proto 210")
        time.sleep(0.01)
    storm.stdin.close()
    storm.wait()
    wait_for("it is repaired", lambda: "198.18.0.7" in agent.net.ip("route show table 100"), LIMIT)
    assert len(agent.passes) - passes <= 4
    assert agent.watch.healthy


# ---- restarts ------------------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[BgpLab]:
    """A host and a device with a session."""
    why = missing()
    if why is not None:
        pytest.skip(f"NOT TESTED with a device: {why}")
    with bgp_lab() as made:
        made.start([f"198.18.0.{n}/32" for n in range(1, 21)])
        made.until("all routes are in the kernel", lambda: len(made.routes()) == 20)
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_loses_no_packet_and_writes_nothing(
    lab: BgpLab, number: signal.Signals, tmp_path: Path
) -> None:
    index = lab.host.json("link show doublezero0")[0]["ifindex"]
    with Monitor(lab.host, tmp_path / "monitor") as monitor:
        pinger = Pinger(lab.host, "169.254.0.4", tmp_path / "ping", interval=0.01)
        wait_for("pings are answered", lambda: len(pinger.answered) > 50)
        monitors = _monitors(lab.host.name)
        lab.agent.send(number)
        wait_for("the monitor has ended with it", lambda: not (monitors & _monitors(lab.host.name)))
        lab.agent.start()
        lab.until("it publishes anew", lambda: lab.document("status.json").get("pid") == lab.agent.pid)
        lab.up()
        seen = len(pinger.answered)
        wait_for("pings are answered", lambda: len(pinger.answered) > seen + 100)
        assert pinger.stop() == ()
        own = [line for line in monitor.changes() if "proto 210" in line or "doublezero0" in line]
        assert [
            line for line in own if "inet6" not in line and "::" not in line
        ] == []  # IPv6 is the kernel's
    assert lab.host.json("link show doublezero0")[0]["ifindex"] == index


def _monitors(name: str) -> set[int]:
    """Return the processes that watch a namespace."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if name.encode() in words and b"monitor" in words and b"label" in words:
            found.add(int(entry.name))
    return found


def test_nftables_generations_are_heard_in_their_own_namespace(agent: WatchedAgent) -> None:
    """The filter in the kernel passes one message a transaction, and none of another namespace."""
    enter = ["ip", "netns", "exec", agent.net.name]
    if subprocess.run([*enter, "nft", "list", "tables"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: nft does not work here")
    listen = (
        "import time\n"
        "from dzagent.kernel.generations import open_generations\n"
        "sock = open_generations()\n"
        "print('ready', flush=True)\n"
        "for _ in range(3): print(len(sock.recv(4096)), flush=True)\n"
    )
    child = subprocess.Popen(
        [*enter, sys.executable, "-c", listen], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    edits = ("add table inet x", "add chain inet x c", "delete table inet x")
    for edit in edits:
        subprocess.run([*enter, "nft", edit], check=True)
    said = [int(child.stdout.readline()) for _ in edits]
    child.stdout.close()
    assert child.wait(30) == 0
    assert all(length <= 64 for length in said)


def test_events_that_the_kernel_drops_are_made_up_for(agent: WatchedAgent) -> None:
    """A monitor that does not get to run loses events (ENOBUFS); what was among them is found all the same."""
    agent.calm()
    overruns = agent.watch.view().overruns
    child = agent.watch._child  # noqa: SLF001 - the test is a machine that is too busy
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    try:
        there = [f"10.{n // 256}.{n % 256}.0/24 via 198.51.100.1 dev eth0 proto 12" for n in range(10_000)]
        agent.net("ip", ["-batch", "-"], "".join(f"route add {to}\nroute del {to}\n" for to in there))
        agent.net.ip("route del 198.18.0.7 table 100 proto 210")
    finally:
        os.kill(child.pid, signal.SIGCONT)
    wait_for("the loss is noticed", lambda: agent.watch.view().overruns > overruns, LIMIT)
    wait_for("it is repaired", lambda: "198.18.0.7" in agent.net.ip("route show table 100"), LIMIT)
