"""What a failed command means: one table of tool, exit code, action and message.

The messages are those of iproute2 5.15 to 6.1, of nft 1.0 and of Linux 5.15 to 6.18, under LC_ALL=C; what is not in the
table is permanent, so that an unknown failure is shown to a person rather than tried for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from dzagent.model import Action, Result

ANY_ACTION: Final = frozenset(Action)
DELETE: Final = frozenset({Action.DELETE})
ADD: Final = frozenset({Action.ADD})
CHANGE: Final = frozenset({Action.CHANGE})


@dataclass(frozen=True, slots=True)
class Meaning:
    """One line of the table; `code` None stands for any exit code."""

    pattern: str
    result: Result
    actions: frozenset[Action] = field(default=ANY_ACTION)
    tool: str = "ip"
    code: int | None = None

    def fits(self, tool: str, code: int, action: Action, message: str) -> bool:
        """Tell whether this line speaks of such a failure."""
        return (
            tool == self.tool
            and self.code in {None, code}
            and action in self.actions
            and re.search(self.pattern, message) is not None
        )


_ABSENT: Final = (
    r"No such (process|file or directory|device)|Cannot find device|does not exist"
    r"|Address not found|[Dd]evice not found|Cannot assign requested address|Failed to get existing tunnel info"
)

_REFUSED: Final = r"Operation not permitted|Permission denied"

_LATER: Final = (
    r"Device or resource busy|Resource temporarily unavailable|Interrupted|Too many open files"
    r"|No buffer space|Cannot allocate memory|Out of memory|Connection timed out"
)
"""What passes by itself: another's transaction, a full queue, a signal."""

TABLE: Final = (
    # the right to do it will not come by itself, wherever it was missed
    Meaning(_REFUSED, Result.PERMANENT),
    Meaning(_ABSENT, Result.GONE, DELETE),
    Meaning(_ABSENT, Result.RACED, CHANGE),
    Meaning(_ABSENT, Result.TRANSIENT, ADD),
    Meaning(r"File exists|Address already assigned|Invalid scope value", Result.RACED, ADD | CHANGE),
    Meaning(
        r"Nexthop has invalid gateway|Invalid prefsrc address|Gateway can not be a local address",
        Result.TRANSIENT,
        ADD | CHANGE,
    ),
    Meaning(r"Network is (down|unreachable)|No route to host", Result.TRANSIENT),
    Meaning(r"(Nexthop device|[Dd]evice for nexthop) is not up", Result.TRANSIENT),
    Meaning(_LATER, Result.TRANSIENT),
    Meaning(r"Cannot (open|send|talk)|EOF on netlink|Dump (was interrupted|terminated)", Result.TRANSIENT),
    # nft: one transaction, of which all or nothing is done; it reads the rule set before it writes ("cache")
    Meaning(_REFUSED, Result.PERMANENT, tool="nft"),
    Meaning(r"syntax error|unexpected|Protocol not supported", Result.PERMANENT, tool="nft"),
    Meaning(_LATER, Result.TRANSIENT, tool="nft"),
    Meaning(
        r"cache initialization failed|[Nn]etlink (socket|dump)|EOF on netlink", Result.TRANSIENT, tool="nft"
    ),
    Meaning(r"No such file or directory|does not exist", Result.GONE, DELETE, tool="nft"),
    Meaning(r"No such file or directory|does not exist", Result.RACED, ADD | CHANGE, tool="nft"),
    Meaning(r"File exists", Result.RACED, ADD | CHANGE, tool="nft"),
)
"""The first line that fits counts. What no line fits is permanent, such as nft's "Could not process rule: Invalid
argument", unless a signal ended the tool."""

_SEVERITY: Final = (Result.GONE, Result.RACED, Result.TRANSIENT, Result.PERMANENT)


ADVICE: Final = (
    (r"Unknown device type", "the kernel has no GRE: `modprobe ip_gre`, or install its modules"),
    (_REFUSED, "dzagentd needs CAP_NET_ADMIN in this network namespace"),
    (
        r'Option "-\S+" is unknown|BusyBox|(invalid|unrecognized) option',
        "this `ip` cannot print JSON: dzagent needs iproute2 5.15 or later",
    ),
    (r"[Nn]etlink socket: Protocol not supported", "the kernel has no nftables: `modprobe nf_tables`"),
)
"""What a person can do about a failure, by its message."""


def advised(message: str) -> str:
    """Return a message with what to do about it, where that is known."""
    advice = next((text for pattern, text in ADVICE if re.search(pattern, message)), None)
    return message if advice is None else f"{message} ({advice})"


def classify(tool: str, code: int, action: Action, message: str) -> Result:
    """Return what a failed command of a step means; a negative exit code is the signal that killed the tool."""
    for meaning in TABLE:
        if meaning.fits(tool, code, action, message):
            return meaning.result
    return Result.TRANSIENT if code < 0 else Result.PERMANENT


def worst(results: list[Result]) -> Result:
    """Return the result of a step of several lines, of which these failed."""
    return max(results, key=_SEVERITY.index)
