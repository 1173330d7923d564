"""Changes that no test notices, by module, each with the reason why none can or need (see `mutation.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LIMIT: Final = "how many are enough: one more or less is no decision"
_KIND: Final = "the list holds objects of that kind alone; the condition is for mypy"
_COST: Final = "a short cut: the long way gives the same"
_ENDLESS: Final = "noticed by a loop that comes to no end"

KNOWN: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "dzagent/plan.py": {
        _LIMIT: ("module: 512 -> 513: MAX_EXACT = 512", "module: 8 -> 9: FEW_EXACT = 8"),
    },
    "dzagent/plan_links.py": {
        _KIND: (
            "plan_links: filter left out: "
            "needed = {pair(item.obj) for item in targets.values() if isinstance(item.obj, Link)}",
            "_targets: filter left out: "
            "names = {c.wanted.obj.name for c in part.conflicts if isinstance(c.wanted.obj, Link)}",
        ),
        _ENDLESS: ("_make_links: call left out: pairs.pop(holder, None)",),
    },
    "dzagent/undo.py": {
        "an origin that nobody is shown": (
            'module: 0 -> 1: _ORIGIN = Origin("unicast", "rollback.json", 0)',
        ),
        _KIND: (
            "way_back: filter left out: wanted = [*(link for link in standing if link is not None), *restore]",
            "_limited: filter left out: "
            "addresses=tuple(obj for obj in rest(observed.addresses) if isinstance(obj, Address)),",
            "_limited: filter left out: "
            "routes=tuple(obj for obj in rest(observed.routes) if isinstance(obj, Route)),",
        ),
    },
    "dzagent/ownership.py": {
        "a value that stands for one that is not known, and that nobody is shown": (
            "module: 0 -> 1: _NOWHERE = IPv4Address(0)",
            "as_link: 0 -> 1: return Link("
            "seen.name, _NOWHERE, _NOWHERE, 0, seen.mtu, seen.alias, up=seen.up, extra=extra)",
        ),
    },
    "dzagent/routing.py": {
        _COST: (
            "from_source: filter left out: if item.inverted or number & _MASKS[item.src[0]] == item.src[1]",
        ),
        "no length and no priority is below zero, so -2 means none as -1 does": (
            '_number: 1 -> 2: return int(text) if text.lstrip("-").isdecimal() else -1',
        ),
        "the rules that do not match tell sources apart just as well": (
            "kind_of_source: Eq -> NotEq: if number & _MASKS[item.src[0]] == item.src[1] and item.src[0]",
        ),
        _ENDLESS: (
            "ways_among: call left out: walked.add(start)",
            "ways_among: Continue left out: continue",
        ),
    },
    "dzagent/capture.py": {
        _LIMIT: ("module: 256 -> 257: MAX_POINTS: Final = 256",),
        _COST: ("_first: Continue left out: continue", "_towards: Break left out: break"),
        "no rule tells 0.0.0.1 from 0.0.0.0": ("module: 0 -> 1: _ANY_SOURCE: Final = IPv4Address(0)",),
        "a local route whose protocol nobody asks for": (
            '__init__: 2 -> 3: here = [Route(IPv4Network(ip), None, "lo", LOCAL_TABLE, 2) '
            "for ip in dict.fromkeys(local)]",
        ),
        _ENDLESS: ("turning: AugAssign left out: held += found",),
    },
    "dzagent/journal.py": {
        _LIMIT: ("module: 128 -> 129: MAX_BEGUN: Final = 128",),
        "what the kernel tells of a namespace: two of them can be told apart by root alone": (
            "module: 71 -> 72: _SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h; Linux 5.14",
            'here: 0 -> 1: boot, cookie, inode = "?", 0, 0',
            'here: 0 -> 1: boot, cookie, inode = "?", 0, 0',
            "here: 8 -> 9: cookie = int.from_bytes("
            'probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")',
        ),
        "without claims it is not looked at": ("Entries: False -> True: begun: bool = False",),
        "it costs time and no more: the file is on tmpfs": (
            "_write: False -> True: write_atomic(self._path, data, mode=0o600, durable=False)",
        ),
    },
    "dzagent/contested.py": {
        _LIMIT: (
            "module: 65536 -> 65537: MAX_MADE: Final = 65_536",
            "module: 1000 -> 1001: MAX_COUNTED: Final = 1000",
            "module: 10 -> 11: SWEEPS: Final = 10",
            "_delay: 32 -> 33: pause = min(self.rules.longest, FIRST_DELAY * 2.0 ** min(level - 1, 32))",
        ),
        "how often old counts are dropped: they are pruned before they are used, too": (
            "_sweep: Or -> And: if not self._watched or now - self._swept_at < self.rules.within / SWEEPS:",
            "_sweep: Lt -> LtE: if not self._watched or now - self._swept_at < self.rules.within / SWEEPS:",
            "_sweep: Sub -> Add: if not self._watched or now - self._swept_at < self.rules.within / SWEEPS:",
        ),
    },
}
"""Reason -> the names of the changes, by file; a name stands twice where two changes bear it."""
