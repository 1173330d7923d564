"""The commands of steps: pure functions from a `Step` to lines of `ip -batch`.

Objects are made by exclusive `add`, in the one form of `grammar.format_object`, and deleted by their full
identity with our protocol number, so that a delete that comes too late fails instead of hitting somebody
else's object (Linux 6.1 and 6.18: route and rule deletes honour the protocol). Nothing is ever written by `replace`:
that takes over whatever has the key at that moment.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from dzagent.errors import GrammarError, KernelError
from dzagent.grammar import format_object
from dzagent.kernel.nftscript import script
from dzagent.model import Action, Address, KernelObject, Link, Route, Rule, Step
from dzagent.nftmodel import NftTable

_SAFE: Final = (string.ascii_letters + string.digits + "_.:/@+=- ").encode()
"""What a batch line may hold: no quotes and no '#', with which `ip -batch` would read another command."""

_BEFORE: Final = frozenset({"not"})
"""What stands before the selectors of a rule."""

_PLACED: Final = _BEFORE | {"from", "to"}
"""Tokens of a rule that have a place of their own; "from" and "to" are there only with host bits."""

NO_INDEXES: Final[Mapping[str, int]] = {}

SPARE_METRIC: Final = 0xFFFFDA21
"""The metric of a route that carries the traffic while another one is changed: the last choice, and nobody else's."""


def batch_lines(step: Step, indexes: Mapping[str, int] = NO_INDEXES) -> tuple[str, ...]:
    """Return the lines that carry out `step`.

    indexes: ifindex by link name, as observed: where it is known, a link is changed and deleted by its index, and an
    address put on it or taken from it, since `ip` believes the name alone and another link may have taken it meanwhile.
    Raises KernelError for an object that cannot be written safely, such as a rule of ours with a selector
    that holds a '#'.
    """
    try:
        lines = _lines(step, indexes)
    except GrammarError as error:
        raise KernelError(f"No safe command: {error}.") from error
    for line in lines:
        if not _is_safe(line):
            raise KernelError(f"No safe command for {line!r}: remove this object by hand.")
    return tuple(lines)


def _is_safe(line: str) -> bool:
    """Tell whether a line holds words of safe characters only, with one space between them."""
    return (
        line.isascii()
        and not line.encode().translate(None, _SAFE)
        and line.strip() == line != ""
        and "  " not in line
    )


def _lines(step: Step, indexes: Mapping[str, int]) -> Sequence[str]:
    if step.action is Action.DELETE:
        return _delete(step.target, indexes)
    if step.action is Action.CHANGE and step.before is not None:
        return _change(step.before, step.target, indexes)
    return _add(step.target, indexes)


def preview(step: Step) -> tuple[str, ...]:
    """Return the lines for a person to read, of `ip -batch` or `nft -f`; a comment where none can be written safely."""
    try:
        return script(step) if isinstance(step.target, NftTable) else batch_lines(step)
    except KernelError as error:
        return (f"# {error}",)


def _add(obj: KernelObject, indexes: Mapping[str, int]) -> Sequence[str]:
    lines = format_object(obj)
    if isinstance(obj, Address):
        dev = _by_index(obj.dev, indexes)
        return tuple(line.replace(f" dev {obj.dev} ", f" dev {dev} ", 1) for line in lines)
    return lines


def _change(before: KernelObject, after: KernelObject, indexes: Mapping[str, int]) -> Sequence[str]:
    """Change links in place, by their parts, and all else by delete and add.

    An address cannot be changed in place: `ip addr replace` with another scope answers 0 and does nothing. A route
    could be, but `ip route replace` cannot say whose. A default route that was made a multicast or broadcast route
    goes first: the kernel asks the table itself about the new gateway, would find it there, and refuse.
    """
    if isinstance(after, Link) and isinstance(before, Link):
        return _change_link(before, after, _by_index(after.name, indexes))
    if isinstance(after, Route) and isinstance(before, Route) and not _is_typed(before):
        return _change_route(before, after)
    return (*_delete(before, indexes), *_add(after, indexes))


def _is_typed(route: Route) -> bool:
    return any(token.startswith("type ") for token in route.extra)


