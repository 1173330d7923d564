"""The status document: what dzagentd knows, as the JSON that the API and the command line show. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dzagent.conditions import Condition
from dzagent.contested import Fight
from dzagent.held import Held
from dzagent.kernel.commands import preview
from dzagent.ledger.accounts import NO_KEY, User
from dzagent.ledger.snapshot import Snapshot
from dzagent.model import (
    Address,
    Conflict,
    KernelObject,
    Link,
    Plan,
    Problem,
    Route,
    Rule,
    Service,
    ServiceName,
    Step,
)
from dzagent.nftmodel import NftTable
from dzagent.nftview import describe_table
from dzagent.plan_links import printable

PENDING = "Pending BGP Session"
"""The session text of doublezerod for a session that is not established (bgp/plugin.go)."""


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest reason why a service is not as it should be; `since` is unix seconds."""

    code: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service as status shows it: what is granted or kept, and whether its link is in the kernel."""

    name: ServiceName
    link: str
    user_type: str = ""
    tunnel_src: str = ""
    tunnel_dst: str = ""
    dz_ip: str = ""
    overlay: str = ""
    account: str = ""
    device: str = ""
    provisioned: bool = False
    last_error: LastError | None = None


def view_service(service: Service) -> ServiceView:
    """Show a granted service."""
    return ServiceView(
        service.name,
        service.link,
        service.user_type.label,
        str(service.tunnel_src),
        str(service.tunnel_dst),
        "" if service.dz_ip is None else str(service.dz_ip),
        str(service.overlay),
        service.account,
        service.device,
    )


def view_kept(
    name: ServiceName, link: Link, labels: Mapping[str, str], dz_ip: str, overlay: str
) -> ServiceView:
    """Show a service that is kept from its rendered text: `labels` are the lines of the files' header."""
    return ServiceView(
        name,
        link.name,
        labels.get("user type", ""),
        str(link.local),
        str(link.remote),
        dz_ip,
        overlay,
        labels.get("user", ""),
        labels.get("device", ""),
    )


NO_SESSION: dict[str, Any] = {"status": PENDING, "last_update": 0}
"""A session of which nothing is known yet."""


def service_json(
    view: ServiceView, snapshot: Snapshot | None, session: Mapping[str, Any] = NO_SESSION
) -> dict[str, Any]:
    """Return the status entry of one service, with the labels that the ledger has for it."""
    return {
        "name": view.name,
        "user_type": view.user_type,
        "tunnel_name": view.link,
        "tunnel_src": view.tunnel_src,
        "tunnel_dst": view.tunnel_dst,
        "doublezero_ip": view.dz_ip,
        "overlay": view.overlay,
        "account": view.account,
        "device_pk": view.device,
        **_labels(view, snapshot),
        "provisioned": view.provisioned,
        "session": dict(session),
        "last_error": asdict(view.last_error) if view.last_error else None,
    }


def _labels(view: ServiceView, snapshot: Snapshot | None) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "current_device": "",
        "metro": "",
        "tenant": "",
        "multicast_groups": {"publisher": [], "subscriber": []},
        "subscriptions": [],
    }
    if snapshot is None:
        return empty
    device = snapshot.devices.get(view.device)
    exchange = snapshot.exchanges.get(device.exchange_pk) if device else None
    user = snapshot.users.get(view.account)
    tenant = snapshot.tenants.get(user.tenant_pk) if user and user.tenant_pk != NO_KEY else None
    return {
        "current_device": device.code if device else "",
        "metro": exchange.name if exchange else "",
        "tenant": tenant.code if tenant else "",
        **(_groups(user, snapshot) if user else {k: empty[k] for k in ("multicast_groups", "subscriptions")}),
    }


def _groups(user: User, snapshot: Snapshot) -> dict[str, Any]:
    def codes(keys: Iterable[str]) -> list[str]:
        return [snapshot.groups[key].code for key in dict.fromkeys(keys) if key in snapshot.groups]

    every = dict.fromkeys([*user.publishers, *user.subscribers])
    return {
        "multicast_groups": {"publisher": codes(user.publishers), "subscriber": codes(user.subscribers)},
        "subscriptions": [
            {
                "pubkey": key,
                "code": group.code,
                "multicast_ip": str(group.multicast_ip),
                "max_bandwidth": group.max_bandwidth,
                "publisher": key in user.publishers,
                "subscriber": key in user.subscribers,
            }
            for key in every
            if (group := snapshot.groups.get(key)) is not None
        ],
    }


