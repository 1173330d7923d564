"""What a failed request means: each in one sentence that quotes no URL, and of which class of error."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence

import httpx2

from dzagent.errors import (
    LaggingNode,
    LedgerError,
    MethodRefused,
    NameUnresolved,
    NotAnRpc,
    RateLimited,
    TlsFailed,
    Unreachable,
    Unusable,
)
from dzagent.ledger.jsonrpc import printable

_MAX_RETRY_AFTER = 3600.0
_RETRIED_STATUS = frozenset({502, 503, 504})
_ENCODINGS = frozenset({"", "identity", "gzip"})


class Dropped(Unreachable):
    """A failure that the very next attempt may not have: every call here only reads, so it is repeated."""


def check_head(status: int, headers: httpx2.Headers) -> None:
    """Raise Unreachable or Unusable for a response that is no answer, before its body is read."""
    if status == 429:
        raise RateLimited("asks for fewer requests (HTTP 429)", _retry_after(headers))
    if status in _RETRIED_STATUS:
        raise Dropped(f"answered HTTP {status}")
    if 300 <= status < 400:
        raise Unreachable(
            f"answered HTTP {status}, a redirect, which is not followed; configure the final URL"
        )
    if status in {401, 403}:
        raise Unreachable(f"refused access with HTTP {status}; check the token in its URL")
    if status != 200:
        raise Unreachable(f"answered HTTP {status}")
    # Several encodings on top of each other can grow without giving one byte to count: only one is allowed.
    if headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise Unusable("answered with a content encoding that was not asked for")


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Read Retry-After in seconds; its other form, a date, needs a clock that both sides agree on."""
    text = headers.get("retry-after", "").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return min(float(text), _MAX_RETRY_AFTER)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def connect_failure(error: BaseException) -> Unreachable:
    """Say what happened from the chain of causes: httpx2's own text may quote the URL."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return TlsFailed(f"failed in TLS: {_tls_reason(cause)}")
        if isinstance(cause, socket.gaierror):
            return NameUnresolved("has a name that cannot be resolved")
        if isinstance(cause, ConnectionRefusedError):
            return Unreachable("refused the connection")
    return Unreachable(f"cannot be reached ({type(error).__name__})")


def _tls_reason(error: ssl.SSLError) -> str:
    said = printable(getattr(error, "verify_message", "") or error.reason or "broken")
    # OpenSSL 3: "certificate has expired", "certificate is not yet valid".
    if "expired" in said or "not yet valid" in said:
        return f"{said}; if the endpoint is fine, this host's clock is wrong"
    return said


def reworded(error: LedgerError, message: str) -> LedgerError:
    """Return an error of the same public class with another message."""
    if isinstance(error, Dropped):
        return Unreachable(message)
    if isinstance(error, RateLimited):
        return type(error)(message, error.retry_after)
    return type(error)(message)


def summary(failures: Sequence[LedgerError]) -> LedgerError:
    """One error for all endpoints: of the class they share, else Unreachable.

    A lagging node among them says that the ledger is there: then the answer was late, not missing.
    """
    message = " ".join(str(error) for error in failures)
    for error in failures:
        if isinstance(error, LaggingNode) or len(failures) == 1:
            return reworded(error, message)
    for error in failures:
        # One that answers but not so may answer another question: the caller asks differently.
        if isinstance(error, MethodRefused):
            return reworded(error, message)
    for kind in (RateLimited, TlsFailed, NameUnresolved, NotAnRpc, Unusable):
        if failures and all(isinstance(error, kind) for error in failures):
            return kind(message)
    return Unreachable(message or "No RPC endpoint could be asked within the timeout.")
