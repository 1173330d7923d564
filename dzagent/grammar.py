"""The closed grammar of the rendered files: lines of `ip -batch` <-> typed objects. Pure.

One fixed form a line, every attribute explicit, and `parse(format_object(x))` is x again. Whatever else
`ip -batch` would take is refused with file and line: nothing reaches the kernel that was not understood here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from dzagent.errors import GrammarError
from dzagent.model import Address, KernelObject, Key, Link, Origin, Route, Rule, ServiceName, Wanted, key
from dzagent.nftmodel import NftTable

MARK_PREFIX: Final = "dzagent:"
"""What the ifalias of our links starts with; the service's name follows."""

NFT_FILE: Final = "nftables.nft"
"""The rendered file that `nft -f` reads; its lines are those of `nftgrammar`."""

FILES: Final = ("tunnel.ip", "address.ip", "route.ip", NFT_FILE, "rule.ip")
"""The rendered files of a service, in the order in which their objects depend on each other."""

MAX_BYTES: Final = 4 * 1024 * 1024
"""Size of one file: more than 30,000 routes."""
MAX_LINES: Final = 65_536
MAX_LINE: Final = 512
"""Characters of one line; the longest command has about 130, the rest is for comments."""

MAX_U32: Final = 2**32 - 1
MIN_MTU: Final = 68
MAX_MTU: Final = 65_511
"""65535 less 24 bytes of outer headers: the kernel cuts a larger one down without a word (ip_tunnel_newlink)."""

