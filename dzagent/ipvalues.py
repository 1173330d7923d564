"""The values that may stand in a line of `ip -batch`: one form each, and what it means. Pure.

What takes a text or a value raises Refused for one that may not stand there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from dzagent.linknames import LINK_NAME, LINK_NAME_RULE
from dzagent.model import Link, ServiceName
from dzagent.renderedlines import shown

MARK_PREFIX: Final = "dzagent:"
"""What the ifalias of our links starts with; the service's name follows."""

MAX_U32: Final = 2**32 - 1
MIN_MTU: Final = 68
MAX_MTU: Final = 65_511
"""65535 less 24 bytes of outer headers: the kernel cuts a larger one down without a word (ip_tunnel_newlink)."""

_ALIAS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_ADDRESS: Final = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
_SCOPES: Final = frozenset({"global", "link", "host"})
_DISCOVERY: Final = {"pmtudisc": True, "nopmtudisc": False}
_UNSPECIFIED: Final = IPv4Address(0)
_BROADCAST: Final = IPv4Address(MAX_U32)


def mark(service: ServiceName) -> str:
    """Return the ifalias that marks the link of a service as ours."""
    return MARK_PREFIX + service


class Refused(Exception):
    """Why a line or an object is outside the grammar."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that may stand somewhere; `what` names them for people."""

    what: str
    low: int
    high: int


_LENGTH: Final = Range("a prefix length", 0, 32)
TABLE: Final = Range("a table", 1, MAX_U32)
PROTOCOL: Final = Range("a protocol", 1, 255)
PRIORITY: Final = Range("a priority", 1, MAX_U32)
METRIC: Final = Range("a metric", 1, MAX_U32)
TTL: Final = Range("a TTL", 1, 255)
MTU: Final = Range("an MTU", MIN_MTU, MAX_MTU)


def _address(text: str) -> IPv4Address:
    """Read one form of an IPv4 address: four decimal numbers without leading zeros."""
    if _ADDRESS.fullmatch(text) is None:
        raise Refused(f"{shown(text)} is not an IPv4 address such as 192.0.2.1")
    return IPv4Address(text)


def usable(address: IPv4Address) -> IPv4Address:
    """Check an address that something has: 0.0.0.0 would mean "none" to the kernel."""
    if address == _UNSPECIFIED:
        raise Refused("0.0.0.0 means no address here: write the address")
    return address


def _host(text: str) -> IPv4Address:
    return usable(_address(text))


def endpoints(link: Link) -> tuple[IPv4Address, IPv4Address]:
    """Check the ends of a tunnel; GRE to a group, to 0.0.0.0 or to itself is another kind of tunnel."""
    for end in (link.local, link.remote):
        if usable(end).is_multicast or end == _BROADCAST:
            raise Refused(f"{end} cannot be an end of a tunnel: a unicast address is needed")
    if link.local == link.remote:
        raise Refused(f"both ends of the tunnel are {link.local}")
    return link.local, link.remote


def _split_prefix(text: str) -> tuple[IPv4Address, int]:
    address, slash, length = text.partition("/")
    if not slash:
        raise Refused(f"{shown(text)} has no prefix length: write it, as in 192.0.2.1/32")
    return _address(address), _number(length, _LENGTH)


def _network(text: str) -> IPv4Network:
    address, length = _split_prefix(text)
    number = int(address)
    if number & (MAX_U32 >> length):
        network = IPv4Network((number, length), strict=False)
        raise Refused(f"{text} has host bits set: the network is {network}")
    return IPv4Network((number, length))


def _interface(text: str) -> IPv4Interface:
    address, length = _split_prefix(text)
    return IPv4Interface((int(usable(address)), length))


def link_name(text: str) -> str:
    """Check the name of a link."""
    if LINK_NAME.fullmatch(text) is None:
        raise Refused(f"{shown(text)} is not a link name: {LINK_NAME_RULE}")
    return text


def alias_text(text: str) -> str:
    """Check the alias of a link."""
    if _ALIAS.fullmatch(text) is None:
        raise Refused(f"{shown(text)} is not an alias such as {mark('unicast')}")
    return text


def scope_text(text: str) -> str:
    """Check the scope of an address."""
    if text not in _SCOPES:
        raise Refused(f"scope {shown(text)} is not one of {', '.join(sorted(_SCOPES))}")
    return text


def _discovery(text: str) -> bool:
    if text not in _DISCOVERY:
        raise Refused(f"{shown(text)} is neither pmtudisc nor nopmtudisc")
    return _DISCOVERY[text]


def within(number: int, allowed: Range) -> int:
    """Check a number."""
    if not allowed.low <= number <= allowed.high:
        raise Refused(f"{allowed.what} is a number from {allowed.low} to {allowed.high}, this is {number}")
    return number


def _number(text: str, allowed: Range) -> int:
    if _NUMBER.fullmatch(text) is None:
        what = f"{allowed.what} is a number from {allowed.low} to {allowed.high}"
        raise Refused(f"{what}, this is {shown(text)}")
    return within(int(text), allowed)


class Values:
    """Reads the values of one text; those that come again and again are read once."""

    def __init__(self) -> None:
        self.address: Callable[[str], IPv4Address] = cache(_address)
        self.host: Callable[[str], IPv4Address] = cache(_host)
        self.network: Callable[[str], IPv4Network] = cache(_network)
        self.interface = _interface
        self.name: Callable[[str], str] = cache(link_name)
        self.alias, self.scope, self.discovery = alias_text, scope_text, _discovery
        self.table = self._numbers(TABLE)
        self.protocol = self._numbers(PROTOCOL)
        self.priority = self._numbers(PRIORITY)
        self.metric = self._numbers(METRIC)
        self.ttl = self._numbers(TTL)
        self.mtu = self._numbers(MTU)

    @staticmethod
    def _numbers(allowed: Range) -> Callable[[str], int]:
        return cache(lambda text: _number(text, allowed))
