"""JSON-RPC 2.0 envelopes: the request body, and an answer's bytes -> its result. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from dzagent.errors import (
    LaggingNode,
    LedgerError,
    MethodRefused,
    NotAnRpc,
    RateLimited,
    Unreachable,
    Unusable,
)

MIN_CONTEXT_SLOT_NOT_REACHED = -32016
NODE_UNHEALTHY = -32005
RATE_LIMIT_CODES = frozenset({429, 1015})
"""HTTP's 429 inside a 200, and Cloudflare's number for the same: seen from hosted nodes."""

REFUSED_CODES = frozenset({-32600, -32601, -32602, -32010, -32011})
"""Invalid request, no such method, invalid parameters, account excluded from the node's index, no such index
(JSON-RPC 2.0, section 5.1; Agave, rpc-client-api/src/custom_error.rs). Hosted nodes use them for what they forbid."""

BYTES_PER_VALUE = 32
"""A body of N bytes may hold N / 32 separators (`{ [ , :`). A JSON list of empty lists grows about 35-fold
when it is parsed; account answers are long base64 strings and stay far below this (one in 500 or less)."""

_MAX_INTEGER_DIGITS = 40  # a u128 has 39; int() of millions of digits would run for minutes on old Pythons


def request_body(request_id: int, method: str, params: Sequence[Any]) -> bytes:
    """Write one call as JSON."""
    body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)}
    return json.dumps(body, allow_nan=False).encode()


def printable(text: object, limit: int = 160) -> str:
    """Make text of the other side safe to show: printable ASCII on one line, cut at `limit` characters."""
    line = "".join(c if " " <= c <= "~" else "?" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[:limit] + "..."


def read_answer(body: bytes | bytearray, request_id: int, max_body: int) -> Any:
    """Return the result in an answer; raise Unusable (also LaggingNode, MethodRefused), RateLimited or Unreachable.

    The messages do not name the endpoint; the caller adds it.
    """
    answer = parse(body, max_body)
    if not isinstance(answer, dict):
        raise NotAnRpc(f"answered with a JSON {_kind(answer)} where an object was expected")
    if not answer.keys() & {"result", "error"}:
        raise NotAnRpc("answered without a result: it is no Solana RPC, or the URL is not the RPC's")
    error = answer.get("error")
    answered = answer.get("id")
    # An error may come with a null id: the node could not read the request's (JSON-RPC 2.0, section 5).
    if answered != request_id and not (error is not None and answered is None):
        raise Unusable("answered with the id of another request")
    if error is not None:
        _raise_error(error)
    if answer.get("result") is None:
        raise Unusable("answered without a result")
    return answer["result"]


def parse(body: bytes | bytearray, max_body: int) -> Any:
    """Parse JSON of the other side within bounds of memory and time; raise Unusable or NotAnRpc."""
    if sum(body.count(mark) for mark in (b"{", b"[", b",", b":")) > max_body // BYTES_PER_VALUE:
        raise Unusable("answered with far more JSON values than an account list of this size has")
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_int=_integer,
            parse_constant=_not_json,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise Unusable("answered with JSON that is nested too deep") from None
    except ValueError:  # bad UTF-8, bad JSON, and what the hooks below refuse
        if body[:200].lstrip()[:1] == b"<":
            raise NotAnRpc("answered with HTML that cannot be read as JSON: is this URL an RPC's?") from None
        raise Unusable(f"answered with {len(body)} bytes that cannot be read as JSON") from None


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise ValueError("integer too long")
    return int(digits)


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that names a key twice: its two readers would disagree on what it says."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _kind(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), "value")


def _raise_error(error: object) -> NoReturn:
    raise _error(error)


def _error(error: object) -> LedgerError:
    """Choose the class of a JSON-RPC error; `data` is never needed for it, since proxies may drop it."""
    if not isinstance(error, dict):
        return Unusable("answered with an error that is not an object")
    code, said = error.get("code"), printable(error.get("message", "no message"))
    if code == MIN_CONTEXT_SLOT_NOT_REACHED:
        return LaggingNode(f"has not reached the wanted slot ({said})")
    if code == NODE_UNHEALTHY:
        return Unreachable(f"says that it is not healthy ({said})")
    if isinstance(code, int) and code in RATE_LIMIT_CODES:
        return RateLimited(f"asks for fewer requests ({said})")
    if isinstance(code, int) and code in REFUSED_CODES:
        return MethodRefused(f"refused the request with error {code} ({said})")
    return Unusable(f"answered with error {printable(code, 20)} ({said})")
