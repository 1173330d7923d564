"""`dzagent status` as text: the verdict, the services, what needs attention, and where the facts come from. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from dzagent.cli import document as doc
from dzagent.cli.advice import advice, with_advice
from dzagent.cli.document import Json, mapping, number, objects, text, texts
from dzagent.cli.output import Paper, seconds

_INDENT = "  "


def status_lines(status: Json, sheet: Paper, now: float) -> list[str]:
    """Return the lines of a status document (GET /v3/status); `now` is unix seconds."""
    sections = [
        _verdict(status, sheet),
        *(_service(service, status, sheet, now) for service in objects(status, "services")),
        _attention(status, sheet),
        _facts(status, sheet),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section).split("\n")


# ---- the verdict ---------------------------------------------------------------------------------------------


def _verdict(status: Json, sheet: Paper) -> list[str]:
    word, colour, sentence = _judged(status)
    lines = sheet.wrap(f"{word}: {sentence}" if sentence else word)
    return [sheet.paint(line, colour, bold=True) for line in lines]


def _judged(status: Json) -> tuple[str, str, str]:
    """Return (word, colour, sentence)."""
    ready = doc.condition(status, "Ready")
    message = text(ready, "message")
    if not doc.running(status):
        return "Not running", "red", text(mapping(status, "agent"), "message")
    if doc.wanted(status) is None:
        return "Not ready", "red", text(mapping(status, "intent"), "message")
    if not doc.answered(status) and not doc.undecided(status):
        wish = "enable" if doc.wanted(status) else "disable"
        return "Changing", "yellow", f"dzagentd has not taken up the last {wish} yet"
    if doc.wanted(status) is False and not doc.undecided(status):
        return _judged_disabled(status)
    if doc.healthy(status):
        return "Ready", "green", message
    return (
        "Not ready",
        "red",
        message if doc.undecided(status) else with_advice(message, advice(ready, status)),
    )


def _judged_disabled(status: Json) -> tuple[str, str, str]:
    ready = doc.condition(status, "Ready")
    if doc.torn_down(status):
        return "Disabled", "yellow", with_advice(text(ready, "message"), advice(ready, status))
    return "Disabled, but not torn down", "red", text(doc.condition(status, "InSync"), "message")


# ---- services ------------------------------------------------------------------------------------------------


def _service(service: Json, status: Json, sheet: Paper, now: float) -> list[str]:
    up = service.get("provisioned") is True
    error = mapping(service, "last_error")
    head = sheet.wrap(
        f"{text(service, 'name')}: {text(service, 'user_type') or 'unknown type'} on "
        f"{text(service, 'tunnel_name')}, {'provisioned' if up else 'not provisioned'}"
    )
    colour = "green" if up and not error else "red"
    rows = [
        (
            "device",
            _joined(text(service, "current_device") or text(service, "device_pk"), text(service, "metro")),
        ),
        ("tunnel", f"{text(service, 'tunnel_src')} -> {text(service, 'tunnel_dst')}"),
        ("overlay", text(service, "overlay")),
        ("DZ IP", text(service, "doublezero_ip")),
        ("session", _session(service, status, now)),
        ("tenant", text(service, "tenant")),
        ("groups", _groups(service)),
        ("account", text(service, "account")),
        ("dropped", _dropped(mapping(mapping(status, "firewall"), text(service, "name")))),
        ("error", _error(error, now)),
    ]
    return [*(sheet.paint(line, colour) for line in head), *sheet.pairs(rows, _INDENT)]


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _session(service: Json, status: Json, now: float) -> str:
    session = mapping(service, "session")
    said = text(session, "status")
    if text(doc.condition(status, "SessionUp"), "reason") == "Absent":
        return _joined(said, "sessions are not built into this version")
    updated, failures = number(session, "last_update"), int(number(session, "failures") or 0)
    since = f"since {seconds(now - updated)}" if updated else ""
    tried = f"{failures} attempts failed" if failures else ""
    return _joined(said, since, tried, text(session, "message"))


def _groups(service: Json) -> str:
    groups = mapping(service, "multicast_groups")
    roles = (("publisher", "publishes"), ("subscriber", "subscribes to"))
    return "; ".join(
        f"{verb} {', '.join(texts(groups, role))}" for role, verb in roles if texts(groups, role)
    )


def _dropped(counters: Json) -> str:
    """Say what the nftables table has dropped, by reason; nothing if it has dropped nothing."""
    counts = {reason: int(number(mapping(counters, reason), "packets") or 0) for reason in counters}
    words = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return words and f"{words} packets (nftables)"


def _error(error: Json, now: float) -> str:
    if not error:
        return ""
    since = number(error, "since")
    ago = f" (for {seconds(max(0.0, now - since))})" if since else ""
    return f"{text(error, 'code')}: {text(error, 'message')}{ago}"


# ---- what needs attention ------------------------------------------------------------------------------------


def _attention(status: Json, sheet: Paper) -> list[str]:
    lines = [line for item in _troubles(status) for line in sheet.wrap(item, "  - ", "    ")]
    return [sheet.paint("Needs attention", "yellow", bold=True), *lines] if lines else []


def _troubles(status: Json) -> Iterator[str]:
    """Everything that is wrong, each said once: conditions, problems, conflicts, files that cannot be read."""
    shown = {text(mapping(service, "last_error"), "message") for service in objects(status, "services")}
    shown |= {text(doc.condition(status, "Ready"), "message"), ""}
    for condition in objects(status, "conditions"):
        if _worth_saying(condition, status):
            said = with_advice(text(condition, "message"), advice(condition, status))
            yield f"{text(condition, 'type')} is {text(condition, 'status')}, {text(condition, 'reason')}: {said}"
            shown.add(text(condition, "message"))
    for problem in objects(status, "problems"):
        message = text(problem, "message")
        if message not in shown:
            shown.add(message)
            account = text(problem, "account")
            yield f"{text(problem, 'code')}: {message}" + (f" (account {account})" if account else "")
    for conflict in objects(status, "conflicts"):
        yield f"{text(conflict, 'object')} is held by {text(conflict, 'owner')}: {text(conflict, 'advice')}"
    yield from (note for note in texts(status, "notes") if note not in shown)
    last = mapping(status, "last_apply")
    if last and text(last, "result") not in {"applied", "confirmed"}:
        yield f"the last `dzagent apply` ({text(last, 'plan_id')}) is {text(last, 'result')}: {text(last, 'message')}"


def _worth_saying(condition: Json, status: Json) -> bool:
    """Ready and AgentRunning are the verdict; what a dead agent once said is history; conflicts come one by one."""
    if text(condition, "type") in {"Ready", "AgentRunning", "Conflict"}:
        return False
    if text(condition, "reason") == "AgentNotRunning":
        return False
    if text(condition, "type") == "ForeignDaemon" and _is_verdict(condition, status):
        return False
    if text(condition, "type") == "StatusReadable" and text(condition, "message") in texts(status, "notes"):
        return doc.running(status)
    return doc.troubling(condition)


def _is_verdict(condition: Json, status: Json) -> bool:
    return text(condition, "message") == text(doc.condition(status, "Ready"), "message")


# ---- where the facts come from -------------------------------------------------------------------------------


def _facts(status: Json, sheet: Paper) -> list[str]:
    withdrawn = mapping(status, "withdrawn")
    rows = [
        ("client IP", _client_ip(status)),
        ("network", _joined(text(status, "network"), f"apply: {text(status, 'mode')}")),
        ("ledger", _ledger(status)),
        ("polls", _polls(mapping(status, "ledger"))),
        *(("endpoint", _endpoint(entry)) for entry in _endpoints(mapping(status, "ledger"))),
        (
            "files",
            f"generation {number(status, 'generation') or 0:.0f}, slot {number(status, 'slot') or 0:.0f}",
        ),
        *((f"no {name}", text(withdrawn, name)) for name in withdrawn if doc.wanted(status)),
        ("dzagentd", _agent(status)),
    ]
    return sheet.pairs(rows)


def _client_ip(status: Json) -> str:
    address, source = text(status, "client_ip"), text(status, "client_ip_source")
    if address:
        return f"{address} ({source})" if source else address
    pinned = text(mapping(status, "intent"), "client_ip")
    return f"not known yet, {pinned} is pinned" if pinned else "not known"


def _ledger(status: Json) -> str:
    ledger, age = mapping(status, "ledger"), number(status, "data_age_seconds")
    if age is None:
        return _joined("no data", text(ledger, "endpoint"))
    slot = f"slot {number(ledger, 'slot') or 0:.0f}"
    return _joined(slot, f"{seconds(age)} old", text(ledger, "endpoint"))


def _polls(ledger: Json) -> str:
    """How the ledger is asked, what that costs, and whether changes are announced; "" if nobody asked yet."""
    poll, push, mode = mapping(ledger, "poll"), mapping(ledger, "push"), text(ledger, "mode")
    received = number(poll, "bytes_received")
    if not mode or received is None:
        return ""
    sent, took = number(poll, "bytes_sent") or 0, number(poll, "milliseconds") or 0
    why = text(ledger, "mode_reason")
    way = {"direct": "by address", "full": "everything"}.get(mode, mode) + (f" ({why})" if why else "")
    cost = f"the last one {sent + received:.0f} bytes and {took:.0f} ms"
    told = "changes are announced" if push.get("connected") is True else "changes are not announced"
    return _joined(way, cost, told if push else "")


def _endpoints(ledger: Json) -> list[Json]:
    """The endpoints, if there is more to say than who answered last."""
    listed = objects(ledger, "endpoints")
    return listed if len(listed) > 1 or any(text(entry, "last_error") for entry in listed) else []


def _endpoint(entry: Json) -> str:
    failed = sum(count for count in mapping(entry, "errors").values() if isinstance(count, int))
    return _joined(
        text(entry, "endpoint"),
        text(entry, "state"),
        f"{number(entry, 'requests') or 0:.0f} requests, {failed} failed",
    )


def _agent(status: Json) -> str:
    if not doc.running(status):
        return "does not run"
    started = number(status, "started_at")
    try:
        at = datetime.fromtimestamp(started, timezone.utc) if started else None
    except (ValueError, OverflowError, OSError):
        at = None
    since = f"since {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    pid = number(status, "pid")
    return _joined(text(status, "agent_version"), f"pid {pid:.0f}" if pid else "", since)
