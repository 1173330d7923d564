"""Switches that make a node misbehave, in every way that nodes and proxies have been seen or feared to.

They stand in one JSON file, read anew when it changes: {"faults": [{"name": …, "method": …, "account": …,
"left": …}]}. The first one that fits a request is played.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dzagent.errors import InputError, StateError
from dzagent.files import locked, read_json, write_json

TRANSPORT: Mapping[str, str] = {
    "refuse": "nobody listens",
    "reset": "the connection is reset instead of an answer",
    "hang": "no answer, ever",
    "drip": "one byte a second",
    "cut-body": "the body ends early",
    "bad-gzip": "a gzip body that is none",
    "gzip-bomb": "a body of one megabyte that unpacks to 256",
    "http-429": "HTTP 429 with Retry-After: 7",
    "http-500": "HTTP 500 with a page of HTML",
    "http-502": "HTTP 502 with a page of HTML",
    "http-503": "HTTP 503 with a page of HTML",
    "html": "a page of HTML with status 200",
    "junk": "eight megabytes of noise",
    "deep": "JSON that is nested a million deep",
}
"""Faults of the connection or of HTTP, by name, with what happens."""

ANSWERS: Mapping[str, str] = {
    "error-429": "the error 429 in a 200",
    "error-1015": "the error 1015 in a 200",
    "error-unknown": "an error with a code that nobody knows",
    "error-behind": "the error -32005 without its data",
    "error-slot": "the error -32016 without its data",
    "error-filters": "-32602 for getProgramAccounts with filters",
    "error-method": "-32601, method not found",
    "null": "the result null",
    "empty": "an empty list of accounts",
    "no-config": "answers without the GlobalConfig",
    "no-user": "answers without one user (account), or without any: with --method getProgramAccounts a list that lacks it",
    "slot-back": "a context slot that is 1000 too low",
    "slot-ahead": "a context slot that is far ahead",
    "float-rent": "rentEpoch as a float, as JavaScript proxies write it",
    "broken-account": "one account (or the first) whose data is no base64",
    "short-account": "one account (or the first) without its last half",
    "truncated": "the second half of the list is missing",
    "shuffled": "the list in the reverse order",
    "duplicated": "the first account twice",
    "wrong-owner": "accounts of another program",
    "other-genesis": "another genesis hash",
}
"""Faults of the answer itself."""

_CONFIG_TYPE, _USER_TYPE = 2, 7


@dataclass(frozen=True, slots=True)
class Fault:
    """One switch: for all methods or one, for one account or whatever fits, for `left` requests or (None) always."""

    name: str
    method: str | None = None
    account: str | None = None
    left: int | None = None


class FaultFile:
    """The switches of one node. Raises InputError for a file that is not one of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._faults: tuple[Fault, ...] = ()

    def read(self) -> tuple[Fault, ...]:
        """Return what is switched on, the first one first."""
        try:
            found = self._path.stat()
        except OSError:
            self._stamp, self._faults = (0, 0), ()
            return ()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._faults, self._stamp = _parse(read_json(self._path), self._path), stamp
        return self._faults

    def write(self, faults: Sequence[Fault]) -> None:
        """Replace what is switched on. Raises StateError."""
        with locked(self._path.with_name(self._path.name + ".lock")):
            write_json(self._path, {"faults": [asdict(fault) for fault in faults]})

    def take(self, method: str) -> Fault | None:
        """Return the fault that a request meets, and count it."""
        faults = self._safe()
        for place, fault in enumerate(faults):
            if fault.method not in {None, method}:
                continue
            if fault.left is not None:
                rest = () if fault.left <= 1 else (replace(fault, left=fault.left - 1),)
                try:
                    self.write((*faults[:place], *rest, *faults[place + 1 :]))
                except StateError:
                    return None
            return fault
        return None

    def refuses(self) -> bool:
        """Tell whether nobody should listen now."""
        return any(fault.name == "refuse" for fault in self._safe())

    def _safe(self) -> tuple[Fault, ...]:
        try:
            return self.read()
        except (InputError, StateError):
            return ()


def _parse(document: Any, path: Path) -> tuple[Fault, ...]:
    listed = document.get("faults") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InputError(f'{path}: expected {{"faults": [...]}}')
    return tuple(
        make(**{key: item.get(key) for key in ("name", "method", "account", "left")}) for item in listed
    )


def make(name: Any, method: Any = None, account: Any = None, left: Any = None) -> Fault:
    """Return a checked fault. Raises InputError."""
    if name not in TRANSPORT and name not in ANSWERS:
        known = ", ".join(sorted([*TRANSPORT, *ANSWERS]))
        raise InputError(f"{name!r} is no fault; there are: {known}")
    if left is not None and (isinstance(left, bool) or not isinstance(left, int) or left < 1):
        raise InputError("a fault lasts for 1 request or more")
    if not all(isinstance(value, (str, type(None))) for value in (method, account)):
        raise InputError("method and account of a fault are text")
    return Fault(name, method, account, left)


# ---- answers that lie ----------------------------------------------------------------------------------------


def spoil(fault: Fault, request: Mapping[str, Any], said: bytes) -> bytes:
    """Return an answer with this fault in it. Pure."""
    answer = json.loads(said)
    if not isinstance(answer, dict):
        return said
    error = _error(fault, request)
    if error is not None:
        return _write({"jsonrpc": "2.0", "error": error, "id": answer.get("id")})
    if "result" not in answer:
        return said
    change = _CHANGES.get(fault.name)
    return said if change is None else _write({**answer, "result": change(fault, answer["result"], request)})


