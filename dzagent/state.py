"""What a person wants of the agent, on disk: enabled or not, the pinned client IP, a plan to apply or to confirm, something withheld to
let through.

The API writes these files and the reconciler reads them; a datagram tells it to look at once. Compatible with
doublezerod's state.json (manager/state.go): the key `reconciler_enabled`, and `client_ip` since its PR 4341.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

from dzagent.config import refuse_client_ip
from dzagent.errors import StateError
from dzagent.files import absent, is_seconds, locked, read_json, write_json

FORGET_SECONDS = 600.0
"""How long the wish to forget the ledger holds: an agent that is started later does not find it by surprise."""

MIN_CONFIRM, MAX_CONFIRM = 5, 3600
"""Seconds that a change may wait for its confirmation."""

MAX_APPROVALS = 32
"""Approvals that are remembered until the agent reads them."""

_PLAN_ID = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Intent:
    """The wish of a person. `client_ip` pins the identity until another enable names another."""

    enabled: bool
    client_ip: IPv4Address | None = None


def read_intent(path: Path) -> Intent | None:
    """Return the intent on disk, None if nobody has said anything yet. Raises StateError if unreadable."""
    document = read_json(path)
    if document is None:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("reconciler_enabled"), bool):
        raise StateError(f'{path}: expected an object with "reconciler_enabled": true or false')
    return Intent(document["reconciler_enabled"], _client_ip(path, document.get("client_ip")))


def _client_ip(path: Path, text: Any) -> IPv4Address | None:
    if text is None or text == "":
        return None
    try:
        address = IPv4Address(text if isinstance(text, str) else "")
    except AddressValueError as error:
        raise StateError(f'{path}: "client_ip" is {text!r:.80}, expected an IPv4 address') from error
    reason = refuse_client_ip(
        address, "custom"
    )  # which addresses a network accepts was asked when it was pinned
    if reason is not None:
        raise StateError(f'{path}: "client_ip": {reason}')
    return address


def write_intent(path: Path, intent: Intent) -> None:
    """Put a new intent on disk, durably, under a lock. A corrupt old file is set aside, never lost.

    Raises StateError; then the old intent still holds.
    """
    with locked(path.parent / "lock"):
        _set_aside_if_corrupt(path)
        write_json(path, _document(intent), durable=True)


def write_first_intent(path: Path, intent: Intent) -> bool:
    """Put an intent on disk if nobody has ever said one; tells whether it did. Raises StateError."""
    with locked(path.parent / "lock"):
        if not absent(path):
            return False
        write_json(path, _document(intent), durable=True)
    return True


def _document(intent: Intent) -> dict[str, Any]:
    document: dict[str, Any] = {"reconciler_enabled": intent.enabled}
    if intent.client_ip is not None:
        document["client_ip"] = str(intent.client_ip)
    return document


def _set_aside_if_corrupt(path: Path) -> None:
    try:
        read_intent(path)
    except StateError:
        with contextlib.suppress(OSError):  # unreadable as well as corrupt: the write that follows reports it
            _keep_copy(path, path.with_name(path.name + ".corrupt"))


def _keep_copy(path: Path, copy: Path) -> None:
    """Link rather than rename: at no moment, and not if the next write fails, does it look as if nobody had spoken."""
    copy.unlink(missing_ok=True)
    try:
        os.link(path, copy, follow_symlinks=False)
    except OSError:  # a folder in the place of the file, or a file system without links
        path.replace(copy)


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """A wish to apply a plan. confirm: seconds until it is rolled back unless somebody confirms it, None for never."""

    plan_id: str
    confirm: int | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A wish to let one withheld thing through; at: unix seconds, which tells two requests apart. confirm: as above."""

    id: str
    at: float
    confirm: int | None = None


