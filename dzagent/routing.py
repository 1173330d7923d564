"""Which route a packet takes: rules in order, then the longest prefix of a table, as the kernel decides it. Pure.

What is not known is not guessed: a rule with a selector that cannot be judged here (a mark, a port, an interface) may
match or not, and a table may hold routes that nobody has read. So the answer is the set of ways that are possible.
Sources: net/core/fib_rules.c (fib_rules_lookup), net/ipv4/fib_rules.c, net/ipv4/fib_trie.c.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from dzagent.model import MAIN_TABLE, Route, Rule

_MASKS: Final = tuple(0xFFFFFFFF << (32 - length) & 0xFFFFFFFF for length in range(33))
LOCAL_TABLE: Final = 255
"""Number of the kernel's table of local addresses (linux/rtnetlink.h, RT_TABLE_LOCAL)."""

_CERTAIN: Final = frozenset(
    {"from", "to", "iif lo", "realms", "type", "goto", "suppress_prefixlength", "not"}
)
"""Tokens of a rule that leave no doubt whether it matches: those that are no selector, and "iif lo" (this host)."""
_STOPS: Final = frozenset({"type blackhole", "type unreachable", "type prohibit"})
_Key: TypeAlias = tuple[int, int]
"""Length of a prefix, and its first address."""


class _Does(enum.Enum):
    """What a rule does with a packet that it matches."""

    LOOKUP = enum.auto()
    ANY_TABLE = enum.auto()  # an l3mdev rule: the table of the packet's VRF
    STOP = enum.auto()
    GOTO = enum.auto()
    NOTHING = enum.auto()


