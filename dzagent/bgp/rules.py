"""Which of the routes that a peer announces may be installed. Pure: a prefix, a next hop, the rules, a verdict.

What would capture a protected destination is the guard's business: it depends on the host, and changes with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

from dzagent.bgp.engine import Peer
from dzagent.model import Route

MAX_LISTED: Final = 32
"""Refused routes that are listed one by one; all are counted."""

MARTIANS: Final = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
"""Networks in which no host of somebody else can be."""


@dataclass(frozen=True, slots=True)
class Exclude:
    """What is never installed. hosts: any route that starts at this address (doublezerod's meaning of a plain
    address); networks: any route inside.
    """

    hosts: frozenset[IPv4Address] = frozenset()
    networks: tuple[IPv4Network, ...] = ()

    def __or__(self, other: Exclude) -> Exclude:
        return Exclude(self.hosts | other.hosts, tuple(dict.fromkeys((*self.networks, *other.networks))))


@dataclass(frozen=True, slots=True)
class ImportRules:
    """Limits for what a peer announces. min_length: the shortest prefix. limit: routes of one peer."""

    min_length: int = 16
    limit: int = 25_000
    martians: tuple[IPv4Network, ...] = MARTIANS
    exclude: Exclude = field(default_factory=Exclude)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a route is not installed: `code` is a CamelCase word, `message` one sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Refusals:
    """Refused routes: how many by code, and the first of them with their reasons."""

    counts: Mapping[str, int] = field(default_factory=dict)
    listed: tuple[tuple[str, Refusal], ...] = ()


def summarize(refused: Mapping[str, Refusal]) -> Refusals:
    """Count by code, and list the first ones; both in an order that does not change by itself."""
    counts = Counter(refusal.code for refusal in refused.values())
    first = sorted(refused.items(), key=lambda item: (item[1].code, item[0]))[:MAX_LISTED]
    return Refusals(dict(sorted(counts.items())), tuple(first))


class Judge:
    """The rules for one peer, prepared for many routes."""

    def __init__(self, peer: Peer, rules: ImportRules, protocol: int) -> None:
        self.peer = peer
        self._rules = rules
        self._protocol = protocol
        self._via = f"{peer.remote} on {peer.link}"
        self._martians = [(_first(net), _last(net), net) for net in rules.martians]
        self._excluded = [(_first(net), _last(net), net) for net in rules.exclude.networks]
        overlay = IPv4Network((int(peer.remote) & ~1, 31))
        self._martians.append((_first(overlay), _last(overlay), overlay))
        self._good: dict[str, Route] = {}

    def verdict(self, prefix: str, via: str) -> Route | Refusal:
        """Return the kernel route for an announced one, or why there is none.

        The same route is the same object, so that a flapping one costs little.
        """
        known = self._good.get(prefix) if via == self._via else None
        if known is not None:
            return known
        try:
            network = IPv4Network((_number(prefix), int(prefix.rpartition("/")[2])))
        except ValueError:  # AddressValueError and NetmaskValueError are among them
            return Refusal("Malformed", f"{prefix[:40]!a} is not an IPv4 prefix")
        refusal = self._refuse(network, via)
        if refusal is not None:
            return refusal
        peer = self.peer
        if len(self._good) > 2 * self._rules.limit:
            self._good.clear()
        route = Route(network, peer.remote, peer.link, peer.table, self._protocol, peer.advertise)
        self._good[prefix] = route
        return route

    def full(self) -> Refusal:
        """Return the refusal of a route beyond the limit."""
        return Refusal("TooMany", f"the peer announces more than {self._rules.limit} routes (bgp.max_routes)")

    def _refuse(self, network: IPv4Network, via: str) -> Refusal | None:
        if via != self._via:
            return Refusal("NextHop", f"its next hop is {via or 'not reachable'}, not the peer {self._via}")
        first, last = _first(network), _last(network)
        return self._by_form(network, first, last) or self._by_list(network, first, last)

    def _by_form(self, network: IPv4Network, first: int, last: int) -> Refusal | None:
        if network.prefixlen == 0:
            return Refusal("Default", "a default route from a peer is never installed")
        for low, high, martian in self._martians:
            if first <= high and low <= last:
                return Refusal("Martian", f"it overlaps {martian}, where no host of another user can be")
        if network.prefixlen < self._rules.min_length:
            return Refusal("TooShort", f"shorter than /{self._rules.min_length} (bgp.min_length)")
        return None

    def _by_list(self, network: IPv4Network, first: int, last: int) -> Refusal | None:
        if network.prefixlen == 32 and network.network_address == self.peer.advertise:
            return Refusal("OwnPrefix", "it is this host's own DoubleZero address")
        if network.network_address in self._rules.exclude.hosts:
            return Refusal("Excluded", f"{network.network_address} is in the exclude list")
        for low, high, excluded in self._excluded:
            if low <= first and last <= high:
                return Refusal("Excluded", f"{excluded} is in the exclude list")
        return None


def _number(prefix: str) -> int:
    """Return the address of a prefix as a number: `IPv4Network` takes its time with texts. Raises ValueError."""
    a, b, c, d = map(int, prefix.partition("/")[0].split("."))
    if not (0 <= a <= 255 and 0 <= b <= 255 and 0 <= c <= 255 and 0 <= d <= 255):
        raise ValueError(prefix)
    return a << 24 | b << 16 | c << 8 | d


def _first(network: IPv4Network) -> int:
    return int(network.network_address)


def _last(network: IPv4Network) -> int:
    return int(network.network_address) | (0xFFFFFFFF >> network.prefixlen)


def read_exclude(entries: Iterable[str]) -> Exclude:
    """Read the entries of an exclude list. Raises ValueError with what is wrong, such as host bits that are set."""
    hosts, networks = set(), []
    for entry in entries:
        if "/" not in entry:
            try:
                hosts.add(IPv4Address(entry))
            except AddressValueError as error:
                raise ValueError(f"{entry[:40]!a} is not an IPv4 address such as 192.0.2.1") from error
            continue
        try:
            networks.append(IPv4Network(entry))
        except ValueError as error:
            raise ValueError(f"{entry[:40]!a} is not an IPv4 prefix such as 192.0.2.0/24") from error
    return Exclude(frozenset(hosts), tuple(networks))
