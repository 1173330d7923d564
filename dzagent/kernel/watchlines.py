"""What a line of `ip monitor` says may have changed: pure functions from text to `Touched`.

A line is a hint and never believed: it only says what to read again. The form is that of `OPTIONS` (iproute2 5.15 to
6.1): the kind in brackets, "Deleted" where it is, and for a route its type as a number, prefix and attributes.

    [ROUTE]Deleted 1 198.18.0.1 via 169.254.0.4 dev doublezero0 table 254 proto 210 scope 0 src 198.51.100.7

The kernel is silent about routes that vanish with a link, its state or an address: such lines touch all routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Final

from dzagent.kernel.held import ANY, Held, Slot
from dzagent.model import MAIN_TABLE, Interest, Route

OPTIONS: Final = ("-4", "-N", "-o", "-d", "-rcvbuf", "8388608", "monitor")
"""Arguments of `ip`: IPv4, numbers, one line an event, every attribute. A larger buffer rides out longer storms."""

OBJECTS: Final = ("label", "link", "address", "route", "rule")
"""What is monitored, each line labelled with its kind."""

MAX_KEYS: Final = 20_000
"""Routes that are remembered one by one between two looks; beyond that all are read again."""

_DEFAULT: Final[Slot] = (MAIN_TABLE, ANY)

_LOST: Final = b"netlink receive error"
"""What `ip monitor` says when events were lost (ENOBUFS), before it goes on."""

_ROUTE: Final = re.compile(rb"\[ROUTE\](?:Deleted )?\d+ (\S+) ([^\n]*)")
_TABLE: Final = re.compile(r" table (\d+)")
_PLAIN: Final = re.compile(
    r"\[ROUTE\](Deleted )?1 (\S+) via (\S+) dev (\S+) table (\d+) proto (\d+) scope 0(?: src (\S+))? *"
)
_DEVICE: Final = re.compile(r"\[\w+\](?:Deleted )?\d+: ([^\s:@]+)")


@dataclass(frozen=True, slots=True)
class Touched:
    """What may differ from the last look. `slots` are routes, each with the last line about it if that tells all.

    tables: nftables, of which no line tells more. ours: whether one of the links, addresses and rules is ours, or the routes are.
    beside: routes of others in our tables, or on the way to an end of a tunnel, of which nothing is read again here.
    """

    links: bool = False
    addresses: bool = False
    rules: bool = False
    routes: bool = False
    slots: Mapping[Slot, str | None] = field(default_factory=dict)
    ours: bool = False
    tables: bool = False
    beside: bool = False

    def __bool__(self) -> bool:
        """Tell whether anything is touched."""
        return self.around or self.tables or bool(self.slots)

    @property
    def around(self) -> bool:
        """Whether others may have come into our places, or left them."""
        return (
            self.beside or self.links or self.addresses or self.rules or self.routes or _DEFAULT in self.slots
        )

    @property
    def everything(self) -> bool:
        """Whether nothing that is known still counts."""
        return self.links and self.addresses and self.rules and self.routes

    @property
    def urgent(self) -> bool:
        """Whether something of ours is touched, and not only what is anybody's."""
        return self.ours or any(slot != _DEFAULT for slot in self.slots)

    def __or__(self, later: Touched) -> Touched:
        """Return both; of two lines about a route the later one counts."""
        slots = dict(self.slots)
        for slot, line in later.slots.items():
            slots[slot] = None if slots.get(slot, "") is None else line
        many = len(slots) > MAX_KEYS
        return Touched(
            self.links or later.links,
            self.addresses or later.addresses,
            self.rules or later.rules,
            self.routes or later.routes or many,
            {} if many else slots,
            self.ours or later.ours or many,
            self.tables or later.tables,
            self.beside or later.beside,
        )


NOTHING: Final = Touched()
EVERYTHING: Final = Touched(links=True, addresses=True, rules=True, routes=True, ours=True, tables=True)


