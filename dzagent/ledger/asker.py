"""The requests that polls are made of, and whom they are asked of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dzagent.errors import LaggingNode, LedgerChanged, SlotLeap, Unusable
from dzagent.ledger.answers import Listing, Seen, read_accounts, read_listing
from dzagent.ledger.transport import MAX_FULL_BODY, RpcClient

MAX_KEYS = 100
"""Addresses that one getMultipleAccounts may name (Agave: MAX_MULTIPLE_ACCOUNTS)."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Genesis:
    """Which ledger this is: slots of different ledgers do not compare. Asked once per endpoint."""

    def __init__(self, rpc: RpcClient, genesis_hash: str) -> None:
        self._rpc = rpc
        self._verified: set[str] = set()
        self.hash = genesis_hash

    def doubt(self) -> None:
        """Ask every endpoint again before it is believed."""
        self._verified.clear()

    def greet(self) -> None:
        """Ask whoever answers now, if not known yet; raise LedgerChanged or Unusable."""
        if self._rpc.endpoint not in self._verified:
            self._ask()

    def check(self, endpoint: str) -> None:
        """Make sure that an endpoint whose answers are in use serves the known ledger; raises as `greet`."""
        if endpoint not in self._verified:
            self._ask()
        if endpoint not in self._verified:
            raise Unusable(
                f"RPC endpoint {endpoint} stopped answering before its ledger was known; the next poll asks again."
            )

    def _ask(self) -> None:
        answer = self._rpc.call("getGenesisHash")
        if not isinstance(answer, str) or not 32 <= len(answer) <= 44 or not set(answer) <= set(_BASE58):
            raise Unusable("The answer to getGenesisHash is not usable: it is not a hash.")
        if self.hash and answer != self.hash:
            raise LedgerChanged(
                f"RPC endpoint {self._rpc.endpoint} serves another ledger (genesis hash {answer}, before "
                f"{self.hash}); nothing is changed. If the ledger was replaced on purpose: dzagent ledger forget."
            )
        self.hash = answer
        self._verified.add(self._rpc.endpoint)


class Asker:
    """The requests of one poll. `slot` rises with each answer and never goes back.

    `limit` is the highest slot that can be true, None if anything can.
    """

    def __init__(
        self, rpc: RpcClient, program_id: str, commitment: str, slot: int, limit: int | None = None
    ) -> None:
        self._rpc = rpc
        self._program_id = program_id
        self._commitment = commitment
        self._limit = limit
        self.slot = slot
        self.endpoints: set[str] = set()

    def everything(self) -> Listing:
        """List all accounts of the program: dear, and what every node can do."""
        options = {**self._options(), "withContext": True}
        result = self._call("getProgramAccounts", options, self._program_id, MAX_FULL_BODY)
        listing = read_listing(result, self._program_id)
        self._rise(listing.slot)
        return listing

    def listing(self, memcmp: Mapping[int, bytes]) -> Listing:
        """List the program's accounts that hold these bytes at these offsets."""
        filters = [
            {"memcmp": {"offset": offset, "encoding": "base58", "bytes": base58(data)}}
            for offset, data in memcmp.items()
        ]
        options = {**self._options(), "filters": filters, "withContext": True}
        listing = read_listing(self._call("getProgramAccounts", options, self._program_id), self._program_id)
        self._rise(listing.slot)
        return listing

    def accounts(self, addresses: Iterable[str]) -> dict[str, Seen]:
        """Look up accounts by address, each once."""
        keys = list(dict.fromkeys(addresses))
        held: dict[str, Seen] = {}
        for start in range(0, len(keys), MAX_KEYS):
            chunk = keys[start : start + MAX_KEYS]
            result = self._call("getMultipleAccounts", self._options(), chunk)
            slot, found = read_accounts(result, chunk, self._program_id)
            self._rise(slot)
            held.update(found)
        return held

    def _call(
        self, method: str, options: Mapping[str, Any], subject: object, max_body: int | None = None
    ) -> Any:
        result = self._rpc.call(method, [subject, options], max_body=max_body)
        self.endpoints.add(self._rpc.endpoint)
        return result

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"encoding": "base64", "commitment": self._commitment}
        return {**options, "minContextSlot": self.slot} if self.slot > 0 else options

    def _rise(self, slot: int) -> None:
        if slot < self.slot:
            raise LaggingNode(
                f"RPC endpoint {self._rpc.endpoint} is behind: it answered for slot {slot}, "
                f"slot {self.slot} was seen before; nothing is changed."
            )
        if self._limit is not None and slot > self._limit:
            raise SlotLeap(
                f"RPC endpoint {self._rpc.endpoint} answered for slot {slot}, which cannot be so soon after slot "
                f"{self.slot}; nothing is changed until it says so for a while.",
                slot,
            )
        self.slot = slot


def base58(data: bytes) -> str:
    """Write bytes as base58 (Bitcoin's alphabet), the encoding of memcmp that every node reads."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * zeros + digits
