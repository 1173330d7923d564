"""Every kind of step with every way to fail: the loop converges, and what is somebody else's stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.fake_kernel import FakeKernel, LineFault
from tests.kernel_fake.faults import Way
from tests.kernel_fake.state import KERNEL
from tests.service_fakes import CLIENT, EDGE, SUBSCRIBER, USER, USER2
from tests.test_reconcile import World

OURS = 210
FOREIGN = (
    "rule add priority 100 from 0.0.0.0/0 to 10.98.0.0/16 table 100 protocol 4",
    "route add 10.97.0.0/16 via 198.51.100.1 dev eth0 table 100 proto 4",
    "route add 10.96.0.0/16 via 198.51.100.1 dev eth0 table 254 proto 186 metric 5",
    "link add name gre9 mtu 1400 type gre local 198.51.100.7 remote 192.0.2.99 ttl 9 nopmtudisc",
    "addr add 10.95.0.1/24 dev gre9 scope global",
)


def foreign(kernel: FakeKernel) -> tuple[object, ...]:
    """Return everything that is somebody else's, in its order."""
    return (
        [link for name, link in kernel.links.items() if not name.startswith("doublezero")],
        [address for address in kernel.addresses if not address.dev.startswith("doublezero")],
        [route for route in kernel.routes if route.protocol not in {OURS, KERNEL}],
        [rule for rule in kernel.rules if rule.protocol != OURS],
    )


