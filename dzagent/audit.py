"""One line of the audit log for each change that was tried: what, why, on whose word, by which command, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping

from dzagent.belongs import service_of_step
from dzagent.kernel.commands import preview
from dzagent.model import SERVICE_NAMES, Outcome, ServiceName
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


def audit_line(outcome: Outcome, why: Mapping[ServiceName, str], links: Mapping[ServiceName, str]) -> str:
    """Write one line; `links` are our links by service."""
    step = outcome.step
    service = service_of_step(step, links)
    where = f"; {step.origin}" if step.origin else ""
    cause = f"; {why[service]}" if service is not None and service in why else ""
    said = f": {outcome.message}" if outcome.message else ""
    commands = " && ".join(f"ip {line}" for line in preview(step))
    return (
        f"{step.action.value} {describe(step.target)} ({step.reason}{where}{cause}) "
        f"[{commands}] {outcome.result.value}{said}"
    )
