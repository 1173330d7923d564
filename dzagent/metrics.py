"""Prometheus text of what the agent publishes. Pure: dictionaries in, text out.

Names, labels and types of `doublezero_*` are doublezerod's; `dzagent_*` are our own. What is not built yet has no
metric: absent, not zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SESSION_UP = "BGP Session Up"
_SERVICES = ("unicast", "multicast")
_FETCH_RESULTS = ("success", "error_stale", "error_no_cache")
_CONDITION_STATUS = ("True", "False", "Unknown")


NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: labels in order and a value; `suffix` is added to the metric's name (histograms)."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its help text, its type (counter, gauge, histogram) and samples."""

    name: str
    help: str
    type: str
    samples: tuple[Sample, ...]


def render(
    status: Mapping[str, Any],
    ledger: Mapping[str, Any],
    enabled: bool | None,
    now: float,
    bgp: Mapping[str, Any] = NOTHING,
) -> str:
    """Return the exposition. `enabled` is the intent (None: unknown); `now` is unix seconds.

    Whatever is missing or of a wrong type in the documents is left out.
    """
    metrics = [
        *_reconciler(status),
        *_ledger(ledger, now),
        *_bgp(bgp),
        *_own(status, ledger, enabled),
    ]
    return "".join(_text(metric) for metric in metrics if metric.samples)


def _reconciler(status: Mapping[str, Any]) -> Iterator[Metric]:
    build = (("version", _word(status.get("agent_version"))), ("commit", ""), ("date", ""))
    samples = (Sample(1.0, build),) if build[0][1] else ()
    yield Metric("doublezero_build_info", "The version that runs.", "gauge", samples)
    counters = _mapping(status.get("counters"))
    for kind in ("provisions", "removals", "updates"):
        yield Metric(
            f"doublezero_reconciler_{kind}_total",
            f"Services: {kind} since the start, by result.",
            "counter",
            tuple(_by_service(_mapping(counters.get(kind)))),
        )
    matched = _mapping(status.get("matched_users"))
    yield Metric(
        "doublezero_reconciler_matched_users",
        "User accounts that match this host.",
        "gauge",
        tuple(_numbers((matched.get(name), (("service_type", name),)) for name in _SERVICES)),
    )
    yield Metric(
        "doublezero_connection_info",
        "Provisioned services and what they are connected to.",
        "gauge",
        tuple(Sample(1.0, labels) for labels in dict.fromkeys(_connections(status))),
    )


def _by_service(results: Mapping[str, Any]) -> Iterator[Sample]:
    return _numbers(
        (_mapping(results.get(name)).get(result), (("service_type", name), ("status", result)))
        for name in _SERVICES
        for result in ("success", "error")
    )


def _connections(status: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], ...]]:
    network = _word(status.get("network"))
    services = status.get("services")
    for service in services if isinstance(services, list) else ():
        if isinstance(service, Mapping) and service.get("provisioned") is True:
            yield (
                ("user_type", _word(service.get("user_type"))),
                ("network", network),
                *(
                    (name, _word(service.get(name)))
                    for name in ("current_device", "metro", "tunnel_name", "tunnel_src", "tunnel_dst")
                ),
            )


def _ledger(ledger: Mapping[str, Any], now: float) -> Iterator[Metric]:
    polls, fetch = _mapping(ledger.get("polls")), _mapping(ledger.get("fetch"))
    fetches = {key: ledger.get(f"fetch_{key}") for key in ("buckets", "sum", "count")}
    yield Metric(
        "doublezero_reconciler_polls_total",
        "Polls of the ledger, by result.",
        "counter",
        tuple(_numbers((polls.get(result), (("status", result),)) for result in ("success", "error"))),
    )
    yield Metric(
        "doublezero_onchain_fetch_total",
        "Fetches from the ledger: success, an error while older data was held, an error without any data.",
        "counter",
        tuple(_numbers((fetch.get(result), (("result", result),)) for result in _FETCH_RESULTS)),
    )
    yield Metric(
        "doublezero_onchain_fetch_duration_seconds",
        "Duration of fetches from the ledger.",
        "histogram",
        tuple(_buckets(fetches, ())),
    )
    fetched = _number(ledger.get("fetched_at"))
    stale = ledger.get("error") is not None
    age = max(0.0, now - fetched) if stale and fetched else 0.0
    samples = (Sample(age),) if fetched else ()
    text = "Age of the ledger data in use while fetches fail; 0 while they succeed."
    yield Metric("doublezero_onchain_stale_cache_age_seconds", text, "gauge", samples)