def condition_json(condition: Condition) -> dict[str, Any]:
    """Return one condition, keys as Kubernetes names them (in snake case)."""
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "last_transition": condition.since,
        "observed_generation": condition.generation,
    }


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return one problem."""
    return {
        "code": problem.code,
        "message": problem.message,
        "service": problem.service,
        "account": problem.account,
    }


def conflict_json(conflict: Conflict) -> dict[str, Any]:
    """Return one conflict: what we want, who holds it, what to do."""
    return {
        "object": describe(conflict.wanted.obj),
        "origin": str(conflict.wanted.origin),
        "owner": conflict.owner,
        "advice": conflict.advice,
    }


def fight_json(fight: Fight, suspects: Sequence[str]) -> dict[str, Any]:
    """Return one contested object: what it is, how often it was repaired of late, who may be behind it."""
    return {
        "object": describe(fight.step.target),
        "repairs": fight.count,
        "rival": fight.rival,
        "suspects": list(suspects),
    }


def plan_json(plan: Plan, held: Sequence[Held], mode: str, made_at: float) -> dict[str, Any]:
    """Return the plan document: steps with their reasons, and the commands exactly as they would run.

    A step that has no safe command is shown with a comment in its place: the document is told in any case.
    """
    return {
        "id": plan.id,
        "mode": mode,
        "made_at": made_at,
        "steps": [_step_json(n, step) for n, phase in enumerate(plan.phases) for step in phase],
        "conflicts": [conflict_json(conflict) for conflict in plan.conflicts],
        "held": [_held_json(item) for item in held],
        "commands": [line for step in plan.steps if not _is_table(step) for line in preview(step)],
        "nft_commands": [line for step in plan.steps if _is_table(step) for line in preview(step)],
    }


def _is_table(step: Step) -> bool:
    return isinstance(step.target, NftTable)


def _held_json(item: Held) -> dict[str, Any]:
    """Return something withheld; `approve` is the command that lets it through, "" if it only follows another."""
    return {
        **_step_json(0, item.step),
        "why": item.reason,
        "kind": item.kind,
        "id": item.id,
        "approve": f"dzagent approve {item.id}" if item.id else "",
    }


def _step_json(phase: int, step: Step) -> dict[str, Any]:
    return {
        "phase": phase,
        "action": step.action.value,
        "object": describe(step.target),
        "before": describe(step.before) if step.before is not None else None,
        "after": describe(step.after) if step.after is not None else None,
        "reason": step.reason,
        "cause": str(step.origin) if step.origin else "",
    }


def describe(obj: KernelObject) -> str:
    """One line that names an object to a person."""
    if isinstance(obj, NftTable):
        return printable(describe_table(obj))
    return printable(_describe_link(obj) if isinstance(obj, Link) else _describe_other(obj))


def _describe_link(link: Link) -> str:
    extra = "".join(f" {token}" for token in link.extra)
    return (
        f"link {link.name} gre local {link.local} remote {link.remote} ttl {link.ttl} mtu {link.mtu}"
        f" alias {link.alias or '-'} {'up' if link.up else 'down'}{extra}"
    )


def _describe_other(obj: Address | Route | Rule) -> str:
    parts = [f"{type(obj).__name__.lower()}"]
    for name in obj.__dataclass_fields__:
        value = getattr(obj, name)
        if value is None or value == ():
            continue
        if isinstance(value, tuple):
            parts.extend(map(str, value))
        elif name in {"dst", "interface"} and not hasattr(obj, "priority"):
            parts.append(str(value))
        else:
            parts.append(f"{_WORDS.get(name, name)} {value}")
    return " ".join(parts)


_WORDS = {"src": "src", "protocol": "proto"}


def overlay_of(interface: ipaddress.IPv4Interface) -> str:
    """Return the /31 of a local overlay address as text, "" for any other length."""
    return str(interface.network) if interface.network.prefixlen == 31 else ""
