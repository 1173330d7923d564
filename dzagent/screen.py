"""The guards of a plan, one after the other: what each withholds, less what a person has let through. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from dzagent.capture import Ours, turning
from dzagent.guard import check
from dzagent.held import Held, dependents, less, step_key
from dzagent.model import Action, Observed, Plan, Protected, ServiceName
from dzagent.nftmodel import NftTable
from dzagent.policy import GuardRules
from dzagent.undone import Undone, redone
from dzagent.volume import Unproven, excessive

Screened: TypeAlias = tuple[Plan, tuple[Held, ...], tuple[Held, ...]]
"""A plan without what is withheld, what is withheld, and what a person has let through."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a plan is judged by.

    protected: destinations that must stay reachable, except `own`, our DoubleZero addresses. installed: prefixes
    that our rules route already. approved: ids that a person lets through now. accepted: what was let through before
    and is in the kernel (`step_key`). undone: what was rolled back. spared: services that are withdrawn, and go whatever was rolled back.
    """

    protected: Protected
    own: tuple[IPv4Address, ...] = ()
    installed: frozenset[IPv4Network] = frozenset()
    ssh_hosts: bool = False
    links: Mapping[ServiceName, str] = field(default_factory=dict)
    protocol: int = 0
    limits: GuardRules = field(default_factory=GuardRules)
    unproven: Unproven = field(default_factory=Unproven)
    approved: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()
    undone: Undone | None = None
    spared: frozenset[ServiceName] = frozenset()

    def permits(self, held: Held) -> bool:
        """Tell whether a person has let this through: now by its id, or before and it is still there."""
        if held.id in self.approved:
            return True
        return held.kind == "capture" and held.step.action is not Action.DELETE and self._accepts(held)

    def _accepts(self, held: Held) -> bool:
        return bool(self.accepted) and step_key(held.step) in self.accepted


def screen(plan: Plan, observed: Observed, by: Screen, *, whole: Observed | None = None) -> Screened:
    """Return the plan without what is withheld, that, and what was let through because a person said so.

    whole: what the kernel holds, where `observed` leaves out what no plan could change.
    """
    used: list[Held] = []

    def permits(item: Held) -> bool:
        allowed = by.permits(item)
        if allowed:
            used.append(item)
        return allowed

    plan, found = check(plan, by.protected, by.own, by.installed, ssh_hosts=by.ssh_hosts, permits=permits)
    held = list(found)
    ours = Ours(frozenset(by.links.values()), by.protocol, by.own)
    judges: tuple[Callable[[Plan], tuple[Held, ...]], ...] = (
        lambda rest: turning(rest, observed, by.protected, ours),
        lambda rest: redone(rest, by.undone, by.spared, by.links),
        lambda rest: excessive(rest, whole or observed, by.unproven, by.limits, by.links, by.protocol),
    )
    for judge in judges:
        new = [item for item in judge(plan) if not permits(item)]
        held += new
        plan = less(plan, new)
    following = dependents(plan, held)
    plan = less(plan, following)
    return plan, (*held, *following), tuple(_as_planned(item, plan) for item in used)


def _as_planned(item: Held, plan: Plan) -> Held:
    """Return what was let through with its step as it is now: of the table, another service's part may be withheld."""
    step = next((step for step in plan.steps if isinstance(step.target, NftTable)), None)
    return replace(item, step=step) if item.names and step is not None else item
