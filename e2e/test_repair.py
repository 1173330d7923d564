"""Whatever somebody else deletes or edits of ours comes back; whatever is not ours stays as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dzagent.model import UserType
from e2e.lab.topology import DEV1, DEV2
from e2e.lab.view import NOTHING
from e2e.lab.world import Granted, World

FOREIGN = (
    "link add foreign0 type dummy",
    "link set foreign0 up",
    "addr add 10.99.0.1/24 dev foreign0",
    "route add 10.98.0.0/16 via 10.99.0.2 proto 186",
    "route add 203.0.113.128/25 via 198.51.100.1 table 101 proto 4",
    "rule add priority 100 to 10.98.0.0/16 table 100 protocol 4",
)


@pytest.fixture(scope="module")
def edge(started: World) -> Iterator[tuple[World, Granted]]:
    """A host with every kind of object."""
    started.reset()
    yield started, started.grant(UserType.EDGE_FILTERING)
    started.reset()


@pytest.mark.parametrize(
    "edit",
    [
        "link delete doublezero0",
        "link set doublezero0 down",
        "link set doublezero0 mtu 1400",
        "link change dev doublezero0 type gre remote 192.0.2.9 ttl 64 nopmtudisc local 198.51.100.7",
        "link change dev doublezero0 type gre remote 192.0.2.1 ttl 9 nopmtudisc local 198.51.100.7",
        "addr del OVERLAY/31 dev doublezero0",
        "addr del DZIP/32 dev doublezero0",
        "addr add 10.77.0.1/24 dev doublezero0",
        "addr flush dev doublezero0",
        "route del default table 101 proto 210",
        "route add 10.77.0.0/16 via 198.51.100.1 proto 210",
        f"rule del priority 100 to {DEV1.prefix} table 100",
        f"rule del priority 100 to {DEV2.prefix} table 100",
        f"rule del priority 101 from {DEV1.prefix} table 101",
        f"rule del priority 101 from {DEV2.prefix} table 101",
        "rule add priority 99 from 10.77.0.0/16 table 101 protocol 210",
    ],
)
def test_what_somebody_changes_is_repaired(edge: tuple[World, Granted], edit: str) -> None:
    world, granted = edge
    local = next(a.split("/")[0] for a in granted.view.addresses if "/31" in a)
    world.becomes(granted.view)
    world.host.ip(edit.replace("OVERLAY", local).replace("DZIP", granted.dz_ip))
    world.becomes(granted.view)
    assert world.host.pings(granted.far)


def test_everything_at_once(edge: tuple[World, Granted]) -> None:
    world, granted = edge
    world.becomes(granted.view)
    world.host.batch(
        "link delete doublezero0",
        f"rule del priority 100 to {DEV1.prefix} table 100",
        f"rule del priority 101 from {DEV2.prefix} table 101",
    )
    world.becomes(granted.view)
    assert world.host.pings(granted.far)


def test_foreign_objects_stay_untouched_through_the_whole_life(world: World) -> None:
    world.host.batch(*FOREIGN)
    shows = (
        "-br link show foreign0",
        "-br addr show dev foreign0",
        "route show table all proto 186",
        "route show table 101 proto 4",
        "rule show priority 100",
        "-br addr show dev eth0",
        "route show default",
    )
    try:
        before = [world.host.ip(show) for show in shows]
        world.grant(UserType.EDGE_FILTERING)
        rules = world.host.ip(shows[4])
        assert set(before[4].splitlines()) < set(rules.splitlines())
        world.agent.disable()
        world.becomes(NOTHING)
        assert [world.host.ip(show) for show in shows] == before
    finally:
        world.host.ip("link delete foreign0")
        world.host.ip("route flush table 101 proto 4")
        world.host.ip("rule del priority 100 to 10.98.0.0/16")


def test_a_link_of_our_name_that_is_not_ours_is_a_conflict(world: World) -> None:
    world.host.ip("link add doublezero0 type dummy")
    try:
        world.add(UserType.IBRL)
        status = world.says("a conflict", lambda s: bool(s["conflicts"]))
        assert "doublezero0" in status["conflicts"][0]["object"]
        assert "dummy" in world.host.ip("-d link show doublezero0")
    finally:
        world.host.ip("link delete doublezero0")
    world.becomes(world.granted(UserType.IBRL).view)