@dataclass(frozen=True, slots=True)
class Way:
    """One possible end of a look-up: the rule that led there, and the route, None where the rule itself refuses.

    certain: no other end is possible, as far as the known routes tell.
    """

    rule: Rule
    route: Route | None
    certain: bool


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A rule as numbers. suppress: results of this length or shorter are passed over, -1 for none."""

    rule: Rule
    src: _Key
    dst: _Key
    inverted: bool
    doubtful: bool
    does: _Does
    suppress: int
    doubtful_suppress: bool
    target: int


class Routing:
    """The rules and routes of one moment, prepared for many questions.

    rules: in the kernel's order. routes: those that are known; there may be more. vrf: whether the host has a VRF,
    without which an l3mdev rule matches nothing.
    """

    def __init__(self, rules: Iterable[Rule], routes: Iterable[Route], *, vrf: bool = False) -> None:
        ordered = sorted(rules, key=lambda rule: rule.priority)
        self._rules = [_compile(rule) for rule in ordered if vrf or "l3mdev" not in rule.extra]
        self._places: dict[int, int] = {}
        for place, item in enumerate(self._rules):
            self._places.setdefault(item.rule.priority, place)
        self._tables: dict[int, dict[_Key, Route]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        table = self._tables.setdefault(route.table, {})
        place = (route.dst.prefixlen, int(route.dst.network_address))
        held = table.get(place)
        if _has_tos(route):
            return  # for some packets only: the others take what else there is
        if held is None or route.metric < held.metric:
            table[place] = route

    def ways(self, dst: IPv4Address, src: IPv4Address) -> Iterator[Way]:
        """Yield every way that a packet of this host may take, in the order of the rules; none if it has no route.

        src: 0.0.0.0 for a look-up before the source is chosen.
        """
        return self.ways_among(self.from_source(src), dst, src)

    def from_source(self, src: IPv4Address) -> Sequence[tuple[int, _Compiled]]:
        """Return the rules that a packet from `src` can match, wherever it goes, for `ways_among`."""
        number = int(src)
        return [
            (place, item)
            for place, item in enumerate(self._rules)
            if item.inverted or number & _MASKS[item.src[0]] == item.src[1]
        ]

    def kind_of_source(self, src: IPv4Address) -> tuple[int, ...]:
        """Return a key that two sources share if no rule tells them apart."""
        number = int(src)
        return tuple(
            place
            for place, item in enumerate(self._rules)
            if number & _MASKS[item.src[0]] == item.src[1] and item.src[0]
        )

    def ways_among(
        self, rules: Sequence[tuple[int, _Compiled]], dst: IPv4Address, src: IPv4Address
    ) -> Iterator[Way]:
        """As `ways`, with the rules of `from_source(src)`."""
        to, by = int(dst), int(src)
        starts, walked, doubt = [0], set[int](), False
        while starts:
            start = starts.pop()
            if start in walked:
                continue
            walked.add(start)
            for place, item in rules:
                if place < start:
                    continue
                matches = _matches(item, to, by)
                if matches is False:
                    continue
                if item.does is _Does.GOTO:
                    starts += self._jump(item)
                    ended = bool(self._jump(item))
                else:
                    routes, ended = self._act(item, to)
                    certain = ended and matches is True and not doubt
                    yield from (Way(item.rule, route, certain=certain) for route in routes)
                doubt = doubt or matches is None
                if ended and matches is True:
                    break

    def _jump(self, item: _Compiled) -> list[int]:
        """A jump goes to the first rule of that priority; without one the rule does nothing. The kernel allows none back."""
        place = self._places.get(item.target)
        return [] if place is None else [place]

    def _act(self, item: _Compiled, dst: int) -> tuple[Sequence[Route | None], bool]:
        """Return where a matching rule may lead, nothing if on to the next one; and whether nothing comes after that."""
        if item.does is _Does.STOP:
            return (None,), True
        if item.does is _Does.NOTHING:
            return (), False
        if item.does is _Does.ANY_TABLE:
            tables = (table for n, table in self._tables.items() if n not in {MAIN_TABLE, LOCAL_TABLE})
            return [route for table in tables if (route := self._longest(table, dst)) is not None], False
        route = self._longest(self._tables.get(item.rule.table, {}), dst)
        if route is None or "type throw" in route.extra:
            return (), False
        if route.dst.prefixlen <= item.suppress and not _STOPS.intersection(route.extra):
            return (), False
        return (route,), not item.doubtful_suppress

    @staticmethod
    def _longest(table: Mapping[_Key, Route], dst: int) -> Route | None:
        for length in reversed(range(33)):
            route = table.get((length, dst & _MASKS[length]))
            if route is not None:
                return route
        return None


def decide(rules: Iterable[Rule], routes: Iterable[Route], dst: IPv4Address, src: IPv4Address) -> Way | None:
    """Return the first way that a packet may take, None if there is none. For one question; else use `Routing`."""
    return next(Routing(rules, routes).ways(dst, src), None)


def possible(rule: Rule, dst: IPv4Address, src: IPv4Address) -> bool:
    """Tell whether a packet may match a rule."""
    return _matches(_compile(rule), int(dst), int(src)) is not False


def _matches(item: _Compiled, dst: int, src: int) -> bool | None:
    """Tell whether a packet matches, None if that depends on what is not known here."""
    fits = dst & _MASKS[item.dst[0]] == item.dst[1] and src & _MASKS[item.src[0]] == item.src[1]
    if not fits:
        return item.inverted
    if item.doubtful:
        return None
    return not item.inverted


def _compile(rule: Rule) -> _Compiled:
    words = {token.partition(" ")[0]: token.partition(" ")[2] for token in rule.extra}
    return _Compiled(
        rule,
        (rule.src.prefixlen, int(rule.src.network_address)),
        (rule.dst.prefixlen, int(rule.dst.network_address)),
        inverted="not" in words,
        doubtful=any(_doubtful(token) for token in rule.extra),
        does=_does(rule, words),
        suppress=_number(words.get("suppress_prefixlength", "-1")),
        doubtful_suppress="suppress_ifgroup" in words,
        target=_number(words.get("goto", "-1")),
    )


def _doubtful(token: str) -> bool:
    """Tell whether a token is a selector that cannot be judged here; one that is not known may be one."""
    return token not in _CERTAIN and token.partition(" ")[0] not in _CERTAIN | {"suppress_ifgroup", "nop"}


def _does(rule: Rule, words: Mapping[str, str]) -> _Does:
    if "goto" in words:
        return _Does.GOTO
    kind = words.get("type", "")
    if f"type {kind}" in _STOPS:
        return _Does.STOP
    if kind == "nop":
        return _Does.NOTHING
    if not rule.table:  # the kernel gives an l3mdev rule no table
        return _Does.ANY_TABLE
    return _Does.LOOKUP


def _number(text: str) -> int:
    return int(text) if text.lstrip("-").isdecimal() else -1


def _has_tos(route: Route) -> bool:
    return any(token.startswith("tos ") for token in route.extra)
