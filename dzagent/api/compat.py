"""The shapes of doublezerod's status API, from our status document. Pure.

Source: malbeclabs/doublezero client/doublezerod/internal/manager/http.go. Key order is part of the shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

DISCONNECTED = '[{"doublezero_status": {"session_status": "disconnected"}}]'
"""doublezerod's exact answer while no service is provisioned; tools rely on its one key."""
PENDING = "Pending BGP Session"
MAIN_TABLE = 254


def status_v1(status: Mapping[str, Any]) -> str:
    """Return the body of GET /status: one object per provisioned service, unicast first."""
    services = [_base(service) for service in provisioned(status)]
    return compact(services) if services else DISCONNECTED


def status_v2(status: Mapping[str, Any], *, enabled: bool, network: str) -> dict[str, Any]:
    """Return GET /v2/status. Latency is not measured yet, so its optional keys are left out."""
    return {
        "reconciler_enabled": enabled,
        "client_ip": _text(status.get("client_ip")),
        "network": network,
        "services": [_enriched(service) for service in provisioned(status)],
    }


def routes(document: Mapping[str, Any], network: str) -> list[dict[str, str]]:
    """Return the body of GET /routes: the learned routes that the kernel holds in its main table.

    document: routes.json. Source: malbeclabs/doublezero client/doublezerod/internal/api/routes.go. The keys of
    liveness are left out where there is none, as there.
    """
    services = document.get("services")
    rows = [
        (_text(service.get("src")), prefix.partition("/")[0])
        for service in (services.values() if isinstance(services, Mapping) else ())
        if isinstance(service, Mapping) and service.get("table") == MAIN_TABLE
        for prefix in _list(service.get("present"))
        if isinstance(prefix, str)
    ]
    return [
        {"network": network, "local_ip": local, "peer_ip": peer, "kernel_state": "present"}
        for local, peer in sorted(rows)
        if local
    ]


def provisioned(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the services that exist in the kernel, unicast first."""
    services = [
        s for s in _list(status.get("services")) if isinstance(s, Mapping) and s.get("provisioned") is True
    ]
    yield from (s for s in services if s.get("name") != "multicast")
    yield from (s for s in services if s.get("name") == "multicast")


def compact(document: Any) -> str:
    """JSON as Go's json.Encoder writes it: no spaces, what HTML or JavaScript could misread escaped, a newline.

    A lone surrogate is no text; it becomes the replacement character.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).translate(_GO_ESCAPES)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") + "\n"


_GO_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def _base(service: Mapping[str, Any]) -> dict[str, Any]:
    session = service.get("session")
    session = session if isinstance(session, Mapping) else {}
    return {
        "tunnel_name": _text(service.get("tunnel_name")),
        "tunnel_src": _text(service.get("tunnel_src")),
        "tunnel_dst": _text(service.get("tunnel_dst")),
        "doublezero_ip": _text(service.get("doublezero_ip")),
        "doublezero_status": {
            "session_status": _text(session.get("status")) or PENDING,
            "last_session_update": _whole(session.get("last_update")),
        },
        "user_type": _text(service.get("user_type")) or "Unknown",
    }


def _enriched(service: Mapping[str, Any]) -> dict[str, Any]:
    groups = service.get("multicast_groups")
    groups = groups if isinstance(groups, Mapping) else {}
    subscriptions = [s for s in _list(service.get("subscriptions")) if isinstance(s, Mapping)]
    return {
        **_base(service),
        "current_device": _text(service.get("current_device")),
        "lowest_latency_device": "",
        "metro": _text(service.get("metro")),
        "tenant": _text(service.get("tenant")),
        "multicast_groups": {
            role: [code for code in _list(groups.get(role)) if isinstance(code, str)]
            for role in ("publisher", "subscriber")
        },
        # publishers first, as doublezerod merges them
        "subscriptions": sorted(map(_subscription, subscriptions), key=lambda s: not s["publisher"]),
    }


def _subscription(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pubkey": _text(entry.get("pubkey")),
        "code": _text(entry.get("code")),
        "multicast_ip": _text(entry.get("multicast_ip")),
        "max_bandwidth": _whole(entry.get("max_bandwidth")),
        "publisher": entry.get("publisher") is True,
        "subscriber": entry.get("subscriber") is True,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
