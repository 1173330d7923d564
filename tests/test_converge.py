"""Any state of the kernel converges to any desired state, and nobody else's objects are ever touched."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.kernel.execute import execute
from dzagent.model import (
    Action,
    Address,
    Desired,
    KernelObject,
    Link,
    Origin,
    Result,
    Route,
    Rule,
    ServiceName,
    Step,
    Wanted,
)
from dzagent.plan import Ownership, interest, make_plan
from tests.fake_kernel import FakeKernel, Fault

OWN, OTHER = 210, 4
OWNER = Ownership(OWN, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
NAMES: dict[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
LOCAL = IPv4Address("198.51.100.7")
REMOTES = [IPv4Address(f"192.0.2.{n}") for n in (1, 2, 3)]
OVERLAYS = [IPv4Network(f"169.254.{n}.0/31") for n in (0, 1)]
PREFIXES = [IPv4Network(text) for text in ("0.0.0.0/0", "203.0.113.0/24", "203.0.113.9/32")]

remotes = st.sampled_from(REMOTES)
prefixes = st.sampled_from(PREFIXES)
tables = st.sampled_from([254, 100, 101])
extras = st.sampled_from([(), (), (), ("master br0",), ("ikey 0.0.0.1",)])


@st.composite
def services(draw: st.DrawFn, name: ServiceName) -> list[Wanted]:
    """Draw the objects of one service, as its rendered files would hold them."""
    dev, overlay = NAMES[name], draw(st.sampled_from(OVERLAYS))
    link = Link(dev, LOCAL, draw(remotes), 64, 1476, OWNER.links[dev])
    address = Address(dev, IPv4Interface((overlay[1], 31)), draw(st.sampled_from(["link", "global"])))
    src = draw(st.sampled_from([None, overlay[1]]))
    targets = draw(st.lists(st.tuples(tables, prefixes), max_size=3, unique=True))
    routes = [Route(dst, overlay[0], dev, table, OWN, src) for table, dst in targets]
    priority = 100 if name == "unicast" else 200
    rules = [Rule(priority, PREFIXES[0], dst, table, OWN) for table, dst in draw(st.just(targets))]
    objects: list[KernelObject] = [link, address, *routes, *rules]
    return [Wanted(obj, Origin(name, f"{name}.ip", n)) for n, obj in enumerate(objects, 1)]


@st.composite
def desires(draw: st.DrawFn) -> Desired:
    """Draw none, one or both services; no two objects share a key or a pair of endpoints."""
    wanted: list[Wanted] = []
    for name in ("unicast", "multicast"):
        if draw(st.booleans()):
            wanted += draw(services(name))
    keys: set[object] = set()
    chosen = []
    for item in wanted:
        identity: object = item.obj
        if isinstance(item.obj, Link):
            identity = (item.obj.local, item.obj.remote)
        elif isinstance(item.obj, Route):
            identity = (item.obj.table, item.obj.dst)
        if identity not in keys:
            keys.add(identity)
            chosen.append(item)
    made = {item.obj.name for item in chosen if isinstance(item.obj, Link)}
    return Desired(tuple(i for i in chosen if NAMES[i.origin.service] in made))


@st.composite
def kernels(draw: st.DrawFn) -> FakeKernel:
    """Draw a host: links of ours, half-made ones, foreign ones of our names, and foreign objects around."""
    kernel = FakeKernel()
    uplink = Link("eth0", IPv4Address(0), IPv4Address(0), 0, 1500, "")
    kernel.add_link(uplink, "")
    kernel.addresses.append(Address("eth0", IPv4Interface("198.51.100.7/24"), "global"))
    kernel.routes.append(Route(PREFIXES[0], IPv4Address("198.51.100.1"), "eth0", 254, OTHER))
    for name in draw(st.lists(st.sampled_from([*OWNER.links, "gre9"]), unique=True)):
        alias = draw(st.sampled_from([OWNER.links.get(name, ""), OWNER.links.get(name, ""), "", "theirs"]))
        link = Link(name, LOCAL, draw(remotes), draw(st.sampled_from([64, 32])), 1476, alias)
        link = replace(link, up=draw(st.booleans()), extra=draw(extras))
        taken = {(s.tunnel.local, s.tunnel.remote) for s in kernel.links.values() if s.tunnel}
        if (link.local, link.remote) not in taken:
            kernel.add_link(link, draw(st.sampled_from(["gre", "gre", "gre", "vxlan"])))
    for name in kernel.links:
        if name != "eth0":
            _decorate(draw, kernel, name)
    for _ in range(draw(st.integers(0, 3))):
        extra = draw(st.sampled_from([(), (), ("iif eth0",)]))
        protocol = draw(st.sampled_from([OWN, OTHER]))
        rule = Rule(
            draw(st.sampled_from([100, 50])), PREFIXES[0], draw(prefixes), draw(tables), protocol, extra
        )
        if rule not in kernel.rules:
            kernel.rules.append(rule)
    return kernel


def _decorate(draw: st.DrawFn, kernel: FakeKernel, name: str) -> None:
    for overlay in draw(st.lists(st.sampled_from(OVERLAYS), unique=True)):
        scope = draw(st.sampled_from(["link", "global"]))
        kernel.addresses.append(Address(name, IPv4Interface((overlay[1], 31)), scope))
        for _ in range(draw(st.integers(0, 3)) if kernel.links[name].up else 0):
            protocol, metric = draw(st.sampled_from([OWN, OWN, OTHER])), draw(st.sampled_from([0, 0, 5]))
            route = Route(draw(prefixes), overlay[0], name, draw(tables), protocol, metric=metric)
            held = {(r.table, r.dst, r.metric) for r in kernel.routes}
            if (route.table, route.dst, route.metric) not in held:
                kernel.routes.append(route)


def _foreign(kernel: FakeKernel) -> tuple[list[object], ...]:
    """Return everything that is not ours, except what the kernel drops with a link or an address of ours."""
    return (
        [link for name, link in kernel.links.items() if name not in OWNER.links],
        [address for address in kernel.addresses if address.dev not in OWNER.links],
        [r for r in kernel.routes if r.protocol != OWN and r.dev not in OWNER.links],
        [rule for rule in kernel.rules if rule.protocol != OWN],
    )


def _nth(kernel: FakeKernel, number: int, _: Step) -> bool:
    return len(kernel.applied) == number


def _round(kernel: FakeKernel, desired: Desired) -> int:
    plan = make_plan(desired, kernel.observe(interest(desired, OWNER)), OWNER)
    before = dict(kernel.links)
    outcomes = execute(kernel, plan)
    for outcome in outcomes:
        target = outcome.step.target
        if isinstance(target, Link) and outcome.step.action is Action.DELETE:
            assert OWNER.owns(before[target.name])
        if isinstance(target, Route | Rule) and outcome.step.before is not None:
            assert getattr(outcome.step.before, "protocol", OWN) == OWN
    return len(outcomes)


@settings(max_examples=300, deadline=None)
@given(kernel=kernels(), desired=desires())
def test_any_state_converges_within_three_rounds(kernel: FakeKernel, desired: Desired) -> None:
    foreign = _foreign(kernel)
    unmarked = {n: link for n, link in kernel.links.items() if n in OWNER.links and not OWNER.owns(link)}
    for _ in range(3):
        _round(kernel, desired)
    plan = make_plan(desired, kernel.observe(interest(desired, OWNER)), OWNER)
    assert plan.phases == ()
    assert _foreign(kernel) == foreign
    for name, link in unmarked.items():
        assert kernel.links[name].ifindex == link.ifindex
    blocked = {c.wanted.obj for c in plan.conflicts}
    if not blocked:
        _assert_equal(kernel, desired)


def _assert_equal(kernel: FakeKernel, desired: Desired) -> None:
    objects = set(desired.objects)
    held = {link.tunnel for link in kernel.links.values() if OWNER.owns(link)}
    held_addresses = {a for a in kernel.addresses if a.dev in OWNER.links and OWNER.owns(kernel.links[a.dev])}
    ours: set[object] = {*held, *held_addresses}
    ours |= {r for r in kernel.routes if r.protocol == OWN} | {r for r in kernel.rules if r.protocol == OWN}
    assert ours == objects


@settings(max_examples=150, deadline=None)
@given(
    kernel=kernels(),
    desired=desires(),
    at=st.lists(st.integers(0, 12), max_size=3),
    result=st.sampled_from([Result.TRANSIENT, Result.RACED, Result.PERMANENT]),
)
def test_failed_steps_heal_in_later_rounds(
    kernel: FakeKernel, desired: Desired, at: list[int], result: Result
) -> None:
    foreign = _foreign(kernel)
    kernel.faults = [Fault(partial(_nth, kernel, n + 1), result) for n in at]
    for _ in range(3 + 2 * len(at)):
        _round(kernel, desired)
    kernel.faults = []
    for _ in range(3):
        _round(kernel, desired)
    assert make_plan(desired, kernel.observe(interest(desired, OWNER)), OWNER).phases == ()
    assert _foreign(kernel) == foreign


@given(kernel=kernels(), desired=desires())
def test_a_plan_is_a_function_of_both_states(kernel: FakeKernel, desired: Desired) -> None:
    observed = kernel.observe(interest(desired, OWNER))
    assert make_plan(desired, observed, OWNER) == make_plan(desired, observed, OWNER)
