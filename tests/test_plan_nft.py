"""The plan of the nftables table: whose it is, what is done, what is spared."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from dzagent.doubt import spare
from dzagent.errors import GrammarError
from dzagent.model import Action, Desired, Link, Observed, Origin, Route, Rule, ServiceName, Wanted
from dzagent.nftmodel import (
    MARK,
    MARKED,
    NftChain,
    NftHook,
    NftRule,
    NftSeen,
    NftSet,
    NftTable,
    NftUnknown,
    NftVerdict,
    combine,
)
from dzagent.ownership import Claims, Ownership
from dzagent.plan import make_plan
from dzagent.plan_nft import table_handle
from dzagent.policy import Policy
from dzagent.render import Templates, parse_texts, render_service
from dzagent.share import find
from tests.test_render import BOTH, EDGE

LINKS: dict[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
OWNER = Ownership(210, {link: f"dzagent:{name}" for name, link in LINKS.items()})


def part(name: str, word: str = "drop") -> NftTable:
    rules = (NftRule((NftVerdict(word),)),)
    return NftTable((NftChain(f"{name}_input", NftHook("input", -10), rules),), (), (f"{name}_bgp",))


UNICAST, MULTICAST = part("unicast"), part("multicast")


def wanted(**parts: NftTable) -> Desired:
    return Desired(tuple(Wanted(obj, Origin(name, f"{name}/nftables.nft", 9)) for name, obj in parts.items()))  # type: ignore[arg-type] # the names of services


WANTED = wanted(unicast=UNICAST, multicast=MULTICAST)
WHOLE = combine((MARKED, UNICAST, MULTICAST))


def there(table: NftTable, handle: int = 7) -> Observed:
    return Observed(nft=NftSeen("there", table, handle))


def test_a_table_that_is_missing_is_made_of_all_parts() -> None:
    plan = make_plan(WANTED, Observed(nft=NftSeen("absent")), OWNER)
    (step,) = plan.steps
    assert (step.action, step.after, step.origin) == (Action.ADD, WHOLE, WANTED.wanted[0].origin)


def test_what_could_not_be_read_is_left_alone() -> None:
    for seen in (NftSeen(), NftSeen(reason="NftMissing", message="x")):
        for desired in (WANTED, Desired()):
            plan = make_plan(desired, Observed(nft=seen), OWNER)
            assert (plan.steps, plan.conflicts) == ((), ())


def test_an_equal_table_needs_nothing() -> None:
    assert make_plan(WANTED, there(WHOLE), OWNER).phases == ()


def test_a_difference_is_one_step_that_says_what_and_whose() -> None:
    seen = combine((MARKED, UNICAST, part("multicast", "accept")))
    (step,) = make_plan(WANTED, there(seen), OWNER).steps
    assert (step.action, step.before, step.after) == (Action.CHANGE, seen, WHOLE)
    assert step.reason == "differs: rules of chain multicast_input"
    assert step.origin == WANTED.wanted[1].origin


def test_a_rule_that_is_not_understood_differs() -> None:
    odd = replace(UNICAST.chains[0], rules=(NftRule((NftUnknown("{}"),)),))
    assert make_plan(
        WANTED, there(combine((MARKED, replace(UNICAST, chains=(odd,)), MULTICAST))), OWNER
    ).steps


def test_nobody_wants_it_and_it_goes() -> None:
    (step,) = make_plan(Desired(), there(WHOLE), OWNER).steps
    assert (step.action, step.before) == (Action.DELETE, WHOLE)


def test_a_table_without_our_mark_is_a_conflict_and_stays() -> None:
    foreign = combine((UNICAST, MULTICAST))
    plan = make_plan(WANTED, there(foreign), OWNER)
    assert (plan.steps, len(plan.conflicts)) == ((), 1)
    assert "without our mark" in plan.conflicts[0].owner
    nothing = make_plan(Desired(), there(foreign), OWNER)
    assert (nothing.steps, nothing.conflicts) == ((), ())


@pytest.mark.parametrize(
    "mark",
    [
        MARKED,
        NftTable(chains=MARKED.chains),
        NftTable(counters=MARKED.counters),
    ],
)
def test_half_a_mark_is_a_mark(mark: NftTable) -> None:
    (step,) = make_plan(WANTED, there(mark), OWNER).steps
    assert step.action is Action.CHANGE


def test_a_base_chain_of_the_mark_s_name_is_none() -> None:
    table = NftTable((NftChain(MARK, NftHook("input", 0)),))
    assert make_plan(WANTED, there(table), OWNER).conflicts


def test_the_journal_knows_a_table_whose_mark_is_gone() -> None:
    knowing = replace(OWNER, claims=Claims(table=7))
    foreign = combine((UNICAST, MULTICAST))
    assert make_plan(WANTED, there(foreign), knowing).steps
    assert make_plan(WANTED, there(foreign, 8), knowing).conflicts
    assert table_handle(there(foreign).nft, knowing, 7) == 7
    assert table_handle(there(foreign, 8).nft, knowing, 7) is None
    assert table_handle(NftSeen("absent"), knowing, 7) is None
    assert table_handle(NftSeen(reason="NftFailed"), OWNER, 7) == 7


def test_the_table_comes_before_rules_and_goes_after_them() -> None:
    text = render_service(EDGE, Policy(), Templates((find("templates"),)), links=tuple(LINKS.values()))
    desired = parse_texts({"unicast": text}, OWNER)
    phases = make_plan(desired, Observed(nft=NftSeen("absent")), OWNER).phases
    kinds = [type(phase[0].target) for phase in phases]
    assert kinds[0] is Link
    assert kinds[-3:] == [Route, NftTable, Rule]
    rule = next(obj for obj in desired.objects if isinstance(obj, Rule))
    seen = replace(there(WHOLE), rules=(rule,))
    assert [type(phase[0].target) for phase in make_plan(Desired(), seen, OWNER).phases] == [Rule, NftTable]


# ---- doubt -------------------------------------------------------------------------------------------------------


def test_the_part_of_a_service_in_doubt_is_spared() -> None:
    plan = spare(make_plan(wanted(multicast=MULTICAST), there(WHOLE), OWNER), {"unicast"}, LINKS)
    assert plan.steps == ()


def test_what_else_differs_is_still_put_right() -> None:
    plan = make_plan(wanted(multicast=part("multicast", "accept")), there(WHOLE), OWNER)
    (step,) = spare(plan, {"unicast"}, LINKS).steps
    assert step.after == combine((MARKED, UNICAST, part("multicast", "accept")))


def test_a_table_is_not_deleted_on_doubt() -> None:
    plan = make_plan(Desired(), there(WHOLE), OWNER)
    (step,) = spare(plan, {"unicast"}, LINKS).steps
    assert (step.action, step.after) == (Action.CHANGE, combine((MARKED, UNICAST)))
    assert spare(plan, {"unicast", "multicast"}, LINKS).steps == ()
    assert spare(plan, (), LINKS) == plan


def test_the_plan_s_id_names_the_table() -> None:
    plans = [make_plan(WANTED, seen, OWNER).id for seen in (there(WHOLE), there(MARKED), there(WHOLE, 8))]
    plans.append(make_plan(wanted(unicast=UNICAST), there(WHOLE), OWNER).id)
    assert len(set(plans)) == 4


# ---- what a service may have -----------------------------------------------------------------------------------


def render(change: str = "|") -> str:
    """Return the text of an EdgeFiltering service, edited: OLD|NEW."""
    text = render_service(EDGE, Policy(), Templates((find("templates"),)), links=tuple(LINKS.values()))
    old, new = change.split("|")
    assert old in text["nftables.nft"]
    return text["nftables.nft"].replace(old, new) if old else text["nftables.nft"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('iifname != "doublezero0"|iifname != "doublezero1"', "leave other interfaces alone"),
        ('iifname != "doublezero0" accept|iifname "doublezero0" drop', "leave other interfaces alone"),
        ('iifname != "doublezero0" accept|iifname != "doublezero0" drop', "leave other interfaces alone"),
        ('iifname != "doublezero0" accept|drop', "leave other interfaces alone"),
        ('oifname { "doublezero0", "doublezero1", "lo" } accept|oifname "lo" accept', "leave other interfaces alone"),
        ('oifname { "doublezero0", "doublezero1", "lo" } accept|oifname { "doublezero0", "doublezero1", "eth0", "lo" } accept', "leave other"),
        ("unicast_leak ip saddr @unicast_prefixes counter|unicast_leak counter", "must have `ip saddr @unicast_prefixes`"),
        ("unicast_leak ip saddr @unicast_prefixes|unicast_leak ip saddr != @unicast_prefixes", "must have"),
        ("unicast_|multicast_", "are named unicast_"),
        ("unicast_bgp|dzagent_mark_v1", "are named unicast_"),
    ],
)  # fmt: skip
def test_a_template_cannot_touch_other_traffic(change: str, why: str) -> None:
    with pytest.raises(GrammarError, match=r"unicast/nftables\.nft:[0-9]+: ") as caught:
        parse_texts({"unicast": {"nftables.nft": render(change)}}, OWNER)
    assert why in str(caught.value)


def test_the_origin_is_the_first_command() -> None:
    body = render()
    (item,) = parse_texts({"unicast": {"nftables.nft": body}}, OWNER).wanted
    assert body.splitlines()[item.origin.line - 1] == "add table inet dzagent"


def test_overlapping_prefixes_are_joined() -> None:
    nets = tuple(map(IPv4Network, ("10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "192.0.2.0/24")))
    text = render_service(replace(EDGE, prefixes=nets), Policy(), Templates((find("templates"),)))
    table = next(o for o in parse_texts({"unicast": text}, OWNER).objects if isinstance(o, NftTable))
    low, high = (IPv4Network(n) for n in ("10.0.0.0/8", "192.0.2.0/24"))
    expected = tuple((int(n[0]), int(n[-1])) for n in (low, high))
    assert table.sets == (NftSet("unicast_prefixes", "ipv4_addr", expected),)


def test_a_service_without_prefixes_has_no_leak_guard() -> None:
    text = render_service(replace(EDGE, prefixes=()), Policy(), Templates((find("templates"),)))
    assert "leak" not in text["nftables.nft"]
    text = render_service(BOTH, Policy(), Templates((find("templates"),)))
    assert "leak" not in text["nftables.nft"]
