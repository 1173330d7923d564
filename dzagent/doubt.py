"""What must stay in the kernel because nothing sound is known about it. Pure.

A service may be kept although its rendered text is lost (the files were deleted, the disk cannot be read, and the
ledger does not answer). No text would mean "nothing wanted", and the plan would take a working tunnel down on doubt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from dzagent.belongs import service_of
from dzagent.model import SERVICE_NAMES, Action, Observed, Plan, ServiceName
from dzagent.ownership import Ownership
from dzagent.plan_nft import spare_parts
from dzagent.wishes import Wishes


def textless(wishes: Wishes) -> frozenset[ServiceName]:
    """Return the services that are kept but have no text that says how."""
    return frozenset(name for name in wishes.kept if name not in wishes.texts)


def spare(plan: Plan, services: Collection[ServiceName], links: Mapping[ServiceName, str]) -> Plan:
    """Return the plan without the deletes that concern these services; `links` are the links by service."""
    if not services:
        return plan
    phases = (
        tuple(
            step
            for step in phase
            if step.action is not Action.DELETE or service_of(step.target, links) not in services
        )
        for phase in plan.phases
    )
    return spare_parts(replace(plan, phases=tuple(phase for phase in phases if phase)), services)


def services_up(observed: Observed, owner: Ownership) -> frozenset[ServiceName]:
    """Return the services whose link is in the kernel and ours."""
    ours = {owner.links.get(link.name, link.alias) for link in observed.links if owner.owns(link)}
    return frozenset(name for name in SERVICE_NAMES if f"dzagent:{name}" in ours)
