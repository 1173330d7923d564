"""One line of the audit log for each change that was tried: what, why, on whose word, by which command, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping

from dzagent.belongs import service_of_step
from dzagent.kernel.commands import preview
from dzagent.model import SERVICE_NAMES, Outcome, ServiceName, Step
from dzagent.nftmodel import NftTable
from dzagent.status import describe
from dzagent.wishes import Wishes


def causes(wishes: Wishes, slot: int) -> Mapping[ServiceName, str]:
    """Return on whose word each service is as it is: an account at a slot, a withdrawal, or doubt."""
    found: dict[ServiceName, str] = {}
    for name in SERVICE_NAMES:
        if name in wishes.granted:
            found[name] = f"user {wishes.granted[name].account} at slot {slot}"
        elif name in wishes.kept:
            found[name] = f"kept as it was: {wishes.kept[name].code}"
        elif name in wishes.withdrawn:
            found[name] = wishes.withdrawn[name]
    return found


MAX_COMMANDS = 2_000
"""Characters of the commands of one line: a table of nftables can have thousands of elements."""


def _commands(step: Step) -> str:
    lines = preview(step)
    if isinstance(step.target, NftTable):
        text = f"nft -f - <<< {'; '.join(lines)}"
        return text if len(text) <= MAX_COMMANDS else f"{text[:MAX_COMMANDS]}... ({len(text)} characters)"
    return " && ".join(f"ip {line}" for line in lines)


def audit_line(outcome: Outcome, why: Mapping[ServiceName, str], links: Mapping[ServiceName, str]) -> str:
    """Write one line; `links` are our links by service."""
    step = outcome.step
    service = service_of_step(step, links)
    where = f"; {step.origin}" if step.origin else ""
    cause = f"; {why[service]}" if service is not None and service in why else ""
    said = f": {outcome.message}" if outcome.message else ""
    commands = _commands(step)
    return (
        f"{step.action.value} {describe(step.target)} ({step.reason}{where}{cause}) "
        f"[{commands}] {outcome.result.value}{said}"
    )
