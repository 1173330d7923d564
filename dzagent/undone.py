"""What was rolled back, and therefore is not done again until a person says so or other things are wanted. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from dzagent.belongs import learnable, service_of
from dzagent.held import Held, held_id, making, removal, step_key
from dzagent.model import Action, Desired, KernelObject, Plan, Route, ServiceName
from dzagent.nftmodel import MARKED, NftTable, combine


@dataclass(frozen=True, slots=True)
class Undone:
    """A change that was rolled back. at: unix seconds. made: what it had made; removed: what it had taken away."""

    plan_id: str
    at: float
    made: tuple[KernelObject, ...] = ()
    removed: tuple[KernelObject, ...] = ()

    @property
    def id(self) -> str:
        """The id by which a person lets it through."""
        return held_id("rollback", self.plan_id, self.keys)

    @property
    def keys(self) -> frozenset[str]:
        """The `step_key` of every step that would do it again."""
        return frozenset((*map(making, self.made), *map(removal, self.removed)))

    @property
    def reason(self) -> str:
        """Say why it is withheld."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.at))
        return f"Plan {self.plan_id} was rolled back at {when} UTC, because nobody confirmed it."


def redone(
    plan: Plan, undone: Undone | None, spared: Collection[ServiceName], links: Mapping[ServiceName, str]
) -> tuple[Held, ...]:
    """Return the steps that would do again what was rolled back.

    spared: services that are withdrawn: what is left of them goes, whatever was rolled back. links: by service.
    """
    if undone is None:
        return ()
    keys, reason, name = undone.keys, undone.reason, undone.id
    return tuple(
        Held(step, reason, "rollback", name)
        for step in plan.steps
        if step_key(step) in keys
        and not (step.action is Action.DELETE and service_of(step.target, links) in spared)
    )


def still_wanted(
    undone: Undone,
    desired: Desired,
    learned: Mapping[ServiceName, Mapping[str, Route]],
    links: Mapping[ServiceName, str],
) -> Undone | None:
    """Return what of it is still wanted as it was then; None if nothing is: its inputs have changed.

    A service of which one object is wanted otherwise now has other inputs, and all of it counts as new. Learned routes
    come and go by themselves.
    """
    rendered = frozenset((*desired.objects, _whole_table(desired)))

    def wants(obj: KernelObject) -> bool:
        found = isinstance(obj, Route) and any(routes.get(str(obj.dst)) == obj for routes in learned.values())
        return found or obj in rendered

    outdated = [obj for obj in undone.made if not wants(obj)] + [obj for obj in undone.removed if wants(obj)]
    changed = {service_of(obj, links) for obj in outdated if not learnable(obj)}

    def stays(obj: KernelObject) -> bool:
        return obj not in outdated and service_of(obj, links) not in changed

    made, removed = tuple(filter(stays, undone.made)), tuple(filter(stays, undone.removed))
    if (made, removed) == (undone.made, undone.removed):
        return undone
    return replace(undone, made=made, removed=removed) if made or removed else None


def _whole_table(desired: Desired) -> NftTable:
    """Return the table as a plan makes it: of the parts that services have."""
    return combine((MARKED, *(obj for obj in desired.objects if isinstance(obj, NftTable))))