def _bgp(bgp: Mapping[str, Any]) -> Iterator[Metric]:
    """Sessions, updates and routes; doublezerod's names, and ours per peer."""
    peers = {name: peer for name, peer in _mapping(bgp.get("peers")).items() if isinstance(peer, Mapping)}
    up = {
        name: float(_mapping(peer.get("session")).get("status") == SESSION_UP) for name, peer in peers.items()
    }
    samples = (Sample(min(up.values())),) if up else ()
    yield Metric("doublezero_session_is_up", "1 if every BGP session is up.", "gauge", samples)
    yield Metric(
        "doublezero_session_established_duration_seconds",
        "Time from the wish for a session to its first establishment.",
        "histogram",
        tuple(
            sample
            for peer, histogram in _mapping(bgp.get("up_seconds")).items()
            for sample in _buckets(_mapping(histogram), (("peer_ip", str(peer)),))
        ),
    )
    yield Metric(
        "doublezero_bgp_handle_update_duration_seconds",
        "Duration of taking in a change of what a peer announces.",
        "histogram",
        tuple(_buckets(_mapping(bgp.get("update_seconds")), ())),
    )
    ends = {
        name: (("src", _word(p.get("src"))), ("next_hop", _word(p.get("peer")))) for name, p in peers.items()
    }
    installed = tuple(_numbers((peer.get("installed"), ends[name]) for name, peer in peers.items()))
    yield Metric("doublezero_bgp_routes_installed", "Learned routes in the kernel.", "gauge", installed)
    yield from _per_peer(peers, up)


def _per_peer(peers: Mapping[str, Mapping[str, Any]], up: Mapping[str, float]) -> Iterator[Metric]:
    labels = {name: (("service", name), ("peer_ip", _word(peer.get("peer")))) for name, peer in peers.items()}
    text = "1 if the BGP session of this service is up."
    yield Metric("dzagent_session_up", text, "gauge", tuple(Sample(up[n], labels[n]) for n in peers))
    for key, kind, help_ in (
        ("updates", "counter", "Routes announced by the peer."),
        ("withdraws", "counter", "Routes withdrawn by the peer."),
        ("learned", "gauge", "Routes learned from the peer that may be installed."),
        ("installed", "gauge", "Learned routes in the kernel."),
        ("stale", "gauge", "Routes kept although nobody announces them."),
    ):
        name = f"dzagent_bgp_{key}_total" if kind == "counter" else f"dzagent_bgp_routes_{key}"
        yield Metric(name, help_, kind, tuple(_numbers((p.get(key), labels[n]) for n, p in peers.items())))
    refused = _numbers(
        (count, (*labels[name], ("reason", str(code))))
        for name, peer in peers.items()
        for code, count in _mapping(peer.get("refused")).items()
    )
    yield Metric("dzagent_bgp_routes_refused", "Announced routes that are refused.", "gauge", tuple(refused))
    failures = _numbers((_mapping(p.get("session")).get("failures"), labels[n]) for n, p in peers.items())
    yield Metric(
        "dzagent_session_failures", "Failed attempts since the session was last up.", "gauge", tuple(failures)
    )


def _buckets(histogram: Mapping[str, Any], labels: tuple[tuple[str, str], ...]) -> Iterator[Sample]:
    total, count = _number(histogram.get("sum")), _number(histogram.get("count"))
    buckets = _mapping(histogram.get("buckets"))
    if total is None or count is None or not buckets:
        return
    for bound, value in buckets.items():
        yield from _numbers([(value, (*labels, ("le", str(bound))))], suffix="_bucket")
    yield Sample(total, labels, "_sum")
    yield Sample(count, labels, "_count")


def _own(status: Mapping[str, Any], ledger: Mapping[str, Any], enabled: bool | None) -> Iterator[Metric]:
    conditions = status.get("conditions")
    samples = tuple(
        Sample(
            float(condition.get("status") == value), (("type", _word(condition["type"])), ("status", value))
        )
        for condition in _unique(conditions if isinstance(conditions, list) else ())
        for value in _CONDITION_STATUS
    )
    yield Metric(
        "dzagent_condition", "Conditions of the agent: 1 for the status that holds.", "gauge", samples
    )
    for key, text in (
        ("conflicts", "Objects that we need and somebody else holds."),
        ("contested", "Objects of ours that somebody keeps undoing."),
    ):
        listed = status.get(key)
        count = (Sample(float(len(listed))),) if isinstance(listed, list) else ()
        yield Metric(f"dzagent_{key}_objects", text, "gauge", count)
    yield from _firewall(_mapping(status.get("firewall")))
    yield _gauge("dzagent_generation", "Generation of the rendered files.", status.get("generation"))
    yield _gauge("dzagent_slot", "Slot of the last good answer of the ledger.", ledger.get("slot"))
    yield from _data(status, ledger)
    wish = None if enabled is None else float(enabled)
    yield _gauge("dzagent_enabled", "Whether a person wants the agent enabled.", wish)


