"""The guard: withholds single steps that would draw protected traffic into a tunnel. Pure.

It never withholds a delete, and what is safe goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from dzagent.model import MAIN_TABLE, Action, KernelObject, Plan, Protected, Route, Rule, Step
from dzagent.protect import SSH_PEER, Shield, without

LEARNED: Final = "learned/"
"""How the origins of learned routes begin."""


@dataclass(frozen=True, slots=True)
class Held:
    """A step that is withheld, and why, in one sentence."""

    step: Step
    reason: str


def check(
    plan: Plan, protected: Protected, ignore: Iterable[IPv4Address] = (), *, ssh_hosts: bool = False
) -> tuple[Plan, tuple[Held, ...]]:
    """Return the plan without the steps that would capture a protected destination, and those steps.

    ignore: addresses that may be captured although they are protected. ssh_hosts: a learned /32 may be the far end
    of an SSH session, since that is another DoubleZero user. The plan's id stays: it names the states that were
    compared.
    """
    ignored = tuple(ignore)
    strict = Shield(protected, ignored)
    relaxed = Shield(without(protected, SSH_PEER), ignored) if ssh_hosts else strict
    held: list[Held] = []
    phases: list[tuple[Step, ...]] = []
    for phase in plan.phases:
        allowed: list[Step] = []
        for step in phase:
            reason = _danger(step, relaxed if _learned_host(step) else strict)
            if reason is None:
                allowed.append(step)
            else:
                held.append(Held(step, reason))
        if allowed:
            phases.append(tuple(allowed))
    return replace(plan, phases=tuple(phases)), tuple(held)


def _learned_host(step: Step) -> bool:
    """Tell whether a step makes a route to one host that was learned."""
    host = isinstance(step.target, Route) and step.target.dst.prefixlen == 32
    return host and step.origin is not None and step.origin.file.startswith(LEARNED)


def _danger(step: Step, shield: Shield) -> str | None:
    if step.action is Action.DELETE:
        return None
    reasons = (shield.captured(prefix) for prefix in _prefixes(step.target))
    return next((reason for reason in reasons if reason is not None), None)


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
