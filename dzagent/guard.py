"""The guard: withholds what would draw protected traffic into a tunnel, and only that. Pure.

`withhold` leaves such objects out of the desired state, so that one that has become dangerous since it was made
is removed by the plan; `check` looks at the steps of a plan once more, and never withholds a delete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from dzagent.model import (
    MAIN_TABLE,
    Action,
    Address,
    Desired,
    KernelObject,
    Link,
    Plan,
    Protected,
    Route,
    Rule,
    Step,
    Wanted,
)
from dzagent.protect import SSH_LOCAL, SSH_PEER, captured, without


@dataclass(frozen=True, slots=True)
class Held:
    """A step that is withheld, and why, in one sentence."""

    step: Step
    reason: str


def own_addresses(desired: Desired) -> tuple[IPv4Address, ...]:
    """Return the DoubleZero addresses that the desired state puts on our links.

    They may be captured: that is what they are for. One that is an end of a tunnel as well may not be.
    """
    links = [obj for obj in desired.objects if isinstance(obj, Link)]
    ends = {end for link in links for end in (link.local, link.remote)}
    single = (obj.interface for obj in desired.objects if isinstance(obj, Address))
    return tuple(dict.fromkeys(i.ip for i in single if i.network.prefixlen == 32 and i.ip not in ends))


def withhold(
    desired: Desired,
    protected: Protected,
    ignore: Iterable[IPv4Address] = (),
    installed: Collection[IPv4Network] = (),
) -> tuple[Desired, tuple[Held, ...]]:
    """Return the desired state without the objects that would capture a protected destination, and those.

    ignore: addresses that may be captured although they are protected, such as `own_addresses`. installed:
    prefixes that our own rules route already: an SSH session, which may come and go, does not remove them, nor
    does it keep a missing half of them from being repaired.
    """
    guard = _Guard(protected, tuple(ignore), installed)
    reasons = [(item, guard.danger(item.obj)) for item in desired.wanted]
    held = tuple(Held(_as_step(item), reason) for item, reason in reasons if reason is not None)
    return Desired(tuple(item for item, reason in reasons if reason is None)) if held else desired, held


def check(
    plan: Plan,
    protected: Protected,
    ignore: Iterable[IPv4Address] = (),
    installed: Collection[IPv4Network] = (),
) -> tuple[Plan, tuple[Held, ...]]:
    """Return the plan without the steps that would capture a protected destination, and those steps.

    ignore, installed: as for `withhold`. The plan's id stays: it names the states that were compared.
    """
    guard = _Guard(protected, tuple(ignore), installed)
    held: list[Held] = []
    phases: list[tuple[Step, ...]] = []
    for phase in plan.phases:
        allowed: list[Step] = []
        for step in phase:
            reason = None if step.action is Action.DELETE else guard.danger(step.target)
            if reason is None:
                allowed.append(step)
            else:
                held.append(Held(step, reason))
        if allowed:
            phases.append(tuple(allowed))
    return replace(plan, phases=tuple(phases)), tuple(held)


class _Guard:
    """Judges objects by what must stay reachable."""

    def __init__(
        self, protected: Protected, ignored: tuple[IPv4Address, ...], installed: Collection[IPv4Network]
    ) -> None:
        self._protected = protected
        self._without_ssh = without(protected, SSH_PEER, SSH_LOCAL)
        self._ignored = ignored
        self._installed = installed
        self._known: dict[IPv4Network, str | None] = {}  # most prefixes come in two rules

    def danger(self, obj: KernelObject) -> str | None:
        """Say what an object would capture, None if nothing."""
        return next(filter(None, map(self._captured, _prefixes(obj))), None)

    def _captured(self, prefix: IPv4Network) -> str | None:
        if prefix not in self._known:
            protected = self._without_ssh if prefix in self._installed else self._protected
            self._known[prefix] = captured(prefix, protected, self._ignored)
        return self._known[prefix]


def _as_step(item: Wanted) -> Step:
    return Step(Action.ADD, None, item.obj, "wanted", item.origin)


def _prefixes(obj: KernelObject) -> tuple[IPv4Network, ...]:
    """Return the prefixes that an object steers.

    A route counts in the main table, which every packet reaches; in other tables its rules count. A rule
    steers by destination and by source: what it leaves open (0.0.0.0/0) counts only if it leaves open both.
    """
    if isinstance(obj, Route):
        return (obj.dst,) if obj.table == MAIN_TABLE else ()
    if isinstance(obj, Rule):
        chosen = tuple(prefix for prefix in (obj.dst, obj.src) if prefix.prefixlen > 0)
        return chosen or (obj.dst,)
    return ()
