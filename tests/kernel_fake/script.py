"""The commands: one line of `ip -batch` at a time, in the words that dzagent writes.

A word that is not known ends the whole process, as it does in `ip`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from dzagent.model import Address, Link, Route, Rule
from tests.kernel_fake.fib import Doomed, add_route, delete_route
from tests.kernel_fake.rules import DoomedRule, add_rule, delete_rule
from tests.kernel_fake.state import Refused, State, subnet

NOWHERE = IPv4Address(0)
TYPES = ("unicast", "local", "broadcast", "multicast", "blackhole", "unreachable", "prohibit", "throw")


class GaveUp(Exception):
    """`ip` does not understand its arguments and ends, whatever -force says."""


@dataclass
class Words:
    """The words of a line, read from left to right."""

    words: list[str]

    def take(self) -> str:
        if not self.words:
            raise GaveUp('Command line is not complete. Try option "help"')
        return self.words.pop(0)

    def took(self, *choices: str) -> bool:
        if self.words and self.words[0] in choices:
            self.words.pop(0)
            return True
        return False


@dataclass
class Named:
    """Words with one value each, as far as they are known, and flags."""

    values: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    def number(self, name: str) -> int | None:
        return int(self.values[name]) if name in self.values else None

    def address(self, name: str) -> IPv4Address | None:
        return IPv4Address(self.values[name]) if name in self.values else None

    def network(self, name: str) -> IPv4Network | None:
        return IPv4Network(self.values[name]) if name in self.values else None


def read(words: Words, valued: Sequence[str], flags: Sequence[str] = ()) -> Named:
    """Read the rest of a line."""
    named = Named()
    while words.words:
        word = words.take()
        if word in flags:
            named.flags.add(word)
        elif word in valued:
            named.values[word] = words.take()
        else:
            raise GaveUp(f'Error: either "to" is duplicate, or "{word}" is a garbage.')
    return named


def run_line(state: State, line: str) -> None:
    """Carry out one line. Raises Refused if the kernel says no, GaveUp if `ip` does not understand it."""
    state.catch_up()
    words = Words(line.split())
    kind, verb = words.take(), words.take()
    command = _COMMANDS.get((kind, verb))
    if command is None:
        raise GaveUp(f'Command "{verb}" is unknown, try "ip {kind} help".')
    try:
        command(state, words)
    except ValueError as error:
        raise GaveUp(f"Error: {error}") from error


# ---- links -------------------------------------------------------------------------------------------------


def _link_add(state: State, words: Words) -> None:
    words.took("name", "dev")
    name = words.take()
    mtu = int(words.take()) if words.took("mtu") else 1476
    words.took("type")
    kind = words.take()
    if kind == "gre":
        state.make_link(name, kind, mtu, _gre(words, Link(name, NOWHERE, NOWHERE, 0, mtu, "", up=False)))
    else:
        state.make_link(name, kind, 1500, None)


def _gre(words: Words, before: Link) -> Link:
    """What is left out falls back to its default, also in a change."""
    named = read(words, ("local", "remote", "ttl"), ("pmtudisc", "nopmtudisc"))
    ttl = named.values.get("ttl", "inherit")
    return replace(
        before,
        local=named.address("local") or NOWHERE,
        remote=named.address("remote") or NOWHERE,
        ttl=0 if ttl == "inherit" else int(ttl),
        pmtudisc="nopmtudisc" not in named.flags,
        extra=tuple(token for token in before.extra if token.startswith("master ")),
    )


def _link_change(state: State, words: Words) -> None:
    words.took("dev")
    seen = state.link(words.take())
    words.took("type")
    if words.take() != "gre" or seen.tunnel is None:
        raise Refused("Failed to get existing tunnel info.")
    state.change_link(seen, _gre(words, seen.tunnel))


def _link_set(state: State, words: Words) -> None:
    words.took("dev")
    seen = state.link(words.take())
    named = read(words, ("mtu", "alias", "master"), ("up", "down", "nomaster"))
    mtu = named.number("mtu")
    if mtu is not None and not 68 <= mtu <= 65535:
        raise Refused(
            f"Error: mtu {'less than device minimum' if mtu < 68 else 'greater than device maximum'}."
        )
    if mtu is not None or "alias" in named.values:
        state.set_attributes(seen, mtu=mtu, alias=named.values.get("alias"))
    if "master" in named.values:
        state.set_master(seen, state.link(named.values["master"]).name)
    if "nomaster" in named.flags:
        state.set_master(seen, None)
    if named.flags & {"up", "down"}:
        state.set_up(state.links[seen.name], up="up" in named.flags)


def _link_delete(state: State, words: Words) -> None:
    words.took("dev")
    state.drop_link(state.link(words.take()))


# ---- addresses ---------------------------------------------------------------------------------------------


def _address_add(state: State, words: Words) -> None:
    state.add_address(_address(state, words))


def _address_delete(state: State, words: Words) -> None:
    """An address is told by itself, its length, and the subnet of its peer."""
    named = _address(state, words)
    same = (named.dev, named.interface, subnet(named))
    found = next((a for a in state.addresses if (a.dev, a.interface, subnet(a)) == same), None)
    if found is None:
        raise Refused("Error: ipv4: Address not found.")
    state.drop_address(found)


def _address(state: State, words: Words) -> Address:
    local = words.take()
    named = read(words, ("peer", "dev", "scope", "label"))
    peer = named.values.get("peer")
    interface = IPv4Interface(local if peer is None else f"{local}/{peer.partition('/')[2]}")
    dev = _index_of(state, named.values["dev"])
    extra = [] if peer is None else [f"peer {peer}"]
    extra += [f"label {named.values['label']}"] if named.values.get("label", dev) != dev else []
    return Address(dev, interface, named.values.get("scope", "global"), tuple(sorted(extra)))


def _index_of(state: State, dev: str) -> str:
    """Return the name of a link; a number that no link has is found out by the kernel, in the words of addresses."""
    try:
        return state.link(dev).name
    except Refused as refused:
        raise (
            Refused("Error: ipv4: Device not found.") if "No such device" in str(refused) else refused
        ) from None


# ---- routes ------------------------------------------------------------------------------------------------


def _route_add(state: State, words: Words) -> None:
    add_route(state, _route(words))


def _route_replace(state: State, words: Words) -> None:
    add_route(state, _route(words), replacing=True)


def _route(words: Words) -> Route:
    dst = IPv4Network(words.take())
    named = read(words, ("via", "dev", "src", "table", "proto", "metric", "mtu"))
    extra = (f"mtu {named.values['mtu']}",) if "mtu" in named.values else ()
    return Route(
        dst,
        named.address("via"),
        named.values.get("dev"),
        named.number("table") or 254,
        named.number("proto") or 3,
        named.address("src"),
        named.number("metric") or 0,
        extra,
    )


def _route_delete(state: State, words: Words) -> None:
    kind = next((word for word in TYPES if words.took(word)), None)
    dst = IPv4Network(words.take())
    named = read(words, ("via", "dev", "src", "table", "proto", "metric", "tos"))
    delete_route(
        state,
        Doomed(
            dst,
            named.number("table") or 254,
            named.number("proto"),
            named.address("via"),
            named.values.get("dev"),
            named.address("src"),
            named.number("metric"),
            kind,
            named.values.get("tos"),
        ),
    )


# ---- rules -------------------------------------------------------------------------------------------------

_SELECTORS = ("priority", "from", "to", "table", "protocol")
_OTHERS = ("iif", "oif", "fwmark", "ipproto", "sport", "dport", "uidrange", "type", "suppress_prefixlength")


def _rule_add(state: State, words: Words) -> None:
    named = read(words, (*_SELECTORS, *_OTHERS))
    whole = IPv4Network("0.0.0.0/0")
    rule = Rule(
        named.number("priority") or 0,
        named.network("from") or whole,
        named.network("to") or whole,
        named.number("table") or 254,
        named.number("protocol") or 3,
        _extra(named),
    )
    add_rule(state, rule)


def _rule_delete(state: State, words: Words) -> None:
    inverted = words.took("not")
    named = read(words, (*_SELECTORS, *_OTHERS))
    extra = (*_extra(named), *(("not",) if inverted else ()))
    doomed = DoomedRule(
        named.number("priority"),
        named.network("from"),
        named.network("to"),
        named.number("table"),
        named.number("protocol"),
        frozenset(extra),
    )
    delete_rule(state, doomed.hits)


def _extra(named: Named) -> tuple[str, ...]:
    return tuple(sorted(f"{word} {value}" for word, value in named.values.items() if word in _OTHERS))


_COMMANDS: Mapping[tuple[str, str], Callable[[State, Words], None]] = {
    ("link", "add"): _link_add,
    ("link", "change"): _link_change,
    ("link", "set"): _link_set,
    ("link", "delete"): _link_delete,
    ("addr", "add"): _address_add,
    ("addr", "del"): _address_delete,
    ("route", "add"): _route_add,
    ("route", "replace"): _route_replace,
    ("route", "del"): _route_delete,
    ("rule", "add"): _rule_add,
    ("rule", "del"): _rule_delete,
}
