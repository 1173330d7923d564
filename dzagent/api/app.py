"""The HTTP API as a Flask application: doublezerod's paths and shapes, and our own under /v3.

Every read is of small files; nothing waits for the ledger, the kernel or the reconciler.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, Protocol

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from dzagent import metrics, state
from dzagent.api import documents
from dzagent.api.compat import compact, status_v1, status_v2
from dzagent.api.compat import routes as routes_v1
from dzagent.api.resolve import source_towards
from dzagent.api.view import full_status
from dzagent.config import Config, redact_url, refuse_client_ip
from dzagent.errors import InputError, StateError
from dzagent.state import MAX_CONFIRM, MIN_CONFIRM, ApprovalRequest, Intent

MAX_BODY = 64 * 1024
"""Largest request body, in bytes."""

NOT_BUILT = ("/latency", "/v2/latency")
NOT_BUILT_POST = ("/provision", "/remove")


class IntentStore(Protocol):
    """Where wishes are written. Every method may raise StateError; then nothing has changed."""

    def write(self, path: Path, intent: Intent) -> None:
        """Write the intent durably."""

    def request_apply(self, path: Path, plan_id: str, confirm: int | None = None) -> None:
        """Ask for a plan to be applied, and rolled back if nobody confirms it within `confirm` seconds."""

    def request_confirm(self, path: Path, plan_id: str) -> None:
        """Confirm a plan that would else be rolled back."""

    def request_approval(self, path: Path, request: ApprovalRequest) -> None:
        """Ask for something withheld to be let through."""

    def request_forget(self, path: Path, now: float) -> None:
        """Ask for the ledger to be forgotten."""

    def wake(self, path: Path, reason: str) -> bool:
        """Tell the reconciler to look now; False if it is not there, which is no error."""


class FileStore:
    """The real store: files and a datagram."""

    def write(self, path: Path, intent: Intent) -> None:
        """Write the intent durably."""
        state.write_intent(path, intent)

    def request_apply(self, path: Path, plan_id: str, confirm: int | None = None) -> None:
        """Ask for a plan to be applied, and rolled back if nobody confirms it within `confirm` seconds."""
        state.request_apply(path, plan_id, confirm)

    def request_confirm(self, path: Path, plan_id: str) -> None:
        """Confirm a plan that would else be rolled back."""
        state.request_confirm(path, plan_id)

    def request_approval(self, path: Path, request: ApprovalRequest) -> None:
        """Ask for something withheld to be let through."""
        state.request_approval(path, request)

    def request_forget(self, path: Path, now: float) -> None:
        """Ask for the ledger to be forgotten."""
        state.request_forget(path, now)

    def wake(self, path: Path, reason: str) -> bool:
        """Tell the reconciler to look now; False if it is not there, which is no error."""
        return state.send_wake(path, reason)


class Refused(InputError):
    """A request that was understood and refused; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


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
        return _text(status_v1(documents.read_document(self.config.paths.status).content))

    def status_v2(self) -> Response:
        """GET /v2/status. Enabled or not is read from the intent, so that answer and file agree."""
        document = documents.read_document(self.config.paths.status).content
        intent = documents.read_intent_file(self.config.paths.intent)
        enabled = document.get("enabled") is True if intent.enabled is None else intent.enabled
        return _json(status_v2(document, enabled=enabled, network=self.config.network))

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
        )

    def status_v3(self) -> Response:
        """GET /v3/status."""
        return _json(self.full())

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
        return _json({**empty, **found.content, "message": found.problem})

    def events(self) -> Response:
        """GET /v3/events: the last changes that were tried, oldest first; `message` says why if there are none."""
        found = documents.read_document(self.config.paths.events)
        return _json({"events": [], **found.content, "message": found.problem})

    def routes(self) -> Response:
        """GET /routes."""
        found = documents.read_document(self.config.paths.routes)
        return _json(routes_v1(found.content, self.config.network))

    def routes_v3(self) -> Response:
        """GET /v3/routes: what was learned, what of it the kernel holds, and what was refused, with reasons."""
        found = documents.read_document(self.config.paths.routes)
        bgp = documents.read_document(self.config.paths.bgp)
        body = {"services": {}, **found.content, "bgp": dict(bgp.content), "message": found.problem}
        return _json(body)

    def resolve_route(self) -> Response:
        """POST /resolve-route {"dst": "…"}: the source address towards a destination, as doublezerod says it."""
        try:
            body = json.loads(request.get_data())
            dst = body.get("dst") if isinstance(body, dict) else None
        except (ValueError, RecursionError):
            return _plain(400, "malformed request\n", {})
        try:
            if not isinstance(dst, str):
                raise AddressValueError(dst)
            source = source_towards(IPv4Address(dst))
        except AddressValueError:
            return _plain(400, "invalid request\n", {})
        except OSError:
            return _plain(500, "failed to resolve route\n", {})
        if source is None:
            return _plain(404, "route not found\n", {})
        return _json({"src": str(source)})

    def metrics(self) -> Response:
        """GET /metrics."""
        full = self.full()
        bgp = documents.read_document(self.config.paths.bgp).content
        text = metrics.render(full, full["ledger"], full["intent"]["reconciler_enabled"], self.clock(), bgp)
        return Response(text, content_type=metrics.CONTENT_TYPE)

    def show_config(self) -> Response:
        """GET /config: the program and the RPC host; paths of RPC URLs hold tokens and are never shown."""
        url = redact_url(self.config.rpc[0]) if self.config.rpc else ""
        return _json({"program_id": self.config.program_id, "rpc_url": url})

    # ---- writes ----------------------------------------------------------------------------------------

    def enable(self) -> Response:
        """POST /enable, optionally with {"client_ip": "…"} to pin the address (doublezerod's PR 4341)."""
        pinned = _client_ip(_body(request, "malformed enable request: "), self.config)
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
        return _ok()

    def apply(self) -> Response:
        """POST /v3/apply {"plan_id": "…"}: asks for exactly the plan that a person has seen.

        With "confirm": seconds, it is rolled back unless POST /v3/confirm comes within that time.
        """
        body = _body(request, "")
        plan_id, confirm = _plan_id(body), _confirm(body)
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
        return _ok()

    def confirm(self) -> Response:
        """POST /v3/confirm {"plan_id": "…"}: the change that was applied stays."""
        plan_id = _plan_id(_body(request, ""))
        checkpoint = documents.read_document(self.config.paths.checkpoint).content
        if checkpoint.get("plan_id") != plan_id:
            waiting = checkpoint.get("plan_id")
            what = (
                f"plan {waiting} does" if waiting else "nothing does; see the last apply in `dzagent status`"
            )
            raise Refused(409, f"plan {plan_id} does not wait for a confirmation: {what}")
        self.store.request_confirm(self.config.paths.confirmation, plan_id)
        self.store.wake(self.config.paths.wake, "confirm")
        return _ok()

    def approve(self) -> Response:
        """POST /v3/approve {"id": "…"}: lets exactly one withheld thing through, once; "confirm" as for an apply."""
        body = _body(request, "")
        name, confirm = _held_id(body), _confirm(body)
        plan = documents.read_document(self.config.paths.plan)
        held = plan.content.get("held")
        items = held if isinstance(held, list) else []
        if not any(isinstance(item, dict) and item.get("id") == name for item in items):
            raise Refused(409, f"nothing that is withheld has the id {name}: look again with `dzagent plan`")
        asked = ApprovalRequest(name, self.clock(), confirm)
        with self.lock:
            self.store.request_approval(self.config.paths.approvals, asked)
        self.store.wake(self.config.paths.wake, "approve")
        return _ok()

    def resync(self) -> Response:
        """POST /v3/resync: everything is read from the kernel now; `last_resync` of the status has the token then."""
        token = secrets.token_hex(8)
        if not self.store.wake(self.config.paths.wake, f"resync:{token}"):
            raise Refused(503, "dzagentd takes no messages; if it does not run: systemctl start dzagentd")
        return _json({"status": "ok", "token": token})

    def forget(self) -> Response:
        """POST /v3/ledger/forget: what is known of the ledger is forgotten, the next answer is the first one."""
        self.store.request_forget(self.config.paths.forget, self.clock())
        self.store.wake(self.config.paths.wake, "forget")
        return _ok()


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
        **dict.fromkeys(NOT_BUILT, _not_built),
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
        **dict.fromkeys(NOT_BUILT_POST, _not_built),
    }
    for method, table in (("GET", gets), ("POST", posts)):
        for path, view in table.items():
            app.add_url_rule(path, path, view, methods=[method], provide_automatic_options=False)
    app.before_request(_check_size)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(StateError, _state_error)
    return app


