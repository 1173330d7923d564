"""What the kernel will hold once steps have been carried out. Pure.

It knows what the kernel does by itself too: a link that goes takes its addresses and routes along, an address the
routes that have it as their source, and the last address of a link all routes of that link.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from dzagent.nftmodel import NftSeen, NftTable


def after(observed: Observed, steps: Iterable[Step]) -> Observed:
    """Return the state after every step has worked, one after the other."""
    links = {link.name: link for link in observed.links}
    nft = observed.nft
    rest: dict[KernelObject, None] = {}
    for group in (observed.addresses, observed.routes, observed.rules):
        rest.update(dict.fromkeys(group))
    for step in steps:
        if isinstance(step.target, NftTable):
            nft = _table(step, nft)
        elif step.action is Action.DELETE and isinstance(step.before, Link):
            links.pop(step.before.name, None)
            _drop(rest, [obj for obj in rest if _dev(obj) == step.before.name])
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
        nft=nft,
    )


def _table(step: Step, seen: NftSeen) -> NftSeen:
    if isinstance(step.after, NftTable):
        return replace(seen, state="there", table=step.after)
    return NftSeen(state="absent")


def _change(rest: dict[KernelObject, None], step: Step) -> None:
    if step.before is not None and step.before in rest:
        _drop(rest, [step.before])
    if step.after is not None:
        rest[step.after] = None


def _drop(rest: dict[KernelObject, None], objects: Iterable[KernelObject]) -> None:
    gone: list[Address] = []
    for obj in objects:
        del rest[obj]
        if isinstance(obj, Address):
            gone.append(obj)
    if not gone:
        return
    left = [obj for obj in rest if isinstance(obj, Address)]
    sources = {address.interface.ip for address in gone} - {address.interface.ip for address in left}
    bare = {address.dev for address in gone} - {address.dev for address in left}
    for route in [obj for obj in rest if isinstance(obj, Route) and (obj.src in sources or obj.dev in bare)]:
        del rest[route]


def _dev(obj: KernelObject) -> str | None:
    return obj.dev if isinstance(obj, (Address, Route)) else None


def _seen(link: Link, before: SeenLink | None) -> SeenLink:
    index = 0 if before is None else before.ifindex
    return SeenLink(link.name, index, "gre", link.up, link.mtu, link.alias, link)