def _change_route(before: Route, after: Route) -> Sequence[str]:
    """Change a route without a moment in which there is none, and without taking the place of anybody's.

    The first line makes the new route beside the old one: only if that works may the others be tried (`on_trial`).
    One that is left behind by a process that was killed is one that nothing wants, and goes.
    """
    spare = replace(after, metric=SPARE_METRIC)
    return (*format_object(spare), _delete_route(before), *format_object(after), _delete_route(spare))


def on_trial(step: Step) -> bool:
    """Tell whether the first line of a step must have worked before the others are tried."""
    before = step.before
    return step.action is Action.CHANGE and isinstance(before, Route) and not _is_typed(before)


def _change_link(before: Link, after: Link, name: str) -> Sequence[str]:
    """Repeat every GRE attribute if one differs: `link change` sets those left out to their defaults."""
    dev = f"link set dev {name}"
    lines = []
    if (before.local, before.remote, before.ttl, before.pmtudisc) != (
        after.local,
        after.remote,
        after.ttl,
        after.pmtudisc,
    ):
        discovery = "pmtudisc" if after.pmtudisc else "nopmtudisc"
        lines.append(
            f"link change dev {name} type gre local {after.local} remote {after.remote} "
            f"ttl {after.ttl or 'inherit'} {discovery}"
        )
    if any(token.startswith("master ") for token in before.extra):
        lines.append(f"{dev} nomaster")
    if before.mtu != after.mtu:
        lines.append(f"{dev} mtu {after.mtu}")
    if before.alias != after.alias:
        lines.append(f"{dev} alias {after.alias}")
    if before.up != after.up:
        lines.append(f"{dev} {'up' if after.up else 'down'}")
    return lines


def _delete(obj: KernelObject, indexes: Mapping[str, int]) -> Sequence[str]:
    if isinstance(obj, Link):
        dev = _by_index(obj.name, indexes)
        return (f"link set dev {dev} down", f"link delete dev {dev}")
    if isinstance(obj, Address):
        return (_delete_address(obj, _by_index(obj.dev, indexes)),)
    if isinstance(obj, Route):
        return (_delete_route(obj),)
    if isinstance(obj, Rule):
        return (_delete_rule(obj),)
    raise GrammarError("an nftables table is no object of ip")


def _by_index(name: str, indexes: Mapping[str, int]) -> str:
    """Return "if7" for index 7: how iproute2 takes an index, unless some link bears that very name."""
    alias = f"if{indexes.get(name, 0)}"
    return alias if name in indexes and alias not in indexes else name


def _delete_address(address: Address, dev: str) -> str:
    """A peer is part of an address's identity; nothing else is."""
    peer = [token for token in address.extra if token.startswith("peer ")]
    local = f"{address.interface.ip} {peer[0]}" if peer else str(address.interface)
    return f"addr del {local} dev {dev}"


def _delete_route(route: Route) -> str:
    """Name a type before the prefix; nexthops and metrics are not needed, prefix, protocol and metric are.

    A route with a nexthop object matches no gateway and no link, even if they are those that `ip` shows for it.
    """
    words = {token.split(" ", 1)[0]: token for token in route.extra}
    if "nhid" in words:
        route = replace(route, via=None, dev=None)
    kind = words.get("type", "type unicast").removeprefix("type ")
    parts = [f"route del {kind} {route.dst}"]
    parts += [words["tos"]] if "tos" in words else []
    parts += [f"via {route.via}"] if route.via is not None else []
    parts += [f"dev {route.dev}"] if route.dev is not None and kind in {"unicast", "local"} else []
    parts += [f"src {route.src}"] if route.src is not None else []
    parts.append(f"table {route.table} proto {route.protocol}")
    parts += [f"metric {route.metric}"] if route.metric else []
    return " ".join(parts)


def _delete_rule(rule: Rule) -> str:
    """Every selector counts: the kernel deletes the first rule that has those that are named."""
    words = {token.split(" ", 1)[0]: token for token in rule.extra}
    parts = ["rule del", *(token for token in rule.extra if token in _BEFORE)]
    parts.append(f"priority {rule.priority}")
    parts += [words.get("from", f"from {rule.src}"), words.get("to", f"to {rule.dst}")]
    parts += [f"table {rule.table}"] if rule.table else []
    parts.append(f"protocol {rule.protocol}")
    parts += [token for word, token in words.items() if word not in _PLACED]
    return " ".join(parts)
