"""What a change of the nftables table takes from one service: rules and elements of sets, counted. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter

from dzagent.model import ServiceName, Step
from dzagent.nftmodel import NftInterval, NftTable
from dzagent.plan_nft import part_of


@dataclass(frozen=True, slots=True)
class Loss:
    """What goes of a service's part: `gone` of `had` rules and elements. names: the chains and sets that lose them."""

    gone: int = 0
    had: int = 0
    names: frozenset[str] = frozenset()
    text: str = ""


NO_LOSS = Loss()


def loss(step: Step, service: ServiceName) -> Loss:
    """Count what a step takes away; nothing if it is not about the table.

    Rules count by number, since one that is edited, or stands in another chain now, does not go. Elements count if
    no set of their type covers them any more. What lacks in the end, such as a counter, is kept with the rules that
    use it, and so is among the names.
    """
    if not isinstance(step.before, NftTable):
        return NO_LOSS
    before = part_of(step.before, [service])
    after = part_of(step.after, [service]) if isinstance(step.after, NftTable) else NftTable()
    rules = max(0, _rules(before) - _rules(after))
    elements = dict(_elements(before, after))
    gone = rules + sum(elements.values())
    if not gone:
        return NO_LOSS
    names = {name for name, count in elements.items() if count} | (before.names - after.names)
    left = {chain.name: len(chain.rules) for chain in after.chains}
    if rules:
        names |= {c.name for c in before.chains if len(c.rules) > left.get(c.name, len(c.rules))}
    had = _rules(before) + sum(len(one.elements) for one in before.sets)
    return Loss(gone, had, frozenset(names), f"{service} {before!r} {after!r}")


def _rules(table: NftTable) -> int:
    return sum(len(chain.rules) for chain in table.chains)


def _elements(before: NftTable, after: NftTable) -> Iterator[tuple[str, int]]:
    """Yield each set of `before` with the number of its elements that nothing of `after` covers."""
    for one in before.sets:
        left = sorted(element for other in after.sets if other.type == one.type for element in other.elements)
        yield one.name, len(one.elements) - _covered(one.elements, left)


def _covered(elements: Sequence[NftInterval], by: Sequence[NftInterval]) -> int:
    """Count the elements that lie within one of `by`, which are sorted."""
    firsts, lasts = list(map(itemgetter(0), by)), list(accumulate(map(itemgetter(1), by), max))
    found = ((bisect_right(firsts, first), last) for first, last in elements)
    return sum(at > 0 and last <= lasts[at - 1] for at, last in found)
