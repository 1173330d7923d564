"""What an object has beside the attributes that we set: sorted tokens of `ip` syntax.

They make an edit by somebody else visible (a desired object has none), and they complete the identity by
which such an object is deleted. Unknown attributes become tokens too. What changes by itself (lifetimes
without end, carrier and offload flags, the order of addresses) does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final, TypeAlias

Record: TypeAlias = Mapping[str, Any]

SCOPES: Final = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
"""linux/rtnetlink.h, enum rt_scope_t."""

ROUTE_TYPES: Final = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
    10: "nat",
}
"""linux/rtnetlink.h, RTN_*. `ip route del` takes these words only, never their numbers."""

RULE_ACTIONS: Final = {3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
"""linux/fib_rules.h, FR_ACT_*."""

_GRE_KNOWN: Final = frozenset({"local", "remote", "ttl", "pmtudisc"})
_ADDRESS_KNOWN: Final = frozenset(
    {
        "family",
        "local",
        "prefixlen",
        "scope",
        "label",
        "address",
        "valid_life_time",
        "preferred_life_time",
        "secondary",  # depends on what else is there
        "protocol",  # newer tools show it; ours is the link, not a number
    }
)
_ROUTE_KNOWN: Final = frozenset(
    {
        "type",
        "dst",
        "gateway",
        "via",
        "dev",
        "table",
        "protocol",
        "scope",
        "prefsrc",
        "metric",
        "flags",
        "metrics",
        "nexthops",
        "nh_info",
        "cache",
        "expires",
        "used",
        "users",
        "age",
    }
)
_ROUTE_PLAIN: Final = frozenset(
    {"type", "dst", "gateway", "dev", "table", "protocol", "scope", "prefsrc", "metric", "flags"}
)
_ROUTE_FLAGS: Final = frozenset({"onlink", "pervasive"})
_RULE_KNOWN: Final = frozenset(
    {
        "priority",
        "src",
        "srclen",
        "dst",
        "dstlen",
        "table",
        "protocol",
        "action",
        "nop",
        "fwmark",
        "fwmask",
        "ipproto",
        "uid_start",
        "uid_end",
        "flow_from",
        "flow_to",
        "sport_start",
        "sport_end",
        "dport_start",
        "dport_end",
        "suppress_prefixlen",
        "unresolved",
        "iif_detached",
        "oif_detached",
    }
)


def scope(value: Any) -> str:
    """Return iproute2's word for a scope that -N printed as a number; an unknown one stays a number."""
    text = str(value)
    return SCOPES.get(int(text), text) if text.isdecimal() else text


def gre(data: Record) -> Iterable[str]:
    """Yield the tunnel attributes that we never set and that are set: keys, checksums, tos, encap..."""
    return (_token(name, value) for name, value in data.items() if name not in _GRE_KNOWN and _is_set(value))


def link(record: Record) -> Iterable[str]:
    """Yield what ties a link to another one."""
    return (_token(name, record[name]) for name in ("master",) if name in record)


def address(item: Record, dev: str) -> tuple[str, ...]:
    """Return the tokens of an address: peer, label, broadcast, a limited lifetime..."""
    found = [_token(name, item[name]) for name in item if name not in _ADDRESS_KNOWN and _is_set(item[name])]
    if "address" in item:
        found.append(f"peer {item['address']}/{item['prefixlen']}")
    if item.get("label", dev) != dev:
        found.append(f"label {item['label']}")
    return tuple(sorted(found))


