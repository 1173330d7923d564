"""The thread beside the loop, on an engine in memory and times that pass when told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from dzagent.bgp.engine import Peer, PeerState
from dzagent.bgp.gate import Gate
from dzagent.bgp.rules import ImportRules, read_exclude
from dzagent.bgp.session import UP
from dzagent.bgp.speaker import Limits, Speaker
from dzagent.errors import EngineError, EngineGone, EngineRefused, EngineSilent
from dzagent.model import Route, ServiceName
from tests.bgp_fakes import ACTIVE, PEER, FakeEngine, Time, rib


class World:
    """A speaker with everything around it."""

    def __init__(self, peer: Peer = PEER) -> None:
        self.time = Time()
        self.engine = FakeEngine(self.time)
        self.gate = Gate()
        self.woken: list[str] = []
        self.speaker = Speaker(
            self.engine,
            limits=Limits(),
            rules=ImportRules(limit=50),
            gate=self.gate,
            clocks=self.time.clocks,
            on_change=self.woken.append,
        )
        self.gate.on_change = self.speaker.gate_changed
        self.want({"unicast": peer})

    def want(
        self,
        peers: Mapping[ServiceName, Peer],
        installed: tuple[Route, ...] = (),
        stale: Mapping[ServiceName, Mapping[str, float]] | None = None,
    ) -> None:
        self.speaker.want(peers, installed, lambda: stale or {})

    def tick(self, count: int = 1, seconds: float = 0.2) -> list[str]:
        self.woken.clear()
        for _ in range(count):
            self.time.pass_(seconds)
            self.speaker.tick()
        return self.woken

    def up(self, *hosts: int) -> None:
        self.engine.announce(rib(*hosts))
        self.tick(10)
        assert self.held == set(rib(*hosts))

    @property
    def held(self) -> set[str]:
        return set(self.speaker.learned()[1].get("unicast", {}))

    @property
    def status(self) -> str:
        return self.speaker.view().peers["unicast"].session.status


@pytest.fixture
def world() -> World:
    return World()


def test_the_engine_is_told_once_what_is_wanted(world: World) -> None:
    world.tick(5)
    assert world.engine.configured == [{"unicast": PEER}]
    world.want({})
    world.tick(2)
    assert world.engine.configured[1:] == [{}]


def test_a_change_wakes_the_loop_and_an_unchanged_table_is_not_read(world: World) -> None:
    world.up(1, 2)
    dumps = world.engine.dumps
    assert world.tick(50) == []
    assert world.engine.dumps == dumps
    world.engine.announce(rib(1, 2, 3))
    assert world.tick() == ["routes"]
    assert world.engine.dumps == dumps + 1


def test_only_what_changed_is_told(world: World) -> None:
    world.up(1, 2)
    version = world.speaker.version
    world.engine.announce(rib(2, 3))
    world.tick()
    changes = world.speaker.changes(version)
    assert changes is not None
    assert {key[1]: route is not None for key, route in changes.routes.items()} == {
        "198.18.0.1/32": False,
        "198.18.0.3/32": True,
    }
    again = world.speaker.changes(changes.version)
    assert again is not None
    assert not again.routes
    assert world.speaker.changes(-5) is None


def test_a_lost_session_flushes_at_once(world: World) -> None:
    world.up(1, 2)
    world.engine.down()
    assert world.tick() == ["routes", "session"]
    assert world.held == set()


def test_a_killed_engine_leaves_everything_for_ten_seconds(world: World) -> None:
    world.up(1, 2)
    world.engine.error = EngineGone("gone")
    world.tick(40)  # 8 s
    assert world.held == set(rib(1, 2))
    world.tick(20)
    assert world.held == set()
    assert world.status != UP


def test_a_silent_engine_proves_nothing(world: World) -> None:
    world.up(1, 2)
    world.engine.error = EngineSilent("hangs")
    world.tick(1000)
    assert world.held == set(rib(1, 2))
    trouble = world.speaker.view().trouble
    assert trouble is not None
    assert trouble.code == "EngineSilent"
    world.engine.error = None
    assert "session" in world.tick()
    assert world.speaker.view().trouble is None


def test_a_restarted_engine_gets_a_grace(world: World) -> None:
    world.up(1, 2, 3)
    world.engine.restart()
    world.tick(10)
    assert world.held == set(rib(1, 2, 3))
    world.engine.announce({}, since="up 2")
    world.tick(5)
    world.engine.announce(rib(1, 2), since="up 2")
    world.tick(5)
    assert world.held == set(rib(1, 2, 3))
    world.tick(60)  # the grace is over
    assert world.held == set(rib(1, 2))


def test_a_restarted_engine_that_never_gets_a_session_loses_them(world: World) -> None:
    world.up(1)
    world.engine.restart()
    world.tick(45)
    assert world.held == set(rib(1))
    world.tick(10)
    assert world.held == set()


def test_a_session_lost_within_the_grace_is_lost(world: World) -> None:
    world.engine.booted = world.time.mono
    world.up(1, 2)
    world.engine.down()
    world.tick()
    assert world.held == set()


def test_routes_taken_over_with_a_new_session_wait_for_it_as_long_as_for_a_new_engine() -> None:
    """As after a migration: the engine has run for long, but nobody has asked it for this session yet."""
    old = World()
    old.up(1, 2)
    routes = tuple(old.speaker.learned()[1]["unicast"].values())
    new = World()
    new.want({})
    new.tick(100)
    new.want({"unicast": PEER}, routes)
    new.tick()
    new.engine.down()
    new.tick(44)
    assert new.held == set(rib(1, 2))
    new.tick(10)
    assert new.held == set()


def test_a_session_that_the_engine_had_and_lost_is_lost_for_a_new_process_too() -> None:
    old = World()
    old.up(1)
    routes = tuple(old.speaker.learned()[1]["unicast"].values())
    new = World()
    new.want({})
    new.engine.down()
    new.want({"unicast": PEER}, routes)
    new.tick()
    assert new.held == set()


def test_a_new_process_takes_over_and_gives_back_what_is_gone() -> None:
    old = World()
    old.up(1, 2)
    routes = tuple(old.speaker.learned()[1]["unicast"].values())
    new = World()
    new.want({})
    new.want({"unicast": PEER}, routes)
    assert new.held == set(rib(1, 2))
    new.engine.announce(rib(2))
    new.tick(1)
    assert new.held == set(rib(1, 2))
    new.tick(10)  # the session has settled: what it does not show is withdrawn
    assert new.held == set(rib(2))


def test_what_is_not_this_peers_is_not_taken_over() -> None:
    old = World()
    old.up(1)
    mine = next(iter(old.speaker.learned()[1]["unicast"].values()))
    foreign = [
        replace(mine, via=IPv4Address("169.254.0.8")),
        replace(mine, table=100),
        replace(mine, src=None),
        replace(mine, dev="doublezero1"),
        replace(mine, metric=5),
        replace(mine, extra=("mtu 1200",)),
    ]
    new = World()
    new.want({})
    new.want({"unicast": PEER}, tuple(foreign))
    assert new.held == set()


def test_kept_routes_are_stale_and_expire() -> None:
    world = World(replace(PEER, keep=True))
    world.up(1, 2)
    world.engine.down()
    world.tick(5)
    assert world.held == set(rib(1, 2))
    assert set(world.speaker.view().peers["unicast"].stale) == set(rib(1, 2))
    world.tick(2, seconds=43_000)
    assert world.held == set(rib(1, 2))
    world.tick(1, seconds=1_000)
    assert world.held == set()


def test_a_closed_gate_holds_routes_back_and_lets_them_through(world: World) -> None:
    world.up(1, 2, 3)
    world.woken.clear()
    version = world.speaker.version
    world.gate.set("unicast", {"198.18.0.2/32"})
    assert world.woken == ["routes"]
    assert world.held == {"198.18.0.2/32"}
    changes = world.speaker.changes(version)
    assert changes is not None
    assert set(changes.routes.values()) == {None}
    assert len(changes.routes) == 2
    world.engine.announce(rib(1, 2, 3, 4))
    world.tick()
    assert world.held == {"198.18.0.2/32"}
    world.gate.set("unicast", None)
    assert world.held == set(rib(1, 2, 3, 4))


def test_other_rules_take_effect_at_once(world: World) -> None:
    world.up(1, 2)
    world.speaker.set_rules(ImportRules(limit=50, exclude=read_exclude(["198.18.0.1"])))
    assert world.held == set(rib(2))
    assert world.speaker.view().peers["unicast"].refused.counts == {"Excluded": 1}


def test_a_session_that_was_given_up_is_started_again_less_and_less_often(world: World) -> None:
    world.engine.peers["unicast"] = PeerState("Down", "x", "Error: No listening socket")
    world.tick(300)  # a minute
    assert 3 <= len(world.engine.revived) <= 6
    assert world.speaker.view().peers["unicast"].session.reason == "ListenerPort"


def test_after_a_full_table_everything_is_asked_for_again(world: World) -> None:
    world.engine.announce(rib(1), full=True)
    world.tick(3)
    assert world.speaker.view().peers["unicast"].full
    world.engine.announce(rib(1))
    world.tick(3)
    assert world.engine.refreshed == ["unicast"]


def test_flaps_cost_a_share_of_a_core_only(world: World) -> None:
    world.up(1)
    read = world.engine.rib

    def slow(service: ServiceName) -> Mapping[str, str]:
        world.time.pass_(0.5)
        return read(service)

    world.engine.rib = slow  # type: ignore[method-assign]
    before = world.engine.dumps
    for n in range(100):
        world.engine.announce(rib(1, 2 + n % 2))
        world.tick(seconds=0.2)
    elapsed = 100 * 0.2 + (world.engine.dumps - before) * 0.5
    assert (world.engine.dumps - before) * 0.5 / elapsed < 0.3


def test_nonsense_for_routes_changes_nothing_and_is_told(world: World) -> None:
    world.up(1, 2)
    world.engine.rib_error = EngineError("nonsense")
    world.engine.announce({})
    world.tick(30)
    assert world.held == set(rib(1, 2))
    trouble = world.speaker.view().trouble
    assert trouble is not None
    assert trouble.message == "nonsense"
    world.engine.rib_error = None
    world.tick(30)
    assert world.held == set()
    assert world.speaker.view().trouble is None


def test_sessions_that_are_refused_are_told_and_tried_again(world: World) -> None:
    world.engine.refuses = EngineRefused("line 7")
    world.tick(3)
    assert world.speaker.view().problems == (("EngineRefused", "line 7"),)
    world.engine.refuses = None
    world.tick(20)
    assert world.speaker.view().problems == ()
    assert world.engine.configured == [{"unicast": PEER}]


def test_a_refusal_is_forgotten_when_the_old_wish_returns(world: World) -> None:
    world.tick()
    world.engine.refuses = EngineRefused("line 7")
    world.want({})
    world.tick()
    world.engine.refuses = None
    world.want({"unicast": PEER})
    world.tick(20)
    assert world.speaker.view().problems == ()


def test_another_peer_begins_anew_and_the_same_one_does_not(world: World) -> None:
    world.up(1)
    world.want({"unicast": replace(PEER, remote_asn=65000)})
    assert world.held == set(rib(1))
    world.want(
        {"unicast": replace(PEER, remote=IPv4Address("169.254.0.8"), local=IPv4Address("169.254.0.9"))}
    )
    assert world.held == set()


def test_a_multicast_session_learns_nothing(world: World) -> None:
    peer = replace(PEER, service="multicast", link="doublezero1", install=False)
    world.want({"multicast": peer})
    world.engine.peers = {"multicast": PeerState("Established", "x", updates=5, imported=5)}
    world.tick(5)
    assert world.engine.dumps == 0
    assert world.speaker.view().peers["multicast"].session.status == UP


def test_counters_go_on_over_sessions(world: World) -> None:
    world.up(1)
    world.engine.announce(rib(1, 2))
    world.tick()
    world.engine.down(ACTIVE)
    world.tick()
    world.engine.updates = 0
    world.engine.announce(rib(1), since="up 2")
    world.tick()
    assert world.speaker.view().peers["unicast"].updates == 3
