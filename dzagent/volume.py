"""How much may go without a proven cause: by count, by share, by rate. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dzagent.belongs import learnable, service_of
from dzagent.held import Held, held_id, step_key
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
    the guard itself removes (`step_key`). recent: objects of a service that went without cause within the last hour.
    """

    why: Mapping[ServiceName, str] = field(default_factory=dict)
    refusing: frozenset[ServiceName] = frozenset()
    explained: frozenset[str] = frozenset()
    recent: Mapping[ServiceName, int] = field(default_factory=dict)


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
        reason = _reason(name, steps, observed, unproven, limits, links, protocol) if steps else None
        if reason is not None:
            group = held_id("volume", reason, map(step_key, steps))
            held += [Held(step, reason, "volume", group) for step in steps]
    return tuple(held)


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


def _reason(
    name: ServiceName,
    steps: Collection[Step],
    observed: Observed,
    unproven: Unproven,
    limits: GuardRules,
    links: Mapping[ServiceName, str],
    protocol: int,
) -> str | None:
    ours = _ours(name, observed, links, protocol)
    count, total = len(_with_contents(steps, ours)), len(ours)
    recent = unproven.recent.get(name, 0)
    over = (
        too_many(count, limits),
        too_large_a_share(count, total, limits),
        too_often(count, recent, limits),
    )
    said = "; ".join(filter(None, over))
    if not said:
        return None
    return (
        f"{count} of {total} objects of the {name} service would go, which is still provided, "
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


class Rate:
    """Remembers what went without proven cause, for an hour; `now` gives seconds since boot."""

    HOUR = 3600.0

    def __init__(self) -> None:
        self._gone: list[tuple[float, ServiceName, int]] = []

    def note(self, counts: Mapping[ServiceName, int], now: float) -> None:
        """Remember how many objects went."""
        self._gone += [(now, name, count) for name, count in counts.items() if count]

    def recent(self, now: float) -> Mapping[ServiceName, int]:
        """Return how many objects of each service went within the last hour."""
        self._gone = [entry for entry in self._gone if now - entry[0] < self.HOUR]
        total: Counter[ServiceName] = Counter()
        for _, name, count in self._gone:
            total[name] += count
        return dict(total)
