"""Carries out a plan, phase by phase; what stands on something that failed is not tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from dzagent.errors import KernelTimeout
from dzagent.kernel.protocol import Kernel
from dzagent.model import Action, Address, Link, Outcome, Plan, Result, Route, Rule, ServiceName, Step
from dzagent.nftmodel import NftTable

_GOOD = frozenset({Result.DONE, Result.GONE})


def execute(kernel: Kernel, plan: Plan, resting: Iterable[Step] = ()) -> tuple[Outcome, ...]:
    """Run every phase and return one outcome a step, in the order of the plan.

    A failed step does not stop the others, but what stands on it. A tool that had to be killed ends the plan: what
    its steps did is not known until the kernel is read again, and the next tool would hang as well. resting: steps
    that failed lately and are not in the plan because they are not due again: what stands on them is blocked too.
    Raises KernelError if the tool cannot be started.
    """
    failed = _Failed()
    for step in resting:
        failed.note(step)
    outcomes: list[Outcome] = []
    hung: str | None = None
    for phase in plan.phases:
        blocks = [hung or failed.under(step) for step in phase]
        ready = [step for step, why in zip(phase, blocks, strict=True) if why is None]
        try:
            results = iter(kernel.apply(ready) if ready else ())
        except KernelTimeout as error:
            results = iter([Outcome(step, Result.TRANSIENT, str(error)) for step in ready])
            hung = f"not tried: {error}"
        for step, why in zip(phase, blocks, strict=True):
            outcome = next(results) if why is None else Outcome(step, Result.BLOCKED, why)
            if outcome.result not in _GOOD:
                failed.note(step)
            outcomes.append(outcome)
    return tuple(outcomes)


@dataclass(slots=True)
class _Failed:
    """What later steps cannot stand on: links and their services, addresses, and tables that lack a route."""

    links: set[str] = field(default_factory=set)
    addresses: dict[IPv4Address, Address] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)
    services: set[ServiceName] = field(default_factory=set)

    def note(self, step: Step) -> None:
        """Remember a step that failed or was blocked. A link that could not be cleared away blocks too."""
        obj = step.target
        if isinstance(obj, Link):
            self.links.add(obj.name)
            if step.origin is not None:
                self.services.add(step.origin.service)
        elif step.action is Action.DELETE:
            return
        elif isinstance(obj, Address):
            self.addresses[obj.interface.ip] = obj
        elif isinstance(obj, Route):
            self.tables.add(obj.table)

    def under(self, step: Step) -> str | None:
        """Return why a step cannot work, None if nothing is known against it. A delete is always tried."""
        obj = step.target
        if step.action is Action.DELETE or isinstance(
            obj, NftTable
        ):  # its rules name links that need not be there
            return None
        if isinstance(obj, Link):
            return f"link {obj.name} could not be removed first" if obj.name in self.links else None
        if isinstance(obj, Rule):
            return self._under_rule(step, obj)
        if obj.dev in self.links:
            return f"link {obj.dev} failed"
        if isinstance(obj, Route):
            return self._under_route(obj)
        return None

    def _under_rule(self, step: Step, rule: Rule) -> str | None:
        if step.origin is not None and step.origin.service in self.services:
            return f"the link of the {step.origin.service} service failed"
        return f"a route of table {rule.table} failed" if rule.table in self.tables else None

    def _under_route(self, route: Route) -> str | None:
        for address in self.addresses.values():
            gateway = (
                route.via is not None and address.dev == route.dev and route.via in address.interface.network
            )
            if gateway or route.src == address.interface.ip:
                return f"address {address.interface} failed"
        return None
