"""Policy rules: their order, and what a delete hits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

from dzagent.model import Rule
from tests.kernel_fake.state import EXISTS, Refused, State


def ordered(state: State) -> list[Rule]:
    """Return every rule, as the kernel goes through them: equal priorities in the order of their making."""
    return sorted([*state.standard, *state.rules], key=lambda rule: rule.priority)


def add_rule(state: State, rule: Rule) -> None:
    """The protocol is part of what tells two rules apart; a side that is open is equal to every other one."""
    if any(_takes_its_place(other, rule) for other in ordered(state)):
        raise Refused(EXISTS)
    place = next((n for n, other in enumerate(state.rules) if other.priority > rule.priority), None)
    state.rules.insert(len(state.rules) if place is None else place, rule)


def _takes_its_place(other: Rule, rule: Rule) -> bool:
    sides = ((_named(rule.src), other.src), (_named(rule.dst), other.dst))
    return replace(other, src=rule.src, dst=rule.dst) == rule and all(
        wish is None or wish == has for wish, has in sides
    )


@dataclass(frozen=True)
class DoomedRule:
    """What a delete names; a source or destination of 0.0.0.0/0 names nothing. None stands for anything."""

    priority: int | None = None
    src: IPv4Network | None = None
    dst: IPv4Network | None = None
    table: int | None = None
    protocol: int | None = None
    extra: frozenset[str] = field(default_factory=frozenset)

    def hits(self, rule: Rule) -> bool:
        wants: tuple[tuple[object, object], ...] = (
            (self.priority, rule.priority),
            (_named(self.src), rule.src),
            (_named(self.dst), rule.dst),
            (self.table, rule.table),
            (self.protocol, rule.protocol),
        )
        return all(wish is None or wish == has for wish, has in wants) and self.extra <= set(rule.extra)


def _named(side: IPv4Network | None) -> IPv4Network | None:
    return None if side is None or side.prefixlen == 0 else side


def delete_rule(state: State, hits: Callable[[Rule], bool]) -> None:
    """Delete the first rule that has everything that was named."""
    found = next(filter(hits, ordered(state)), None)
    if found is None:
        raise Refused("RTNETLINK answers: No such file or directory")
    (state.rules if found in state.rules else state.standard).remove(found)
