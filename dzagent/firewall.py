"""The nftables table as a pass sees it: which prefixes its leak guard may hold back, and the condition `Firewall`. Pure.

The tunnels need none of it. So a table that cannot be read or loaded is told, and nothing else waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Final

from dzagent.conditions import Judgement, Status
from dzagent.model import SERVICE_NAMES, Desired, Observed, Outcome, Plan, Problem, Rule, Step, Wanted
from dzagent.nftmodel import NftInterval, NftSeen, NftSet, NftTable
from dzagent.nftrules import PREFIXES
from dzagent.nftvalues import joined, network_interval
from dzagent.nftview import describe_table

COUNT_SECONDS: Final = 15.0
"""How old the counters in status may be."""

_UNNEEDED: Final = "the tunnels work without it"


class LeakGuard:
    """Leaves prefixes out of the leak guard that no rule of ours routes: the guard of rules has judged those.

    A packet from such a prefix has no way into a tunnel, and the leak guard would only cut it off. Remembers its last
    answer: a pass without news asks about the very same state.
    """

    def __init__(self) -> None:
        self._last: tuple[Desired, Desired] | None = None
        self._problems: tuple[Problem, ...] = ()

    def limit(self, desired: Desired) -> tuple[Desired, tuple[Problem, ...]]:
        """Return the desired state without such elements, and what a person should know about it."""
        if self._last is None or self._last[0] is not desired:
            routed = joined(_sources(desired))
            items = tuple(_limited(item, routed) for item in desired.wanted)
            same = all(new is old for new, old in zip(items, desired.wanted, strict=True))
            self._problems = _left_out(desired.wanted, items)
            self._last = (desired, desired if same else Desired(items))
        return self._last[1], self._problems


def _sources(desired: Desired) -> Iterable[NftInterval]:
    everything = IPv4Network("0.0.0.0/0")
    rules = (obj for obj in desired.objects if isinstance(obj, Rule))
    return (network_interval(rule.src) for rule in rules if rule.src != everything)


def _limited(item: Wanted, routed: Sequence[NftInterval]) -> Wanted:
    name = f"{item.origin.service}_{PREFIXES}"
    if not isinstance(item.obj, NftTable) or not any(one.name == name for one in item.obj.sets):
        return item
    sets = tuple(_within(one, routed) if one.name == name else one for one in item.obj.sets)
    if all(new is old for new, old in zip(sets, item.obj.sets, strict=True)):
        return item
    return replace(item, obj=replace(item.obj, sets=sets))


def _within(one: NftSet, routed: Sequence[NftInterval]) -> NftSet:
    """Return the set with the elements that lie in a routed interval; both are sorted."""
    kept: list[NftInterval] = []
    at = 0
    for first, last in one.elements:
        while at < len(routed) and routed[at][1] < first:
            at += 1
        if at < len(routed) and routed[at][0] <= first and last <= routed[at][1]:
            kept.append((first, last))
    return one if len(kept) == len(one.elements) else replace(one, elements=tuple(kept))


def _left_out(before: Iterable[Wanted], after: Iterable[Wanted]) -> tuple[Problem, ...]:
    count = sum(map(_elements, before)) - sum(map(_elements, after))
    if not count:
        return ()
    message = f"{count} prefixes are left out of the leak guard: no rule routes them."
    return (Problem("LeakGuardLimited", message, "unicast"),)


def _elements(item: Wanted) -> int:
    return sum(len(one.elements) for one in item.obj.sets) if isinstance(item.obj, NftTable) else 0


# ---- what people are told ------------------------------------------------------------------------------------


def firewall_problems(desired: Desired, observed: Observed) -> tuple[Problem, ...]:
    """Return why the table that is wanted cannot be looked after; nothing if it can."""
    seen = observed.nft
    if seen.state != "unread" or not seen.reason or not _parts(desired):
        return ()
    return (Problem(seen.reason, f"no nftables table: {_sentence(seen)}"),)


def firewall(desired: Desired, seen: NftSeen, plan: Plan, failing: Iterable[Outcome]) -> Judgement:
    """Return the condition: True while the table is as it should be, also where none is needed."""
    parts = _parts(desired)
    failed = next((outcome for outcome in failing if _is_table(outcome.step)), None)
    if seen.state == "unread":
        status: Status = "False" if parts and seen.reason else "Unknown"
        return ("Firewall", status, seen.reason or "NotRead", _sentence(seen))
    if seen.state == "there" and parts and any(isinstance(c.wanted.obj, NftTable) for c in plan.conflicts):
        message = "a table inet dzagent without our mark is there: it stays, and ours is not loaded"
        return ("Firewall", "False", "Conflict", message)
    if failed is not None:
        message = f"nftables does not take the table: {failed.message}; {_UNNEEDED}"
        return ("Firewall", "False", "NotLoaded", message)
    if any(_is_table(step) for step in plan.steps):
        return ("Firewall", "False", "Waiting", "a change of the table is left to do: see `dzagent plan`")
    if not parts:
        return ("Firewall", "True", "NotNeeded", "no service has rules")
    return ("Firewall", "True", "Loaded", describe_table(seen.table))


class Counts:
    """The counters as status shows them. They move with the traffic, and status must not be written with every packet."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shown: dict[str, dict[str, dict[str, int]]] = {}
        self._at = -COUNT_SECONDS

    def show(self, seen: NftSeen) -> dict[str, dict[str, dict[str, int]]]:
        """Return packets and bytes by service and counter, anew at most every `COUNT_SECONDS`."""
        now = self._clock()
        if seen.state == "there" and now - self._at >= COUNT_SECONDS:
            self._at, self._shown = now, {}
            for name, (packets, size) in sorted(seen.counts.items()):
                service, _, what = name.partition("_")
                if service in SERVICE_NAMES:
                    self._shown.setdefault(service, {})[what] = {"packets": packets, "bytes": size}
        elif seen.state == "absent":
            self._shown = {}
        return self._shown


def binding(plan: Plan, failing: Iterable[Outcome]) -> tuple[Step, ...]:
    """Return the steps that a service waits for: all but that of a table which cannot be loaded."""
    failed = {outcome.step for outcome in failing if _is_table(outcome.step)}
    return tuple(step for step in plan.steps if not _is_table(step) or step not in failed)


def _parts(desired: Desired) -> bool:
    return any(isinstance(obj, NftTable) for obj in desired.objects)


def _is_table(step: Step) -> bool:
    return isinstance(step.target, NftTable)


def _sentence(seen: NftSeen) -> str:
    return f"{(seen.message or 'nobody has looked at nftables').rstrip('.')}; {_UNNEEDED}"