def route(record: Record) -> tuple[str, ...]:
    """Return the tokens of a route: type, tos, scope, nexthops, metrics, encapsulation..."""
    if _plain(record):
        return ()
    prefix = "encap-" if "encap" in record else ""  # its attributes lie flat beside the route's own
    found = [
        prefix + _token(name, value)
        for name, value in record.items()
        if name not in _ROUTE_KNOWN and _is_set(value)
    ]
    found += [flag for flag in record["flags"] if flag in _ROUTE_FLAGS]
    found += [_token(name, value) for metrics in record.get("metrics", ()) for name, value in metrics.items()]
    found += [_nexthop(hop) for hop in record.get("nexthops", ())]
    kind = _number_or_word(record["type"], ROUTE_TYPES)
    if kind != "unicast":
        found.append(f"type {kind}")
    if "via" in record:
        found.append(f"via {record['via']['family']} {record['via']['host']}")
    if kind == "unicast" and _odd_scope(record):
        found.append(f"scope {scope(record['scope'])}")
    return tuple(sorted(found))


def rule(record: Record) -> tuple[str, ...]:
    """Return the tokens of a rule: every selector beside source, destination and table, and the action.

    A source or destination with host bits is a token, too: they are part of the identity by which it is deleted.
    """
    found = [_token(name, value) for name, value in record.items() if name not in _RULE_KNOWN]
    found += _host_bits(record)
    if "action" in record:
        found.append(f"type {_number_or_word(record['action'], RULE_ACTIONS)}")
    if "nop" in record:
        found.append("type nop")
    if "fwmark" in record:
        found.append(f"fwmark {record['fwmark']}/{record.get('fwmask', '0xffffffff')}")
    if "ipproto" in record:
        found.append(f"ipproto {str(record['ipproto']).removeprefix('ipproto-')}")
    if "suppress_prefixlen" in record:
        found.append(f"suppress_prefixlength {record['suppress_prefixlen']}")
    if "flow_to" in record:
        found.append(f"realms {record.get('flow_from', 0)}/{record['flow_to']}")
    for word, low, high in (
        ("uidrange", "uid_start", "uid_end"),
        ("sport", "sport_start", "sport_end"),
        ("dport", "dport_start", "dport_end"),
    ):
        if low in record:
            found.append(f"{word} {record[low]}-{record[high]}")
    return tuple(sorted(found))


# ---- parts -----------------------------------------------------------------------------------------------


def _host_bits(record: Record) -> list[str]:
    """Return the sides of a rule whose address is more than a network."""
    found = []
    for word, address, length in (("from", "src", "srclen"), ("to", "dst", "dstlen")):
        if length in record:
            side = IPv4Interface(f"{record[address]}/{record[length]}")
            found += [f"{word} {side}"] if side.ip != side.network.network_address else []
    return found


def _is_set(value: Any) -> bool:
    """Tell whether an attribute has another value than the kernel's default."""
    return value not in (False, 0, "0", "0x0", "0.0.0.0", "none", "off", "", [], {})  # noqa: S104 a value, not a bind


def _token(name: str, value: Any) -> str:
    """Write an attribute as `ip` takes it: a null or true is a flag, anything else has a value."""
    return name if value is None or value is True else f"{name} {value}"


def _number_or_word(value: Any, words: Mapping[int, str]) -> str:
    text = str(value)
    return words.get(int(text), text) if text.isdecimal() else text


def _plain(record: Record) -> bool:
    """Tell whether a route has nothing but what every route of ours has (the common case, fast)."""
    return (
        _ROUTE_PLAIN.issuperset(record)
        and "gateway" in record
        and record["type"] == "1"
        and record["scope"] == "0"
        and not record["flags"]
    )


def _odd_scope(record: Record) -> bool:
    """Tell whether the scope is another than `ip route add` chooses: link without a gateway, else global."""
    near = not ({"gateway", "via", "nexthops", "nhid", "encap"} & record.keys())
    return scope(record["scope"]) != ("link" if near else "global")


def _nexthop(hop: Record) -> str:
    parts = ["nexthop"]
    if "gateway" in hop:
        parts.append(f"via {IPv4Address(hop['gateway'])}")
    if "dev" in hop:
        parts.append(f"dev {hop['dev']}")
    return " ".join([*parts, f"weight {hop.get('weight', 1)}"])
