"""GET /v3/status: everything that is known, and how well it is known. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dzagent.api.documents import Agent, Document, IntentFile
from dzagent.config import Config


def full_status(
    config: Config,
    status: Document,
    ledger: Document,
    intent: IntentFile,
    agent: Agent,
    now: float,
    full: str = "",
) -> dict[str, Any]:
    """Return the status document with intent, ledger and the API's own conditions beside it.

    What a reconciler that no longer runs has said is history: its conditions are shown as Unknown.
    full: why what is read may be old, though a reconciler runs.
    """
    document: dict[str, Any] = {**_defaults(config), **status.content}
    conditions = [c for c in _list(document["conditions"]) if isinstance(c, dict)]
    if not agent.running:
        conditions = [_history(condition) for condition in conditions]
    document["conditions"] = [*conditions, *_own_conditions(status, agent)]
    document["services"] = [s for s in _list(document["services"]) if isinstance(s, dict)]
    document["intent"] = _intent(intent)
    document["ledger"] = dict(ledger.content)
    document["agent"] = {"running": agent.running, "message": agent.message}
    document["data_age_seconds"] = _age(ledger.content, now)
    # An agent that asks the ledger nothing has nothing to publish about it.
    unasked = intent.enabled is False and not ledger.content
    document["notes"] = [
        text for text in (status.problem, "" if unasked else ledger.problem, intent.problem, full) if text
    ]
    return document


def _defaults(config: Config) -> dict[str, Any]:
    return {
        "version": 1,
        "enabled": None,
        "mode": config.apply,
        "network": config.network,
        "program_id": config.program_id,
        "client_ip": None,
        "generation": 0,
        "slot": 0,
        "conditions": [],
        "services": [],
        "problems": [],
        "conflicts": [],
        "last_apply": None,
        "last_resync": None,
    }


def _intent(intent: IntentFile) -> dict[str, Any]:
    pinned = None if intent.intent is None else intent.intent.client_ip
    return {
        "reconciler_enabled": intent.enabled,
        "client_ip": None if pinned is None else str(pinned),
        "stamp": intent.stamp,
        "readable": not intent.problem,
        "message": intent.problem,
    }


def _own_conditions(status: Document, agent: Agent) -> list[dict[str, Any]]:
    readable = not status.problem
    return [
        condition("AgentRunning", agent.running, "Running" if agent.running else "NotRunning", agent.message),
        condition(
            "StatusReadable",
            readable,
            "Read" if readable else "Unreadable",
            status.problem or "the agent's status document was read",
        ),
    ]


def condition(kind: str, holds: bool, reason: str, message: str) -> dict[str, Any]:
    """Return a condition of the API itself; it is judged at every request, so it has no last transition."""
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message,
        "last_transition": None,
        "observed_generation": 0,
    }


def _history(old: Mapping[str, Any]) -> dict[str, Any]:
    message = (
        f"dzagentd does not run; it last said {old.get('status')}: {old.get('message') or old.get('reason')}"
    )
    return {**old, "status": "Unknown", "reason": "AgentNotRunning", "message": message}


def _age(ledger: Mapping[str, Any], now: float) -> float | None:
    fetched = ledger.get("fetched_at")
    if isinstance(fetched, bool) or not isinstance(fetched, (int, float)) or fetched <= 0:
        return None
    return round(max(0.0, now - fetched), 1)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
