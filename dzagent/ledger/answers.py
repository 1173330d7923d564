"""JSON results of the account methods -> what was seen at each address. Pure.

A part that is broken spoils only itself where that is safe; an answer that does not fit its request raises
Unusable. Shapes: Solana JSON-RPC, getProgramAccounts and getMultipleAccounts with base64 encoding.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from solders.pubkey import Pubkey

from dzagent.errors import Unusable

_MAX_SLOT = 2**63


class Sight(enum.Enum):
    """What one view of one address shows. No answer at all is an error, not a sight."""

    PRESENT = "present"
    ABSENT = "absent"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Seen:
    """One address in one answer: `data` where it is present, `why` where it is unreadable."""

    sight: Sight
    slot: int
    data: bytes = b""
    why: str = ""


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
        return Seen(Sight.ABSENT, slot)
    owner = value.get("owner") if isinstance(value, dict) else None
    if not isinstance(owner, str):
        return Seen(Sight.UNREADABLE, slot, why="its entry in the answer is broken")
    if owner != program_id:
        return Seen(Sight.UNREADABLE, slot, why="it belongs to another program")
    data = _base64(value.get("data"))
    if data is None:
        return Seen(Sight.UNREADABLE, slot, why="its data is not base64")
    return Seen(Sight.PRESENT, slot, data)


def _base64(field: Any) -> bytes | None:
    match field:
        case [str(text), "base64"]:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
                return None
        case _:
            return None
