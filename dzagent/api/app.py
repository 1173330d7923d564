"""The HTTP API as a Flask application: doublezerod's paths and shapes, and our own under /v3.

Every read is of small files; nothing waits for the ledger, the kernel or the reconciler.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from dzagent import metrics
from dzagent.api import documents
from dzagent.api.answers import (
    http_error,
    json_answer,
    not_built,
    ok,
    plain_answer,
    refused,
    state_error,
    text_answer,
)
from dzagent.api.bodies import (
    MAX_BODY,
    Refused,
    check_size,
    read_body,
    read_client_ip,
    read_confirm,
    read_held_id,
    read_plan_id,
)
from dzagent.api.compat import routes as routes_v1
from dzagent.api.compat import status_v1, status_v2
from dzagent.api.resolve import source_towards
from dzagent.api.store import FileStore, IntentStore
from dzagent.api.view import full_status
from dzagent.config import Config, redact_url
from dzagent.errors import StateError
from dzagent.state import ApprovalRequest, Intent

NOT_BUILT = ("/latency", "/v2/latency")
NOT_BUILT_POST = ("/provision", "/remove")


@dataclass(frozen=True, slots=True)
class Api:
    """What the endpoints stand on; `lock` keeps two writers of one process apart."""

    config: Config
    store: IntentStore
    clock: Callable[[], float]
    lock: threading.Lock

    # ---- reads -----------------------------------------------------------------------------------------

    def status(self) -> Response:
        """GET /status."""
        return text_answer(status_v1(documents.read_document(self.config.paths.status).content))

    def status_v2(self) -> Response:
        """GET /v2/status. Enabled or not is read from the intent, so that answer and file agree."""
        document = documents.read_document(self.config.paths.status).content
        intent = documents.read_intent_file(self.config.paths.intent)
        enabled = document.get("enabled") is True if intent.enabled is None else intent.enabled
        return json_answer(status_v2(document, enabled=enabled, network=self.config.network))

    def full(self) -> dict[str, Any]:
        """Collect everything that is known."""
        paths = self.config.paths
        status = documents.read_document(paths.status)
        return full_status(
            self.config,
            status,
            documents.read_document(paths.ledger),
            documents.read_intent_file(paths.intent),
            documents.agent_state(paths, status.content),
            self.clock(),
            documents.full_disk(paths.agent),
        )

    def status_v3(self) -> Response:
        """GET /v3/status."""
        return json_answer(self.full())

    def plan(self) -> Response:
        """GET /v3/plan: the plan of the last pass; `id` is null and `message` says why if there is none."""
        found = documents.read_document(self.config.paths.plan)
        empty: dict[str, Any] = {
            "id": None,
            "mode": self.config.apply,
            "steps": [],
            "conflicts": [],
            "held": [],
            "commands": [],
        }
        return json_answer({**empty, **found.content, "message": found.problem})

    def events(self) -> Response:
        """GET /v3/events: the last changes that were tried, oldest first; `message` says why if there are none."""
        found = documents.read_document(self.config.paths.events)
        return json_answer({"events": [], **found.content, "message": found.problem})

    def routes(self) -> Response:
        """GET /routes."""
        found = documents.read_document(self.config.paths.routes)
        return json_answer(routes_v1(found.content, self.config.network))

    def routes_v3(self) -> Response:
        """GET /v3/routes: what was learned, what of it the kernel holds, and what was refused, with reasons."""
        found = documents.read_document(self.config.paths.routes)
        bgp = documents.read_document(self.config.paths.bgp)
        body = {"services": {}, **found.content, "bgp": dict(bgp.content), "message": found.problem}
        return json_answer(body)

    def resolve_route(self) -> Response:
        """POST /resolve-route {"dst": "…"}: the source address towards a destination, as doublezerod says it."""
        try:
            body = json.loads(request.get_data())
            dst = body.get("dst") if isinstance(body, dict) else None
        except (ValueError, RecursionError):
            return plain_answer(400, "malformed request\n", {})
        try:
            if not isinstance(dst, str):
                raise AddressValueError(dst)
            source = source_towards(IPv4Address(dst))
        except AddressValueError:
            return plain_answer(400, "invalid request\n", {})
        except OSError:
            return plain_answer(500, "failed to resolve route\n", {})
        if source is None:
            return plain_answer(404, "route not found\n", {})
        return json_answer({"src": str(source)})

    def metrics(self) -> Response:
        """GET /metrics."""
        full = self.full()
        bgp = documents.read_document(self.config.paths.bgp).content
        text = metrics.render(full, full["ledger"], full["intent"]["reconciler_enabled"], self.clock(), bgp)
        return Response(text, content_type=metrics.CONTENT_TYPE)

    def show_config(self) -> Response:
        """GET /config: the program and the RPC host; paths of RPC URLs hold tokens and are never shown."""
        url = redact_url(self.config.rpc[0]) if self.config.rpc else ""
        return json_answer({"program_id": self.config.program_id, "rpc_url": url})

    # ---- writes ----------------------------------------------------------------------------------------

    def enable(self) -> Response:
        """POST /enable, optionally with {"client_ip": "…"} to pin the address (doublezerod's PR 4341)."""
        pinned = read_client_ip(read_body(request, "malformed enable request: "), self.config)
        return self._write(enabled=True, pinned=pinned)

    def disable(self) -> Response:
        """POST /disable; a body is ignored, a pinned address stays."""
        return self._write(enabled=False, pinned=None)

    def _write(self, *, enabled: bool, pinned: IPv4Address | None) -> Response:
        paths = self.config.paths
        with self.lock:
            before = documents.read_intent_file(paths.intent).intent
            kept = None if before is None else before.client_ip
            self.store.write(paths.intent, Intent(enabled, pinned or kept))
        self.store.wake(paths.wake, "intent")
        return ok()

    def apply(self) -> Response:
        """POST /v3/apply {"plan_id": "…"}: asks for exactly the plan that a person has seen.

        With "confirm": seconds, it is rolled back unless POST /v3/confirm comes within that time.
        """
        body = read_body(request, "")
        plan_id, confirm = read_plan_id(body), read_confirm(body)
        plan = documents.read_document(self.config.paths.plan)
        mode = plan.content.get("mode", self.config.apply)
        if mode != "manual":
            raise Refused(
                409, f"the agent applies plans by itself or never (apply: {mode}); nothing waits for you"
            )
        if plan.content.get("id") != plan_id:
            current = plan.content.get("id") or f"missing ({plan.problem})"
            raise Refused(
                409, f"plan {plan_id} is not the current one; that is {current}: look at it, apply that"
            )
        self.store.request_apply(self.config.paths.approval, plan_id, confirm)
        self.store.wake(self.config.paths.wake, "apply")
        return ok()

    def confirm(self) -> Response:
        """POST /v3/confirm {"plan_id": "…"}: the change that was applied stays."""
        plan_id = read_plan_id(read_body(request, ""))
        checkpoint = documents.read_document(self.config.paths.checkpoint).content
        if checkpoint.get("plan_id") != plan_id:
            waiting = checkpoint.get("plan_id")
            what = (
                f"plan {waiting} does" if waiting else "nothing does; see the last apply in `dzagent status`"
            )
            raise Refused(409, f"plan {plan_id} does not wait for a confirmation: {what}")
        self.store.request_confirm(self.config.paths.confirmation, plan_id)
        self.store.wake(self.config.paths.wake, "confirm")
        return ok()

    def approve(self) -> Response:
        """POST /v3/approve {"id": "…"}: lets exactly one withheld thing through, once; "confirm" as for an apply."""
        body = read_body(request, "")
        name, confirm = read_held_id(body), read_confirm(body)
        plan = documents.read_document(self.config.paths.plan)
        held = plan.content.get("held")
        items = held if isinstance(held, list) else []
        if not any(isinstance(item, dict) and item.get("id") == name for item in items):
            raise Refused(409, f"nothing that is withheld has the id {name}: look again with `dzagent plan`")
        asked = ApprovalRequest(name, self.clock(), confirm)
        with self.lock:
            self.store.request_approval(self.config.paths.approvals, asked)
        self.store.wake(self.config.paths.wake, "approve")
        return ok()

    def resync(self) -> Response:
        """POST /v3/resync: everything is read from the kernel now; `last_resync` of the status has the token then."""
        token = secrets.token_hex(8)
        if not self.store.wake(self.config.paths.wake, f"resync:{token}"):
            raise Refused(503, "dzagentd takes no messages; if it does not run: systemctl start dzagentd")
        return json_answer({"status": "ok", "token": token})

    def forget(self) -> Response:
        """POST /v3/ledger/forget: what is known of the ledger is forgotten, the next answer is the first one."""
        self.store.request_forget(self.config.paths.forget, self.clock())
        self.store.wake(self.config.paths.wake, "forget")
        return ok()


def create_app(
    config: Config, *, store: IntentStore | None = None, clock: Callable[[], float] = time.time
) -> Flask:
    """Build the application. `store` and `clock` are replaced in tests."""
    app = Flask("dzagent.api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # upstream has no redirects
    api = Api(config, store or FileStore(), clock, threading.Lock())
    gets = {
        "/status": api.status,
        "/v2/status": api.status_v2,
        "/v3/status": api.status_v3,
        "/v3/plan": api.plan,
        "/v3/routes": api.routes_v3,
        "/routes": api.routes,
        "/v3/events": api.events,
        "/metrics": api.metrics,
        "/config": api.show_config,
        **dict.fromkeys(NOT_BUILT, not_built),
    }
    posts = {
        "/enable": api.enable,
        "/disable": api.disable,
        "/v3/apply": api.apply,
        "/v3/confirm": api.confirm,
        "/v3/approve": api.approve,
        "/resolve-route": api.resolve_route,
        "/v3/ledger/forget": api.forget,
        "/v3/resync": api.resync,
        **dict.fromkeys(NOT_BUILT_POST, not_built),
    }
    for method, table in (("GET", gets), ("POST", posts)):
        for path, view in table.items():
            app.add_url_rule(path, path, view, methods=[method], provide_automatic_options=False)
    app.before_request(check_size)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Refused, refused)
    app.register_error_handler(StateError, state_error)
    return app
