"""What is ours, by mark and by journal; and that nothing else can be changed or deleted."""

from __future__ import annotations

import ast
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dzagent
from dzagent.model import (
    Action,
    Address,
    Desired,
    Link,
    Observed,
    Origin,
    Route,
    Rule,
    SeenLink,
    Step,
    Wanted,
)
from dzagent.owned import Owned, Proof
from dzagent.ownership import Claims, LinkClaim, Ownership, without_renamed
from dzagent.plan import make_plan
from tests.owning import ours

LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
ROUTE = Route(IPv4Network("0.0.0.0/0"), IPv4Address("169.254.0.0"), "doublezero0", 101, 210)
RULE = Rule(100, IPv4Network("203.0.113.0/24"), IPv4Network("0.0.0.0/0"), 101, 210)
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
KNOWN = replace(OWNER, claims=Claims((LinkClaim("doublezero0", 7, "gre"),), table=3))
MAKING = replace(OWNER, claims=Claims(making=(LINK,)))
WANTED = Desired((Wanted(LINK, Origin("unicast", "unicast/tunnel.ip", 1)),))


def seen(link: Link, index: int = 7, kind: str = "gre") -> SeenLink:
    return SeenLink(
        link.name, index, kind, link.up, link.mtu, link.alias, link if kind in {"gre", "vxlan"} else None
    )


# ---- the type ------------------------------------------------------------------------------------------------


def test_nothing_that_nobody_vouched_for_can_be_changed_or_deleted() -> None:
    """Each ignored error is an error that mypy must find: an unused ignore fails `make lint`."""
    with pytest.raises(TypeError, match="held by us"):
        Step(Action.DELETE, ROUTE, None, "unwanted")  # type: ignore[arg-type]  # a bare route
    with pytest.raises(TypeError, match="held by us"):
        Step(Action.CHANGE, RULE, RULE, "differs")  # type: ignore[arg-type]  # a bare rule
    with pytest.raises(TypeError, match="policy check"):
        Owned(ROUTE, Proof.MARK, object())
    with pytest.raises(TypeError):
        Owned(ROUTE, Proof.MARK)  # type: ignore[call-arg]  # without the seal


@pytest.mark.parametrize(
    ("action", "held", "after"),
    [
        (Action.ADD, ours(ROUTE), ROUTE),
        (Action.ADD, None, None),
        (Action.CHANGE, None, ROUTE),
        (Action.CHANGE, ours(ROUTE), None),
        (Action.DELETE, None, None),
        (Action.DELETE, ours(ROUTE), ROUTE),
    ],
)
def test_a_step_has_what_its_action_needs_and_no_more(
    action: Action, held: Owned[Route] | None, after: Route | None
) -> None:
    with pytest.raises(TypeError):
        Step(action, held, after, "test")


def test_what_vouches_does_not_make_two_steps_different() -> None:
    marked, journaled = OWNER.link(seen(LINK)), KNOWN.link(seen(replace(LINK, alias="")))
    assert marked is not None
    assert journaled is not None
    assert (marked.proof, journaled.proof) == (Proof.MARK, Proof.JOURNAL)
    assert ours(LINK) == marked == KNOWN.link(seen(LINK))


def test_only_the_policy_check_vouches() -> None:
    root = Path(dzagent.__file__).parent
    calls = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and node.id == "vouch")
        or (isinstance(node, ast.Attribute) and node.attr in {"vouch", "_SEAL"})
    }
    assert calls == {"ownership.py"}


# ---- marks ---------------------------------------------------------------------------------------------------


def test_marks_tell_what_is_ours() -> None:
    assert OWNER.owns(seen(LINK))
    assert OWNER.route(ROUTE)
    assert OWNER.rule(RULE)
    assert OWNER.address(ADDRESS, OWNER.link(seen(LINK)))
    for foreign in (
        OWNER.link(seen(replace(LINK, alias=""))),
        OWNER.link(seen(replace(LINK, name="gre7"))),
        OWNER.link(seen(replace(LINK, name="doublezero1"))),
        OWNER.route(replace(ROUTE, protocol=186)),
        OWNER.rule(replace(RULE, protocol=2)),
        OWNER.address(ADDRESS, None),
        OWNER.address(replace(ADDRESS, dev="eth0"), OWNER.link(seen(LINK))),
        OWNER.table("t", marked=False, handle=3),
    ):
        assert foreign is None
    assert OWNER.table("t", marked=True, handle=None)


# ---- the journal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["", "theirs", "dzagent:multicast"])
def test_a_link_that_the_journal_knows_stays_ours_whatever_its_alias(alias: str) -> None:
    edited = seen(replace(LINK, alias=alias, remote=IPv4Address("192.0.2.9")))
    assert not OWNER.owns(edited)
    assert KNOWN.owns(edited)
    (step,) = make_plan(WANTED, Observed((edited,)), KNOWN).steps
    assert (step.action, step.target) == (Action.CHANGE, LINK)


