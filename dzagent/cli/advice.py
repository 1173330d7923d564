"""What to do about a condition that is not as it should be. Pure."""

from __future__ import annotations

from dzagent.cli.document import Json, text

_BY_CONDITION = {
    "AgentRunning": "what it has set up stays in place; start it: systemctl start dzagentd",
    "StatusReadable": "restart the agent: systemctl restart dzagentd",
    "IntentReadable": "say what you want again: `dzagent enable` or `dzagent disable`",
    "IdentityKnown": "set client_ip in the configuration, or `dzagent enable --client-ip IP`",
    "LedgerReachable": "what works stays; look at rpc in the configuration and at this host's network",
    "LedgerStale": "what the services then do is ledger.stale of the policy; look at rpc in the configuration",
    "LedgerChanged": "if the ledger was replaced on purpose: `dzagent ledger forget`",
    "ClockRight": "set this host's clock",
    "Watching": "what is deleted comes back within seconds; see the log of dzagentd",
    "Rendered": "what works stays; correct the file that is named",
    "InSync": "`dzagent plan` shows the steps that are left",
    "Conflict": "`dzagent plan` names the owner; remove or rename that object",
    "Firewall": "`dzagent plan` shows what nft is told",
    "Journaled": "repairs go on; make room in /run, or make it writable",
    "Held": "`dzagent plan` shows what is withheld and why",
    "StateMigrated": "say what you want: `dzagent enable` or `dzagent disable`",
    "ConfirmPending": "look whether everything you need still works, then confirm it",
    "Contested": "find out what else changes these objects: `dzagent events`",
}


def with_advice(message: str, what_to_do: str) -> str:
    """Return a message with what to do about it behind it, unless it says so itself."""
    message = message.rstrip(".")
    return f"{message}; {what_to_do}" if what_to_do and what_to_do not in message else message


def advice(condition: Json, status: Json) -> str:
    """Return one sentence, "" if there is nothing to say."""
    kind, reason = text(condition, "type"), text(condition, "reason")
    if kind == "Ready":
        return _for_ready(reason, status)
    if (kind == "InSync" and reason in {"Waiting", "Held"}) or "`dzagent approve" in text(
        condition, "message"
    ):
        return ""  # its message says how to go on
    return _BY_CONDITION.get(kind, "")


def _for_ready(reason: str, status: Json) -> str:
    if reason == "Disabled":
        return "`dzagent enable` sets up what the ledger grants"
    if reason == "NoService":
        return (
            f"a user account for client IP {text(status, 'client_ip') or '(unknown)'} must be activated on "
            f"{text(status, 'network') or 'the network'}"
        )
    return ""
