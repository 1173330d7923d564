"""The types of the nftables table: what the rendered text, the kernel's answer and the plan have in common.

An expression holds its value as canonical text (sorted sets, prefixes joined where nft joins them), so that the grammar
and the decoder, which both make it with `nftvalues`, meet in equal objects. Counters' values, handles and comments
are no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

FAMILY: Final = "inet"
TABLE: Final = "dzagent"

MARK: Final = "dzagent_mark_v1"
"""An empty chain and a counter of this name say that a table is ours: `nft flush table` leaves both in place."""


@dataclass(frozen=True, slots=True)
class NftMatch:
    """`left op right`, such as `ip saddr != 192.0.2.1`; `right` is canonical text."""

    left: str
    op: str
    right: str


@dataclass(frozen=True, slots=True)
class NftCount:
    """Count in a named counter, which outlives a change of the rules."""

    name: str


@dataclass(frozen=True, slots=True)
class NftClamp:
    """Lower the MSS of a TCP SYN: to a number of bytes, or to what the packet's route takes (None)."""

    size: int | None


@dataclass(frozen=True, slots=True)
class NftVerdict:
    """End the chain: `accept` or `drop`."""

    word: str


@dataclass(frozen=True, slots=True, eq=False)
class NftUnknown:
    """An expression outside the grammar: it equals nothing, so that its rule is always put right."""

    text: str


NftExpression: TypeAlias = NftMatch | NftCount | NftClamp | NftVerdict | NftUnknown


@dataclass(frozen=True, slots=True)
class NftRule:
    """One rule: its expressions in order."""

    expressions: tuple[NftExpression, ...]


@dataclass(frozen=True, slots=True)
class NftHook:
    """Where a base chain sees packets. Ours are of type filter with the policy accept; others are seen and put right."""

    hook: str
    priority: int
    type: str = "filter"
    policy: str = "accept"


@dataclass(frozen=True, slots=True)
class NftChain:
    """A chain; `hook` is None for the mark, which is no base chain."""

    name: str
    hook: NftHook | None = None
    rules: tuple[NftRule, ...] = ()


NftInterval: TypeAlias = tuple[int, int]
"""First and last value: addresses as numbers, or ports."""

SetType: TypeAlias = Literal["ipv4_addr", "inet_service"]


@dataclass(frozen=True, slots=True)
class NftSet:
    """A named set of intervals, sorted, none touching another. `odd` tells what it has that ours never have."""

    name: str
    type: str
    elements: tuple[NftInterval, ...] = ()
    odd: str = ""


@dataclass(frozen=True, slots=True)
class NftTable:
    """A table `inet dzagent`, or the part of it that one service has.

    Chains, sets and counters are sorted by name. odd: kinds and flags that ours never have (maps, dormant...).
    """

    chains: tuple[NftChain, ...] = ()
    sets: tuple[NftSet, ...] = ()
    counters: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()

    @property
    def extra(self) -> tuple[str, ...]:
        """What no desired table has, as links and routes have it."""
        return self.odd

    @property
    def names(self) -> frozenset[str]:
        """The names of everything in it."""
        return frozenset((*(c.name for c in self.chains), *(s.name for s in self.sets), *self.counters))

    @property
    def marked(self) -> bool:
        """Whether it bears our mark, or what is left of it."""
        return MARK in self.counters or any(chain.name == MARK and not chain.hook for chain in self.chains)


MARKED: Final = NftTable(chains=(NftChain(MARK),), counters=(MARK,))
"""What a table of ours has beside the parts of the services."""

NftState: TypeAlias = Literal["unread", "absent", "there"]


@dataclass(frozen=True, slots=True)
class NftSeen:
    """What nftables holds under our name.

    unread: nobody looked, or it could not be read (`reason` is a CamelCase word, `message` a sentence): then nothing is
    planned. handle: of the table. counts: packets and bytes by counter.
    """

    state: NftState = "unread"
    table: NftTable = field(default_factory=NftTable)
    handle: int = 0
    reason: str = ""
    message: str = ""
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)


def combine(parts: tuple[NftTable, ...]) -> NftTable:
    """Put parts with different names together; of one name the first counts."""
    chains = {chain.name: chain for part in reversed(parts) for chain in part.chains}
    sets = {one.name: one for part in reversed(parts) for one in part.sets}
    return NftTable(
        tuple(chains[name] for name in sorted(chains)),
        tuple(sets[name] for name in sorted(sets)),
        tuple(sorted({name for part in parts for name in part.counters})),
        tuple(sorted({word for part in parts for word in part.odd})),
    )
