"""Readers of what BIRD prints. Pure. The same text in 2.0.7, 2.0.12, 2.17 and 3.1 (measured).

What cannot be read raises EngineError: it is never taken for "no session" or "no routes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from dzagent.bgp.engine import NO_NEXT_HOP, PeerState, Rib
from dzagent.errors import EngineError

_HEAD: Final = re.compile(
    r"^(?:1002-| )(?P<name>\w+) +BGP +\S+ +(?P<proto>\w+) +(?P<since>\d\S*(?: \d\S*)?)(?: +(?P<info>[^\n]*))?\n",
    re.MULTILINE,
)
_STATE: Final = re.compile(r"^(?:1006-| )  BGP state: +(\w+)", re.MULTILINE)
_ERROR: Final = re.compile(r"^ +Last error: +([^\n]+?) *$", re.MULTILINE)
_RETRY: Final = re.compile(r"^ +(?:Connect delay|Error wait): +([\d.]+)/", re.MULTILINE)
_UPDATES: Final = re.compile(r"^ +Import updates: +(\d+) +(\d+) +\S+ +\S+ +\S+", re.MULTILINE)
_WITHDRAWS: Final = re.compile(r"^ +Import withdraws: +(\d+)", re.MULTILINE)
_IMPORTED: Final = re.compile(r"^ +Routes: +(\d+) imported", re.MULTILINE)
_HIT: Final = re.compile(r"^ +Import limit: +\d+ +\[HIT\]", re.MULTILINE)
_STATES: Final = frozenset(
    {"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close", "Down"}
)

_TIME: Final = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)"
_NOW: Final = re.compile(rf"Current server time is {_TIME}")
_BOOT: Final = re.compile(rf"Last reboot on {_TIME}")
_ISO: Final = "%Y-%m-%d %H:%M:%S.%f"

_ROUTE: Final = re.compile(
    r"^(?:1007-| )((?:(?:0|[1-9]\d{0,2})[./]){4}\d{1,2}) +(\w+) \[[^\n]*\n(?:(?:1007-|1008-| )\tvia ([\d.]+ on \S+)[^\n]*\n)?",
    re.MULTILINE,
)


def read_peers(text: str) -> Mapping[str, PeerState]:
    """Return the BGP sessions in the answer to `show protocols all`, by their names in the engine."""
    heads = list(_HEAD.finditer(text))
    peers = {}
    ends = [*(head.start() for head in heads[1:]), len(text)]
    for head, end in zip(heads, ends, strict=False):
        block = text[head.end() : end]
        peers[head["name"]] = _read_peer(head, block)
    return peers


def _read_peer(head: re.Match[str], block: str) -> PeerState:
    found = _STATE.search(block)
    if found is None or found[1] not in _STATES:
        raise EngineError(f"BIRD shows no BGP state for session {head['name']}: its answer cannot be read")
    error, retry = _ERROR.search(block), _RETRY.search(block)
    up = found[1] == "Established"
    state = "Down" if head["proto"] == "down" else found[1]
    updates, withdraws, refused, imported = _counters(head["name"], block) if up else (0, 0, 0, 0)
    return PeerState(
        state,
        since=head["since"],
        error=error[1] if error else "",
        retry=_seconds(retry[1]) if retry else None,
        updates=updates,
        withdraws=withdraws,
        refused=refused,
        imported=imported,
        full=up and _HIT.search(block) is not None,
    )


def _counters(name: str, block: str) -> tuple[int, int, int, int]:
    """Return updates, withdraws, refused, imported; an established session shows them all."""
    updates, withdraws, imported = _UPDATES.search(block), _WITHDRAWS.search(block), _IMPORTED.search(block)
    if updates is None or withdraws is None or imported is None:
        raise EngineError(f"BIRD shows no counters for session {name}: its answer cannot be read")
    return _count(updates[1]), _count(withdraws[1]), _count(updates[2]), _count(imported[1])


def _count(text: str) -> int:
    return int(text[:20])


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_boot(text: str) -> tuple[str, float]:
    """Return (time of the start as text, age in seconds) from the answer to `show status`."""
    now, boot = _NOW.search(text), _BOOT.search(text)
    if now is None or boot is None:
        raise EngineError("BIRD does not say when it was started: its answer to `show status` cannot be read")
    return boot[1], max(0.0, (_time(now[1]) - _time(boot[1])).total_seconds())


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text if "." in text else f"{text}.0", _ISO)  # noqa: DTZ007 - both are the engine's
    except ValueError as error:
        raise EngineError(f"BIRD shows a time that cannot be read: {text}") from error


def read_routes(text: str) -> Rib:
    """Return prefix -> "ADDRESS on LINK" from the answer to `show route`; "" where it has no next hop."""
    found = _ROUTE.findall(text)
    rib = {prefix: via for prefix, _, via in found}
    lines = text.count("\n") - text.count("\n0000 ") - text.startswith("0000 ") - text.count("-Table ")
    blank = text.count("\n \n") + text.count("\n1007-\n")
    with_via = sum(1 for _, _, via in found if via)
    unread = any(kind == "unicast" and not via for _, kind, via in found)
    if unread or lines != len(found) + with_via + blank or len(rib) != len(found):
        raise EngineError(
            f"BIRD's answer to `show route` cannot be read: {len(found)} routes in {lines} lines"
        )
    return {prefix: via or NO_NEXT_HOP for prefix, via in rib.items()} if "" in rib.values() else rib
