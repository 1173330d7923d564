"""What the kernel will hold once steps have been carried out. Pure.

It knows what the kernel does by itself too: a link that goes takes its addresses and routes along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from dzagent.model import (
    Action,
    Address,
    KernelObject,
    Link,
    Observed,
    Route,
    Rule,
    SeenLink,
    Step,
)


def after(observed: Observed, steps: Iterable[Step]) -> Observed:
    """Return the state after every step has worked, one after the other."""
    links = {link.name: link for link in observed.links}
    rest: dict[KernelObject, None] = {}
    for group in (observed.addresses, observed.routes, observed.rules):
        rest.update(dict.fromkeys(group))
    for step in steps:
        if step.action is Action.DELETE and isinstance(step.before, Link):
            links.pop(step.before.name, None)
            gone = [obj for obj in rest if not isinstance(obj, Rule) and _dev(obj) == step.before.name]
            for obj in gone:
                del rest[obj]
        elif isinstance(step.after, Link):
            links[step.after.name] = _seen(step.after, links.get(step.after.name))
        else:
            _change(rest, step)
    return replace(
        observed,
        links=tuple(links.values()),
        addresses=tuple(obj for obj in rest if isinstance(obj, Address)),
        routes=tuple(obj for obj in rest if isinstance(obj, Route)),
        rules=tuple(obj for obj in rest if isinstance(obj, Rule)),
    )


def _change(rest: dict[KernelObject, None], step: Step) -> None:
    if step.before is not None:
        rest.pop(step.before, None)
    if step.after is not None:
        rest[step.after] = None


def _dev(obj: KernelObject) -> str | None:
    return obj.dev if isinstance(obj, (Address, Route)) else None


def _seen(link: Link, before: SeenLink | None) -> SeenLink:
    index = 0 if before is None else before.ifindex
    return SeenLink(link.name, index, "gre", link.up, link.mtu, link.alias, link)


def routing_changed(steps: Collection[Step]) -> bool:
    """Tell whether steps change a rule or a route."""
    return any(isinstance(step.target, (Rule, Route)) for step in steps)