def _firewall(counts: Mapping[str, Any]) -> Iterator[Metric]:
    """What the nftables table has dropped."""
    counters = [
        (_mapping(counter), (("service", name), ("reason", str(reason))))
        for name in _SERVICES
        for reason, counter in _mapping(counts.get(name)).items()
    ]
    for unit in ("packets", "bytes"):
        samples = tuple(_numbers((counter.get(unit), labels) for counter, labels in counters))
        text = f"{unit.capitalize()} that the nftables table has dropped."
        yield Metric(f"dzagent_nft_dropped_{unit}_total", text, "counter", samples)


def _data(status: Mapping[str, Any], ledger: Mapping[str, Any]) -> Iterator[Metric]:
    """What the ledger's data is: its age and source, and what it costs."""
    age = status.get("data_age_seconds")
    yield _gauge("dzagent_ledger_data_age_seconds", "Age of the ledger data in use.", age)
    source = (("endpoint", _word(ledger.get("endpoint"))), ("mode", _word(ledger.get("mode"))))
    samples = (Sample(1.0, source),) if source[0][1] else ()
    yield Metric("dzagent_ledger_source_info", "Who answered last, and how it is asked.", "gauge", samples)
    poll = _mapping(ledger.get("poll"))
    for key, name, text in (
        ("bytes_received", "received_bytes", "Bytes that the last poll received, as on the wire."),
        ("bytes_sent", "sent_bytes", "Bytes that the last poll sent."),
        ("requests", "requests", "Requests of the last poll."),
        ("milliseconds", "milliseconds", "Duration of the last poll."),
    ):
        yield _gauge(f"dzagent_poll_{name}", text, poll.get(key))
    errors = _mapping(ledger.get("errors"))
    yield Metric(
        "dzagent_ledger_errors_total",
        "Polls that failed, by the kind of error.",
        "counter",
        tuple(_numbers((count, (("kind", str(kind)),)) for kind, count in errors.items())),
    )
    lagging = tuple(_numbers([(_mapping(ledger.get("polls")).get("lagging"), ())]))
    yield Metric(
        "dzagent_ledger_lagging_total", "Polls answered by a node that was behind.", "counter", lagging
    )
    yield from _endpoints(ledger)


def _endpoints(ledger: Mapping[str, Any]) -> Iterator[Metric]:
    listed = ledger.get("endpoints")
    named = {
        _word(entry.get("endpoint")): entry
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, Mapping) and _word(entry.get("endpoint"))
    }
    requests = _numbers((entry.get("requests"), (("endpoint", name),)) for name, entry in named.items())
    yield Metric("dzagent_rpc_requests_total", "Requests by RPC endpoint.", "counter", tuple(requests))
    errors = _numbers(
        (count, (("endpoint", name), ("kind", str(kind))))
        for name, entry in named.items()
        for kind, count in _mapping(entry.get("errors")).items()
    )
    yield Metric("dzagent_rpc_errors_total", "Failures by RPC endpoint and kind.", "counter", tuple(errors))
    push = _mapping(ledger.get("push"))
    connected = () if "connected" not in push else (Sample(float(push["connected"] is True)),)
    yield Metric(
        "dzagent_push_connected", "Whether changes are announced by a websocket.", "gauge", connected
    )


def _unique(conditions: Iterable[Any]) -> list[Mapping[str, Any]]:
    """The conditions by type, each once: two samples with the same labels would spoil the whole exposition."""
    seen: dict[str, Mapping[str, Any]] = {}
    for condition in conditions:
        if isinstance(condition, Mapping) and isinstance(condition.get("type"), str):
            seen.setdefault(condition["type"], condition)
    return list(seen.values())


def _gauge(name: str, text: str, value: Any) -> Metric:
    return Metric(name, text, "gauge", tuple(_numbers([(value, ())])))


def _numbers(
    values: Iterable[tuple[Any, tuple[tuple[str, str], ...]]], *, suffix: str = ""
) -> Iterator[Sample]:
    for value, labels in values:
        number = _number(value)
        if number is not None:
            yield Sample(number, labels, suffix)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond 1e308
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(metric: Metric) -> str:
    lines = [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
    lines.extend(f"{metric.name}{s.suffix}{_labels(s.labels)} {_shown(s.value)}" for s in metric.samples)
    return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escape(value: str) -> str:
    """Escape a label value as the text format asks for; lone surrogates, which are no text, are replaced."""
    clean = value.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _shown(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
