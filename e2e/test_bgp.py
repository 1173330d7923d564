"""BGP in namespaces of the running kernel, with the device's real timers 1 3: what may be lost, and for how long.

Every time measured here is an acceptance figure of its own, times LAB_PATIENCE: 4 unless it is set, so that a busy
machine breaks no test; LAB_PATIENCE=1 holds the agent to the figures. Not for emulation, which is slower than timers.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.lab.bgp import BgpLab, bgp_lab, missing, prefixes
from e2e.lab.netns import Monitor
from e2e.lab.processes import Process
from e2e.lab.routers import BirdRouter, frr_missing
from e2e.lab.wait import stays

PATIENCE = float(os.environ.get("LAB_PATIENCE", "4"))
OTHERS = list(prefixes(20))


@contextmanager
def lab_of(**options: object) -> Iterator[BgpLab]:
    """Make a lab, or skip the test and say why."""
    why = missing()
    if why is not None:
        pytest.skip(f"NOT TESTED with a real BGP engine: {why}")
    with bgp_lab(**options) as made:
        yield made


@pytest.fixture(params=["bird", "frr"])
def lab(request: pytest.FixtureRequest) -> Iterator[BgpLab]:
    """A session that is up, with twenty routes, for each make of device."""
    absent = frr_missing() if request.param == "frr" else None
    if absent is not None:
        pytest.skip(f"NOT TESTED with FRR: {absent}")
    with lab_of(router_kind=request.param) as made:
        made.start(OTHERS)
        made.until("all routes are in the kernel", lambda: len(made.routes()) == len(OTHERS))
        yield made


@pytest.fixture
def bird(request: pytest.FixtureRequest) -> Iterator[BgpLab]:
    """The same with BIRD as the device, which can be told things while it runs; parametrized with lab options."""
    with lab_of(**getattr(request, "param", {})) as made:
        made.start(OTHERS)
        made.until("all routes are in the kernel", lambda: len(made.routes()) == len(OTHERS))
        yield made


def own(lines: tuple[str, ...]) -> list[str]:
    """Leave out what is not about routes or the tunnel."""
    return [line for line in lines if ("proto 210" in line or "doublezero0" in line) and "fe80:" not in line]


def test_a_killed_engine_leaves_the_routes_and_comes_back(lab: BgpLab, tmp_path: Path) -> None:
    with Monitor(lab.host, tmp_path / "monitor") as monitor:
        lab.engine.send(signal.SIGKILL)
        began = time.monotonic()
        lab.engine.start()
        lab.until("the session was lost", lambda: lab.session()["status"] != "BGP Session Up")
        lab.up()
        assert time.monotonic() - began < 3 * PATIENCE
        stays("all routes are there", lambda: len(lab.routes()) == len(OTHERS), 11)
        assert own(monitor.changes()) == []


def test_a_killed_agent_comes_back_without_an_event(lab: BgpLab, tmp_path: Path) -> None:
    with Monitor(lab.host, tmp_path / "monitor") as monitor:
        lab.agent.send(signal.SIGKILL)
        lab.agent.start()
        lab.until("it publishes anew", lambda: lab.document("status.json").get("pid") == lab.agent.pid)
        lab.up()
        time.sleep(3)
        assert own(monitor.changes()) == []
    assert len(lab.routes()) == len(OTHERS)


def test_a_deleted_link_costs_four_seconds(lab: BgpLab) -> None:
    lab.host.ip("link delete doublezero0")
    began = time.monotonic()
    lab.until("the session was lost", lambda: lab.session()["status"] != "BGP Session Up")
    lab.up()
    assert time.monotonic() - began < 4 * PATIENCE
    lab.until("the routes are back", lambda: len(lab.routes()) == len(OTHERS), 4)


def test_a_link_that_was_away_costs_three_seconds(lab: BgpLab) -> None:
    lab.device.ip("link set eth0 down")
    lab.until("the session was lost", lambda: lab.session()["status"] != "BGP Session Up")
    lab.until("its routes are gone", lambda: not lab.routes(), 3)
    time.sleep(4)
    lab.device.ip("link set eth0 up")
    assert lab.until("it is up again", lambda: lab.session()["status"] == "BGP Session Up") < 3 * PATIENCE
    lab.until("the routes are back", lambda: len(lab.routes()) == len(OTHERS), 4)


def test_the_device_gets_exactly_our_address(bird: BgpLab) -> None:
    assert isinstance(bird.router, BirdRouter)
    seen = bird.router.tell("show", "route", "protocol", "dev_bgp_host", "table", "dvt_host")
    assert seen.count("/32") == 1
    assert f"{bird.dz_ip}/32" in seen


def test_a_withdraw_takes_its_route_alone(bird: BgpLab, tmp_path: Path) -> None:
    with Monitor(bird.host, tmp_path / "monitor") as monitor:
        bird.router.configure([bird.neighbour()], OTHERS[1:])
        bird.until("it is gone", lambda: len(bird.routes()) == len(OTHERS) - 1, 3)
        assert len(own(monitor.changes())) == 1
    bird.router.configure([bird.neighbour()], OTHERS)
    bird.until("it is back", lambda: len(bird.routes()) == len(OTHERS), 3)


HOSTILE = {
    "0.0.0.0/0": "Default",
    "169.254.0.8/32": "Martian",
    "10.0.0.0/8": "TooShort",
}


def test_a_hostile_peer_is_kept_to_what_is_its_business(bird: BgpLab) -> None:
    captured = ["192.0.2.1/32", "198.51.100.1/32", f"{bird.dz_ip}/32"]
    bird.router.configure([bird.neighbour()], [*OTHERS, *HOSTILE, *captured])
    bird.until("the refusals are told", lambda: "RoutesRefused" in bird.codes(), 5)
    bird.until("what would capture is withheld", lambda: bird.condition("Held")[0] == "True", 5)

    def refused() -> dict[str, str]:
        peer = bird.document("bgp.json")["peers"]["unicast"]
        return {r["prefix"]: r["code"] for r in peer["refused_routes"]}

    bird.until("the refused ones are listed", lambda: refused() == HOSTILE, 5)
    assert bird.routes() == {prefix.removesuffix("/32") for prefix in OTHERS}


@pytest.mark.parametrize("bird", [{"kind": "IBRL_WITH_ALLOCATED_IP", "dz_ip": "148.51.0.9"}], indirect=True)
def test_an_allocated_ip_keeps_its_routes(bird: BgpLab) -> None:
    bird.router.process.send(signal.SIGKILL)
    bird.until("the session was lost", lambda: bird.session()["status"] != "BGP Session Up")
    bird.until("they are shown as stale", lambda: "RoutesStale" in bird.codes(), 5)
    assert len(bird.routes()) == len(OTHERS)
    text = bird.root / "state/desired/learned/unicast.routes"
    bird.until("the file says so", lambda: text.exists() and "# stale since" in text.read_text(), 5)
    bird.agent.send(signal.SIGKILL)
    bird.agent.start()
    stays("they stay over a restart", lambda: len(bird.routes()) == len(OTHERS), 4)
    bird.router.process.start()
    bird.up()
    bird.until("nothing is stale", lambda: "RoutesStale" not in bird.codes(), 5)


@pytest.mark.parametrize("bird", [{"kind": "EDGE_FILTERING", "dz_ip": "148.51.0.9"}], indirect=False)
def test_edge_filtering_learns_into_its_own_table(bird: dict[str, str]) -> None:
    with lab_of(**bird) as made:
        made.start(OTHERS)
        made.until("table 100 holds them", lambda: len(made.routes("100")) == len(OTHERS))
        assert {item["dst"] for item in made.host.json("-4 route show table 254 proto 210")} == set()


def test_a_wrong_as_is_said_for_as_long_as_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_ASN", "65999")
    with lab_of() as made:
        made.router.start([made.neighbour()], OTHERS)
        made.engine.start()
        made.agent.start()
        made.until("it failed", lambda: made.session().get("status") == "BGP Session Failed", 35)
        stays("it is failed", lambda: made.session()["status"] == "BGP Session Failed", 8)
        assert made.condition("SessionUp") == ("False", "BadPeerAS")
        assert made.session()["failures"] > 1


def test_a_foreign_route_is_a_conflict_and_not_overwritten(bird: BgpLab) -> None:
    bird.host.ip("route add 198.19.0.1/32 via 198.51.100.1 proto static")
    bird.router.configure([bird.neighbour()], [*OTHERS, "198.19.0.1/32"])
    bird.until("the conflict is told", lambda: bird.condition("Conflict")[0] == "True", 6)
    assert "via 198.51.100.1" in bird.host.ip("route show 198.19.0.1")
    bird.host.ip("route del 198.19.0.1/32")
    bird.until("ours follows", lambda: "198.19.0.1" in bird.routes(), 6)
    bird.until("the conflict heals", lambda: bird.condition("Conflict")[0] == "False", 6)


def test_a_lost_address_takes_its_routes_and_brings_them_back(bird: BgpLab) -> None:
    bird.host.ip("addr del 198.51.100.7/24 dev eth0")
    bird.until("the routes are gone", lambda: not bird.routes(), 5)
    bird.host.batch("addr add 198.51.100.7/24 dev eth0", "route add default via 198.51.100.1")
    bird.up(20)
    bird.until("the routes are back", lambda: len(bird.routes()) == len(OTHERS), 10)


def test_a_taken_port_is_said_and_healed() -> None:
    taken = "import socket,time;s=socket.socket();s.bind(('0.0.0.0',11179));s.listen();time.sleep(60)"
    with lab_of() as made:
        thief = made.host_process("thief", ["python3", "-c", taken])
        thief.start()
        time.sleep(0.5)
        made.router.start([made.neighbour()], OTHERS)
        made.engine.start()
        made.agent.start()
        made.until("the reason is said", lambda: made.condition("SessionUp")[1] == "ListenerPort", 15)
        thief.send(signal.SIGKILL)
        made.up(30)


def test_an_excluded_route_goes_and_returns(bird: BgpLab) -> None:
    policy = bird.root / "policy.yaml"
    policy.write_text("bgp:\n  exclude: [198.18.0.0/30, 198.18.0.9]\n")
    bird.until("five are gone", lambda: len(bird.routes()) == len(OTHERS) - 5, 5)
    policy.write_text("bgp:\n  exclude: [nonsense]\n")
    bird.until("the mistake is told", lambda: "PolicyRefused" in bird.codes(), 5)
    assert len(bird.routes()) == len(OTHERS) - 5
    policy.write_text("bgp:\n  exclude: []\n")
    bird.until("all are back", lambda: len(bird.routes()) == len(OTHERS), 5)


def test_a_hundred_thousand_prefixes_are_bounded(bird: BgpLab) -> None:
    """The engine takes what it may, the rest is dropped; the session and what was there stay."""
    flood = [f"100.{64 + n // 65536}.{n // 256 % 256}.{n % 256}/32" for n in range(100_000)]
    bird.router.configure([bird.neighbour()], [*OTHERS, *flood])
    bird.until("too many are told", lambda: "TooManyRoutes" in bird.codes(), 60)
    assert {prefix.removesuffix("/32") for prefix in OTHERS} <= bird.routes()
    assert bird.session()["status"] == "BGP Session Up"
    rss = next(
        int(w.split()[1])
        for w in Path(f"/proc/{bird.agent.pid}/status").read_text().splitlines()
        if "VmRSS" in w
    )
    assert rss < 400 * 1024
    bird.router.configure([bird.neighbour()], OTHERS)
    bird.until("all of it is gone", lambda: len(bird.routes()) == len(OTHERS), 60)


def test_ten_thousand_flaps_a_minute_cost_a_share_of_a_core(bird: BgpLab) -> None:
    """Ten rounds of two hundred routes a second: what stays put is never touched, and time is bounded."""
    flapping = list(prefixes(200, first=70_000))
    ticks = os.sysconf("SC_CLK_TCK")

    def used() -> float:
        fields = Path(f"/proc/{bird.agent.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    before, began = used(), time.monotonic()
    while time.monotonic() - began < 10:
        for announced in ([*OTHERS, *flapping], OTHERS):
            bird.router.configure([bird.neighbour()], announced)
            time.sleep(0.6)
    share = (used() - before) / (time.monotonic() - began)
    assert share < 0.35
    bird.until("it ends as it should", lambda: len(bird.routes()) == len(OTHERS), 5)


def test_a_peer_that_talks_garbage_is_a_failed_session() -> None:
    garbage = "import socket;s=socket.socket();s.setsockopt(1,2,1);s.bind(('169.254.0.4',179));s.listen()\nwhile 1:\n c,_=s.accept();c.sendall(b'GET / HTTP/1.0'*9);c.close()"
    with lab_of() as made:
        liar = Process("liar", made.device, ["python3", "-c", garbage], made.root / "liar.log")
        liar.start()
        made.engine.start()
        made.agent.start()
        made.until("the session is failing", lambda: made.session().get("failures", 0) > 2, 20)
        assert made.condition("SessionUp")[0] == "False"
        assert made.engine.running
        liar.send(signal.SIGKILL)
        made.router.start([made.neighbour()], OTHERS)
        made.up(30)


@pytest.mark.parametrize("answer", ["nonsense", "silence"])
def test_a_control_socket_that_lies_keeps_the_routes(bird: BgpLab, answer: str) -> None:
    """Something else answers on the socket: nothing is taken from it, everything stays, and it is told."""
    path = bird.root / "run/bird/bird.ctl"
    say = (
        "c.sendall(b'0001 BIRD 2.0.12 ready.\\n');"
        if answer == "silence"
        else "c.sendall(b'hello?\\n0000 x\\n');"
    )
    code = f"import socket,time;s=socket.socket(1);s.bind({str(path)!r});s.listen();k=[]\nwhile 1:\n c,_=s.accept();k.append(c);{say}"
    bird.engine.send(signal.SIGKILL)
    path.unlink()
    liar = Process("liar", bird.host, ["python3", "-c", code], bird.root / "liar.log")
    liar.start()
    wanted = "EngineSilent" if answer == "silence" else "EngineError"
    bird.until("it is told", lambda: bird.condition("SessionUp") == ("Unknown", wanted), 10)
    stays("the routes stay", lambda: len(bird.routes()) == len(OTHERS), 12)
    liar.send(signal.SIGKILL)
    path.unlink()
    bird.engine.start()
    bird.up(20)
    assert len(bird.routes()) == len(OTHERS)
