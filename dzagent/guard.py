"""The guard: withholds what would draw protected traffic into a tunnel, and only that. Pure.

`withhold` leaves such objects out of the desired state, so that one that has become dangerous since it was made
is removed by the plan; `check` looks at the steps of a plan once more, and never withholds a delete.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from dzagent.held import Held
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
from dzagent.protect import SSH_LOCAL, SSH_PEER, Shield, without

LEARNED: Final = "learned/"
"""How the origins of learned routes begin."""


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
    permits: Callable[[Held], bool] = lambda _: False,
) -> tuple[Desired, tuple[Held, ...]]:
    """Return the desired state without the objects that would capture a protected destination, and those.

    ignore: addresses that may be captured although they are protected, such as `own_addresses`. installed:
    prefixes that our own rules route already: an SSH session, which may come and go, does not remove them, nor
    does it keep a missing half of them from being repaired. permits: what a person has let through.
    """
    guard = _Guard(protected, tuple(ignore), installed)
    kept: list[Wanted] = []
    held: list[Held] = []
    for item in desired.wanted:
        reason = guard.danger(item.obj)
        found = None if reason is None else Held(_as_step(item), reason)
        if found is None or permits(found):
            kept.append(item)
        else:
            held.append(found)
    return Desired(tuple(kept)) if held else desired, tuple(held)


def check(
    plan: Plan,
    protected: Protected,
    ignore: Iterable[IPv4Address] = (),
    installed: Collection[IPv4Network] = (),
    *,
    ssh_hosts: bool = False,
    permits: Callable[[Held], bool] = lambda _: False,
) -> tuple[Plan, tuple[Held, ...]]:
    """Return the plan without the steps that would capture a protected destination, and those steps.

    ignore, installed: as for `withhold`. ssh_hosts: a learned /32 may be the far end of an SSH session, since that
    is another DoubleZero user. permits: what a person has let through. The plan's id stays: it names the states that
    were compared.
    """
    guard = _Guard(protected, tuple(ignore), installed)
    relaxed = _Guard(without(protected, SSH_PEER), tuple(ignore), installed) if ssh_hosts else guard
    held: list[Held] = []
    phases: list[tuple[Step, ...]] = []
    for phase in plan.phases:
        allowed: list[Step] = []
        for step in phase:
            judge = relaxed if _learned_host(step) else guard
            reason = None if step.action is Action.DELETE else judge.danger(step.target)
            found = None if reason is None else Held(step, reason)
            if found is None or permits(found):
                allowed.append(step)
            else:
                held.append(found)
        if allowed:
            phases.append(tuple(allowed))
    return replace(plan, phases=tuple(phases)), tuple(held)


def _learned_host(step: Step) -> bool:
    """Tell whether a step makes a route to one host that was learned."""
    host = isinstance(step.target, Route) and step.target.dst.prefixlen == 32
    return host and step.origin is not None and step.origin.file.startswith(LEARNED)


class _Guard:
    """Judges objects by what must stay reachable."""

    def __init__(
        self, protected: Protected, ignored: tuple[IPv4Address, ...], installed: Collection[IPv4Network]
    ) -> None:
        self._strict = Shield(protected, ignored)
        self._without_ssh = Shield(without(protected, SSH_PEER, SSH_LOCAL), ignored)
        self._installed = installed

    def danger(self, obj: KernelObject) -> str | None:
        """Say what an object would capture, None if nothing."""
        return next(filter(None, map(self._captured, _prefixes(obj))), None)

    def _captured(self, prefix: IPv4Network) -> str | None:
        shield = self._without_ssh if self._installed and prefix in self._installed else self._strict
        return shield.captured(prefix)


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
