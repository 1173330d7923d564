"""The nftables table in words: what it is, and what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dzagent.nftmodel import FAMILY, TABLE, NftSet, NftTable

MAX_NAMED = 6
"""Differences that are named; the rest is counted."""


def describe_table(table: NftTable) -> str:
    """Return one line that names the table to a person."""
    rules = sum(len(chain.rules) for chain in table.chains)
    elements = sum(len(one.elements) for one in table.sets)
    counted = (
        (len(table.chains), "chain"),
        (rules, "rule"),
        (len(table.sets), "set"),
        (elements, "element"),
        (len(table.counters), "counter"),
    )
    words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted if count)
    odd = f", and {', '.join(table.odd)}" if table.odd else ""
    return f"nft table {FAMILY} {TABLE} with {words or 'nothing'}{odd}"


def changes(before: NftTable, after: NftTable) -> str:
    """Say what differs, such as "differs: rules of chain unicast_input, set unicast_prefixes +1 -0"."""
    found = list(dict.fromkeys(_changes(before, after)))
    rest = f", and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return f"differs: {', '.join(found[:MAX_NAMED])}{rest}"


def _changes(before: NftTable, after: NftTable) -> Iterator[str]:
    yield from before.odd
    old = {chain.name: chain for chain in before.chains}
    new = {chain.name: chain for chain in after.chains}
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"no chain {name}"
        elif name not in new:
            yield f"chain {name} is too much"
        elif old[name].hook != new[name].hook:
            yield f"hook of chain {name}"
        elif old[name].rules != new[name].rules:
            yield f"rules of chain {name}"
    yield from _changed_sets({s.name: s for s in before.sets}, {s.name: s for s in after.sets})
    yield from (f"no counter {name}" for name in after.counters if name not in before.counters)
    yield from (f"counter {name} is too much" for name in before.counters if name not in after.counters)


def _changed_sets(old: dict[str, NftSet], new: dict[str, NftSet]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"no set {name}"
        elif name not in new:
            yield f"set {name} is too much"
        elif (old[name].type, old[name].odd) != (new[name].type, new[name].odd):
            yield f"type of set {name}"
        elif old[name].elements != new[name].elements:
            had, wanted = set(old[name].elements), set(new[name].elements)
            yield f"set {name} +{len(wanted - had)} -{len(had - wanted)}"
