"""The closed grammar of the rendered files: lines of `ip -batch` <-> typed objects. Pure.

One fixed form a line, every attribute explicit, and `parse(format_object(x))` is x again. Whatever else
`ip -batch` would take is refused with file and line: nothing reaches the kernel that was not understood here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from dzagent.errors import GrammarError
from dzagent.ipvalues import (
    METRIC,
    MTU,
    PRIORITY,
    PROTOCOL,
    TABLE,
    TTL,
    Refused,
    Values,
    alias_text,
    endpoints,
    link_name,
    mark,
    scope_text,
    usable,
    within,
)
from dzagent.model import Address, KernelObject, Key, Link, Origin, Route, Rule, ServiceName, Wanted, key
from dzagent.nftmodel import NftTable
from dzagent.renderedlines import MAX_LINE, shown, whole_lines

NFT_FILE: Final = "nftables.nft"
"""The rendered file that `nft -f` reads; its lines are those of `nftgrammar`."""

FILES: Final = ("tunnel.ip", "address.ip", "route.ip", NFT_FILE, "rule.ip")
"""The rendered files of a service, in the order in which their objects depend on each other."""

MAX_BYTES: Final = 4 * 1024 * 1024
"""Size of one file: more than 30,000 routes."""


# ---- objects -> text -------------------------------------------------------------------------------------


def format_object(obj: KernelObject) -> tuple[str, ...]:
    """Return the lines that make `obj`: three for a link, one for anything else.

    Raises GrammarError for an object that no desired state has, which is one that `parse` would refuse: with
    `extra` attributes, a number out of range, a name that is not safe, a link that is down, a route without a
    gateway.
    """
    try:
        if obj.extra:
            raise Refused(f"{shown(', '.join(obj.extra))} has no place in the grammar")
        if isinstance(obj, Link):
            return _format_link(obj)
        if isinstance(obj, Address):
            return (_format_address(obj),)
        if isinstance(obj, NftTable):
            raise Refused("tables are written by nftgrammar")
        return (_format_route(obj) if isinstance(obj, Route) else _format_rule(obj),)
    except Refused as refused:
        raise GrammarError(f"{shown(repr(obj))} cannot be written: {refused}") from None


def _format_link(link: Link) -> tuple[str, ...]:
    if not link.up:
        raise Refused("a desired link is up")
    name, alias = link_name(link.name), alias_text(link.alias)
    local, remote = endpoints(link)
    discovery = "pmtudisc" if link.pmtudisc else "nopmtudisc"
    return (
        f"link add name {name} mtu {within(link.mtu, MTU)} type gre local {local} remote {remote} "
        f"ttl {within(link.ttl, TTL)} {discovery}",
        f"link set dev {name} alias {alias}",
        f"link set dev {name} up",
    )


def _format_address(address: Address) -> str:
    usable(address.interface.ip)
    return f"addr add {address.interface} dev {link_name(address.dev)} scope {scope_text(address.scope)}"


def _format_route(route: Route) -> str:
    if route.via is None or route.dev is None:
        raise Refused("a route needs a gateway and a link")
    src = "" if route.src is None else f" src {_TEXTS.of(route.src)}"
    metric = f" metric {within(route.metric, METRIC)}" if route.metric else ""
    return (
        f"route add {route.dst} via {_TEXTS.of(route.via)} dev {link_name(route.dev)}{src} "
        f"table {within(route.table, TABLE)} proto {within(route.protocol, PROTOCOL)}{metric}"
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
        text = str(usable(address))
        self._known[id(address)] = (address, text)
        return text


_TEXTS: Final = _Texts()


def _format_rule(rule: Rule) -> str:
    return (
        f"rule add priority {within(rule.priority, PRIORITY)} from {rule.src} to {rule.dst} "
        f"table {within(rule.table, TABLE)} protocol {within(rule.protocol, PROTOCOL)}"
    )


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
    build: Callable[[tuple[str, ...], Values], _Read]


def _form(usage: str, build: Callable[[tuple[str, ...], Values], _Read]) -> _Form:
    """Make the pattern from the usage: words in capitals are values, what is in brackets may be missing."""
    pattern = re.sub(r"[A-Z]+", r"([^ ]+)", usage)
    pattern = re.sub(r" \[(.*?)\](?= |$)", r"(?: \1)?", pattern.replace("([^ ]+)", "\0"))
    return _Form(usage, re.compile(pattern.replace("\0", "([^ ]+)")), build)


def _build_link(groups: tuple[str, ...], values: Values) -> Link:
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
    endpoints(link)
    return link


def _build_route(groups: tuple[str, ...], values: Values) -> Route:
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


def _build_rule(groups: tuple[str, ...], values: Values) -> Rule:
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


def _read_line(line: str, values: Values) -> _Read:
    if len(line) > MAX_LINE:
        raise Refused(f"a line of {len(line)} characters: at most {MAX_LINE} are allowed")
    verb = " ".join(line.split(" ", 2)[:2])
    forms = _FORMS.get(verb)
    if forms is None:
        raise Refused(f"{shown(line)} is none of: {', '.join(_FORMS)}, a comment that starts with #")
    for form in forms:
        match = form.pattern.fullmatch(line)
        if match is not None:
            return form.build(match.groups(), values)
    raise Refused(f"{shown(line)} is not of the form: {' or: '.join(form.usage for form in forms)}")


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
        self._values = Values()
        self._wanted: list[Wanted] = []
        self._lines: dict[Key, int] = {}
        self._link: Link | None = None
        self._link_line = 0

    def parse(self, text: str) -> tuple[Wanted, ...]:
        for number, line in enumerate(whole_lines(text, self._file, MAX_BYTES), 1):
            if line and line[0] != "#":
                try:
                    self._take(_read_line(line, self._values), number)
                except Refused as refused:
                    raise self._error(str(refused), number) from None
            elif len(line) > MAX_LINE:
                raise self._error(f"a comment of {len(line)} characters: {MAX_LINE} are allowed", number)
        if self._link is not None:
            raise self._error(_missing(self._link), self._link_line)
        return tuple(self._wanted)

    def _take(self, read: _Read, number: int) -> None:
        """Add what a line said; a link is added when its last line was seen."""
        if isinstance(read, (_Alias, _Up)):
            self._continue_link(read)
            return
        if self._link is not None:
            raise Refused(_missing(self._link))
        before = self._lines.setdefault(key(read), number)
        if before != number:
            raise Refused(f"line {before} has made this {type(read).__name__.lower()} already")
        if isinstance(read, Link):
            self._link, self._link_line = read, number
        else:
            self._wanted.append(Wanted(read, Origin(self._service, self._file, number)))

    def _continue_link(self, read: _Alias | _Up) -> None:
        link = self._link
        if link is None or link.name != read.name or bool(link.alias) is isinstance(read, _Alias):
            raise Refused(_ORDER if link is None else _missing(link))
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
