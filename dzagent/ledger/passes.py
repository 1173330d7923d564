"""The payload of an AccessPass account, whose tags changed their meaning twice. Pure.

Layout: malbeclabs/doublezero, smartcontract/programs/doublezero-serviceability/src/state/accesspass.rs. Earlier
meanings: in February and March 2026, 3 and 4 were addresses (multicast publisher, subscriber) and 5 was what 3 is
today; until July 2026, 4 was an address, then nothing. The bytes do not say which, so nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from dzagent.errors import DecodeError
from dzagent.ledger.cursor import Cursor

_CHANGED = frozenset({3, 4})
_LAST_STATUS = 3
_OLDER = "this tag had other meanings until July 2026"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSeat:
    """Seats of an edge feed; times are unix seconds."""

    feed_pk: str
    max_users: int
    max_future_users: int
    current_users: int
    anniversary_day: int
    window_end: int
    terminates_at: int


Payload: TypeAlias = str | tuple[str, str] | tuple[FeedSeat, ...] | None
"""None for a prepaid pass, an address for a validator or RPC node, two texts for others, seats for an edge seat."""


def read_payload(cursor: Cursor) -> Payload:
    """Read what follows the tag. Raises DecodeError if it does not fit the tag's meaning of today."""
    tag = cursor.data[cursor.at - 1]
    if tag == 0:
        return None
    if tag in {1, 2}:
        return cursor.key()
    try:
        if tag == 3:
            return cursor.text(), cursor.text()
        if tag == 4:
            return cursor.vector(52, _seat)
    except DecodeError as error:
        raise DecodeError(f"{error}; {_OLDER}") from error
    raise DecodeError(f"its tag is {tag} and 0 to 4 are known; until March 2026 5 was what 3 is today")


def check_pass(cursor: Cursor, values: dict[str, Any], missing: tuple[str, ...]) -> None:
    """Note a payload that fits and yet cannot be meant, since what follows it makes no sense.

    Read by the wrong meaning, a payload shifts what follows it: then bytes are left over, or a status is absurd.
    A pass of July 2026 without seats is four bytes shorter than one with an empty list of them.
    """
    if values.get("tag") not in _CHANGED or "payload" not in values:
        return
    shorter = not values["payload"] and bool(missing)
    if cursor.left or shorter or values.get("status", 0) > _LAST_STATUS:
        cursor.field = "payload"
        cursor.note(f"may be read wrongly, since what follows it makes no sense: {_OLDER}")


def _seat(cursor: Cursor) -> FeedSeat:
    return FeedSeat(
        feed_pk=cursor.key(),
        max_users=cursor.u8(),
        max_future_users=cursor.u8(),
        current_users=cursor.u8(),
        anniversary_day=cursor.u8(),
        window_end=cursor.i64(),
        terminates_at=cursor.i64(),
    )