@pytest.mark.parametrize(("index", "kind"), [(8, "gre"), (7, "vxlan"), (7, "dummy")])
def test_another_link_of_that_name_is_not_the_one_in_the_journal(index: int, kind: str) -> None:
    other = seen(replace(LINK, alias="theirs"), index, kind)
    assert not KNOWN.owns(other)
    plan = make_plan(WANTED, Observed((other,)), KNOWN)
    assert (plan.steps, len(plan.conflicts)) == ((), 1)


def test_addresses_of_a_renamed_link_of_ours_are_not_the_host_s() -> None:
    theirs = Address("eth0", IPv4Interface("198.51.100.7/24"), "global")
    renamed = replace(ADDRESS, dev="gre7")
    there = Observed(links=(seen(replace(LINK, name="gre7")),), addresses=(theirs, renamed))
    assert without_renamed(there, KNOWN).addresses == (theirs,)
    assert without_renamed(there, OWNER) is there
    usual = Observed(links=(seen(LINK),), addresses=(theirs, ADDRESS))
    assert without_renamed(usual, KNOWN) is usual


def test_a_renamed_link_of_ours_goes_and_is_made_again() -> None:
    renamed = seen(replace(LINK, name="gre7"))
    observed = Observed((renamed,), (replace(ADDRESS, dev="gre7"),))
    steps = make_plan(WANTED, observed, KNOWN).steps
    assert [(step.action, step.target) for step in steps] == [
        (Action.DELETE, renamed.tunnel),
        (Action.ADD, LINK),
    ]
    assert make_plan(Desired(), observed, KNOWN).steps == steps[:1]
    assert make_plan(Desired(), observed, OWNER).steps == (), "without a journal it could be anybody's"
    nameless = Observed((seen(replace(LINK, name="gre7", alias="")),))
    assert make_plan(Desired(), nameless, KNOWN).steps == (), "without a mark either"


@pytest.mark.parametrize("up", [True, False])
def test_a_link_that_we_were_stopped_at_making_is_ours_though_it_has_no_mark_yet(up: bool) -> None:
    half = seen(replace(LINK, alias="", up=up))
    assert MAKING.owns(half)
    (step,) = make_plan(Desired(), Observed((half,)), MAKING).steps
    assert (step.action, step.target) == (Action.DELETE, half.tunnel)
    for other in (
        replace(LINK, alias="theirs"),
        replace(LINK, alias="", ttl=1),
        replace(LINK, alias="", name="doublezero1"),
    ):
        assert not MAKING.owns(seen(other))


def test_a_table_is_known_by_its_handle() -> None:
    held = KNOWN.table("t", marked=False, handle=3)
    assert held is not None
    assert held.proof is Proof.JOURNAL
    assert KNOWN.table("t", marked=False, handle=4) is None
    assert KNOWN.table("t", marked=False, handle=None) is None


# ---- in general ----------------------------------------------------------------------------------------------

names = st.sampled_from(["doublezero0", "doublezero1", "gre7"])
aliases = st.sampled_from(["", "dzagent:unicast", "dzagent:multicast", "theirs"])
kinds = st.sampled_from(["gre", "gre", "vxlan", "dummy"])


@st.composite
def hosts(draw: st.DrawFn) -> Observed:
    """Draw a host with links of any name, mark and kind, each with addresses."""
    links = []
    for index, name in enumerate(draw(st.lists(names, unique=True)), draw(st.integers(1, 3))):
        remote = IPv4Address(draw(st.sampled_from(["192.0.2.1", "192.0.2.2"])))
        link = replace(LINK, name=name, alias=draw(aliases), remote=remote, up=draw(st.booleans()))
        kind = draw(kinds)
        links.append(replace(seen(link, index, kind), tunnel=link if kind == "gre" else None))
    return Observed(tuple(links), tuple(replace(ADDRESS, dev=link.name) for link in links))


claims = st.builds(
    Claims,
    st.lists(st.builds(LinkClaim, names, st.integers(1, 4), kinds), max_size=2).map(tuple),
    st.sampled_from([(), (LINK,)]),
)


@settings(max_examples=500, deadline=None)
@given(hosts(), claims, st.sampled_from([WANTED, Desired()]))
def test_whatever_is_changed_bears_our_mark_or_is_in_the_journal_or_is_what_we_would_make(
    observed: Observed, known: Claims, desired: Desired
) -> None:
    links = {link.name: link for link in observed.links}
    marks = dict(OWNER.links)
    wanted = {item.obj for item in desired.wanted}
    for step in make_plan(desired, observed, replace(OWNER, claims=known)).steps:
        if step.before is None or not isinstance(step.before, Link | Address):
            continue
        link = links[step.before.name if isinstance(step.before, Link) else step.before.dev]
        numbered = any((c.ifindex, c.kind) == (link.ifindex, link.kind) for c in known.links)
        unmarked = link.alias == "" and link.tunnel is not None
        twin = unmarked and replace(link.tunnel or LINK, alias="dzagent:unicast", up=True) in {
            *wanted,
            *known.making,
        }
        assert (
            marks.get(link.name) == link.alias
            or (numbered and (link.name in marks or link.alias in marks.values()))
            or (twin and link.name in marks)
        )