def request_apply(path: Path, plan_id: str, confirm: int | None = None) -> None:
    """Ask the reconciler to apply the plan with this id, if it is still the plan. Raises StateError."""
    if not _PLAN_ID.fullmatch(plan_id):
        raise StateError(f"{plan_id!r} is not a plan id: `dzagent plan` prints it")
    document: dict[str, Any] = {"plan_id": plan_id}
    if confirm is not None:
        document["confirm"] = confirm
    with locked(path.parent / "lock"):
        write_json(path, document, durable=True)


def read_apply_request(path: Path) -> ApplyRequest | None:
    """Return the plan somebody asked to apply, None if nobody did. Raises StateError."""
    document = read_json(path)
    if document is None:
        return None
    plan_id = document.get("plan_id") if isinstance(document, dict) else None
    if not isinstance(plan_id, str) or not _PLAN_ID.fullmatch(plan_id):
        raise StateError(f'{path}: expected an object with "plan_id"')
    return ApplyRequest(plan_id, _confirm(path, document.get("confirm")))


def _confirm(path: Path, value: Any) -> int | None:
    """A wish for a way back that cannot be read is no wish to do it without."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_CONFIRM <= value <= MAX_CONFIRM:
        raise StateError(f'{path}: "confirm" is {value!r:.40}, expected seconds')
    return value


def request_confirm(path: Path, plan_id: str) -> None:
    """Confirm a plan that would else be rolled back. Raises StateError."""
    request_apply(path, plan_id)


def request_approval(path: Path, request: ApprovalRequest) -> None:
    """Ask the reconciler to let one withheld thing through, once. Raises StateError.

    Beside those of others: the last ones are kept, so that none is lost before it is read.
    """
    if not _PLAN_ID.fullmatch(request.id):
        raise StateError(f"{request.id!r} is not the id of something withheld: `dzagent plan` prints it")
    with locked(path.parent / "lock"):
        try:
            others = read_approvals(path)
        except StateError:
            others = ()
        entries = [
            {"id": item.id, "at": item.at, **({} if item.confirm is None else {"confirm": item.confirm})}
            for item in (*others[-MAX_APPROVALS:], request)
        ]
        write_json(path, {"approvals": entries}, durable=True)


def read_approvals(path: Path) -> tuple[ApprovalRequest, ...]:
    """Return the last approvals that were asked for, oldest first. Raises StateError."""
    document = read_json(path)
    if document is None:
        return ()
    entries = document.get("approvals") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise StateError(f'{path}: expected an object with "approvals"')
    found: list[ApprovalRequest] = []
    for entry in entries[-MAX_APPROVALS:]:
        name, at = (entry.get("id"), entry.get("at")) if isinstance(entry, dict) else (None, None)
        if not is_seconds(at) or not isinstance(name, str) or not _PLAN_ID.fullmatch(name):
            raise StateError(f'{path}: expected approvals with "id" and "at"')
        found.append(ApprovalRequest(name, float(at), _confirm(path, entry.get("confirm"))))
    return tuple(found)


def request_forget(path: Path, now: float) -> None:
    """Ask the agent to forget what it knows of the ledger; `now` is unix seconds. Raises StateError."""
    with locked(path.parent / "lock"):
        write_json(path, {"asked_at": now}, durable=True)


class ForgetRequests:
    """Tells, once for each, whether a person asked to forget the ledger.

    A request that is older than FORGET_SECONDS is none any more, whenever the agent comes to see it; `now` gives
    unix seconds.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._seen: float | None = None

    def asked(self) -> bool:
        """Tell whether there is a new request; a file that cannot be read is none. The file is left in place."""
        try:
            document = read_json(self._path)
        except StateError:
            return False
        asked_at = document.get("asked_at") if isinstance(document, dict) else None
        if not is_seconds(asked_at) or asked_at == self._seen:
            return False
        self._seen = float(asked_at)
        return abs(self._now() - asked_at) < FORGET_SECONDS


def send_wake(path: Path, reason: str) -> bool:
    """Tell the reconciler to look now. False if nobody listens: a dead reconciler is no error here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto(reason.encode()[:64], str(path))
        except OSError:
            return False
    return True
