"""What is withheld, and the id by which a person lets it through. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from dzagent.errors import GrammarError
from dzagent.model import Action, Address, KernelObject, Link, Plan, Route, Rule, Step
from dzagent.nftmodel import NftTable
from dzagent.objecttext import object_lines
from dzagent.plan_nft import keep, named_in

Kind: TypeAlias = Literal["capture", "volume", "rollback", "dependent"]
"""Why: it would draw protected traffic, too much would go, it was rolled back, what it stands on is withheld."""


@dataclass(frozen=True, slots=True)
class Held:
    """A step that is withheld, and why, in one sentence. `group`: the id of all that is withheld together.

    names: what of the nftables table stays as it is, where only that is withheld of a step.
    """

    step: Step
    reason: str
    kind: Kind = "capture"
    group: str = ""
    names: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """The id for `dzagent approve`: a hash of what is withheld and why; "" if it only follows something else."""
        if self.kind == "dependent":
            return ""
        return self.group or held_id(self.kind, self.reason, (step_key(self.step),))


def held_id(kind: Kind, reason: str, keys: Iterable[str]) -> str:
    """Return the id of what is withheld together (`step_key`). It does not depend on the line that made it."""
    text = "\n".join([kind, reason, *sorted(keys)])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def step_key(step: Step) -> str:
    """Return what a step makes or removes, as text: an add and a change that make the same are the same."""
    return removal(step.target) if step.action is Action.DELETE else making(step.target)


def making(obj: KernelObject) -> str:
    """Return the `step_key` of a step that makes an object."""
    return f"make {object_text(obj)}"


def removal(obj: KernelObject) -> str:
    """Return the `step_key` of a step that removes an object."""
    return f"remove {object_text(obj)}"


def object_text(obj: KernelObject) -> str:
    """Return one text for an object, the same in every version: its lines, or all its parts where it has none."""
    try:
        return " && ".join(object_lines(obj))
    except GrammarError:
        return repr(obj)


def plan_id(plan: Plan, held: Iterable[Held]) -> str:
    """Return the id of a plan that says what is withheld from it, too."""
    keys = sorted(f"{item.kind} {step_key(item.step)} {item.reason}" for item in held)
    if not keys:
        return plan.id
    text = "\n".join([plan.id, *keys])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def less(plan: Plan, held: Collection[Held]) -> Plan:
    """Return the plan without the steps, and the parts of a step, that are withheld."""
    if not held:
        return plan
    gone = {id(item.step) for item in held if not item.names}
    parts: dict[int, frozenset[str]] = {}
    for item in held:
        parts[id(item.step)] = parts.get(id(item.step), frozenset()) | item.names

    def left(step: Step) -> Step | None:
        if id(step) in gone:
            return None
        names = parts.get(id(step))
        return (
            keep(step, named_in(step.before, names)) if names and isinstance(step.before, NftTable) else step
        )

    phases = (tuple(kept for step in phase if (kept := left(step)) is not None) for phase in plan.phases)
    return replace(plan, phases=tuple(phase for phase in phases if phase))


def dependents(plan: Plan, held: Collection[Held]) -> tuple[Held, ...]:
    """Return the steps of a plan that cannot work, or would lead traffic astray, without what is withheld.

    These are addresses and routes on a link that is not made, and rules that point at a table whose route is not.
    """
    if not held:
        return ()
    makes = [item.step.target for item in held if item.step.action is Action.ADD]
    links = {obj.name for obj in makes if isinstance(obj, Link)}
    tables = {obj.table for obj in makes if isinstance(obj, Route)}
    tables -= {
        s.target.table for s in plan.steps if s.action is not Action.DELETE and isinstance(s.target, Route)
    }
    found = []
    for step in plan.steps:
        obj = step.target
        if step.action is Action.DELETE:
            continue
        if isinstance(obj, (Address, Route)) and obj.dev in links:
            found.append(Held(step, f"Its link {obj.dev} is withheld.", "dependent"))
        elif isinstance(obj, Rule) and obj.table in tables:
            found.append(Held(step, f"The route of its table {obj.table} is withheld.", "dependent"))
    return tuple(found)
