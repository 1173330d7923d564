"""How much may go without a proven cause: by count, by share, by rate. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dzagent.belongs import learnable, service_of
from dzagent.held import Held, held_id, step_key
from dzagent.losses import Loss, loss
from dzagent.model import (
    SERVICE_NAMES,
    Action,
    Address,
    KernelObject,
    Key,
    Link,
    Observed,
    Plan,
    Route,
    ServiceName,
    Step,
    key,
)
from dzagent.policy import GuardRules


@dataclass(frozen=True, slots=True)
class Unproven:
    """What is known about the causes of removals.

    why: services whose removals nothing but our own files explains, with what changed. refusing: those of them of whose
    announced routes some are refused now; the others' learned routes go because a live engine says so. explained: what
    the guard itself removes (`step_key`). recent: what of a service went without cause within the last hour.
    tables: whether the policy wants an nftables table at all: to switch it off is a word that needs no second one.
    """

    why: Mapping[ServiceName, str] = field(default_factory=dict)
    refusing: frozenset[ServiceName] = frozenset()
    explained: frozenset[str] = frozenset()
    recent: Mapping[ServiceName, int] = field(default_factory=dict)
    tables: bool = True


def excessive(
    plan: Plan,
    observed: Observed,
    unproven: Unproven,
    limits: GuardRules,
    links: Mapping[ServiceName, str],
    protocol: int,
) -> tuple[Held, ...]:
    """Return the removals without proven cause of every service that loses more than a limit allows.

    A service's removals are withheld together: they have one id. links: our links by service. protocol: our number.
    """
    held: list[Held] = []
    for name in SERVICE_NAMES:
        if name not in unproven.why:
            continue
        steps = unexplained(plan, name, unproven, links)
        losses = _losses(plan, name, unproven)
        ours = _ours(name, observed, links, protocol)
        gone = Gone(
            len(_with_contents(steps, ours)),
            len(ours),
            sum(lost.gone for _, lost in losses),
            sum(lost.had for _, lost in losses),
        )
        reason = _reason(name, gone, unproven, limits)
        if reason is not None:
            group = held_id("volume", reason, (*map(step_key, steps), *(lost.text for _, lost in losses)))
            held += [Held(step, reason, "volume", group) for step in steps]
            held += [Held(step, reason, "volume", group, lost.names) for step, lost in losses]
    return tuple(held)


@dataclass(frozen=True, slots=True)
class Gone:
    """What a service would lose: objects of all it has, and rules and set elements of all in its part of the table."""

    objects: int
    of_objects: int
    pieces: int
    of_pieces: int

    def __str__(self) -> str:
        table = f"{self.pieces} of {self.of_pieces} nftables rules and set elements"
        objects = f"{self.objects} of {self.of_objects} objects"
        return " and ".join((*(objects,) * bool(self.objects), *(table,) * bool(self.pieces)))


def removed(
    plan: Plan, name: ServiceName, unproven: Unproven, links: Mapping[ServiceName, str], done: Collection[int]
) -> int:
    """Count what went of a service without a proven cause. done: the `id` of each step that worked."""
    if name not in unproven.why:
        return 0
    steps = sum(id(step) in done for step in unexplained(plan, name, unproven, links))
    return steps + sum(lost.gone for step, lost in _losses(plan, name, unproven) if id(step) in done)


def _losses(plan: Plan, name: ServiceName, unproven: Unproven) -> list[tuple[Step, Loss]]:
    """Return the steps that take something of a service out of the table, and what."""
    if not unproven.tables:
        return []
    return [(step, lost) for step in plan.steps if (lost := loss(step, name)).gone]


def unexplained(
    plan: Plan, name: ServiceName, unproven: Unproven, links: Mapping[ServiceName, str]
) -> tuple[Step, ...]:
    """Return the steps that remove something of a service without a proven cause.

    What is made again in the same plan (a link that is rebuilt) does not go.
    """
    if name not in unproven.why:
        return ()
    made = {key(step.after) for step in plan.steps if step.after is not None}
    return tuple(
        step
        for step in plan.steps
        if step.action is Action.DELETE
        and service_of(step.target, links) == name
        and not (learnable(step.target) and name not in unproven.refusing)
        and not _made_again(step.target, made)
        and step_key(step) not in unproven.explained
    )


def too_many(count: int, limits: GuardRules) -> str | None:
    """Say that too much would go at once, None if not."""
    return f"guard.removals is {limits.removals}" if count > limits.removals else None


def too_large_a_share(count: int, of: int, limits: GuardRules) -> str | None:
    """Say that too large a share would go, None if not."""
    share = 100 * count / max(of, count, 1)
    return f"that is {share:.0f} %, guard.share is {limits.share:g} %" if share > limits.share else None


def too_often(count: int, recent: int, limits: GuardRules) -> str | None:
    """Say that too much would have gone within an hour, None if not."""
    if count + recent <= limits.per_hour:
        return None
    return f"{recent} went within the last hour, guard.per_hour is {limits.per_hour}"


def _reason(name: ServiceName, gone: Gone, unproven: Unproven, limits: GuardRules) -> str | None:
    count, recent = gone.objects + gone.pieces, unproven.recent.get(name, 0)
    if not count:
        return None
    over = (
        too_many(count, limits),
        too_large_a_share(gone.objects, gone.of_objects, limits),
        too_large_a_share(gone.pieces, gone.of_pieces, limits),
        too_often(count, recent, limits),
    )
    said = "; ".join(filter(None, over))
    if not said:
        return None
    return (
        f"{gone} of the {name} service would go, which is still provided, "
        f"and the only cause is that {unproven.why[name]} ({said})."
    )


def _ours(
    name: ServiceName, observed: Observed, links: Mapping[ServiceName, str], protocol: int
) -> frozenset[KernelObject]:
    """Return what the kernel holds of a service."""
    found: list[KernelObject] = [link.tunnel for link in observed.links if link.tunnel is not None]
    found += observed.addresses
    found += [route for route in observed.routes if route.protocol == protocol]
    found += [rule for rule in observed.rules if rule.protocol == protocol]
    return frozenset(obj for obj in found if service_of(obj, links) == name)


def _with_contents(steps: Collection[Step], ours: Collection[KernelObject]) -> frozenset[KernelObject]:
    """Return what goes: a link takes its addresses and routes along."""
    gone = {step.target for step in steps}
    names = {obj.name for obj in gone if isinstance(obj, Link)}
    inside = (obj for obj in ours if isinstance(obj, (Address, Route)) and obj.dev in names)
    return frozenset((*gone, *inside))


def _made_again(obj: KernelObject, made: Collection[Key]) -> bool:
    return key(obj) in made
