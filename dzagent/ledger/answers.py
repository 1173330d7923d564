"""JSON results of the account methods -> what was seen at each address. Pure.

A part that is broken spoils only itself where that is safe; an answer that does not fit its request raises
Unusable. Shapes: Solana JSON-RPC, getProgramAccounts and getMultipleAccounts with base64 encoding.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from solders.pubkey import Pubkey

from dzagent.errors import Unusable

_MAX_SLOT = 2**63


@dataclass(frozen=True, slots=True)
class Present:
    """An address held an account of the program at a slot; `data` are its bytes."""

    slot: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """A sound answer of a slot has nothing at an address."""

    slot: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something is at an address, but what it is cannot be told: neither present nor absent."""

    slot: int
    why: str


Seen: TypeAlias = Present | Absent | Unreadable
"""What one view of one address shows. The fourth outcome, no answer, is an error: dzagent.errors.Unreachable."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A getProgramAccounts answer. `broken` entries name no address, so they may stand for any account."""

    slot: int
    found: Mapping[str, Seen]
    broken: int = 0


def read_accounts(result: Any, addresses: Sequence[str], program_id: str) -> tuple[int, dict[str, Seen]]:
    """Read a getMultipleAccounts result: its slot and what each address holds; raise Unusable.

    The answer has no addresses, only positions: any other length than asked for cannot be matched.
    """
    slot, values = _context(result, "getMultipleAccounts")
    if len(values) != len(addresses):
        raise Unusable(
            f"The answer is not usable: {len(addresses)} accounts were asked for and {len(values)} came."
        )
    return slot, {
        key: _account(value, slot, program_id) for key, value in zip(addresses, values, strict=True)
    }


def read_listing(result: Any, program_id: str) -> Listing:
    """Read a getProgramAccounts result (withContext); raise Unusable, also for an address listed twice."""
    slot, values = _context(result, "getProgramAccounts")
    found: dict[str, Seen] = {}
    broken = 0
    for value in values:
        address = value.get("pubkey") if isinstance(value, dict) else None
        if not is_address(address):
            broken += 1
        elif address in found:
            raise Unusable(f"The answer is not usable: it lists account {address} twice.")
        else:
            # A listed account exists: null in its place is a broken entry, never an absence.
            found[address] = _account(value.get("account") or {}, slot, program_id)
    return Listing(slot, dict(sorted(found.items())), broken)


def data_of(seen: Seen | None) -> bytes:
    """Return the bytes of what is present, b"" of anything else."""
    return seen.data if isinstance(seen, Present) else b""


def is_address(text: object) -> TypeGuard[str]:
    """Tell whether a value is the base58 text of a public key."""
    if not isinstance(text, str) or not 32 <= len(text) <= 44:
        return False
    try:
        Pubkey.from_string(text)
    except ValueError:
        return False
    return True


def _context(result: Any, method: str) -> tuple[int, list[Any]]:
    context = result.get("context") if isinstance(result, dict) else None
    slot = context.get("slot") if isinstance(context, dict) else None
    if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < _MAX_SLOT:
        raise Unusable(f"The answer to {method} is not usable: it does not say of which slot it is.")
    values = result.get("value")
    if not isinstance(values, list):
        raise Unusable(f"The answer to {method} is not usable: it has no list of accounts.")
    return slot, values


def _account(value: Any, slot: int, program_id: str) -> Seen:
    """Read one account. Only owner and data matter: proxies are known to garble rentEpoch and to add fields."""
    if value is None:
        return Absent(slot)
    owner = value.get("owner") if isinstance(value, dict) else None
    if not isinstance(owner, str):
        return Unreadable(slot, "its entry in the answer is broken")
    if owner != program_id:
        return Unreadable(slot, "it belongs to another program")
    data = _base64(value.get("data"))
    if data is None:
        return Unreadable(slot, "its data is not base64")
    return Present(slot, data)


def _base64(field: Any) -> bytes | None:
    match field:
        case [str(text), "base64"]:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
                return None
        case _:
            return None
