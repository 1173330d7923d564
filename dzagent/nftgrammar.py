"""The closed grammar of the rendered nftables text: lines of `nft -f` <-> typed objects. Pure.

One fixed form a line, and `parse(format_table(x))` is x again. What else nft would take is refused with file and
line: only the table `inet dzagent`, base chains of type filter with the policy accept, and the few expressions
of `nftruletext`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from dzagent.errors import GrammarError
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
    NftSet,
    NftTable,
)
from dzagent.nftruletext import (
    parse_rule,
    rule_text,
    within,
)
from dzagent.nftvalues import (
    KINDS,
    ValueRefused,
    address_interval,
    interval_text,
    name,
    port_interval,
)
from dzagent.renderedlines import MAX_LINE, shown, whole_lines

HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
SET_KINDS: Final = {"ipv4_addr": "address", "inet_service": "port"}
"""Types of named sets, and the kind of their elements."""

MIN_PRIORITY, MAX_PRIORITY = -400, 400
MAX_BYTES: Final = 8 * 1024 * 1024
"""Size of one file: 65,536 lines of elements have about 5 MB."""

_IN: Final = f"{FAMILY} {TABLE}"


# ---- objects -> text -------------------------------------------------------------------------------------


def format_table(table: NftTable) -> tuple[str, ...]:
    """Return the lines of a table or a part of it, in the order in which nft must read them.

    Raises GrammarError for what no desired table has.
    """
    if table.odd:
        raise GrammarError(f"{shown(', '.join(table.odd))} has no place in the grammar")
    return (
        f"add table {_IN}",
        *(format_counter(counter) for counter in table.counters),
        *(format_set(one) for one in table.sets),
        *(format_element(one, element) for one in table.sets for element in one.elements),
        *(format_chain(chain) for chain in table.chains),
        *(format_rule(chain.name, rule) for chain in table.chains for rule in chain.rules),
    )


def format_counter(counter: str) -> str:
    """Return the line that makes a counter."""
    return f"add counter {_IN} {counter}"


def format_set(one: NftSet) -> str:
    """Return the line that makes a set, without its elements."""
    return f"add set {_IN} {one.name} {{ type {one.type}; flags interval; }}"


def format_element(one: NftSet, element: NftInterval) -> str:
    """Return the line that adds one element."""
    return f"add element {_IN} {one.name} {{ {interval_text(element, SET_KINDS[one.type])} }}"


def format_chain(chain: NftChain) -> str:
    """Return the line that makes a chain, without its rules."""
    hook = chain.hook
    if hook is None:
        return f"add chain {_IN} {chain.name}"
    return (
        f"add chain {_IN} {chain.name} "
        f"{{ type {hook.type} hook {hook.hook} priority {hook.priority}; policy {hook.policy}; }}"
    )


def format_rule(chain: str, rule: NftRule) -> str:
    """Return the line that appends a rule to a chain. Raises GrammarError for an expression that is not known."""
    return f"add rule {_IN} {chain} {rule_text(rule)}"


# ---- rules -----------------------------------------------------------------------------------------------


# ---- text -> objects -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """What the lines so far have made, in their order."""

    chains: dict[str, NftHook | None] = field(default_factory=dict)
    rules: dict[str, list[NftRule]] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    elements: dict[str, set[NftInterval]] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)
    table: bool = False

    def fresh(self, text: str, taken: Container[str]) -> str:
        """Check a name that must not be taken; chains, sets and counters do not share theirs."""
        if not self.table:
            raise ValueRefused(f"`add table {_IN}` must come first")
        if text in taken:
            raise ValueRefused(f"{text} has been made already")
        return name(text)


def _table(draft: _Draft, _groups: tuple[str, ...]) -> None:
    if draft.table:
        raise ValueRefused("the table has been made already")
    draft.table = True


def _counter(draft: _Draft, groups: tuple[str, ...]) -> None:
    draft.counters.add(draft.fresh(groups[0], draft.counters))


def _set(draft: _Draft, groups: tuple[str, ...]) -> None:
    if groups[1] not in SET_KINDS:
        raise ValueRefused(f"{shown(groups[1])} is none of the types {', '.join(SET_KINDS)}")
    draft.sets[draft.fresh(groups[0], draft.sets)] = groups[1]
    draft.elements[groups[0]] = set()


def _element(draft: _Draft, groups: tuple[str, ...]) -> None:
    one, text = groups
    if one not in draft.sets:
        raise ValueRefused(f"there is no set {shown(one)} above this line")
    kind = SET_KINDS[draft.sets[one]]
    interval = port_interval(text) if kind == "port" else address_interval(text)
    if interval_text(interval, kind) != text:
        raise ValueRefused(f"{shown(text)} is written {interval_text(interval, kind)}")
    if interval in draft.elements[one]:
        raise ValueRefused(f"{text} is in the set {one} already")
    draft.elements[one].add(interval)


def _chain(draft: _Draft, groups: tuple[str, ...]) -> None:
    draft.chains[draft.fresh(groups[0], draft.chains)] = None
    draft.rules[groups[0]] = []


def _base_chain(draft: _Draft, groups: tuple[str, ...]) -> None:
    _, hook, priority = groups
    if hook not in HOOKS:
        raise ValueRefused(f"{shown(hook)} is none of the hooks {', '.join(HOOKS)}")
    digits = priority.removeprefix("-")
    number = within(digits, 0, MAX_PRIORITY) * (-1 if digits != priority else 1)
    if str(number) != priority:
        raise ValueRefused(f"{shown(priority)} is written {number}")
    _chain(draft, groups)
    draft.chains[groups[0]] = NftHook(hook, number)


def _rule(draft: _Draft, groups: tuple[str, ...]) -> None:
    chain, text = groups
    if chain not in draft.chains:
        raise ValueRefused(f"there is no chain {shown(chain)} above this line")
    hook = draft.chains[chain]
    if hook is None:
        raise ValueRefused(f"chain {chain} has no hook: it is a mark and has no rules")
    rule = parse_rule(text)
    if NftClamp(None) in rule.expressions and hook.hook in {"prerouting", "input"}:
        raise ValueRefused(
            f"at the hook {hook.hook} a packet has no route yet: `rt mtu` has no meaning there"
        )
    for expression in rule.expressions:
        _require_referenced(draft, expression)
    draft.rules[chain].append(rule)


def _require_referenced(draft: _Draft, expression: NftExpression) -> None:
    """What a rule names must be there, and of the right type: else nft would refuse the whole transaction."""
    if isinstance(expression, NftCount) and expression.name not in draft.counters:
        raise ValueRefused(f"there is no counter {expression.name} above this line")
    if isinstance(expression, NftMatch) and expression.right.startswith("@"):
        one = expression.right[1:]
        if one not in draft.sets:
            raise ValueRefused(f"there is no set {one} above this line")
        if SET_KINDS[draft.sets[one]] != KINDS[expression.left]:
            raise ValueRefused(f"{expression.left} cannot be looked up in the {draft.sets[one]} set {one}")


_Take = Callable[[_Draft, tuple[str, ...]], None]
_FORMS: Final[tuple[tuple[str, re.Pattern[str], _Take], ...]] = tuple(
    (usage, re.compile(pattern), take)
    for usage, pattern, take in (
        (f"add table {_IN}", rf"add table {_IN}", _table),
        (f"add counter {_IN} NAME", rf"add counter {_IN} ([^ ]+)", _counter),
        (
            f"add set {_IN} NAME {{ type TYPE; flags interval; }}",
            rf"add set {_IN} ([^ ]+) \{{ type ([^ ;]+); flags interval; \}}",
            _set,
        ),
        (
            f"add element {_IN} SET {{ VALUE }}",
            rf"add element {_IN} ([^ ]+) \{{ ([^ {{}},]+) \}}",
            _element,
        ),
        (
            f"add chain {_IN} NAME {{ type filter hook HOOK priority NUMBER; policy accept; }}",
            rf"add chain {_IN} ([^ ]+) \{{ type filter hook ([^ ;]+) priority ([^ ;]+); policy accept; \}}",
            _base_chain,
        ),
        (f"add chain {_IN} NAME", rf"add chain {_IN} ([^ ]+)", _chain),
        (f"add rule {_IN} CHAIN EXPRESSIONS", rf"add rule {_IN} ([^ ]+) (.+)", _rule),
    )
)


def parse(text: str, file: str) -> NftTable:
    """Return what a rendered file says; a text without a command is an empty table.

    file: how messages name it. Raises GrammarError with file and line for anything outside the grammar.
    """
    draft = _Draft()
    for number, line in enumerate(_lines(text, file), 1):
        if not line or line[0] == "#":
            continue
        try:
            _take(draft, line)
        except ValueRefused as refused:
            raise GrammarError(str(refused), file=file, line=number) from None
    try:
        return _finish(draft)
    except ValueRefused as refused:
        raise GrammarError(str(refused), file=file) from None


def _take(draft: _Draft, line: str) -> None:
    for _, pattern, take in _FORMS:
        match = pattern.fullmatch(line)
        if match is not None:
            take(draft, match.groups())
            return
    forms = " or: ".join(usage for usage, _, _ in _FORMS if usage.split(" ")[:2] == line.split(" ")[:2])
    known = (
        f"not of the form: {forms}"
        if forms
        else f"none of: {', '.join(_verbs())}, a comment that starts with #"
    )
    raise ValueRefused(f"{shown(line)} is {known}")


def _verbs() -> Iterable[str]:
    return dict.fromkeys(" ".join(usage.split(" ")[:2]) for usage, _, _ in _FORMS)


def _finish(draft: _Draft) -> NftTable:
    """Make the table. Sets whose elements overlap or touch would be refused or joined by nft."""
    sets = []
    for one in sorted(draft.sets):
        elements = tuple(sorted(draft.elements[one]))
        if any(left[1] >= right[0] for left, right in pairwise(elements)):
            raise ValueRefused(f"elements of the set {one} overlap")
        sets.append(NftSet(one, draft.sets[one], elements))
    chains = tuple(NftChain(c, draft.chains[c], tuple(draft.rules[c])) for c in sorted(draft.chains))
    return NftTable(chains, tuple(sets), tuple(sorted(draft.counters)))


def _lines(text: str, file: str) -> Iterator[str]:
    for number, line in enumerate(whole_lines(text, file, MAX_BYTES), 1):
        if len(line) > MAX_LINE:
            message = f"a line of {len(line)} characters: at most {MAX_LINE} are allowed"
            raise GrammarError(message, file=file, line=number)
        yield line
