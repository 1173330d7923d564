"""From what the table is to what it should be: the smallest transaction for `nft -f -`. Pure.

A table that is not there is made by `create`, which fails if somebody else was faster. Chains that differ get their
rules anew, sets are changed by element, and counters that stay keep their values. nft carries out a whole text or
nothing of it, and packets see the old rules or the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Final

from dzagent.errors import GrammarError, KernelError
from dzagent.model import Action, Step
from dzagent.nftgrammar import (
    SET_KINDS,
    format_chain,
    format_counter,
    format_rule,
    format_set,
)
from dzagent.nftmodel import FAMILY, TABLE, NftChain, NftInterval, NftSet, NftTable
from dzagent.nftvalues import ValueRefused, interval_text, name

AT_ONCE: Final = 1000
"""Elements of one command: nft reads a long list far faster than many commands, a person does not."""

_IN: Final = f"{FAMILY} {TABLE}"


def script(step: Step) -> tuple[str, ...]:
    """Return the transaction that carries out a step whose target is a table.

    Raises KernelError for what cannot be written safely.
    """
    before, after = step.before, step.after
    try:
        if step.action is Action.DELETE or not isinstance(after, NftTable):
            return (f"delete table {_IN}",)
        if step.action is Action.ADD or not isinstance(before, NftTable):
            return (f"create table {_IN}", *_contents(after))
        return whole(before, after) if _must_rebuild(before, after) else tuple(_changes(before, after))
    except (GrammarError, ValueRefused) as error:
        raise KernelError(f"No safe command: {error}.") from error


def whole(before: NftTable, after: NftTable) -> tuple[str, ...]:
    """Return the transaction that puts a table in the place of what is there. Counters begin anew.

    What has the name of a set of ours and is another goes by name first: nft, which does not see which table is
    deleted by its handle, would judge our elements by what it remembers of the old one.
    """
    wanted = {one.name: one.type for one in after.sets}
    sets = [one for one in before.sets if one.name in wanted and (one.odd or one.type != wanted[one.name])]
    maps = [one for one in before.odd if one.startswith("map ") and one[4:] in wanted]
    old = [
        *(f"delete set {_IN} {one.name}" for one in sets),
        *(f"delete map {_IN} {one[4:]}" for one in maps),
    ]
    first = (f"flush table {_IN}", *old) if old else ()
    return (*first, f"delete table {_IN}", f"create table {_IN}", *_contents(after))


def _contents(table: NftTable) -> Iterator[str]:
    if table.odd:
        raise GrammarError(f"{', '.join(table.odd)} has no place in the grammar")
    yield from map(format_counter, table.counters)
    for one in table.sets:
        yield format_set(one)
        yield from _elements("add", one, one.elements)
    yield from map(format_chain, table.chains)
    for chain in table.chains:
        yield from (format_rule(chain.name, rule) for rule in chain.rules)


def _must_rebuild(before: NftTable, after: NftTable) -> bool:
    """Tell whether something is there that this module knows no command for, or that nft cannot change."""
    wanted = {one.name: one for one in after.sets}
    odd = [
        one for one in before.sets if one.odd or (one.name in wanted and wanted[one.name].type != one.type)
    ]
    kinds = [{c.name for c in t.chains} | {s.name for s in t.sets} for t in (before, after)]
    return bool(before.odd or odd) or not all(map(_nameable, kinds[0] | set(before.counters)))


def _nameable(text: str) -> bool:
    try:
        name(text)
    except ValueRefused:
        return False
    return True


def _changes(before: NftTable, after: NftTable) -> Iterator[str]:
    """First what goes, users before what they use; then what comes, the other way round."""
    old = {chain.name: chain for chain in before.chains}
    new = {chain.name: chain for chain in after.chains}
    gone = [chain for chain in before.chains if chain.name not in new or _rehooked(chain, new[chain.name])]
    changed = [chain for chain in after.chains if chain.name in old and chain.rules != old[chain.name].rules]
    emptied = dict.fromkeys(c.name for c in (*gone, *changed) if old[c.name].rules)
    yield from (f"flush chain {_IN} {chain}" for chain in emptied)
    yield from (f"delete chain {_IN} {chain.name}" for chain in gone)
    kept = {one.name for one in after.sets}
    yield from (f"delete set {_IN} {one.name}" for one in before.sets if one.name not in kept)
    yield from (f"delete counter {_IN} {one}" for one in before.counters if one not in after.counters)
    yield from (format_counter(one) for one in after.counters if one not in before.counters)
    had = {one.name: one for one in before.sets}
    for one in after.sets:
        yield from _change_set(had.get(one.name), one)
    removed = {chain.name for chain in gone}
    made = [c for c in after.chains if c.name not in old or c.name in removed or c.hook != old[c.name].hook]
    yield from map(format_chain, made)
    filled = dict.fromkeys(
        c.name for c in (*made, *changed) if c.name in removed or c.name not in old or c in changed
    )
    yield from (format_rule(chain, rule) for chain in filled for rule in new[chain].rules)


def _rehooked(old: NftChain, new: NftChain) -> bool:
    """Tell whether a chain must be made anew: nft changes a policy in place, and nothing else of a hook."""
    if old.hook is None or new.hook is None:
        return old.hook is not new.hook
    return (old.hook.hook, old.hook.priority, old.hook.type) != (
        new.hook.hook,
        new.hook.priority,
        new.hook.type,
    )


def _change_set(before: NftSet | None, after: NftSet) -> Iterator[str]:
    """Delete and add single elements; where most of them go, or one grows or shrinks, fill the set anew.

    nft 1.0.2 refuses to add what overlaps an element that the same transaction deletes.
    """
    if before is None:
        yield format_set(after)
        yield from _elements("add", after, after.elements)
        return
    had, wanted = set(before.elements), set(after.elements)
    gone, new = had - wanted, wanted - had
    if gone and (2 * len(gone) > len(had) or _overlap(gone, new)):
        yield f"flush set {_IN} {after.name}"
        yield from _elements("add", after, after.elements)
        return
    yield from _elements("delete", after, sorted(gone))
    yield from _elements("add", after, sorted(new))


def _overlap(some: set[NftInterval], others: set[NftInterval]) -> bool:
    """Tell whether two sets have values in common, neither within itself."""
    return any(left[1] >= right[0] for left, right in pairwise(sorted((*some, *others))))


def _elements(verb: str, one: NftSet, elements: Iterable[NftInterval]) -> Iterator[str]:
    texts = iter([interval_text(element, SET_KINDS[one.type]) for element in elements])
    while some := list(islice(texts, AT_ONCE)):
        yield f"{verb} element {_IN} {one.name} {{ {', '.join(some)} }}"