_PRINTABLE: Final = re.compile(r"[\n\x20-\x7e]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
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


# ---- objects -> text -------------------------------------------------------------------------------------


def format_object(obj: KernelObject) -> tuple[str, ...]:
    """Return the lines that make `obj`: three for a link, one for anything else.

    Raises GrammarError for an object that no desired state has, which is one that `parse` would refuse: with
    `extra` attributes, a number out of range, a name that is not safe, a link that is down, a route without a
    gateway.
    """
    try:
        if obj.extra:
            raise _Refused(f"{_shown(', '.join(obj.extra))} has no place in the grammar")
        if isinstance(obj, Link):
            return _format_link(obj)
        if isinstance(obj, Address):
            return (_format_address(obj),)
        if isinstance(obj, NftTable):
            raise _Refused("tables are written by nftgrammar")
        return (_format_route(obj) if isinstance(obj, Route) else _format_rule(obj),)
    except _Refused as refused:
        raise GrammarError(f"{_shown(repr(obj))} cannot be written: {refused}") from None


def _format_link(link: Link) -> tuple[str, ...]:
    if not link.up:
        raise _Refused("a desired link is up")
    name, alias = _name(link.name), _alias(link.alias)
    local, remote = _endpoints(link)
    discovery = "pmtudisc" if link.pmtudisc else "nopmtudisc"
    return (
        f"link add name {name} mtu {_within(link.mtu, _MTU)} type gre local {local} remote {remote} "
        f"ttl {_within(link.ttl, _TTL)} {discovery}",
        f"link set dev {name} alias {alias}",
        f"link set dev {name} up",
    )


def _format_address(address: Address) -> str:
    _usable(address.interface.ip)
    return f"addr add {address.interface} dev {_name(address.dev)} scope {_scope(address.scope)}"


def _format_route(route: Route) -> str:
    if route.via is None or route.dev is None:
        raise _Refused("a route needs a gateway and a link")
    src = "" if route.src is None else f" src {_TEXTS.of(route.src)}"
    metric = f" metric {_within(route.metric, _METRIC)}" if route.metric else ""
    return (
        f"route add {route.dst} via {_TEXTS.of(route.via)} dev {_name(route.dev)}{src} "
        f"table {_within(route.table, _TABLE)} proto {_within(route.protocol, _PROTOCOL)}{metric}"
    )


class _Texts:
    """Texts of usable addresses by identity: thousands of routes share one gateway and one source."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[IPv4Address, str]] = {}

    def of(self, address: IPv4Address) -> str:
        known = self._known.get(id(address))
        if known is not None and known[0] is address:
            return known[1]
        if len(self._known) > 64:
            self._known.clear()
        text = str(_usable(address))
        self._known[id(address)] = (address, text)
        return text


_TEXTS: Final = _Texts()


def _format_rule(rule: Rule) -> str:
    return (
        f"rule add priority {_within(rule.priority, _PRIORITY)} from {rule.src} to {rule.dst} "
        f"table {_within(rule.table, _TABLE)} protocol {_within(rule.protocol, _PROTOCOL)}"
    )


# ---- values ----------------------------------------------------------------------------------------------


class _Refused(Exception):
    """Why a line or an object is outside the grammar."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers that may stand somewhere; `what` names them for people."""

    what: str
    low: int
    high: int


_LENGTH: Final = _Range("a prefix length", 0, 32)
_TABLE: Final = _Range("a table", 1, MAX_U32)
_PROTOCOL: Final = _Range("a protocol", 1, 255)
_PRIORITY: Final = _Range("a priority", 1, MAX_U32)
_METRIC: Final = _Range("a metric", 1, MAX_U32)
_TTL: Final = _Range("a TTL", 1, 255)
_MTU: Final = _Range("an MTU", MIN_MTU, MAX_MTU)


def _shown(text: str) -> str:
    """Quote what a file said, cut to a length that a person can read."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def _address(text: str) -> IPv4Address:
    """Read one form of an IPv4 address: four decimal numbers without leading zeros."""
    if _ADDRESS.fullmatch(text) is None:
        raise _Refused(f"{_shown(text)} is not an IPv4 address such as 192.0.2.1")
    return IPv4Address(text)


def _usable(address: IPv4Address) -> IPv4Address:
    """Check an address that something has: 0.0.0.0 would mean "none" to the kernel."""
    if address == _UNSPECIFIED:
        raise _Refused("0.0.0.0 means no address here: write the address")
    return address


def _host(text: str) -> IPv4Address:
    return _usable(_address(text))


def _endpoints(link: Link) -> tuple[IPv4Address, IPv4Address]:
    """Check the ends of a tunnel; GRE to a group, to 0.0.0.0 or to itself is another kind of tunnel."""
    for end in (link.local, link.remote):
        if _usable(end).is_multicast or end == _BROADCAST:
            raise _Refused(f"{end} cannot be an end of a tunnel: a unicast address is needed")
    if link.local == link.remote:
        raise _Refused(f"both ends of the tunnel are {link.local}")
    return link.local, link.remote


def _split_prefix(text: str) -> tuple[IPv4Address, int]:
    address, slash, length = text.partition("/")
    if not slash:
        raise _Refused(f"{_shown(text)} has no prefix length: write it, as in 192.0.2.1/32")
    return _address(address), _number(length, _LENGTH)


def _network(text: str) -> IPv4Network:
    address, length = _split_prefix(text)
    number = int(address)
    if number & (MAX_U32 >> length):
        network = IPv4Network((number, length), strict=False)
        raise _Refused(f"{text} has host bits set: the network is {network}")
    return IPv4Network((number, length))


def _interface(text: str) -> IPv4Interface:
    address, length = _split_prefix(text)
    return IPv4Interface((int(_usable(address)), length))


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise _Refused(
            f"{_shown(text)} is not a link name: 1 to 15 letters, digits, '_', '.', '-', not starting with . or -"
        )
    return text


def _alias(text: str) -> str:
    if _ALIAS.fullmatch(text) is None:
        raise _Refused(f"{_shown(text)} is not an alias such as {mark('unicast')}")
    return text


def _scope(text: str) -> str:
    if text not in _SCOPES:
        raise _Refused(f"scope {_shown(text)} is not one of {', '.join(sorted(_SCOPES))}")
    return text


def _discovery(text: str) -> bool:
    if text not in _DISCOVERY:
        raise _Refused(f"{_shown(text)} is neither pmtudisc nor nopmtudisc")
    return _DISCOVERY[text]


def _within(number: int, allowed: _Range) -> int:
    if not allowed.low <= number <= allowed.high:
        raise _Refused(f"{allowed.what} is a number from {allowed.low} to {allowed.high}, this is {number}")
    return number


def _number(text: str, allowed: _Range) -> int:
    if _NUMBER.fullmatch(text) is None:
        what = f"{allowed.what} is a number from {allowed.low} to {allowed.high}"
        raise _Refused(f"{what}, this is {_shown(text)}")
    return _within(int(text), allowed)


class _Values:
    """Reads the values of one text; those that come again and again are read once."""

    def __init__(self) -> None:
        self.address: Callable[[str], IPv4Address] = cache(_address)
        self.host: Callable[[str], IPv4Address] = cache(_host)
        self.network: Callable[[str], IPv4Network] = cache(_network)
        self.interface = _interface
        self.name: Callable[[str], str] = cache(_name)
        self.alias, self.scope, self.discovery = _alias, _scope, _discovery
        self.table = self._numbers(_TABLE)
        self.protocol = self._numbers(_PROTOCOL)
        self.priority = self._numbers(_PRIORITY)
        self.metric = self._numbers(_METRIC)
        self.ttl = self._numbers(_TTL)
        self.mtu = self._numbers(_MTU)

    @staticmethod
    def _numbers(allowed: _Range) -> Callable[[str], int]:
        return cache(lambda text: _number(text, allowed))


# ---- lines -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Alias:
    """Second line of a link."""

    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class _Up:
    """Third line of a link."""

    name: str


_Read = KernelObject | _Alias | _Up


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of a line: `usage` for people, the pattern it has, and what is made of its values."""

    usage: str
    pattern: re.Pattern[str]
    build: Callable[[tuple[str, ...], _Values], _Read]


def _form(usage: str, build: Callable[[tuple[str, ...], _Values], _Read]) -> _Form:
    """Make the pattern from the usage: words in capitals are values, what is in brackets may be missing."""
    pattern = re.sub(r"[A-Z]+", r"([^ ]+)", usage)
    pattern = re.sub(r" \[(.*?)\](?= |$)", r"(?: \1)?", pattern.replace("([^ ]+)", "\0"))
    return _Form(usage, re.compile(pattern.replace("\0", "([^ ]+)")), build)


def _build_link(groups: tuple[str, ...], values: _Values) -> Link:
    name, mtu, local, remote, ttl, discovery = groups
    link = Link(
        name=values.name(name),
        local=values.address(local),
        remote=values.address(remote),
        ttl=values.ttl(ttl),
        mtu=values.mtu(mtu),
        alias="",
        pmtudisc=values.discovery(discovery),
    )
    _endpoints(link)
    return link


def _build_route(groups: tuple[str, ...], values: _Values) -> Route:
    dst, via, dev, src, table, protocol, metric = groups
    return Route(
        values.network(dst),
        values.host(via),
        values.name(dev),
        values.table(table),
        values.protocol(protocol),
        None if src is None else values.host(src),
        0 if metric is None else values.metric(metric),
    )


def _build_rule(groups: tuple[str, ...], values: _Values) -> Rule:
    priority, src, dst, table, protocol = groups
    return Rule(
        values.priority(priority),
        values.network(src),
        values.network(dst),
        values.table(table),
        values.protocol(protocol),
    )


_FORMS: Final[Mapping[str, tuple[_Form, ...]]] = {
    "link add": (
        _form(
            "link add name LINK mtu MTU type gre local ADDRESS remote ADDRESS ttl TTL DISCOVERY", _build_link
        ),
    ),
    "link set": (
        _form("link set dev LINK alias ALIAS", lambda g, v: _Alias(v.name(g[0]), v.alias(g[1]))),
        _form("link set dev LINK up", lambda g, v: _Up(v.name(g[0]))),
    ),
    "addr add": (
        _form(
            "addr add PREFIX dev LINK scope SCOPE",
            lambda g, v: Address(v.name(g[1]), v.interface(g[0]), v.scope(g[2])),
        ),
    ),
    "route add": (
        _form(
            "route add PREFIX via ADDRESS dev LINK [src ADDRESS] table TABLE proto PROTOCOL [metric METRIC]",
            _build_route,
        ),
    ),
    "rule add": (
        _form("rule add priority PRIORITY from PREFIX to PREFIX table TABLE protocol PROTOCOL", _build_rule),
    ),
}


def _read_line(line: str, values: _Values) -> _Read:
    if len(line) > MAX_LINE:
        raise _Refused(f"a line of {len(line)} characters: at most {MAX_LINE} are allowed")
    verb = " ".join(line.split(" ", 2)[:2])
    forms = _FORMS.get(verb)
    if forms is None:
        raise _Refused(f"{_shown(line)} is none of: {', '.join(_FORMS)}, a comment that starts with #")
    for form in forms:
        match = form.pattern.fullmatch(line)
        if match is not None:
            return form.build(match.groups(), values)
    raise _Refused(f"{_shown(line)} is not of the form: {' or: '.join(form.usage for form in forms)}")


# ---- text -> objects -------------------------------------------------------------------------------------


def parse(text: str, file: str, service: ServiceName) -> tuple[Wanted, ...]:
    """Return the objects of one rendered file, in its order.

    file: how messages and origins name it, such as "unicast/route.ip". A link's origin is its first line.
    Raises GrammarError with file and line for anything outside the grammar, for a link whose three lines are not
    together and complete, and for two objects that the kernel could not hold both.
    """
    return _Parser(file, service).parse(text)


class _Parser:
    """Reads one file: what is pending is the link whose lines have not all been seen."""

    def __init__(self, file: str, service: ServiceName) -> None:
        self._file = file
        self._service = service
        self._values = _Values()
        self._wanted: list[Wanted] = []
        self._lines: dict[Key, int] = {}
        self._link: Link | None = None
        self._link_line = 0

    def parse(self, text: str) -> tuple[Wanted, ...]:
        for number, line in enumerate(self._split(text), 1):
            if line and line[0] != "#":
                try:
                    self._take(_read_line(line, self._values), number)
                except _Refused as refused:
                    raise self._error(str(refused), number) from None
            elif len(line) > MAX_LINE:
                raise self._error(f"a comment of {len(line)} characters: {MAX_LINE} are allowed", number)
        if self._link is not None:
            raise self._error(_missing(self._link), self._link_line)
        return tuple(self._wanted)

    def _split(self, text: str) -> list[str]:
        """Return the lines. The last one must be ended: what is cut off may be valid, and wrong."""
        if len(text) > MAX_BYTES:
            raise self._error(f"{len(text)} characters: at most {MAX_BYTES} are allowed", None)
        good = _PRINTABLE.match(text)
        if good is not None and good.end() != len(text):
            number = text.count("\n", 0, good.end()) + 1
            raise self._error(
                f"the character {text[good.end()]!a} is not allowed: only printable ASCII is", number
            )
        lines = text.split("\n")
        if lines.pop():
            raise self._error("the last line has no line feed: the file may be cut off", len(lines) + 1)
        if len(lines) > MAX_LINES:
            raise self._error(f"{len(lines)} lines: at most {MAX_LINES} are allowed", None)
        return lines

    def _take(self, read: _Read, number: int) -> None:
        """Add what a line said; a link is added when its last line was seen."""
        if isinstance(read, (_Alias, _Up)):
            self._continue_link(read)
            return
        if self._link is not None:
            raise _Refused(_missing(self._link))
        before = self._lines.setdefault(key(read), number)
        if before != number:
            raise _Refused(f"line {before} has made this {type(read).__name__.lower()} already")
        if isinstance(read, Link):
            self._link, self._link_line = read, number
        else:
            self._wanted.append(Wanted(read, Origin(self._service, self._file, number)))

    def _continue_link(self, read: _Alias | _Up) -> None:
        link = self._link
        if link is None or link.name != read.name or bool(link.alias) is isinstance(read, _Alias):
            raise _Refused(_ORDER if link is None else _missing(link))
        if isinstance(read, _Alias):
            self._link = Link(
                link.name, link.local, link.remote, link.ttl, link.mtu, read.alias, link.pmtudisc
            )
        else:
            self._wanted.append(Wanted(link, Origin(self._service, self._file, self._link_line)))
            self._link = None

    def _error(self, message: str, line: int | None) -> GrammarError:
        return GrammarError(message, file=self._file, line=line)


_ORDER = "this line belongs to a link: its `link add` line, alias line and up line follow each other"


def _missing(link: Link) -> str:
    rest = "up" if link.alias else f"alias {mark('unicast')}"
    return f"link {link.name} is not complete: `link set dev {link.name} {rest}` must be its next line"
