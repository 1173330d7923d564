"""Reading /v3/status and /v3/plan without trusting their shape: another version may have written them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

GOOD_WHEN_FALSE = frozenset(
    {"ConfirmPending", "Conflict", "Contested", "ForeignDaemon", "Held", "LedgerChanged", "LedgerStale"}
)
"""Conditions that name a trouble: good while they are False."""
NO_TROUBLE = frozenset(
    {"Absent", "Disabled", "NoAnswerYet", "NoService", "NotNeeded", "NotTold", "NothingFound"}
)
"""Reasons for an Unknown condition that nobody has to do anything about."""


def text(document: Json, key: str) -> str:
    """Return a text, "" if there is none."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def number(document: Json, key: str) -> float | None:
    """Return a number, None if there is none."""
    value = document.get(key)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


def mapping(document: Json, key: str) -> Json:
    """Return a JSON object, {} if there is none."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def objects(document: Json, key: str) -> list[Json]:
    """Return a list of JSON objects, [] if there is none."""
    value = document.get(key)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def texts(document: Json, key: str) -> list[str]:
    """Return a list of texts, [] if there is none."""
    value = document.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def condition(status: Json, kind: str) -> Json:
    """Return the condition of this type, {} if there is none."""
    return next((c for c in objects(status, "conditions") if text(c, "type") == kind), {})


def holds(status: Json, kind: str) -> bool:
    """Whether the condition of this type is True."""
    return text(condition(status, kind), "status") == "True"


def troubling(found: Json) -> bool:
    """Whether a condition is not as it should be."""
    state = text(found, "status")
    if state == "Unknown":
        return text(found, "reason") not in NO_TROUBLE
    return state != ("False" if text(found, "type") in GOOD_WHEN_FALSE else "True")


def running(status: Json) -> bool:
    """Whether dzagentd runs."""
    return mapping(status, "agent").get("running") is True


def wanted(status: Json) -> bool | None:
    """What a person wants: enabled, disabled, or None if that cannot be read."""
    value = mapping(status, "intent").get("reconciler_enabled")
    return value if isinstance(value, bool) else None


def answered(status: Json) -> bool:
    """Whether dzagentd has seen what a person wants: its document answers to the intent file as it is now."""
    stamp = number(mapping(status, "intent"), "stamp")
    return stamp == number(status, "intent_stamp") and status.get("enabled") is wanted(status)


def undecided(status: Json) -> bool:
    """Whether dzagentd has looked and does not know what is wanted: a lost intent file beside a tunnel of ours."""
    return status.get("enabled") is None and number(status, "intent_stamp") is not None


def torn_down(status: Json) -> bool:
    """Whether dzagentd has seen a disable and nothing of ours is left in the kernel."""
    done = running(status) and answered(status) and status.get("enabled") is False
    return done and not objects(status, "services") and holds(status, "InSync")


def healthy(status: Json) -> bool:
    """Whether nothing is wrong: ready, or disabled on purpose and torn down."""
    if wanted(status) is False:
        return torn_down(status)
    return running(status) and answered(status) and holds(status, "Ready")
