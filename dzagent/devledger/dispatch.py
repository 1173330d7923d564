"""JSON-RPC 2.0 envelopes: the bytes of a request -> the bytes of an answer. Pure, given a source of views."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from dzagent.devledger.methods import call
from dzagent.devledger.node import Source
from dzagent.devledger.params import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, RpcError

MAX_BATCH = 100
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer; what a batch asks for beyond it is refused."""

_MAX_INTEGER_DIGITS = 40
_VERSION = "2.0"


def answer(source: Source, body: bytes, max_answer: int = MAX_ANSWER) -> bytes:
    """Answer a request or a batch in at most about max_answer bytes; empty where nothing in it wants an answer."""
    try:
        request = _parse(body)
    except (ValueError, RecursionError):  # ValueError: also bad UTF-8 and what the hooks refuse
        return _failure(None, RpcError(PARSE_ERROR, "Parse error"))
    if not isinstance(request, list):
        return _answer_one(source, request, max_answer) or b""
    if not request:
        return _failure(None, _invalid())
    if len(request) > MAX_BATCH:
        return _failure(None, RpcError(INVALID_REQUEST, f"Too many requests in a batch; max {MAX_BATCH}"))
    answers: list[bytes] = []
    room = max_answer
    for item in request:
        said = _answer_one(source, item, room)
        if said is not None:
            answers.append(said)
            room = max(0, room - len(said))
    return b"[" + b",".join(answers) + b"]" if answers else b""


def _answer_one(source: Source, request: Any, room: int) -> bytes | None:
    """Answer one request in at most about `room` bytes; None for a notification."""
    request_id = _id(request)
    try:
        method, params = _method(request, request_id)
        if "id" not in request:
            return None
        if room == 0:
            raise _too_large()
        # Agave sorts the keys of a result; those of the envelope are in this order.
        said = _write(call(source, method, params), sort=True)
        if len(said) > room:
            raise _too_large()
    except RpcError as error:
        return _failure(request_id, error)
    return b'{"jsonrpc":"2.0","result":' + said + b',"id":' + _write(request_id) + b"}"


def _method(request: Any, request_id: Any) -> tuple[str, Any]:
    """Return method and parameters of a request; raises RpcError if it is none."""
    if not isinstance(request, dict) or request_id is _NO_ID:
        raise _invalid()
    method, params = request.get("method"), request.get("params")
    if not isinstance(method, str) or not isinstance(params, (list, dict, type(None))):
        raise _invalid()
    if request.get("jsonrpc") != _VERSION:
        raise RpcError(INVALID_REQUEST, "Unsupported JSON-RPC protocol version")
    return method, params


class _NoId:
    """Stands for an id that no request may have."""


_NO_ID = _NoId()


def _id(request: Any) -> Any:
    found = request.get("id") if isinstance(request, dict) else None
    if isinstance(found, bool) or not isinstance(found, (str, int, float, type(None))):
        return _NO_ID
    return found


def _failure(request_id: Any, error: RpcError) -> bytes:
    shown: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        shown["data"] = dict(error.data)
    answered = None if request_id is _NO_ID else request_id
    return _write({"jsonrpc": _VERSION, "error": shown, "id": answered})


def _invalid() -> RpcError:
    return RpcError(INVALID_REQUEST, "Invalid request")


def _too_large() -> RpcError:
    return RpcError(INTERNAL_ERROR, "The answer is too large: ask for less at once")


def _write(value: Any, *, sort: bool = False) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=sort, allow_nan=False).encode()


def _parse(body: bytes) -> Any:
    return json.loads(
        body.decode("utf-8"), parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
    )


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise ValueError("integer too long")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise ValueError("number out of range")
    return number


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
