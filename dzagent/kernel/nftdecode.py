"""The reader of `nft -j list table inet dzagent`: pure functions from its text to an `NftSeen`.

The schema is libnftables-json(5). Releases differ in small things, which are read alike: 1.0.2 and 1.1 print a set of
one value as the value or as a set, bits as a word or a list, protocols as words or numbers. Handles, comments and
the values of counters are left out of what is compared. A rule that cannot be understood is kept as unknown, which
equals nothing; text that is no such document raises ObservationError: it is never taken for "empty".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from dzagent.errors import ObservationError
from dzagent.nftgrammar import SET_KINDS
from dzagent.nftmodel import (
    FAMILY,
    TABLE,
    NftChain,
    NftClamp,
    NftCount,
    NftExpression,
    NftHook,
    NftInterval,
    NftMatch,
    NftRule,
    NftSeen,
    NftSet,
    NftTable,
    NftUnknown,
    NftVerdict,
)
from dzagent.nftvalues import BITS, KINDS, ValueRefused, element, from_json

Record: TypeAlias = Mapping[str, Any]

_COUNTS: Final = re.compile(rb'"packets": ?[0-9]+, ?"bytes": ?[0-9]+')
_TELLING: Final = ("auto-merge", "gc-interval", "map", "policy", "size", "stmt", "timeout")
"""Keys of a set that ours never have. Others, that a later release may print, change nothing that we made."""

_MAXSEG: Final = {"tcp option": {"name": "maxseg", "field": "size"}}
_ROUTE_MTU: Final = {"rt": {"key": "mtu"}}


class Known:
    """The last answer: where only counters moved, nothing is decoded again, and the table is the same object."""

    def __init__(self) -> None:
        self._text = b""
        self._seen = NftSeen()

    def read(self, stdout: bytes) -> NftSeen:
        """Decode an answer. Raises ObservationError."""
        text = _COUNTS.sub(b"", stdout)
        if text != self._text or self._seen.state == "unread":
            self._seen = decode(stdout)
            self._text = text
        return self._seen


def counts(stdout: bytes) -> dict[str, tuple[int, int]]:
    """Return packets and bytes of every named counter in an answer; without them what cannot be read."""
    pattern = rb'"counter": ?\{"family": ?"inet", ?"name": ?"([a-z0-9_]+)"[^{}]*?"packets": ?([0-9]+), ?"bytes": ?([0-9]+)'
    found = re.findall(pattern, stdout)
    return {name.decode(): (int(packets), int(size)) for name, packets, size in found}


def decode(stdout: bytes) -> NftSeen:
    """Decode the answer to `nft -j list table inet dzagent`. Raises ObservationError."""
    draft = _Draft()
    try:
        document = json.loads(stdout)
        for item in document["nftables"]:
            for kind, record in item.items():
                draft.take(kind, record)
        table = draft.finish()
    except (ValueError, RecursionError) as error:
        raise ObservationError(f"nft printed JSON that cannot be read: {error}.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ObservationError(f"nft printed a table that cannot be read ({error!r}).") from error
    if not draft.found:
        raise ObservationError(f"nft printed a document without the table {FAMILY} {TABLE}.")
    return NftSeen("there", table, draft.handle)


@dataclass(slots=True)
class _Draft:
    """The objects of the table as they come."""

    chains: dict[str, NftHook | None] = field(default_factory=dict)
    rules: dict[str, list[NftRule]] = field(default_factory=dict)
    sets: list[NftSet] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    found: bool = False
    handle: int = 0

    def take(self, kind: str, record: Any) -> None:
        """Add one object; one of a kind that ours never have is remembered as odd."""
        if kind == "metainfo":
            return
        if kind == "table":
            self._table(record)
        elif (record["family"], record["table"]) != (FAMILY, TABLE):
            raise ValueError(f"a {kind} of another table is in the answer")
        elif kind == "chain":
            self._chain(record)
        elif kind == "rule":
            self.rules.setdefault(str(record["chain"]), []).append(_rule(record["expr"]))
        elif kind == "set":
            self.sets.append(_set(record))
        elif kind == "counter":
            self.counters.append(str(record["name"]))
        elif kind == "element":  # some releases list them apart
            raise ValueError("elements are listed apart from their set")
        else:
            self.odd.append(f"{kind} {record.get('name', '')}".strip())

    def _table(self, record: Record) -> None:
        if (record["family"], record["name"]) != (FAMILY, TABLE):
            raise ValueError("another table is in the answer")
        self.found, self.handle = True, int(record.get("handle", 0))
        # nft 1.0.6 prints flags as an address ("0.0.0.0"): that there are some is enough.
        self.odd += ["table flags"] if record.get("flags") else []

    def _chain(self, record: Record) -> None:
        name, hook = str(record["name"]), None
        if "hook" in record:
            hook = NftHook(
                str(record["hook"]),
                int(record["prio"]),
                str(record["type"]),
                str(record.get("policy", "accept")),
            )
        if "dev" in record:
            self.odd.append(f"chain {name} dev")
        self.chains[name] = hook

    def finish(self) -> NftTable:
        """Put rules into their chains, everything sorted by name."""
        stray = self.rules.keys() - self.chains.keys()
        if stray:
            raise ValueError(f"a rule of a chain that is not there: {min(stray)[:80]!a}")
        return NftTable(
            tuple(NftChain(c, self.chains[c], tuple(self.rules.get(c, ()))) for c in sorted(self.chains)),
            tuple(sorted(self.sets, key=lambda one: one.name)),
            tuple(sorted(self.counters)),
            tuple(sorted(self.odd)),
        )


# ---- sets ------------------------------------------------------------------------------------------------


def _set(record: Record) -> NftSet:
    name, kind = str(record["name"]), record["type"]
    odd = [f"{key} {record[key]}" for key in _TELLING if key in record]
    flags = record.get("flags", [])
    if ([flags] if isinstance(flags, str) else flags) != ["interval"]:
        odd.append(f"flags {flags}")
    if not isinstance(kind, str) or kind not in SET_KINDS:
        return NftSet(name, str(kind), odd=", ".join([*odd, "type"]))
    elements: list[NftInterval] = []
    for value in record.get("elem", []):
        try:
            elements.append(element(SET_KINDS[kind], value))
        except ValueRefused:  # with a timeout, a comment, a counter...: ours have none
            odd.append("an element that is not known here")
            break
    return NftSet(name, kind, tuple(sorted(elements)), ", ".join(odd))


# ---- rules -----------------------------------------------------------------------------------------------


def _rule(expressions: Any) -> NftRule:
    return NftRule(tuple(map(_expression, expressions)))


def _expression(item: Any) -> NftExpression:
    try:
        return _known(item)
    except ValueRefused:
        return NftUnknown(json.dumps(item)[:200])


def _known(item: Any) -> NftExpression:
    match item:
        case {"match": {"op": str(op), "left": left, "right": right}} if (
            len(item) == 1 and len(item["match"]) == 3
        ):
            return _match(op, left, right)
        case {"counter": str(name)} if len(item) == 1:
            return NftCount(name)
        case {"mangle": {"key": key, "value": value}} if len(item) == 1 and key == _MAXSEG:
            return _clamp(value)
        case {"accept": None} | {"drop": None} if len(item) == 1:
            return NftVerdict(next(iter(item)))
    raise ValueRefused("not in the grammar")


def _clamp(value: Any) -> NftClamp:
    if value == _ROUTE_MTU:
        return NftClamp(None)
    if isinstance(value, int) and not isinstance(value, bool):
        return NftClamp(value)
    raise ValueRefused("not in the grammar")


def _match(op: str, left: Any, right: Any) -> NftMatch:
    words = _left(left)
    kind = KINDS.get(words)
    if kind is None:
        raise ValueRefused("not in the grammar")
    # A comparison of bits is "in"; of a set, "==" or (older) "in".
    exact = {"in": "=="} if kind in BITS else {"==": "==", "!=": "!="}
    if kind not in BITS and isinstance(right, dict) and "set" in right:
        exact = {**exact, "in": "=="}
    if op not in exact:
        raise ValueRefused("not in the grammar")
    return NftMatch(words, exact[op], from_json(kind, right))


def _left(left: Any) -> str:
    match left:
        case {"meta": {"key": ("iifname" | "oifname") as key}} if len(left["meta"]) == 1:
            return str(key)
        case {"meta": {"key": "l4proto"}} if len(left["meta"]) == 1:
            return "meta l4proto"
        case {"payload": {"protocol": str(protocol), "field": str(name)}} if len(left["payload"]) == 2:
            return f"{protocol} {name}"
        case {"fib": {"result": "type", "flags": ["saddr"] | "saddr"}} if len(left["fib"]) == 2:
            return "fib saddr type"
        case {"ct": {"key": "state"}} if len(left["ct"]) == 1:
            return "ct state"
    return ""