class Lines:
    """Judges the output of `ip monitor` by what the agent is interested in.

    Storms of foreign routes cost little: only what may concern us is taken apart.
    """

    def __init__(self, interest: Interest, held: Held | None = None) -> None:
        """Judge by an interest, and by the routes of ours that the kernel holds, which somebody else may replace."""
        self._links = frozenset(interest.links)
        self._held = held or Held()
        self._exact = frozenset((_DEFAULT, *interest.exact))
        self._numbers = frozenset(int(dst.network_address) for _, dst in self._exact)
        self._mark = b" proto %d " % interest.protocol
        self._protocol = f" proto {interest.protocol} "
        tables = b"|".join(b"%d" % table for table in interest.tables)
        self._tables = re.compile(rb" table (?:%s)\b" % tables if tables else rb"(?!)")
        # the first address of every prefix that holds an end of a tunnel
        self._ways = frozenset(int(end) >> bits << bits for end in interest.ends for bits in range(33))

    def judge(self, lines: bytes) -> Touched:
        """Return what whole lines touch."""
        if _LOST in lines:
            return EVERYTHING
        slots: dict[Slot, str | None] = {}
        beside = False
        for found in _ROUTE.finditer(lines):
            number, marked = _number(found[1]), self._mark in found[2] + b" "
            beside |= not marked and (number in self._ways or self._tables.search(found[2]) is not None)
            if number in self._numbers or number in self._held.numbers or marked:
                self._route(found[0].decode(errors="replace"), found[1].decode(errors="replace"), slots)
        routes = len(slots) > MAX_KEYS
        touched = Touched(routes=routes, slots={} if routes else slots, ours=routes, beside=beside)
        if b"[RULE]" in lines or b"[ADDR]" in lines or b"[LINK]" in lines:
            for line in lines.split(b"\n"):
                touched |= self._other(line)
        return touched

    def _route(self, line: str, prefix: str, slots: dict[Slot, str | None]) -> None:
        dst = _network(prefix)
        if dst is None:
            return
        table = _TABLE.search(line)
        slot = (int(table[1]) if table else MAIN_TABLE, dst)
        if slot in self._exact or self._held.at(slot) or self._protocol in f"{line} ":
            plain = _PLAIN.fullmatch(line) is not None
            slots[slot] = line if plain and slots.get(slot, "") is not None else None

    def _other(self, line: bytes) -> Touched:
        """Judge a line that is not about a route."""
        if line.startswith(b"[RULE]"):
            return Touched(rules=True, ours=self._mark in line + b" ")
        if line.startswith(b"[ADDR]"):
            return Touched(addresses=True, routes=True, ours=_device(line) in self._links)
        if line.startswith(b"[LINK]"):
            ours = _device(line) in self._links
            return Touched(links=True, addresses=ours, routes=ours, ours=ours)
        return NOTHING


def is_known(line: str | None, held: Route | None, protocol: int) -> bool:
    """Tell whether a line about a plain route of ours says just what the last look (or our own write) holds.

    protocol: our number. A route of somebody else that is gone tells nothing of ours.
    """
    found = None if line is None else _PLAIN.fullmatch(line)
    if found is None or int(found[6]) != protocol:
        return False
    if found[1]:
        return held is None
    if held is None or held.metric or held.extra:
        return False
    said = (found[3], found[4], int(found[6]), found[7])
    return said == (str(held.via), held.dev, held.protocol, None if held.src is None else str(held.src))


def _number(prefix: bytes) -> int:
    """Return the first address of a prefix, -1 for what is none."""
    if prefix == b"default":
        return 0
    try:
        return int.from_bytes(bytes(map(int, prefix.partition(b"/")[0].split(b"."))), "big")
    except ValueError:
        return -1


@lru_cache(maxsize=32_768)
def _network(text: str) -> IPv4Network | None:
    try:
        return ANY if text == "default" else IPv4Network(text)
    except ValueError:
        return None


def _device(line: bytes) -> str:
    found = _DEVICE.match(line.decode(errors="replace"))
    return "" if found is None else found[1]