def mine(kernel: FakeKernel) -> tuple[object, ...]:
    """Return everything that is ours."""
    return (
        {name: link.tunnel for name, link in kernel.links.items() if name.startswith("doublezero")},
        {address for address in kernel.addresses if address.dev.startswith("doublezero")},
        {route for route in kernel.routes if route.protocol == OURS},
        {rule for rule in kernel.rules if rule.protocol == OURS},
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a host with both services up, and foreign objects around."""
    made = World(tmp_path)
    made.kernel.rules.clear()
    for command in FOREIGN:
        made.kernel.ip(command)
    made.grant({USER: EDGE, USER2: SUBSCRIBER})
    return made


# ---- what brings each kind of step about --------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What makes a step of one kind necessary, the lines that carry it out, and whether all of ours goes."""

    provoke: Callable[[World], None]
    lines: str
    down: bool = False


def edit(*commands: str) -> Callable[[World], None]:
    def run(world: World) -> None:
        for command in commands:
            world.kernel.ip(command)

    return run


def disable(world: World) -> None:
    world.say(enabled=False)


def rescope(world: World) -> None:
    kernel = world.kernel
    old = next(a for a in kernel.addresses if a.dev == "doublezero0" and a.scope == "link")
    kernel.ip(f"addr del {old.interface} dev doublezero0")
    kernel.ip(f"addr add {old.interface} dev doublezero0 scope global")


def unroute(world: World) -> None:
    route = next(r for r in world.kernel.routes if r.dev == "doublezero0")
    world.kernel.ip(f"route del {route.dst} table {route.table} proto {route.protocol}")


def reroute(world: World) -> None:
    route = next(r for r in world.kernel.routes if r.dev == "doublezero0")
    world.kernel.ip(
        f"route replace {route.dst} via {route.via} dev {route.dev} table {route.table} proto {OURS} mtu 1200"
    )


def unrule(world: World) -> None:
    rule = next(r for r in world.kernel.rules if r.protocol == OURS)
    world.kernel.ip(
        f"rule del priority {rule.priority} from {rule.src} to {rule.dst} table {rule.table} protocol {OURS}"
    )


def move(world: World) -> None:
    world.kernel.sources[IPv4Address("192.0.2.8")] = CLIENT
    world.ledger({USER: replace(EDGE, endpoint="192.0.2.8"), USER2: SUBSCRIBER})


EXTRA = "10.77.0.0/16 via 169.254.0.4 dev doublezero0 table 100 proto 210"
CASES: Mapping[str, Case] = {
    "link add": Case(edit("link delete dev doublezero0"), r"link add name doublezero0 "),
    "link change": Case(move, r"link change dev if\d+ "),
    "link set": Case(edit("link set dev doublezero0 mtu 1300"), r"link set dev if\d+ mtu "),
    "link up": Case(edit("link set dev doublezero0 down"), r"link set dev if\d+ up"),
    "link delete": Case(disable, r"link delete dev if\d+", down=True),
    "address add": Case(edit("addr del 169.254.0.5/31 dev doublezero0"), r"addr add 169.254.0.5/31 "),
    "address change": Case(rescope, r"addr (del|add) 169.254.0.5/31 "),
    "address delete": Case(
        edit("addr add 10.9.0.1/24 dev doublezero0 scope global"), r"addr del 10.9.0.1/24 "
    ),
    "route add": Case(unroute, r"route add "),
    "route change": Case(reroute, r"route add .* metric 4294957601"),
    "route change, old away": Case(reroute, r"route del unicast \S+ via"),
    "route change, new made": Case(reroute, r"route add (?!.* metric )"),
    "route change, spare away": Case(reroute, r"route del .* metric 4294957601"),
    "route delete": Case(edit(f"route add {EXTRA}"), r"route del "),
    "rule add": Case(unrule, r"rule add "),
    "rule delete": Case(
        edit("rule add priority 99 from 10.1.0.0/16 to 0.0.0.0/0 table 101 protocol 210"), r"rule del "
    ),
}
ONCE: tuple[Way, ...] = ("fails", "lies", "times out", "killed", "interrupted", "terminated")


def lines(pattern: str) -> Callable[[str], bool]:
    """Tell the lines that begin with a pattern."""
    return lambda line: re.match(pattern, line) is not None


def later(world: World, passes: int = 4) -> int:
    """Run passes with time between them; returns how many steps the last one tried."""
    tried = 0
    for _ in range(passes):
        world.clock.now += 120
        tried = world.run()
    return tried


def expected(world: World, case: Case) -> tuple[object, ...]:
    if case.down:
        return ({}, set(), set(), set())
    if case.provoke is move:
        links, *others = mine(world.kernel)
        assert isinstance(links, dict)
        moved = {
            n: replace(t, remote=IPv4Address("192.0.2.8")) if n == "doublezero0" else t
            for n, t in links.items()
        }
        return (moved, *others)
    return mine(world.kernel)


@pytest.mark.parametrize("way", ONCE)
@pytest.mark.parametrize("kind", CASES)
def test_a_step_that_goes_wrong_once_heals(world: World, kind: str, way: Way) -> None:
    case, theirs = CASES[kind], foreign(world.kernel)
    aim = expected(world, case)
    case.provoke(world)
    fault = LineFault(lines(case.lines), way)
    world.kernel.troubles = [fault]
    assert later(world) == 0
    assert fault.met == 1, "the fault was never met"
    assert (mine(world.kernel), foreign(world.kernel)) == (aim, theirs)
    assert world.condition("InSync")[0] == "True"


@pytest.mark.parametrize("way", ["fails", "killed"])
@pytest.mark.parametrize("kind", CASES)
def test_a_step_that_always_goes_wrong_is_paced_and_heals_when_that_ends(
    world: World, kind: str, way: Way
) -> None:
    case, theirs = CASES[kind], foreign(world.kernel)
    aim = expected(world, case)
    case.provoke(world)
    fault = LineFault(lines(case.lines), way, times=None)
    world.kernel.troubles = [fault]
    world.run(2 if "," in kind else 1)  # a change that broke off in its middle leaves another step to do
    met = fault.met
    assert met > 0, "the fault was never met"
    world.run(5)
    assert fault.met == met, "no second try before its time"
    later(world, 3)
    assert fault.met > met or way in {"lies", "times out"}, "tried again later, unless the work was done"
    assert foreign(world.kernel) == theirs
    world.kernel.troubles = []
    assert later(world) == 0
    assert (mine(world.kernel), foreign(world.kernel)) == (aim, theirs)


@pytest.mark.parametrize("kind", CASES)
def test_an_observation_that_is_cut_off_changes_nothing(world: World, kind: str) -> None:
    case, theirs = CASES[kind], foreign(world.kernel)
    aim = expected(world, case)
    case.provoke(world)
    fault = LineFault(lambda line: line == "rule show", "truncated")
    world.kernel.troubles = [fault]
    assert world.run() == 0
    assert fault.met == 1
    assert world.condition("InSync") == ("Unknown", "ObservationFailed")
    assert later(world, 3) == 0
    assert (mine(world.kernel), foreign(world.kernel)) == (aim, theirs)


@pytest.mark.parametrize("kind", CASES)
def test_an_observation_that_is_cut_off_after_the_change_changes_nothing_more(
    world: World, kind: str
) -> None:
    case, theirs = CASES[kind], foreign(world.kernel)
    aim = expected(world, case)
    case.provoke(world)

    def second(line: str) -> bool:
        return bool(world.kernel.written[before:]) and line == "rule show"

    before = len(world.kernel.written)
    fault = LineFault(second, "truncated")
    world.kernel.troubles = [fault]
    world.run()
    assert fault.met == 1
    assert later(world) == 0
    assert (mine(world.kernel), foreign(world.kernel)) == (aim, theirs)


# ---- what else goes on --------------------------------------------------------------------------------------


def test_nothing_that_stands_on_a_failed_link_is_tried_and_the_other_service_comes_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.say(enabled=True)
    world.ledger({USER: EDGE, USER2: SUBSCRIBER})
    fault = LineFault(lines(r"link add name doublezero0 "), "fails", times=None)
    world.kernel.troubles = [fault]
    world.run()
    tried = [line for line in world.kernel.written if "doublezero0" in line or line.startswith("rule")]
    assert {line.split(" type")[0] for line in tried} <= {
        "link set dev doublezero0 alias dzagent:unicast",
        "link set dev doublezero0 up",
    }
    assert world.tunnels == {"doublezero1"}
    assert world.condition("InSync")[0] == "False"


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "link delete"])
def test_a_step_that_always_fails_stops_no_other_service(world: World, kind: str) -> None:
    case = CASES[kind]
    case.provoke(world)
    world.kernel.ip("addr del 169.254.0.7/31 dev doublezero1")
    world.kernel.troubles = [LineFault(lines(case.lines), "fails", times=None)]
    world.run()
    assert any(str(a.interface) == "169.254.0.7/31" for a in world.kernel.addresses)


