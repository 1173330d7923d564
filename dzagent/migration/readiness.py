"""Whether dzagentd is ready to take over: from its status document. Pure, but for the question to the engine."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

READY: Final = frozenset(
    {"DoublezerodRuns", "MigrationUnfinished", "HandedBack", "Conflict", "Held", "StepsLeft", "Waiting", "SessionDown",
     "Provisioned"}
)  # fmt: skip
"""Reasons of the condition Ready with which dzagentd knows what this host should have."""

NOT_RUNNING: Final = "dzagentd does not run: start it (systemctl start dzagentd); while doublezerod runs it only looks, and changes nothing"
NO_API: Final = (
    "the API does not answer: start it and dzagentd (systemctl start dzagentd dzagent-api.socket); while doublezerod "
    "runs they only look, and change nothing"
)
DISABLED: Final = (
    "dzagentd is disabled, so it does not know what this host should have: `dzagent enable` (while doublezerod runs it "
    "only looks, and changes nothing)"
)
NO_ENGINE: Final = "no BGP engine answers at {}: start it (systemctl start dzagent-bird), or the learned routes would be lost"


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found = (c for c in status.get("conditions", ()) if isinstance(c, dict) and c.get("type") == kind)
    return next(found, {})


def ready_reason(status: Mapping[str, Any]) -> tuple[str, str]:
    """Return reason and message of the condition Ready, ("", "") without one."""
    ready = _condition(status, "Ready")
    return str(ready.get("reason", "")), str(ready.get("message", ""))


def knows(status: Mapping[str, Any]) -> bool:
    """Tell whether dzagentd knows what this host should have."""
    return ready_reason(status)[0] in READY and bool(status.get("services"))


def not_ready(status: Mapping[str, Any], *, running: bool, enabled: bool | None) -> tuple[str, ...]:
    """Say why dzagentd could not take over now, () if it could."""
    if not running:
        return (NOT_RUNNING,)
    if enabled is not True:
        return (DISABLED,)
    if status.get("mode") == "observe":
        return (
            "the configuration says apply: observe, so that dzagentd would never take over: change it first",
        )
    if _condition(status, "ConfirmPending").get("status") == "True":
        return (
            "a change waits for its confirmation, and would be rolled back meanwhile: `dzagent confirm` it first",
        )
    reason, message = ready_reason(status)
    if reason not in READY:
        return (
            f"dzagentd does not know yet what this host should have ({reason or 'no status'}): {message}",
        )
    return ()


def engine_answers(path: Path) -> bool:
    """Tell whether somebody listens on the engine's control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True
