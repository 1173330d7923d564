"""A watched kernel reads what was touched, knows its own writes, and reads everything where it has doubts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.errors import ObservationError
from dzagent.kernel.watched import SHARE, WatchedKernel
from dzagent.kernel.watchlines import EVERYTHING, NOTHING, Touched
from dzagent.model import Action, Address, Interest, Link, Route, Rule, Step
from tests.fake_kernel import Fault
from tests.owning import ours
from tests.watch_fakes import FakeWatch, RereadKernel, route_line

LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.5/31"), "link")
INTEREST = Interest(210, ("doublezero0", "doublezero1"))
RULE = Rule(100, IPv4Network("0.0.0.0/0"), IPv4Network("10.0.0.0/8"), 100, 210)


def route(number: int, **changes: object) -> Route:
    made = Route(IPv4Network((f"198.18.0.{number}", 32)), IPv4Address("169.254.0.4"), "doublezero0", 254, 210)
    return replace(made, **changes)  # type: ignore[arg-type] # a test knows the fields


class World:
    """A kernel that has been looked at once."""

    def __init__(self) -> None:
        self.real, self.watch, self.now = RereadKernel(), FakeWatch(), 100.0
        self.real.add_link(LINK)
        self.real.addresses.append(ADDRESS)
        self.real.routes += [route(1), route(2)]
        self.kernel = WatchedKernel(self.real, self.watch, lambda: self.now)
        self.kernel.observe(INTEREST)
        assert self.real.observations == 1

    def looks(self, interest: Interest = INTEREST) -> tuple[int, list[Touched]]:
        """Observe; return how often everything was read for it, and which parts. It is always the truth."""
        before = self.real.observations
        self.real.reread_touched.clear()
        seen = self.kernel.observe(interest)
        full, parts = self.real.observations - before, list(self.real.reread_touched)
        truth = self.real.observe(interest)
        assert (set(seen.routes), seen.links, seen.addresses, seen.rules) == (
            set(truth.routes),
            truth.links,
            truth.addresses,
            truth.rules,
        )
        self.real.observations -= 1
        return full, parts


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_happened_and_nothing_is_read(world: World) -> None:
    assert world.looks() == (0, [])
    assert world.looks() == (0, [])


def test_a_deleted_route_is_read_alone(world: World) -> None:
    world.real.routes.remove(route(1))
    world.watch.hear(route_line(route(1), deleted=True))
    assert list(world.kernel.news().slots) == [(254, route(1).dst)]
    full, parts = world.looks()
    assert (full, [list(part.slots) for part in parts]) == (0, [[(254, route(1).dst)]])
    assert world.looks() == (0, [])


def test_a_link_event_reads_routes_too(world: World) -> None:
    world.real.delete_link("doublezero0")
    world.watch.hear("[LINK]Deleted 4: doublezero0: <POINTOPOINT> mtu 1476 qdisc noop")
    full, parts = world.looks()
    assert (full, len(parts)) == (0, 1)
    assert not world.kernel.observe(INTEREST).routes


def test_own_writes_are_read_once_and_their_lines_are_no_news(world: World) -> None:
    new, gone = route(3), route(1)
    world.kernel.apply(
        [Step(Action.ADD, None, new, "missing"), Step(Action.DELETE, ours(gone), None, "unwanted")]
    )
    world.watch.hear(route_line(new), route_line(gone, deleted=True))
    assert world.kernel.news() == NOTHING
    full, parts = world.looks()
    assert full == 0
    assert {slot for part in parts for slot in part.slots} == {(254, new.dst), (254, gone.dst)}
    world.watch.hear(route_line(new), route_line(gone, deleted=True))  # late ones
    assert world.kernel.news() == NOTHING


def test_a_write_that_failed_is_not_believed(world: World) -> None:
    world.real.faults.append(Fault(lambda _: True))
    world.kernel.apply([Step(Action.ADD, None, route(3), "missing")])
    world.watch.hear(route_line(route(3)))
    assert world.kernel.news().slots
    world.looks()


def test_somebody_who_undoes_our_write_is_news(world: World) -> None:
    world.kernel.apply([Step(Action.ADD, None, route(3), "missing")])
    world.watch.hear(route_line(route(3)), route_line(route(3), deleted=True))
    assert world.kernel.news().slots
    world.real.routes.remove(route(3))
    world.looks()


def test_own_rules_addresses_and_links_are_read_again(world: World) -> None:
    world.kernel.apply([Step(Action.ADD, None, RULE, "missing")])
    assert [part.rules for part in world.looks()[1]] == [True]
    other = replace(ADDRESS, interface=IPv4Interface("192.0.2.9/32"))
    world.kernel.apply([Step(Action.ADD, None, other, "missing")])
    assert [(part.addresses, part.routes) for part in world.looks()[1]] == [(True, True)]
    world.kernel.apply([Step(Action.CHANGE, ours(LINK), replace(LINK, mtu=1400), "mtu differs")])
    assert world.looks() == (1, [])


def test_many_own_routes_are_read_all_together(world: World) -> None:
    world.kernel.apply([Step(Action.ADD, None, route(n), "missing") for n in range(10, 30)])
    assert world.looks() == (0, [Touched(routes=True)])


def test_a_key_that_becomes_of_interest_is_read(world: World) -> None:
    foreign = route(9, protocol=3)
    world.real.routes.append(foreign)
    assert world.looks() == (0, [])
    full, parts = world.looks(replace(INTEREST, exact=((254, foreign.dst),)))
    assert (full, [list(part.slots) for part in parts]) == (0, [[(254, foreign.dst)]])


def test_another_interest_is_another_look(world: World) -> None:
    assert world.looks(replace(INTEREST, protocol=186))[0] == 1


def test_without_a_healthy_watch_everything_is_read(world: World) -> None:
    world.watch.healthy = False
    assert world.looks() == (1, [])
    assert world.looks() == (1, [])
    assert world.kernel.reread_routes([(254, route(1).dst)]) is None


def test_lost_events_read_everything(world: World) -> None:
    world.real.routes.clear()
    world.watch.pending = EVERYTHING
    assert world.looks() == (1, [])


def test_doubt_reads_everything_once(world: World) -> None:
    world.real.routes.clear()  # nobody said so
    world.kernel.doubt()
    assert world.looks() == (1, [])
    assert world.looks() == (0, [])


def test_what_is_old_for_its_cost_is_read_again(world: World) -> None:
    world.kernel.doubt()
    real = world.real.observe

    def slow(interest: Interest) -> object:
        world.now += 2.0
        return real(interest)

    world.real.observe = slow  # type: ignore[method-assign,assignment] # it costs two seconds
    world.kernel.observe(INTEREST)
    world.real.observe = real  # type: ignore[method-assign]
    world.now += SHARE * 2.0 - 1
    world.kernel.doubt_if_old()
    assert world.looks() == (0, [])
    world.now += 1
    world.kernel.doubt_if_old()
    assert world.looks() == (1, [])


def test_a_look_that_fails_forgets_what_was_known(world: World) -> None:
    world.real.observe_error = ObservationError("no")
    world.watch.pending = Touched(rules=True)
    with pytest.raises(ObservationError):
        world.kernel.observe(INTEREST)
    world.real.observe_error = None
    assert world.looks()[0] == 1


def test_single_routes_are_read_again_and_only_they(world: World) -> None:
    slot, other = (254, route(1).dst), (254, route(2).dst)
    world.real.routes.clear()
    world.watch.hear(route_line(route(1), deleted=True), route_line(route(2), deleted=True))
    assert set(world.kernel.news().slots) == {slot, other}
    assert world.kernel.reread_routes([slot]) == {slot: ()}
    assert set(world.kernel.news().slots) == {other}
    assert world.kernel.reread_routes([other]) == {other: ()}
    assert world.kernel.news() == NOTHING
    assert world.looks() == (0, [])


def test_events_that_come_while_everything_is_read_are_kept(world: World) -> None:
    real = world.real.observe

    def disturbed(interest: Interest) -> object:
        seen = real(interest)
        world.watch.hear(route_line(route(1), deleted=True))
        return seen

    world.real.observe = disturbed  # type: ignore[method-assign,assignment] # somebody is faster than the answer
    world.kernel.doubt()
    world.kernel.observe(INTEREST)
    world.real.observe = real  # type: ignore[method-assign]
    assert world.kernel.news().slots


def test_without_ears_for_nftables_every_look_reads_them() -> None:
    world = World()
    deaf = WatchedKernel(world.real, world.watch, lambda: world.now, lambda: False)
    deaf.observe(INTEREST)
    world.real.reread_touched.clear()
    deaf.observe(INTEREST)
    assert world.real.reread_touched == [Touched(tables=True)]


def test_a_new_generation_reads_nftables_alone(world: World) -> None:
    world.watch.pending = Touched(tables=True)
    assert world.looks() == (0, [Touched(tables=True)])
    assert world.looks() == (0, [])


def test_our_own_write_stays_known_while_another_route_is_read(world: World) -> None:
    """Else its next deletion says "not there", which is what we would know already."""

    def deleted(number: int) -> None:
        world.real.routes.remove(route(number))
        world.watch.hear(route_line(route(number), deleted=True))

    def repaired(number: int) -> None:
        slot = (254, route(number).dst)
        assert list(world.kernel.news().slots) == [slot]
        assert world.kernel.reread_routes([slot]) == {slot: ()}
        world.kernel.apply([Step(Action.ADD, None, route(number), "missing")])
        world.watch.hear(route_line(route(number)))
        assert not world.kernel.news()

    for number in (1, 2, 1, 2):
        deleted(number)
        repaired(number)
    world.looks()
    deleted(1)
    repaired(1)
