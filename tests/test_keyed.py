"""Learned routes that somebody touches are repaired alone; whatever else is touched is a pass. In the loop, in memory."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.bgp.joining import join
from dzagent.bgp.rejoining import rejoin
from dzagent.kernel.watched import WatchedKernel
from dzagent.model import Address, Desired, Observed, Route, SeenLink, ServiceName
from dzagent.parts import Parts
from dzagent.reconcile import Reconciler
from tests.bgp_fakes import rib
from tests.test_bgp_loop import World as BgpWorld
from tests.watch_fakes import FakeWatch, RereadKernel, route_line


class World(BgpWorld):
    """The loop on a kernel that is watched: the fake one, with a memory."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.watch = FakeWatch()
        self.watched: WatchedKernel | None = None
        super().__init__(tmp_path, **settings)

    def restart(self) -> None:
        if self.watched is None:
            plain, self.kernel = self.kernel, RereadKernel(links=self.kernel.links)
            self.kernel.addresses, self.kernel.routes = plain.addresses, plain.routes
            self.kernel.rules, self.kernel.sources = plain.rules, plain.sources
        super().restart()
        assert isinstance(self.kernel, RereadKernel)
        self.watched = WatchedKernel(self.kernel, self.watch, self.clock)
        parts: Parts = replace(self.loop._parts, kernel=self.watched, watched=self.watched)
        self.loop = Reconciler(parts)

    def route(self, number: int) -> Route:
        return next(r for r in self.kernel.routes if r.dst == IPv4Network((f"198.18.0.{number}", 32)))

    def somebody_deletes(self, *numbers: int) -> None:
        for number in numbers:
            gone = self.route(number)
            self.kernel.routes.remove(gone)
            self.watch.hear(route_line(gone, deleted=True))

    def echo(self) -> None:
        """The kernel tells of the agent's own last changes."""
        for step in self.kernel.applied[-3:]:
            if isinstance(step.after, Route):
                self.watch.hear(route_line(step.after))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.up(1, 2, 3)
    made.loop.run_pass()
    return made


def test_a_deleted_learned_route_comes_back_without_a_pass(world: World) -> None:
    passes = world.kernel.observations
    world.somebody_deletes(2)
    assert world.loop.run_changes()
    assert world.learned == set(rib(1, 2, 3))
    assert world.kernel.observations == passes
    tried = len(world.kernel.applied)
    world.echo()
    assert world.loop.run_changes()
    assert len(world.kernel.applied) == tried
    assert world.run() == 0


def test_a_changed_learned_route_is_changed_back(world: World) -> None:
    old = world.route(1)
    world.kernel.routes.remove(old)
    world.kernel.routes.append(replace(old, src=None))
    world.watch.hear(route_line(replace(old, src=None)))
    assert world.loop.run_changes()
    assert world.route(1) == old
    assert world.kernel.applied[-1].action.value == "change"


def test_nothing_that_concerns_us_is_no_pass(world: World) -> None:
    world.watch.hear("[ROUTE]1 77.0.0.0/8 via 198.51.100.2 dev eth0 table 254 proto 3 scope 0 ")
    assert world.loop.run_changes()
    world.watch.hear(route_line(world.route(1)))  # what is known
    assert world.loop.run_changes()
    assert not world.loop.urgent


@pytest.mark.parametrize(
    "line",
    [
        "[RULE]100:\tfrom all to 10.0.0.0/8 lookup 100 proto 210",
        "[LINK]4: doublezero0: <POINTOPOINT> mtu 1476 qdisc noop",
        "[ADDR]Deleted 4: doublezero0    inet 169.254.0.5/31 scope 253 doublezero0",
        "[ROUTE]1 198.19.0.9 via 169.254.0.4 dev doublezero0 table 254 proto 210 scope 0 ",
    ],
)
def test_anything_else_of_ours_is_an_urgent_pass(world: World, line: str) -> None:
    world.watch.hear(line)
    assert not world.loop.run_changes()
    assert world.loop.urgent
    world.loop.run_pass()
    assert not world.loop.urgent