# ---- requests --------------------------------------------------------------------------------------------


def _check_size() -> None:
    """Refuse what must not be read: too large, or of a length that only its end would tell."""
    if request.headers.get("Transfer-Encoding"):
        raise Refused(411, "send the body with a Content-Length")
    if (request.content_length or 0) > MAX_BODY:
        raise Refused(413, f"the body is larger than {MAX_BODY} bytes")


def _body(incoming: Request, prefix: str) -> Mapping[str, Any]:
    """Return the JSON object of a body, {} for an empty one. Raises Refused (400), its text behind `prefix`.

    As in Go's json.Decoder only the first value counts, and null is an empty object.
    """
    text = incoming.get_data().decode("utf-8", "replace").lstrip()
    if not text:
        return {}
    try:
        document = _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"{prefix}the body is not valid JSON") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Refused(400, f"{prefix}the body is not a JSON object")
    return document


_DECODER = json.JSONDecoder()


def _client_ip(body: Mapping[str, Any], config: Config) -> IPv4Address | None:
    text = body.get("client_ip")
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise Refused(400, "malformed enable request: client_ip is not a string")
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise Refused(400, f"invalid client_ip {json.dumps(text[:64])}: not an IPv4 address") from error
    reason = refuse_client_ip(address, config.network)
    if reason is not None:
        raise Refused(400, reason)
    if config.client_ip is not None and config.client_ip != address:
        raise Refused(
            409,
            f"client_ip {address} conflicts with client_ip {config.client_ip} of {config.file}, which takes "
            "precedence: change it there, or remove it",
        )
    return address