# ---- somebody comes between observation and change -----------------------------------------------------------


def steal_link(kernel: FakeKernel) -> None:
    if "doublezero0" in kernel.links:
        kernel.delete_link("doublezero0")
    kernel.ip("link add name doublezero0 type bridge")


def steal_route(kernel: FakeKernel) -> None:
    kernel.routes = [r for r in kernel.routes if not (r.table in {100, 101} and r.protocol == OURS)]
    for table in (100, 101):
        kernel.ip(f"route add 0.0.0.0/0 via 198.51.100.1 dev eth0 table {table} proto 4")


def steal_changed_route(kernel: FakeKernel) -> None:
    """Take the place of the very route that shall be changed, on either side of the change."""
    old = next(r for r in kernel.routes if "mtu 1200" in r.extra)
    kernel.ip(f"route del {old.dst} table {old.table} proto {OURS}")
    kernel.ip(f"route add {old.dst} via 198.51.100.1 dev eth0 table {old.table} proto 4")


def steal_extra_route(kernel: FakeKernel) -> None:
    kernel.ip("route replace 10.77.0.0/16 via 198.51.100.1 dev eth0 table 100 proto 4")


def twin_rules(kernel: FakeKernel) -> None:
    for rule in [r for r in kernel.rules if r.protocol == OURS]:
        kernel.rules.insert(0, replace(rule, protocol=4))


def twin_extra_rule(kernel: FakeKernel) -> None:
    old = next(rule for rule in kernel.rules if rule.priority == 99)
    kernel.rules[kernel.rules.index(old)] = replace(old, protocol=4)


BETWEEN: Mapping[str, Callable[[FakeKernel], None]] = {
    "link add": steal_link,
    "link change": steal_link,
    "link set": steal_link,
    "link up": steal_link,
    "link delete": steal_link,
    "address add": steal_link,
    "address change": steal_link,
    "address delete": steal_link,
    "route add": steal_route,
    "route change": steal_changed_route,
    "route change, old away": steal_changed_route,
    "route change, new made": steal_changed_route,
    "route change, spare away": steal_changed_route,
    "route delete": steal_extra_route,
    "rule add": twin_rules,
    "rule delete": twin_extra_rule,
}


@pytest.mark.parametrize("kind", BETWEEN)
def test_what_appears_between_look_and_change_is_not_touched(world: World, kind: str) -> None:
    kernel, case = world.kernel, CASES[kind]
    case.provoke(world)
    theirs: list[object] = []

    def between() -> None:
        BETWEEN[kind](kernel)
        theirs.extend(
            (foreign(kernel), kernel.links.get("doublezero0"), [r for r in kernel.routes if r.protocol == 4])
        )

    kernel.before_write = between
    later(world)
    assert theirs, "nobody came between"
    after = (foreign(kernel), kernel.links.get("doublezero0"), [r for r in kernel.routes if r.protocol == 4])
    if BETWEEN[kind] is steal_link:
        assert list(after) == theirs
    else:
        assert (after[0], after[2]) == (theirs[0], theirs[2])
