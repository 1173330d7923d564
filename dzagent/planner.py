"""Planning as the loop does it: desired and learned objects against the kernel, then doubt and the guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from dzagent.bgp.joining import Joiner, Learned, capturing
from dzagent.doubt import spare
from dzagent.guard import Held, check
from dzagent.model import Desired, Observed, Plan, Protected, ServiceName
from dzagent.ownership import Ownership
from dzagent.plan import make_plan
from dzagent.policy import Policy
from dzagent.protect import SSH_LOCAL, SSH_PEER, without

Versioned: TypeAlias = tuple[int, Learned]
"""Learned routes, and the version that they are."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a plan is made in.

    owner: what is ours. protected: destinations that must stay reachable, except `own`, our DoubleZero addresses. installed: prefixes
    that our rules route already. textless: services that must not be taken down, because no text says how they
    should look. causes: for the audit log.
    """

    owner: Ownership
    protected: Protected
    own: tuple[IPv4Address, ...]
    installed: frozenset[IPv4Network]
    textless: frozenset[ServiceName]
    causes: Mapping[ServiceName, str]


_Inputs: TypeAlias = tuple[Desired, Observed, int, tuple[str, ...], Setting]
_Planned: TypeAlias = tuple[Plan, tuple[Held, ...]]


class Planner:
    """Makes the plan of a pass, and remembers the last one."""

    def __init__(self, policy: Policy, links: Mapping[ServiceName, str], joiner: Joiner) -> None:
        self._policy = policy
        self._links = links
        self._joiner = joiner
        self._planned: tuple[_Inputs, _Planned] | None = None

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
            self._planned = (inputs, self.check(plan, setting))
        return self._planned[1]

    def check(self, plan: Plan, setting: Setting) -> _Planned:
        """Return the plan without the steps that would capture what must stay reachable, and those steps."""
        warn = self._policy.bgp.ssh_peer == "warn"
        return check(plan, setting.protected, setting.own, setting.installed, ssh_hosts=warn)

    def _now_capturing(self, learned: Learned, setting: Setting) -> frozenset[tuple[ServiceName, str]]:
        """Return installed routes that lead to what has become protected since: such as a new RPC address.

        An SSH session does not count: it never removes an installed route.
        """
        hard = without(setting.protected, SSH_PEER, SSH_LOCAL).addresses.keys() - set(setting.own)
        return capturing(learned, hard) & self._joiner.installed.keys()


def _less(learned: Learned, gone: frozenset[tuple[ServiceName, str]]) -> Learned:
    if not gone:
        return learned
    return {n: {p: r for p, r in routes.items() if (n, p) not in gone} for n, routes in learned.items()}
