"""The JSON of `ip -4 -N -d -j`: the inverse of what dzagent reads it with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeAlias

from dzagent.kernel.tokens import ROUTE_TYPES, RULE_ACTIONS, SCOPES
from dzagent.model import MAIN_TABLE, Address, Link, Route, Rule, SeenLink
from tests.kernel_fake.fib import has_table, held
from tests.kernel_fake.rules import ordered
from tests.kernel_fake.state import ANY, Refused, State

Record: TypeAlias = dict[str, Any]

NO_TABLE = "Error: ipv4: FIB table does not exist.\nDump terminated"
_TYPES = {word: str(number) for number, word in ROUTE_TYPES.items()}
_ACTIONS = {word: str(number) for number, word in RULE_ACTIONS.items()}
_SCOPES = {word: str(number) for number, word in SCOPES.items()}


class NoTable(Refused):
    """A table that was never used: `ip -batch` prints an empty array, a single `ip` fails and prints a lone [."""

    def __init__(self) -> None:
        super().__init__(NO_TABLE)


def answer(state: State, line: str) -> str | None:
    """Return what `ip` prints for a line that reads; None for any other line. Raises NoTable."""
    words = line.split()
    plain: dict[tuple[str, ...], Callable[[], str]] = {
        ("link", "show"): lambda: _array(map(link, state.links.values())),
        ("addr", "show"): lambda: _array(addresses(state)),
        ("rule", "show"): lambda: _array(map(rule, ordered(state))),
    }
    if tuple(words) in plain:
        return plain[tuple(words)]()
    if words[:3] == ["link", "show", "dev"]:
        return _array([link(state.link(words[3]))])
    if words[:5] == ["route", "show", "table", "all", "proto"]:
        return _array(route(r, protocol=None) for r in _of_protocol(state, int(words[5])))
    if words[:3] == ["route", "show", "exact"] and words[4] == "table":
        return _exact(state, IPv4Network(words[3]), int(words[5]))
    return None


def _of_protocol(state: State, protocol: int) -> list[Route]:
    return [r for r in (*state.connected, *state.routes) if r.protocol == protocol]


def _exact(state: State, dst: IPv4Network, table: int) -> str:
    if not has_table(state, table):
        raise NoTable
    return _array(route(r, table=None) for r in held(state, table, dst))


def _array(records: Iterable[Record]) -> str:
    return json.dumps(list(records), separators=(",", ":"))


# ---- objects -----------------------------------------------------------------------------------------------


def link(seen: SeenLink) -> Record:
    record: Record = {
        "ifindex": seen.ifindex,
        "ifname": seen.name,
        "flags": ["UP", "LOWER_UP"] if seen.up else [],
        "mtu": seen.mtu,
        "link_type": "[778]" if seen.kind == "gre" else "[1]",
    }
    if seen.kind:
        record["linkinfo"] = {"info_kind": seen.kind, "info_data": _tunnel(seen.tunnel)}
    if seen.alias:
        record["ifalias"] = seen.alias
    for token in seen.tunnel.extra if seen.tunnel is not None else ():
        if token.startswith("master "):
            record["master"] = token.removeprefix("master ")
    return record


def _tunnel(tunnel: Link | None) -> Record:
    if tunnel is None:
        return {}
    data: Record = {
        "remote": _end(tunnel.remote),
        "local": _end(tunnel.local),
        "ttl": tunnel.ttl or "inherit",
        "pmtudisc": tunnel.pmtudisc,
    }
    return data | _plain(token for token in tunnel.extra if not token.startswith("master "))


def _end(address: IPv4Address) -> str:
    return "any" if address == IPv4Address(0) else str(address)


def addresses(state: State) -> Iterable[Record]:
    """With -4 a link without an address is left out."""
    for seen in state.links.values():
        items = [address(a) for a in state.addresses if a.dev == seen.name]
        if items:
            yield {**link(seen), "addr_info": items}


def address(held_address: Address) -> Record:
    peer = next((t.split()[1] for t in held_address.extra if t.startswith("peer ")), None)
    record: Record = {"family": "inet", "local": str(held_address.interface.ip)}
    if peer is not None:
        record["address"] = peer.partition("/")[0]
    return {
        **record,
        "prefixlen": held_address.interface.network.prefixlen,
        "scope": _SCOPES[held_address.scope],
        "label": held_address.dev,
        **_plain(token for token in held_address.extra if not token.startswith("peer ")),
        "valid_life_time": 4294967295,
        "preferred_life_time": 4294967295,
    }


def route(held_route: Route, *, table: int | None = 0, protocol: int | None = 0) -> Record:
    """Write a route. `ip` does not repeat what it was asked for: table or protocol None leaves that out."""
    words = dict(token.partition(" ")[::2] for token in held_route.extra)
    kind = words.pop("type", "unicast")
    near = "link" if held_route.via is None and kind == "unicast" else "global"
    record: Record = {"type": _TYPES[kind], "dst": _prefix(held_route.dst)}
    record |= {} if held_route.via is None else {"gateway": str(held_route.via)}
    record |= {} if held_route.dev is None else {"dev": held_route.dev}
    if table is not None and held_route.table != MAIN_TABLE:
        record["table"] = str(held_route.table)
    if protocol is not None:
        record["protocol"] = str(held_route.protocol)
    record["scope"] = _SCOPES[words.pop("scope", near)]
    record |= {} if held_route.src is None else {"prefsrc": str(held_route.src)}
    record |= {"metric": held_route.metric} if held_route.metric else {}
    record["flags"] = [word for word in ("onlink", "pervasive") if words.pop(word, None) is not None]
    metrics = {name: int(words.pop(name)) for name in ("mtu", "advmss") if name in words}
    return record | ({"metrics": [metrics]} if metrics else {}) | words


def _prefix(dst: IPv4Network) -> str:
    if dst == ANY:
        return "default"
    return str(dst.network_address) if dst.prefixlen == 32 else str(dst)


def rule(held_rule: Rule) -> Record:
    record: Record = {"priority": held_rule.priority}
    words = dict(token.partition(" ")[::2] for token in held_rule.extra)
    record |= {"not": None} if words.pop("not", None) is not None else {}
    record |= _side("src", held_rule.src, words.pop("from", None)) or {"src": "all"}
    record |= _side("dst", held_rule.dst, words.pop("to", None))
    if "fwmark" in words:
        record["fwmark"], _, record["fwmask"] = words.pop("fwmark").partition("/")
    kind = words.pop("type", None)
    record |= words
    if kind is not None:
        record["action"] = _ACTIONS[kind]
    elif held_rule.table:
        record["table"] = str(held_rule.table)
    return record | {"protocol": str(held_rule.protocol)}


def _side(name: str, network: IPv4Network, exact: str | None) -> Record:
    if network == ANY and exact is None:
        return {}
    text, _, length = (exact or str(network)).partition("/")
    return {name: text} | ({} if length == "32" else {f"{name}len": int(length)})


def _plain(extra: Iterable[str]) -> Record:
    """Write tokens as attributes: a word alone is a flag."""
    pairs = (token.partition(" ") for token in extra)
    return {name: value if space else True for name, space, value in pairs}