def _error(fault: Fault, request: Mapping[str, Any]) -> dict[str, Any] | None:
    if fault.name == "error-filters":
        params = request.get("params")
        filtered = isinstance(params, list) and any(isinstance(p, dict) and p.get("filters") for p in params)
        return {"code": -32602, "message": "Filters are not supported"} if filtered else None
    codes = {
        "error-429": (429, "Too many requests"),
        "error-1015": (1015, "You are being rate limited"),
        "error-unknown": (-32099, "Something else"),
        "error-behind": (-32005, "Node is behind"),
        "error-slot": (-32016, "Minimum context slot has not been reached"),
        "error-method": (-32601, "Method not found"),
    }
    if fault.name not in codes:
        return None
    code, message = codes[fault.name]
    return {"code": code, "message": message}


def _write(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _value(result: Any) -> Any:
    return result["value"] if isinstance(result, dict) and "value" in result else result


def _with_value(result: Any, value: Any) -> Any:
    return {**result, "value": value} if isinstance(result, dict) and "value" in result else value


_Entry = tuple[str | None, Any]


def _entries(result: Any, request: Mapping[str, Any]) -> list[_Entry]:
    """Return (address, account) of every account in an answer, whatever the method."""
    value, params = _value(result), request.get("params") or [None]
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and "pubkey" in value[0]:
            return [(item["pubkey"], item["account"]) for item in value]
        keys = params[0] if isinstance(params[0], list) else []
        return list(zip(keys, value, strict=False))
    return [(params[0], value)]


def _map(result: Any, request: Mapping[str, Any], change: Callable[[str | None, Any], Any]) -> Any:
    """Change every account of an answer; None leaves it out of a list, or says that it is absent."""
    value = _value(result)
    changed = [(address, change(address, account)) for address, account in _entries(result, request)]
    if not isinstance(value, list):
        return _with_value(result, changed[0][1]) if isinstance(value, dict) else result
    if value and isinstance(value[0], dict) and "pubkey" in value[0]:
        listed = [
            {"account": account, "pubkey": address} for address, account in changed if account is not None
        ]
        return _with_value(result, listed)
    return _with_value(result, [account for _, account in changed])


def _data(account: Any) -> bytes:
    try:
        return base64.b64decode(account["data"][0])
    except (KeyError, TypeError, IndexError, ValueError):
        return b""


def _without_type(kind: int) -> Callable[[Fault, Any, Mapping[str, Any]], Any]:
    def change(fault: Fault, result: Any, request: Mapping[str, Any]) -> Any:
        def drop(address: str | None, account: Any) -> Any:
            meant = address == fault.account if fault.account else _data(account)[:1] == bytes([kind])
            return None if meant else account

        return _map(result, request, drop)

    return change


def _on_one(
    edit: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[Fault, Any, Mapping[str, Any]], Any]:
    def change(fault: Fault, result: Any, request: Mapping[str, Any]) -> Any:
        chosen = fault.account or next(
            (a for a, one in _entries(result, request) if isinstance(one, dict)), None
        )

        def one(address: str | None, account: Any) -> Any:
            return edit(account) if address == chosen and isinstance(account, dict) else account

        return _map(result, request, one)

    return change


def _half(account: dict[str, Any]) -> dict[str, Any]:
    data = _data(account)
    return {**account, "data": [base64.b64encode(data[: len(data) // 2]).decode(), "base64"]}


def _each(**fields: Any) -> Callable[[Fault, Any, Mapping[str, Any]], Any]:
    def change(_fault: Fault, result: Any, request: Mapping[str, Any]) -> Any:
        return _map(
            result,
            request,
            lambda _, account: {**account, **fields} if isinstance(account, dict) else account,
        )

    return change


def _on_list(edit: Callable[[list[Any]], list[Any]]) -> Callable[[Fault, Any, Mapping[str, Any]], Any]:
    def change(_fault: Fault, result: Any, _request: Mapping[str, Any]) -> Any:
        value = _value(result)
        return _with_value(result, edit(value)) if isinstance(value, list) else result

    return change


def _on_slot(by: int) -> Callable[[Fault, Any, Mapping[str, Any]], Any]:
    def change(_fault: Fault, result: Any, _request: Mapping[str, Any]) -> Any:
        if isinstance(result, dict) and isinstance(result.get("context"), dict):
            slot = max(0, result["context"]["slot"] + by)
            return {**result, "context": {**result["context"], "slot": slot}}
        return max(0, result + by) if isinstance(result, int) else result

    return change


_CHANGES: Mapping[str, Callable[[Fault, Any, Mapping[str, Any]], Any]] = {
    "null": lambda _fault, _result, _request: None,
    "empty": _on_list(lambda _: []),
    "no-config": _without_type(_CONFIG_TYPE),
    "no-user": _without_type(_USER_TYPE),
    "slot-back": _on_slot(-1000),
    "slot-ahead": _on_slot(10**15),
    "float-rent": _each(rentEpoch=1.8446744073709552e19),
    "broken-account": _on_one(lambda account: {**account, "data": ["*", "base64"]}),
    "short-account": _on_one(_half),
    "truncated": _on_list(lambda value: value[: len(value) // 2]),
    "shuffled": _on_list(lambda value: value[::-1]),
    "duplicated": _on_list(lambda value: [*value[:1], *value]),
    "wrong-owner": _each(owner="1" * 32),
    "other-genesis": lambda _fault, result, _request: result[::-1] if isinstance(result, str) else result,
}