def test_a_learned_route_is_repaired_before_the_pass_that_something_else_needs(world: World) -> None:
    world.somebody_deletes(2)
    world.watch.hear("[RULE]7:\tfrom all lookup 7 proto 4")
    assert not world.loop.run_changes()
    assert world.learned == set(rib(1, 2, 3))


def test_a_route_of_our_number_that_nobody_wants_is_removed(world: World) -> None:
    odd = replace(world.route(1), dst=IPv4Network("198.19.0.9/32"))
    world.kernel.routes.append(odd)
    world.watch.hear(route_line(odd))
    assert not world.loop.run_changes()
    world.loop.run_pass()
    assert odd not in world.kernel.routes


def test_a_key_that_somebody_else_took_is_a_conflict(world: World) -> None:
    old = world.route(2)
    world.kernel.routes.remove(old)
    foreign = replace(old, protocol=186, via=IPv4Address("198.51.100.1"), dev="eth0")
    world.kernel.routes.append(foreign)
    world.watch.hear(route_line(foreign))
    assert not world.loop.run_changes()
    world.loop.run_pass()
    assert foreign in world.kernel.routes
    assert "198.18.0.2/32" in world.status()["conflicts"][0]["object"]


def test_what_is_withdrawn_meanwhile_stays_away(world: World) -> None:
    world.somebody_deletes(2)
    world.engine.announce(rib(1, 3))
    world.look()
    assert world.loop.run_changes()
    assert world.learned == set(rib(1, 3))


def test_without_a_watch_it_says_so(world: World) -> None:
    assert world.condition("Watching") == ("True", "Monitoring")
    world.watch.healthy = False
    world.loop.run_pass()
    assert world.condition("Watching") == ("False", "NoMonitor")


def test_a_wish_for_a_look_is_answered_by_the_pass(world: World) -> None:
    world.loop.resync_asked("00ff")
    world.loop.run_pass()
    last = world.status()["last_resync"]
    assert (last["token"], last["result"]) == ("00ff", "done")


# ---- joining again -------------------------------------------------------------------------------------------

SOURCE = IPv4Address("198.51.100.7")
ROUTES = [
    Route(IPv4Network((f"198.18.0.{n}", 32)), IPv4Address("169.254.0.4"), "doublezero0", 254, 210, SOURCE)
    for n in range(6)
]
ODD = [replace(route, src=None) for route in ROUTES[:3]] + [replace(ROUTES[0], protocol=3)]
LEARNED: dict[ServiceName, dict[str, Route]] = {"unicast": {str(route.dst): route for route in ROUTES}}
ADDRESSES = (Address("eth0", IPv4Interface((SOURCE, 24)), "global"),)
LINKS = (SeenLink("eth0", 2, "", up=True, mtu=1500),)


@given(st.lists(st.sampled_from([*map(replace, ROUTES), *ODD]), unique_by=lambda r: (r.dst, r.protocol)))
def test_joining_again_is_joining_anew(after: list[Route]) -> None:
    before = Observed(LINKS, ADDRESSES, tuple(map(replace, ROUTES)))
    now = replace(before, routes=tuple(after))
    desired = Desired()
    last = join(desired, before, LEARNED)
    assert not last.desired.wanted
    again = rejoin(last, desired, before, now, LEARNED)
    anew = join(desired, now, LEARNED)
    assert again is not None
    assert set(again.desired.objects) == set(anew.desired.objects)
    assert set(again.observed.routes) == set(anew.observed.routes)
    assert again.installed == anew.installed
    assert again.equal == anew.equal


def test_what_was_missing_is_joined_anew() -> None:
    before = Observed(LINKS, ADDRESSES, tuple(ROUTES[1:]))
    last = join(Desired(), before, LEARNED)
    assert rejoin(last, Desired(), before, before, LEARNED) is None