def _plan_id(body: Mapping[str, Any]) -> str:
    plan_id = body.get("plan_id")
    if not isinstance(plan_id, str) or not plan_id.isalnum() or len(plan_id) > 64:
        raise Refused(400, 'expected {"plan_id": "..."} with the id that `dzagent plan` prints')
    return plan_id


def _held_id(body: Mapping[str, Any]) -> str:
    name = body.get("id")
    if not isinstance(name, str) or not _HELD_ID.fullmatch(name):
        raise Refused(
            400, 'expected {"id": "..."} with the id that `dzagent plan` prints for what is withheld'
        )
    return name


_HELD_ID = re.compile(r"[0-9a-f]{4,64}")


def _confirm(body: Mapping[str, Any]) -> int | None:
    """Return the seconds within which a change must be confirmed, None for a change that just stays."""
    value = body.get("confirm")
    if value is None:
        return None
    whole = not isinstance(value, bool) and isinstance(value, int)
    if not whole or not MIN_CONFIRM <= value <= MAX_CONFIRM:
        raise Refused(400, f'"confirm" must be a whole number of seconds from {MIN_CONFIRM} to {MAX_CONFIRM}')
    return int(value)


# ---- answers ---------------------------------------------------------------------------------------------


def _text(text: str, code: int = 200) -> Response:
    return Response(text.encode(), code, content_type="application/json")


def _json(document: Any, code: int = 200) -> Response:
    return _text(compact(document), code)


def _ok() -> Response:
    return _json({"status": "ok"})


def _error(code: int, message: str) -> Response:
    return _json({"description": message, "status": "error"}, code)


def _not_built() -> Response:
    message = f"{request.path} is not built into this version of dzagent: absent, not a guess"
    return _error(501, message)


def _refused(error: Refused) -> Response:
    return _error(error.code, str(error))


def _state_error(error: StateError) -> Response:
    return _error(500, str(error))


def _http_error(error: HTTPException) -> Response:
    """Answer as Go's http.ServeMux does for a wrong path or method, in JSON for the rest."""
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return _plain(405, "Method Not Allowed\n", {"Allow": allow})
    if error.code == 404:
        return _plain(404, "404 page not found\n", {})
    return _error(error.code or 500, error.description or error.name)


def _plain(code: int, text: str, headers: Mapping[str, str]) -> Response:
    headers = {**headers, "X-Content-Type-Options": "nosniff"}
    return Response(text, code, headers=headers, content_type="text/plain; charset=utf-8")
