"""Tells people what a pass saw and did: status.json, plan.json, events.json, written only when they change."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dzagent.bgp.publish import session_document
from dzagent.conditions import Condition, Conditions, Status
from dzagent.config import Config
from dzagent.errors import StateError
from dzagent.feed import rpc_hosts
from dzagent.files import write_json
from dzagent.firewall import Counts
from dzagent.intent import intent_stamp
from dzagent.judge import complaints, judge
from dzagent.model import SERVICE_NAMES, Outcome, Plan, Problem, Result, ServiceName
from dzagent.passreport import PassReport
from dzagent.serviceview import concerns, error_of, kind_of_change, view
from dzagent.sessions import bgp_problems
from dzagent.state import ApplyRequest, read_apply_request
from dzagent.status import (
    NO_SESSION,
    LastError,
    ServiceView,
    condition_json,
    conflict_json,
    describe,
    fight_json,
    plan_json,
    problem_json,
    service_json,
)

log = logging.getLogger(__name__)

MAX_EVENTS = 200

ROUTINE = ("NoLedgerAnswer: the ledger has not answered yet", "AbsenceNotProven: ", "NotSearched: ")
"""How complaints begin that every start has: they are logged, and nobody has to look."""

_FAILED = frozenset({Result.TRANSIENT, Result.PERMANENT, Result.BLOCKED, Result.CONTESTED})
"""Results that leave something undone."""


class Reporter:
    """Keeps conditions, counters and the last documents of this process."""

    def __init__(self, config: Config, *, version: str, pid: int, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._conditions = Conditions(clock)
        self._counters = {
            kind: {name: {"success": 0, "error": 0} for name in SERVICE_NAMES}
            for kind in ("provisions", "removals", "updates")
        }
        self._errors: dict[ServiceName, LastError] = {}
        self._counts = Counts(clock)
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._last_apply: dict[str, Any] | None = None
        self._asked: str | None = None
        self._resync: str | None = None
        self._last_resync: dict[str, Any] | None = None
        self._request_stamp = intent_stamp(config.paths.approval)
        self._written: dict[str, dict[str, Any]] = {}
        self._told: frozenset[str] = frozenset()
        self._base: dict[str, Any] = {
            "version": 1,
            "pid": pid,
            "agent_version": version,
            "started_at": clock(),
            "mode": config.apply,
            "network": config.network,
            "program_id": config.program_id,
            "rpc": list(rpc_hosts(config.rpc)),
        }
        self._rest: dict[str, Any] = {
            "enabled": None,
            "services": [],
            "problems": [],
            "conflicts": [],
            "contested": [],
        }

    @property
    def headline(self) -> str:
        """How things are, in a line: whether the agent is ready, else why not."""
        ready = self._conditions.all.get("Ready")
        return "" if ready is None else f"{ready.reason}: {ready.message}"

    # ---- manual mode -----------------------------------------------------------------------------------

    def take_request(self, plan: Plan) -> ApplyRequest | None:
        """Return the request for exactly this plan since the last look, None if there is none; each counts once."""
        stamp = intent_stamp(self._config.paths.approval)
        if stamp == self._request_stamp:
            return None
        self._request_stamp = stamp
        try:
            wanted = read_apply_request(self._config.paths.approval)
        except StateError as error:
            log.warning("%s", error)
            return None
        if wanted is None:
            return None
        if wanted.plan_id == plan.id:
            self._asked = wanted.plan_id
            return wanted
        message = f"the plan is {plan.id} now: look at it with `dzagent plan`, then apply that"
        self.applied(wanted.plan_id, "stale", message)
        return None

    def applied(self, plan_id: str, result: str, message: str) -> None:
        """Take in what became of a plan that a person asked for: it is shown as the last one."""
        if plan_id == self._asked:
            self._asked = None
        self._last_apply = {"plan_id": plan_id, "result": result, "message": message, "at": self._clock()}

    def resync_asked(self, token: str) -> None:
        """The next pass looks at everything because a person asked for it; `token` tells one wish from another."""
        self._resync = token

    def _resynced(self, result: str, message: str = "") -> None:
        if self._resync is not None:
            done = {"token": self._resync, "result": result, "message": message, "at": self._clock()}
            self._last_resync, self._resync = done, None

    # ---- what happened ---------------------------------------------------------------------------------

    def events(self, outcomes: Sequence[Outcome]) -> None:
        """Remember every change that was tried, newest last."""
        self._events.extend(
            {
                "at": self._clock(),
                "action": outcome.step.action.value,
                "object": describe(outcome.step.target),
                "reason": outcome.step.reason,
                "cause": str(outcome.step.origin or ""),
                "result": outcome.result.value,
                "message": outcome.message,
            }
            for outcome in outcomes
        )

    def failed(self, reason: str, message: str) -> None:
        """A pass could not be finished; what was published before stays, with this said beside it."""
        log.error("pass: %s", message)
        self._resynced("failed", message)
        self._set("InSync", "Unknown", reason, message)
        self._set("Ready", "False", reason, message)
        self._publish()

    def tell(self, report: PassReport) -> None:
        """Publish what a pass saw and did."""
        self._resynced("done")
        self._complain(report)
        self._count(report)
        slot = self._slot(report)
        self._rest["generation"] = report.generation  # the conditions below are about this one
        services = self._services(report)
        self._judge(report, services)
        if self._asked is not None:
            failed = [o.message for o in report.outcomes if o.result in _FAILED]
            self.applied(self._asked, "failed" if failed else "applied", "; ".join(failed)[:500])
        self._rest = self._found(report, slot, services)
        self._publish()
        made = self._written.get("plan.json", {}).get("made_at", self._clock())
        plan = plan_json(report.plan, report.held, self._config.apply, made)
        self._write("plan.json", plan, stamp="made_at")

    def _found(self, report: PassReport, slot: int, services: Sequence[ServiceView]) -> dict[str, Any]:
        """Return what a pass adds to the status document."""
        snapshot = report.view.snapshot
        identity = report.facts.identity
        known = not isinstance(identity, Problem)
        return {
            "enabled": report.intent.enabled,
            "intent_stamp": report.intent.stamp,
            "client_ip": str(identity.client_ip) if not isinstance(identity, Problem) else None,
            "client_ip_source": identity.source if not isinstance(identity, Problem) else "",
            "generation": report.generation,
            "slot": slot,
            "services": [service_json(view, snapshot, _session(view.name, report)) for view in services],
            "problems": [problem_json(p) for p in (*report.wishes.problems, *bgp_problems(report.bgp))],
            "conflicts": [conflict_json(c) for c in report.plan.conflicts],
            "contested": [fight_json(fight, report.suspects) for fight in report.fights],
            "withdrawn": dict(report.wishes.withdrawn),
            "firewall": self._counts.show(report.after.nft),
            "matched_users": {n: int(known and n in report.wishes.granted) for n in SERVICE_NAMES},
        }

    def _complain(self, report: PassReport) -> None:
        """Log what is wrong, each thing once as long as it lasts."""
        now = dict.fromkeys(complaints(report))
        for text in now:
            if text not in self._told:
                level = logging.INFO if text.startswith(ROUTINE) else logging.WARNING
                log.log(level, "%s", text)
        for text in sorted(self._told - now.keys()):
            log.info("no longer: %s", text)
        self._told = frozenset(now)

    def _slot(self, report: PassReport) -> int:
        """The slot at which the services last changed: it must not move with every poll (no write then)."""
        if report.view.snapshot is None:
            return int(self._rest.get("slot", 0))
        if report.generation == self._rest.get("generation") and self._rest.get("slot"):
            return int(self._rest["slot"])
        return report.view.snapshot.slot

    # ---- services --------------------------------------------------------------------------------------

    def _services(self, report: PassReport) -> list[ServiceView]:
        present = {link.name for link in report.after.links if link.tunnel is not None} & report.ours
        views = []
        for name in SERVICE_NAMES:
            error = self._last_error(name, report)
            shown = view(name, report)
            if shown is not None:
                views.append(replace(shown, provisioned=shown.link in present, last_error=error))
        return views

    def _last_error(self, name: ServiceName, report: PassReport) -> LastError | None:
        found = error_of(name, report, self._config.links.of(name))
        if found is None:
            self._errors.pop(name, None)
            return None
        code, message = found
        before = self._errors.get(name)
        same = before is not None and (before.code, before.message) == found
        since = before.since if same and before is not None else self._clock()
        self._errors[name] = LastError(code, message, since)
        return self._errors[name]

    def _count(self, report: PassReport) -> None:
        for name in SERVICE_NAMES:
            link = self._config.links.of(name)
            tried = (o for o in report.outcomes if o.result is not Result.BLOCKED)
            mine = [o for o in tried if concerns(o, name, link)]
            if not mine:
                continue
            kind = kind_of_change(link, report)
            ok = not any(outcome.result in _FAILED for outcome in mine)
            self._counters[kind][name]["success" if ok else "error"] += 1

    # ---- conditions ------------------------------------------------------------------------------------

    def _set(self, kind: str, status: Status, reason: str, message: str) -> None:
        generation = int(self._rest.get("generation", 0))
        self._conditions.set(Condition(kind, status, reason, message, generation=generation))

    def _judge(self, report: PassReport, services: Sequence[ServiceView]) -> None:
        for kind, status, reason, message in judge(report, services, self._config.apply):
            self._set(kind, status, reason, message)

    # ---- documents -------------------------------------------------------------------------------------

    def _publish(self) -> None:
        document = {
            **self._base,
            **self._rest,
            "conditions": [condition_json(c) for c in self._conditions.all.values()],
            "counters": self._counters,
            "last_apply": self._last_apply,
            "last_resync": self._last_resync,
        }
        self._write("status.json", document, stamp="updated_at")
        self._write("events.json", {"events": list(self._events)}, stamp="")

    def _write(self, name: str, document: dict[str, Any], *, stamp: str) -> None:
        """Write a document unless it says what it said before; `stamp` names the time of this change."""
        before = self._written.get(name)
        if before is not None and {**before, stamp: 0} == {**document, stamp: 0}:
            return
        if stamp:
            document = {**document, stamp: self._clock()}
        try:
            write_json(self._config.paths.agent / name, document)
        except StateError as error:
            log.warning("%s", error)
            return
        # counters and the like live on in this process: keep a copy that they cannot change
        self._written[name] = _frozen_copy(document)


def _session(name: ServiceName, report: PassReport) -> Mapping[str, Any]:
    """Return the session of a service as the status document has it."""
    if report.bgp is None or name not in report.bgp.peers:
        return NO_SESSION
    return session_document(report.bgp.peers[name].session)


def _frozen_copy(document: Any) -> Any:
    if isinstance(document, Mapping):
        return {key: _frozen_copy(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_frozen_copy(value) for value in document]
    return document
