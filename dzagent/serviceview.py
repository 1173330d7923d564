"""One service after a pass: its state, what is wrong with it, what its changes count as. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dzagent.belongs import service_of_step
from dzagent.model import Address, Link, Outcome, ServiceName
from dzagent.passreport import PassReport
from dzagent.status import ServiceView, describe, overlay_of, view_kept, view_service


def view(name: ServiceName, report: PassReport) -> ServiceView | None:
    """Show the service as granted, or as its kept text says; None if there is neither."""
    if name in report.wishes.granted:
        return view_service(report.wishes.granted[name])
    if name not in report.wishes.texts:
        return None
    objects = [w.obj for w in report.desired.wanted if w.origin.service == name]
    link = next((o for o in objects if isinstance(o, Link)), None)
    if link is None:
        return None
    addresses = [o for o in objects if isinstance(o, Address)]
    dz_ip = next((str(a.interface.ip) for a in addresses if a.interface.network.prefixlen == 32), "")
    overlay = next((overlay_of(a.interface) for a in addresses if overlay_of(a.interface)), "")
    labels = _header(report.wishes.texts[name])
    if labels.get("user type") == "IBRL":
        dz_ip = dz_ip or str(link.local)
    return view_kept(name, link, labels, dz_ip, overlay)


def _header(text: Mapping[str, str]) -> dict[str, str]:
    """Return the `# name: value` lines of the rendered files."""
    lines = (
        line[1:].partition(":") for body in text.values() for line in body.splitlines() if line[:1] == "#"
    )
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def error_of(name: ServiceName, report: PassReport, link: str) -> tuple[str, str] | None:
    """Return (code, message) of the most telling reason why this service is not as it should be."""
    if name in report.wishes.kept:
        problem = report.wishes.kept[name]
        return problem.code, problem.message
    for conflict in report.plan.conflicts:
        if conflict.wanted.origin.service == name:
            return (
                "Conflict",
                f"{describe(conflict.wanted.obj)} is held by {conflict.owner}: {conflict.advice}",
            )
    for outcome in report.failing:
        if concerns(outcome, name, link):
            return outcome.result.value.capitalize(), f"{describe(outcome.step.target)}: {outcome.message}"
    for item in report.held:
        if item.step.origin is not None and item.step.origin.service == name:
            return "Held", f"{describe(item.step.target)} is withheld: {item.reason}"
    return None


def concerns(outcome: Outcome, name: ServiceName, link: str) -> bool:
    """Whether this outcome belongs to the service with that link."""
    return service_of_step(outcome.step, {name: link}) == name


def kind_of_change(link: str, report: PassReport) -> str:
    """Name the counter that this pass's changes to a service belong to (upstream: manager/metrics.go)."""
    wanted = any(isinstance(o, Link) and o.name == link for o in report.desired.objects)
    was_there = any(seen.name == link for seen in report.before.links)
    if not wanted:
        return "removals"
    return "updates" if was_there else "provisions"
