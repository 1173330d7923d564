"""Canonical text of the values in nftables rules, from what a rendered line says and from what `nft -j` prints. Pure.

nft joins what touches in an anonymous set (224.0.0.0/4 and 240.0.0.0/4 become 224.0.0.0/3), and some releases sort
sets otherwise or print a set of one as the value alone. Here all of these are one text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from typing import Any, Final

from dzagent.linknames import LINK_NAME, LINK_NAME_RULE
from dzagent.nftmodel import NftInterval

MAX_U32: Final = 2**32 - 1
MAX_PORT: Final = 65_535

KINDS: Final[Mapping[str, str]] = {
    "iifname": "name",
    "oifname": "name",
    "ip saddr": "address",
    "ip daddr": "address",
    "meta l4proto": "protocol",
    "tcp sport": "port",
    "tcp dport": "port",
    "udp sport": "port",
    "udp dport": "port",
    "tcp flags": "flag",
    "fib saddr type": "word",
    "ct state": "state",
}
"""What a rule may look at, and the kind of value it is compared with."""

BITS: Final = frozenset({"flag", "state"})
"""Kinds that are compared by "has one of these bits": nft calls the operator "in", and writes none."""

PROTOCOLS: Final[Mapping[str, int]] = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "pim": 103}
"""Words for protocol numbers; nft knows them from /etc/protocols, which a small system may lack."""

WORDS: Final[Mapping[str, frozenset[str]]] = {
    "protocol": frozenset(PROTOCOLS),
    "flag": frozenset({"fin", "syn", "rst", "psh", "ack", "urg"}),
    "word": frozenset({"local", "broadcast", "multicast", "unicast"}),
    "state": frozenset({"established", "related", "new", "invalid", "untracked"}),
}

_PROTOCOL_NAMES: Final = {number: word for word, number in PROTOCOLS.items()}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


class ValueRefused(ValueError):
    """A value that has no canonical text; says why."""


# ---- intervals -------------------------------------------------------------------------------------------


def joined(intervals: Iterable[NftInterval]) -> tuple[NftInterval, ...]:
    """Sort, and join what overlaps or touches."""
    found: list[NftInterval] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def address_interval(text: str) -> NftInterval:
    """Read `A.B.C.D`, `A.B.C.D/LENGTH` or `A.B.C.D-A.B.C.D`. Raises ValueRefused."""
    low, dash, high = text.partition("-")
    if dash:
        return _ordered(_address(low), _address(high), text)
    address, slash, length = text.partition("/")
    first = _address(address)
    if not slash:
        return first, first
    if _NUMBER.fullmatch(length) is None or int(length) > 32:
        raise ValueRefused(f"{text!a} has no prefix length from 0 to 32")
    rest = MAX_U32 >> int(length)
    if first & rest:
        raise ValueRefused(f"{text!a} has host bits set")
    return first, first | rest


def port_interval(text: str) -> NftInterval:
    """Read `PORT` or `LOW-HIGH`. Raises ValueRefused."""
    low, dash, high = text.partition("-")
    return _ordered(_port(low), _port(high), text) if dash else (_port(low), _port(low))


def interval_text(interval: NftInterval, kind: str) -> str:
    """Write an interval as `address_interval` or `port_interval` reads it; a prefix where it is one."""
    first, last = interval
    if kind == "port":
        return str(first) if first == last else f"{first}-{last}"
    if first == last:
        return str(IPv4Address(first))
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return f"{IPv4Address(first)}/{33 - size.bit_length()}"
    return f"{IPv4Address(first)}-{IPv4Address(last)}"


def prefixes(interval: NftInterval) -> tuple[IPv4Network, ...]:
    """Return the networks that an interval of addresses is made of."""
    return tuple(summarize_address_range(IPv4Address(interval[0]), IPv4Address(interval[1])))


def network_interval(network: IPv4Network) -> NftInterval:
    """Return the first and last address of a network as numbers."""
    first = int(network.network_address)
    return first, first | (MAX_U32 >> network.prefixlen)


def _address(text: str) -> int:
    if _ADDRESS.fullmatch(text) is None:
        raise ValueRefused(f"{text!a} is not an IPv4 address such as 192.0.2.1")
    first, second, third, fourth = text.split(
        "."
    )  # a set can have thousands: IPv4Address takes three times as long
    return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)


def _port(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or not 0 < int(text) <= MAX_PORT:
        raise ValueRefused(f"{text!a} is not a port: a number from 1 to {MAX_PORT}")
    return int(text)


def _ordered(first: int, last: int, text: str) -> NftInterval:
    if first > last:
        raise ValueRefused(f"{text!a} ends before it begins")
    return first, last


# ---- canonical text ------------------------------------------------------------------------------------------


def canonical(kind: str, parts: Iterable[str]) -> str:
    """Return the text of a value that consists of these parts, such as `{ 179, 11179 }`. Raises ValueRefused."""
    texts = _intervals(kind, parts) if kind in {"address", "port"} else _words(kind, parts)
    if not texts:
        raise ValueRefused("a value is missing")
    if kind in BITS:
        return ",".join(texts)
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def set_reference(text: str) -> str:
    """Check `@NAME`. Raises ValueRefused."""
    return f"@{name(text.removeprefix('@'))}"


def name(text: str) -> str:
    """Check the name of a chain, set or counter. Raises ValueRefused."""
    if _NAME.fullmatch(text) is None:
        raise ValueRefused(
            f"{text[:80]!a} is not a name: 1 to 64 lower case letters, digits and _, a letter first"
        )
    return text


def link_name(text: str) -> str:
    """Check the name of an interface: no quote, no wildcard. Raises ValueRefused."""
    if LINK_NAME.fullmatch(text) is None:
        raise ValueRefused(f"{text[:80]!a} is not a link name: {LINK_NAME_RULE}")
    return text


def _intervals(kind: str, parts: Iterable[str]) -> list[str]:
    read = port_interval if kind == "port" else address_interval
    return [interval_text(interval, kind) for interval in joined(map(read, parts))]


def _words(kind: str, parts: Iterable[str]) -> list[str]:
    if kind == "name":
        return [f'"{text}"' for text in sorted(set(map(link_name, parts)))]
    found = sorted({_known(kind, text) for text in parts})
    if kind not in BITS and len(found) > 1:
        raise ValueRefused(f"one word is expected, not {len(found)}")
    return found


def _known(kind: str, text: str) -> str:
    if text not in WORDS[kind]:
        raise ValueRefused(f"{text[:80]!a} is none of {', '.join(sorted(WORDS[kind]))}")
    return text


# ---- JSON ------------------------------------------------------------------------------------------------


def from_json(kind: str, value: Any) -> str:
    """Return the text of what `nft -j` prints on the right of a match. Raises ValueRefused for anything else."""
    if isinstance(value, str) and value.startswith("@"):
        return set_reference(value)
    if isinstance(value, dict) and value.keys() == {"set"}:
        value = value["set"]
    parts = value if isinstance(value, list) else [value]
    return canonical(kind, [_part(kind, part) for part in parts])


def element(kind: str, value: Any) -> NftInterval:
    """Return the interval of an element of a named set. Raises ValueRefused."""
    text = _part(kind, value)
    return port_interval(text) if kind == "port" else address_interval(text)


def _part(kind: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        return _compound(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _PROTOCOL_NAMES.get(value, "?") if kind == "protocol" else str(value)
    raise ValueRefused(f"{str(value)[:80]!a} is no value that is known here")


def _compound(value: Mapping[str, Any]) -> str:
    match value:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return f"{address}/{length}"
        case {"range": [(int() | str()) as low, (int() | str()) as high]}:
            return f"{low}-{high}"
    raise ValueRefused(f"{str(value)[:80]!a} is no value that is known here")
