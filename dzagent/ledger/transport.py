"""What the ledger's readers need of a transport, whatever carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dzagent.errors import LedgerError

MAX_BODY = 16 * 1024 * 1024
"""Bytes, decompressed, of an own poll. That is about 6 KB, and all devices 0.3 MB."""

MAX_FULL_BODY = 64 * 1024 * 1024
"""Bytes, decompressed, of a full fetch: 3 MB on mainnet in 2026."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was sent and received since the start: requests, and bytes of bodies as they were on the wire."""

    requests: int = 0
    sent: int = 0
    received: int = 0


class RpcClient(Protocol):
    """What the poller needs of a transport."""

    @property
    def endpoint(self) -> str:
        """The host that answered last (before the first answer: that will be asked first)."""

    @property
    def traffic(self) -> Traffic:
        """What was sent and received so far."""

    def call(self, method: str, params: Sequence[Any] = (), *, max_body: int | None = None) -> Any:
        """Return the result of one call; raise Unreachable or Unusable. `max_body` in bytes, decompressed."""

    def blame(self, error: LedgerError) -> None:
        """Say that the last answer turned out to be no good: another endpoint is asked first for a while."""
