"""What may stand in the body of a request, and what is said of one that may not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from flask import Request, request

from dzagent.config import Config, refuse_client_ip
from dzagent.errors import InputError
from dzagent.state import MAX_CONFIRM, MIN_CONFIRM

MAX_BODY = 64 * 1024
"""Largest request body, in bytes."""


class Refused(InputError):
    """A request that was understood and refused; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_size() -> None:
    """Refuse what must not be read: too large, or of a length that only its end would tell."""
    if request.headers.get("Transfer-Encoding"):
        raise Refused(411, "send the body with a Content-Length")
    if (request.content_length or 0) > MAX_BODY:
        raise Refused(413, f"the body is larger than {MAX_BODY} bytes")


def read_body(incoming: Request, prefix: str) -> Mapping[str, Any]:
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


def read_client_ip(body: Mapping[str, Any], config: Config) -> IPv4Address | None:
    """Return the address to be pinned, None for none. Raises Refused for one that this host cannot have."""
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


def read_plan_id(body: Mapping[str, Any]) -> str:
    """Return the id of a plan. Raises Refused."""
    plan_id = body.get("plan_id")
    if not isinstance(plan_id, str) or not plan_id.isalnum() or len(plan_id) > 64:
        raise Refused(400, 'expected {"plan_id": "..."} with the id that `dzagent plan` prints')
    return plan_id


def read_held_id(body: Mapping[str, Any]) -> str:
    """Return the id of something withheld. Raises Refused."""
    name = body.get("id")
    if not isinstance(name, str) or not _HELD_ID.fullmatch(name):
        raise Refused(
            400, 'expected {"id": "..."} with the id that `dzagent plan` prints for what is withheld'
        )
    return name


_HELD_ID = re.compile(r"[0-9a-f]{4,64}")


def read_confirm(body: Mapping[str, Any]) -> int | None:
    """Return the seconds within which a change must be confirmed, None for a change that just stays."""
    value = body.get("confirm")
    if value is None:
        return None
    whole = not isinstance(value, bool) and isinstance(value, int)
    if not whole or not MIN_CONFIRM <= value <= MAX_CONFIRM:
        raise Refused(400, f'"confirm" must be a whole number of seconds from {MIN_CONFIRM} to {MAX_CONFIRM}')
    return int(value)
