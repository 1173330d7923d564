"""The way back: for any change, what comes after it and its undoing is what was there before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from dzagent.kernel.execute import execute
from dzagent.model import (
    Action,
    Address,
    Desired,
    KernelObject,
    Link,
    Observed,
    Origin,
    Route,
    Rule,
    SeenLink,
    ServiceName,
    Wanted,
)
from dzagent.nftmodel import MARKED, NftTable, combine
from dzagent.ownership import Ownership
from dzagent.plan import interest, make_plan
from dzagent.undo import Undo, interest_of, no_way_back, ours, undo_of, way_back
from dzagent.undone import Undone, still_wanted
from tests.fake_kernel import FakeKernel
from tests.nft_fakes import with_table

ANY = IPv4Network("0.0.0.0/0")
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
LOCAL, VIA = IPv4Address("198.51.100.7"), IPv4Address("169.254.0.0")
LINK = Link("doublezero0", LOCAL, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
MOVED = replace(LINK, remote=IPv4Address("192.0.2.9"))
SECOND = Link("doublezero1", LOCAL, IPv4Address("192.0.2.2"), 64, 1476, "dzagent:multicast")
OVERLAY = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
DZ = Address("doublezero0", IPv4Interface("203.0.113.9/32"), "global")
ROUTES = tuple(Route(dst, VIA, "doublezero0", table, 210) for dst, table in ((ANY, 101), (ANY, 100)))
BY_SOURCE = Route(IPv4Network("203.0.113.128/25"), VIA, "doublezero0", 254, 210, DZ.interface.ip)
RULES = tuple(Rule(100, ANY, IPv4Network(f"203.0.{n}.0/24"), 100, 210) for n in range(3))
COUNTED = NftTable(counters=("unicast_dropped",))
COUNTED_MORE = NftTable(counters=("unicast_dropped", "unicast_leaked"))
CHOICES: tuple[tuple[KernelObject, ...], ...] = (
    (OVERLAY,), (DZ,), (replace(DZ, scope="link"),), *((route,) for route in ROUTES), (DZ, BY_SOURCE),
    *((rule,) for rule in RULES), (SECOND,),
)  # fmt: skip


def desired(objects: Sequence[KernelObject]) -> Desired:
    return Desired(
        tuple(Wanted(obj, Origin("unicast", "x", n)) for n, obj in enumerate(dict.fromkeys(objects), 1))
    )


def observe(kernel: FakeKernel) -> Observed:
    return kernel.observe(interest(desired(()), OWNER))


def converge(kernel: FakeKernel, objects: Sequence[KernelObject]) -> None:
    for _ in range(4):
        plan = make_plan(desired(objects), observe(kernel), OWNER)
        if not plan.steps:
            return
        execute(kernel, plan)


def state(kernel: FakeKernel) -> set[KernelObject]:
    return set(ours(observe(kernel), OWNER))


def go_back(kernel: FakeKernel, undo: Undo) -> tuple[str, ...]:
    skipped: tuple[str, ...] = ()
    for turn in range(4):
        back = way_back(undo, kernel.observe(interest_of(undo, OWNER)), OWNER)
        skipped = skipped if turn else back.skipped
        if not back.plan.steps:
            return skipped
        execute(kernel, back.plan)
    raise AssertionError("the way back does not end")


def world() -> FakeKernel:
    kernel = FakeKernel()
    kernel.addresses.append(Address("eth0", IPv4Interface((LOCAL, 24)), "global"))
    kernel.rules.append(Rule(100, ANY, IPv4Network("10.0.0.0/8"), 100, 4))
    kernel.routes.append(Route(IPv4Network("10.0.0.0/8"), None, "eth0", 100, 4))
    return kernel


_STATES = st.tuples(st.sampled_from([(), (LINK,), (MOVED,)]), st.sets(st.sampled_from(CHOICES)))


@given(_STATES, _STATES)
def test_every_change_can_be_undone(
    before: tuple[tuple[KernelObject, ...], set[tuple[KernelObject, ...]]],
    after: tuple[tuple[KernelObject, ...], set[tuple[KernelObject, ...]]],
) -> None:
    one, other = (
        [*links, *(obj for group in sorted(groups, key=repr) for obj in group)]
        for links, groups in (before, after)
    )
    kernel = world()
    converge(kernel, one)
    foreign = (list(kernel.rules)[:1], [r for r in kernel.routes if r.protocol == 4])
    was = state(kernel)
    plan = make_plan(desired(other), observe(kernel), OWNER)
    undo = undo_of(plan, observe(kernel), OWNER)
    assert no_way_back(undo, OWNER) is None
    execute(kernel, plan)
    assert go_back(kernel, undo) == ()
    assert state(kernel) == was
    assert (list(kernel.rules)[:1], [r for r in kernel.routes if r.protocol == 4]) == foreign


def changed(kernel: FakeKernel, *objects: KernelObject) -> Undo:
    plan = make_plan(desired(objects), observe(kernel), OWNER)
    undo = undo_of(plan, observe(kernel), OWNER)
    execute(kernel, plan)
    return undo


def test_what_somebody_changed_meanwhile_is_left_alone_and_named() -> None:
    kernel = world()
    converge(kernel, (LINK, OVERLAY, ROUTES[0]))
    edited = replace(ROUTES[0], src=LOCAL)
    (text,) = go_back(kernel, Undo((replace(ROUTES[0], src=IPv4Address("203.0.113.1")),), (edited,)))
    assert "is not restored: it is route" in text
    (text,) = go_back(kernel, Undo((), (edited,)))
    assert "is not removed: it is route" in text
    assert ROUTES[0] in kernel.routes


def test_a_foreign_holder_of_a_key_keeps_it() -> None:
    kernel = world()
    converge(kernel, (LINK, OVERLAY, ROUTES[0]))
    undo = changed(kernel, LINK, OVERLAY)
    theirs = Route(ANY, None, "eth0", 101, 4)
    kernel.routes.append(theirs)
    (text,) = go_back(kernel, undo)
    assert "is not restored: route 0.0.0.0/0 dev eth0 table 101 of protocol 4" in text
    assert [r for r in kernel.routes if r.table == 101] == [theirs]


def test_what_is_ours_and_not_concerned_stays() -> None:
    kernel = world()
    converge(kernel, (LINK, OVERLAY))
    undo = changed(kernel, LINK, OVERLAY, RULES[0])
    converge(kernel, (LINK, OVERLAY, SECOND, *RULES))
    assert go_back(kernel, undo) == ()
    assert state(kernel) == {LINK, OVERLAY, SECOND, *RULES[1:]}


def test_what_no_line_makes_has_no_way_back() -> None:
    kernel = world()
    converge(kernel, (LINK, OVERLAY))
    kernel.addresses.append(replace(DZ, extra=("label x",)))
    undo = changed(kernel, LINK, OVERLAY)
    why = no_way_back(undo, OWNER)
    assert why is not None
    assert "label x" in why


def test_an_undone_change_is_undone_once() -> None:
    kernel = world()
    undo = changed(kernel, LINK, OVERLAY)
    go_back(kernel, undo)
    tried = len(kernel.applied)
    go_back(kernel, undo)
    assert len(kernel.applied) == tried


def test_a_changed_table_returns_as_it_was() -> None:
    kernel = with_table(world())
    converge(kernel, (LINK, OVERLAY, COUNTED))
    undo = changed(kernel, LINK, OVERLAY, COUNTED_MORE)
    assert undo == Undo((combine((MARKED, COUNTED)),), (combine((MARKED, COUNTED_MORE)),))
    assert no_way_back(undo, OWNER) is None
    assert go_back(kernel, undo) == ()
    assert kernel.table == combine((MARKED, COUNTED))


def test_a_table_that_the_change_made_goes_and_one_that_it_removed_returns() -> None:
    kernel = with_table(world())
    converge(kernel, (LINK,))
    made = changed(kernel, LINK, COUNTED)
    assert go_back(kernel, made) == ()
    assert kernel.table is None
    converge(kernel, (LINK, COUNTED))
    removed = changed(kernel, LINK)
    assert kernel.table is None
    assert go_back(kernel, removed) == ()
    assert kernel.table == combine((MARKED, COUNTED))


def test_a_table_that_is_not_concerned_or_not_ours_stays() -> None:
    kernel = with_table(world())
    converge(kernel, (LINK, COUNTED))
    undo = changed(kernel, LINK, OVERLAY, COUNTED)
    assert go_back(kernel, undo) == ()
    assert kernel.table == combine((MARKED, COUNTED))
    made = changed(kernel, LINK, COUNTED_MORE)
    kernel.table = theirs = NftTable(counters=("somebody",))
    assert any("without our mark" in text for text in go_back(kernel, made))
    assert kernel.table == theirs


def test_a_table_that_was_rolled_back_stays_so_while_it_is_wanted_as_it_was() -> None:
    before, after = combine((MARKED, COUNTED)), combine((MARKED, COUNTED_MORE))
    undone = Undone("ab12", 0.0, (after,), (before,))
    links: dict[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
    assert still_wanted(undone, desired((LINK, COUNTED_MORE)), {}, links) == undone
    assert still_wanted(undone, desired((LINK, COUNTED)), {}, links) is None


def test_links_that_only_look_like_ours_and_what_they_carry_are_no_part_of_a_way_back() -> None:
    """A foreign link of our name, ours under another name, and addresses of the host: none counts, none is touched."""
    foreign = SeenLink("doublezero0", 7, "gre", True, 1476, "somebody's", replace(LINK, alias="somebody's"))
    renamed = SeenLink("old0", 8, "gre", True, 1476, SECOND.alias, replace(SECOND, name="old0"))
    uplink = SeenLink("eth0", 2, "", True, 1500)
    addresses = (
        Address("eth0", IPv4Interface((LOCAL, 24)), "global"),
        Address("doublezero0", IPv4Interface("10.9.9.1/24"), "global"),
        Address("old0", IPv4Interface("10.9.8.1/24"), "global"),
    )
    observed = Observed(links=(uplink, foreign, renamed), addresses=addresses)
    assert ours(observed, OWNER) == ()
    back = way_back(Undo(restore=(RULES[0],), remove=(RULES[1],)), observed, OWNER)
    assert [(step.action, step.target) for step in back.plan.steps] == [(Action.ADD, RULES[0])]


def test_a_link_of_our_mark_that_is_no_tunnel_is_left_to_the_next_pass() -> None:
    dummy = SeenLink("doublezero0", 7, "dummy", True, 1500, LINK.alias)
    observed = Observed(links=(dummy,))
    assert ours(observed, OWNER) == ()
    assert way_back(Undo(restore=(RULES[0],)), observed, OWNER).plan.steps[0].target == RULES[0]
    assert len(way_back(Undo(restore=(RULES[0],)), observed, OWNER).plan.steps) == 1
