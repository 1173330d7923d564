"""Random tables of nftables, as a rendered text may say them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from dzagent.nftgrammar import HOOKS
from dzagent.nftmodel import (
    NftChain,
    NftClamp,
    NftCount,
    NftExpression,
    NftHook,
    NftInterval,
    NftMatch,
    NftRule,
    NftSet,
    NftTable,
    NftVerdict,
)
from dzagent.nftvalues import KINDS, MAX_PORT, MAX_U32, PROTOCOLS, canonical, interval_text

NAMES = tuple(f"unicast_{word}" for word in ("a", "b", "c1", "d_2", "eee"))
_MAYBE: st.SearchStrategy[bool] = st.booleans()
_LINKS = ("lo", "doublezero0", "doublezero1", "eth0", "br-1.2")


def _interval(highest: int, least: int) -> st.SearchStrategy[NftInterval]:
    sizes = st.sampled_from((1, 1, 2, 3, 256, 65_536))
    return st.builds(
        lambda first, size: (first, min(first + size - 1, highest)), st.integers(least, highest), sizes
    )


def intervals(kind: str, most: int = 5) -> st.SearchStrategy[tuple[NftInterval, ...]]:
    """Return sets of intervals that do not overlap; some touch."""
    least, highest = (1, MAX_PORT) if kind == "port" else (0, MAX_U32)

    def apart(items: list[NftInterval]) -> tuple[NftInterval, ...]:
        found: list[NftInterval] = []
        for first, last in sorted(items):
            if not found or first > found[-1][1]:
                found.append((first, last))
        return tuple(found)

    return st.lists(_interval(highest, least), max_size=most).map(apart)


def _values(kind: str) -> st.SearchStrategy[str]:
    if kind in {"address", "port"}:
        texts = intervals(kind).filter(bool).map(lambda items: [interval_text(i, kind) for i in items])
        return texts.map(lambda items: canonical(kind, items))
    if kind == "name":
        return st.lists(st.sampled_from(_LINKS), min_size=1, unique=True).map(lambda v: canonical("name", v))
    if kind == "state":
        words = st.lists(st.sampled_from(("established", "related", "new")), min_size=1, unique=True)
        return words.map(lambda v: canonical("state", v))
    word = {"protocol": tuple(PROTOCOLS), "flag": ("syn", "ack", "fin"), "word": ("local",)}[kind]
    return st.sampled_from(word).map(lambda v: canonical(kind, [v]))


@st.composite
def rules(draw: st.DrawFn, sets: Sequence[NftSet], counters: Sequence[str], hook: str) -> NftRule:
    """Return a rule that nft takes at this hook."""
    blocked = (
        {"oifname"}
        if hook in {"prerouting", "input"}
        else {"iifname"}
        if hook in {"output", "postrouting"}
        else set()
    )
    blocked |= {"meta l4proto"}
    lefts = draw(st.lists(st.sampled_from(sorted(set(KINDS) - blocked)), max_size=3, unique=True))
    kinds = {left.split(" ")[0] for left in lefts} & {"tcp", "udp"}
    if len(kinds) > 1:  # a packet is not both
        lefts = [left for left in lefts if not left.startswith("udp")]
    found: list[NftExpression] = []
    for left in lefts:
        kind = KINDS[left]
        fitting = [one for one in sets if {"ipv4_addr": "address", "inet_service": "port"}[one.type] == kind]
        by_name = draw(_MAYBE)
        right = f"@{draw(st.sampled_from(fitting)).name}" if fitting and by_name else draw(_values(kind))
        op = "==" if kind in {"flag", "state"} else draw(st.sampled_from(("==", "!=")))
        found.append(NftMatch(left, op, right))
    counted = draw(_MAYBE)
    if counters and counted:
        found.append(NftCount(draw(st.sampled_from(list(counters)))))
    syn = NftMatch("tcp flags", "==", "syn")
    if syn in found:
        sizes = st.integers(64, 9000)
        routed = hook not in {"prerouting", "input"}
        found.append(NftClamp(draw(st.none() | sizes if routed else sizes)))
    else:
        found.append(NftVerdict(draw(st.sampled_from(("accept", "drop")))))
    return NftRule(tuple(found))


@st.composite
def tables(draw: st.DrawFn) -> NftTable:
    """Return a part of a table."""
    counters = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
    sets = []
    for name in sorted(draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))):
        kind = draw(st.sampled_from(("ipv4_addr", "inet_service")))
        elements = draw(intervals("port" if kind == "inet_service" else "address", 8))
        sets.append(NftSet(name, kind, elements))
    chains = []
    for name in sorted(draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))):
        hook = draw(st.sampled_from(HOOKS))
        some = draw(st.lists(rules(sets, counters, hook), max_size=4))
        chains.append(NftChain(name, NftHook(hook, draw(st.integers(-150, 150))), tuple(some)))
    return NftTable(tuple(chains), tuple(sets), tuple(sorted(counters)))
