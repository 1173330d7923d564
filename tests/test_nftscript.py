"""The smallest transaction from one table to another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from dzagent.errors import KernelError
from dzagent.kernel.nftscript import script, whole
from dzagent.model import Action, Step
from dzagent.nftmodel import (
    MARKED,
    NftChain,
    NftCount,
    NftHook,
    NftInterval,
    NftMatch,
    NftRule,
    NftSet,
    NftTable,
    NftUnknown,
    NftVerdict,
    combine,
)
from dzagent.owned import Proof, vouch
from tests.nft_strategies import tables

HOOK = NftHook("input", -10)
DROP, ACCEPT = (NftRule((NftVerdict(word),)) for word in ("drop", "accept"))
COUNT = NftRule((NftMatch("ip saddr", "==", "@s"), NftCount("n"), NftVerdict("drop")))
SET = NftSet("s", "ipv4_addr", ((1, 1), (10, 19), (32, 63)))
TABLE = NftTable((NftChain("a", HOOK, (DROP,)), NftChain("b", HOOK, (COUNT,))), (SET,), ("n",))


def change(before: NftTable, after: NftTable) -> tuple[str, ...]:
    return script(Step(Action.CHANGE, vouch(before, Proof.MARK), after, "test"))


def with_elements(*elements: NftInterval) -> NftTable:
    return replace(TABLE, sets=(replace(SET, elements=elements),))


def test_a_new_table_is_made_exclusively() -> None:
    lines = script(Step(Action.ADD, None, combine((MARKED, TABLE)), "missing"))
    assert lines[0] == "create table inet dzagent"
    assert "add chain inet dzagent dzagent_mark_v1" in lines
    assert "add element inet dzagent s { 0.0.0.1, 0.0.0.10-0.0.0.19, 0.0.0.32/27 }" in lines
    assert lines.index("add counter inet dzagent n") < lines.index(
        'add rule inet dzagent b ip saddr @s counter name "n" drop'
    )


def test_a_table_that_nobody_wants_goes_as_a_whole() -> None:
    assert script(Step(Action.DELETE, vouch(TABLE, Proof.MARK), None, "x")) == ("delete table inet dzagent",)


def test_only_the_chain_that_differs_is_filled_anew() -> None:
    after = replace(TABLE, chains=(replace(TABLE.chains[0], rules=(ACCEPT, DROP)), TABLE.chains[1]))
    assert change(TABLE, after) == (
        "flush chain inet dzagent a",
        "add rule inet dzagent a accept",
        "add rule inet dzagent a drop",
    )


def test_one_element_is_one_element() -> None:
    assert change(TABLE, with_elements((1, 1), (10, 19), (32, 63), (100, 100))) == (
        "add element inet dzagent s { 0.0.0.100 }",
    )
    assert change(TABLE, with_elements((1, 1), (10, 19))) == (
        "delete element inet dzagent s { 0.0.0.32/27 }",
    )


def test_an_element_that_grows_fills_the_set_anew() -> None:
    """What nft 1.0.2 cannot do: add what overlaps an element that the same transaction deletes."""
    assert change(TABLE, with_elements((1, 2), (10, 19), (32, 63))) == (
        "flush set inet dzagent s",
        "add element inet dzagent s { 0.0.0.1-0.0.0.2, 0.0.0.10-0.0.0.19, 0.0.0.32/27 }",
    )


def test_a_flushed_table_gets_its_rules_back_and_keeps_the_rest() -> None:
    bare = replace(TABLE, chains=tuple(replace(chain, rules=()) for chain in TABLE.chains))
    lines = change(bare, TABLE)
    assert all(line.startswith("add rule") for line in lines)
    assert len(lines) == 2


def test_what_is_too_much_goes_users_first() -> None:
    assert change(TABLE, NftTable((TABLE.chains[0],))) == (
        "flush chain inet dzagent b",
        "delete chain inet dzagent b",
        "delete set inet dzagent s",
        "delete counter inet dzagent n",
    )


def test_a_chain_at_another_hook_is_made_anew_and_a_policy_is_changed() -> None:
    moved = replace(TABLE, chains=(replace(TABLE.chains[0], hook=NftHook("input", 0)), TABLE.chains[1]))
    assert change(moved, TABLE) == (
        "flush chain inet dzagent a",
        "delete chain inet dzagent a",
        "add chain inet dzagent a { type filter hook input priority -10; policy accept; }",
        "add rule inet dzagent a drop",
    )
    shut = replace(
        TABLE, chains=(replace(TABLE.chains[0], hook=replace(HOOK, policy="drop")), TABLE.chains[1])
    )
    assert change(shut, TABLE) == (
        "add chain inet dzagent a { type filter hook input priority -10; policy accept; }",
    )


ODD = [
    replace(TABLE, odd=("map x",)),
    replace(TABLE, odd=("table flags",)),
    replace(TABLE, sets=(replace(SET, odd="timeout 3"),)),
    replace(TABLE, sets=(replace(SET, type="inet_service"),)),
    replace(TABLE, chains=(*TABLE.chains, NftChain("x; flush ruleset", None))),
    replace(TABLE, chains=(*TABLE.chains, NftChain("Ünsinn", None))),
    replace(TABLE, counters=("n", 'q"')),
]


@pytest.mark.parametrize("before", ODD)
def test_for_what_has_no_command_the_table_is_made_anew_in_one_transaction(before: NftTable) -> None:
    assert change(before, TABLE) == whole(before, TABLE)
    assert whole(NftTable(), TABLE)[:2] == ("delete table inet dzagent", "create table inet dzagent")


def test_what_has_the_name_of_a_set_of_ours_goes_by_name_before_the_table() -> None:
    name = TABLE.sets[0].name
    for before, gone in (
        (
            replace(TABLE, sets=(NftSet(name, TABLE.sets[0].type, odd="flags []"),)),
            f"set inet dzagent {name}",
        ),
        (replace(TABLE, sets=(NftSet(name, "ipv6_addr"),)), f"set inet dzagent {name}"),
        (replace(TABLE, sets=(), odd=(f"map {name}",)), f"map inet dzagent {name}"),
    ):
        assert whole(before, TABLE)[:4] == (
            *("flush table inet dzagent", f"delete {gone}"),
            *("delete table inet dzagent", "create table inet dzagent"),
        )


def test_a_rule_that_is_not_understood_is_replaced_and_never_written() -> None:
    odd = NftRule((NftUnknown('{"jump": {"target": "x"}}'),))
    before = replace(TABLE, chains=(replace(TABLE.chains[0], rules=(odd,)), TABLE.chains[1]))
    assert change(before, TABLE)[0] == "flush chain inet dzagent a"
    with pytest.raises(KernelError):
        change(TABLE, before)


def test_what_is_left_as_it_is_need_not_be_understood() -> None:
    odd = NftChain("c", HOOK, (NftRule((NftUnknown("{}"),)),))
    before = replace(TABLE, chains=(*TABLE.chains, odd))
    after = replace(before, counters=("m", "n"))
    assert change(before, after) == ("add counter inet dzagent m",)


@settings(deadline=None, max_examples=50)
@given(tables(), tables())
def test_equal_parts_are_not_touched(before: NftTable, after: NftTable) -> None:
    lines = change(before, after)
    if lines == whole(before, after):
        return
    same = {chain.name for chain in before.chains} & {c.name for c in after.chains if c in before.chains}
    for name in same:
        assert not any(
            f" chain inet dzagent {name}" in line or f" rule inet dzagent {name} " in line for line in lines
        )
    for one in {s.name for s in before.sets if s in after.sets}:
        assert not any(
            f" element inet dzagent {one} " in line or line.endswith(f"set inet dzagent {one}")
            for line in lines
        )


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 4096])
def test_long_lists_come_in_pieces(count: int) -> None:
    table = with_elements(*((2 * n, 2 * n) for n in range(count)))
    lines = [line for line in whole(NftTable(), table) if line.startswith("add element")]
    assert len(lines) == -(-count // 1000)
    assert sum(line.count(",") + 1 for line in lines) == count
