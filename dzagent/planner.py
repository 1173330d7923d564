"""Planning as the loop does it: desired and learned objects against the kernel, then doubt and the guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from dzagent.bgp.foundation import foundation
from dzagent.bgp.joining import Joiner, Learned, capturing
from dzagent.doubt import spare
from dzagent.held import Held, plan_id, removal
from dzagent.model import Desired, Observed, Plan, ServiceName
from dzagent.ownership import Ownership
from dzagent.plan import make_plan
from dzagent.protect import SSH_LOCAL, SSH_PEER, without
from dzagent.screen import Screen, screen
from dzagent.volume import Unproven

Versioned: TypeAlias = tuple[int, Learned]
"""Learned routes, and the version that they are."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a plan is made in.

    owner: what is ours. guards: what it is judged by. withheld: what is not even desired, because it would capture.
    textless: services that must not be taken down, because no text says how they should look. causes: for the audit log.
    """

    owner: Ownership
    guards: Screen
    textless: frozenset[ServiceName]
    causes: Mapping[ServiceName, str]
    withheld: tuple[Held, ...] = ()


_Inputs: TypeAlias = tuple[Desired, Observed, int, tuple[str, ...], Setting]
_Planned: TypeAlias = tuple[Plan, tuple[Held, ...]]


class Planner:
    """Makes the plan of a pass, and remembers the last one."""

    def __init__(self, links: Mapping[ServiceName, str], joiner: Joiner) -> None:
        self._links = links
        self._joiner = joiner
        self._planned: tuple[_Inputs, _Planned] | None = None
        self._used: tuple[Held, ...] = ()

    def plan(
        self,
        desired: Desired,
        observed: Observed,
        learned: Versioned,
        unknown_peers: tuple[str, ...],
        setting: Setting,
    ) -> _Planned:
        """Return the plan and what is withheld from it; the last one if everything is as it was then.

        unknown_peers: links of services that are kept but whose peer is not known: their routes stay.
        """
        version, routes = learned
        inputs = (desired, observed, version, unknown_peers, setting)
        if self._planned is None or self._planned[0] != inputs:
            gone = self._now_capturing(routes, setting)
            left = _less(routes, gone)
            joined = self._joiner.join(desired, observed, (version, gone), left, unknown_peers)
            plan = make_plan(joined.desired, joined.observed, setting.owner)
            plan = spare(plan, setting.textless, self._links)
            guards = self._less_removals(setting, gone, routes)
            plan, held, self._used = screen(plan, joined.observed, guards, whole=observed)
            plan = replace(plan, id=plan_id(plan, (*setting.withheld, *held)))
            self._planned = (inputs, (plan, held))
        return self._planned[1]

    @property
    def used(self) -> tuple[Held, ...]:
        """What is in the last plan only because a person has let it through."""
        return self._used

    def foundation(
        self, desired: Desired, observed: Observed, learned: Learned, setting: Setting
    ) -> _Planned | None:
        """Return the plan for what many learned routes stand on, if that has to be made first; else None."""
        base = foundation(desired, observed, learned, tuple(self._links.values()))
        if base is None:
            return None
        plan = spare(make_plan(base.desired, base.observed, setting.owner), setting.textless, self._links)
        guards = self._less_removals(setting, frozenset(), learned)
        plan, held, self._used = screen(plan, base.observed, guards, whole=observed)
        return replace(plan, id=plan_id(plan, (*setting.withheld, *held))), held

    def check(self, plan: Plan, observed: Observed, setting: Setting) -> _Planned:
        """Return a plan of learned routes without what is withheld, and that. A live engine is why routes go."""
        plan, held, _ = screen(
            plan, observed, replace(setting.guards, unproven=Unproven(), approved=frozenset())
        )
        return plan, held

    @staticmethod
    def _less_removals(
        setting: Setting, gone: frozenset[tuple[ServiceName, str]], learned: Learned
    ) -> Screen:
        """Return the guards, told what they themselves take out: such removals have a cause."""
        guards = setting.guards
        if not guards.unproven.why:
            return guards
        taken = {removal(item.step.target) for item in setting.withheld}
        taken |= {removal(learned[name][prefix]) for name, prefix in gone}
        return replace(guards, unproven=replace(guards.unproven, explained=frozenset(taken)))

    def _now_capturing(self, learned: Learned, setting: Setting) -> frozenset[tuple[ServiceName, str]]:
        """Return installed routes that lead to what has become protected since: such as a new RPC address.

        An SSH session does not count: it never removes an installed route.
        """
        guards = setting.guards
        hard = without(guards.protected, SSH_PEER, SSH_LOCAL).addresses.keys() - set(guards.own)
        return capturing(learned, hard) & self._joiner.installed.keys()


def _less(learned: Learned, gone: frozenset[tuple[ServiceName, str]]) -> Learned:
    if not gone:
        return learned
    return {n: {p: r for p, r in routes.items() if (n, p) not in gone} for n, routes in learned.items()}
