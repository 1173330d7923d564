"""The last good snapshot on disk: what a reboot starts from while no RPC answers.

The file holds the accounts' bytes, not what was made of them: a newer version reads them anew. It is written when
bytes change, and otherwise every ten minutes for its time and slot.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, TypeGuard

from dzagent.errors import LedgerError, StateError
from dzagent.files import read_json, write_json
from dzagent.ledger.answers import is_address
from dzagent.ledger.snapshot import Snapshot, build_snapshot

log = logging.getLogger(__name__)

VERSION = 1
REFRESH_SECONDS = 600.0
CLOCK_SLACK = 300.0
"""Seconds by which a stored time may lie in the future: clocks are set back a little at times."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A snapshot of an earlier process: when it was read (unix seconds) and for which client IPs."""

    snapshot: Snapshot
    searched: frozenset[IPv4Address]
    read_at: float

    def too_old(self, now: float, max_age: float) -> str:
        """Say why it must not bring service back at unix time `now`, "" if it may."""
        age = now - self.read_at
        if age < -CLOCK_SLACK:
            return (
                f"the stored ledger data is of {-age / 3600:.1f} h in the future by this host's clock, "
                "so its age is not known"
            )
        if age > max_age:
            return f"the stored ledger data is {age / 3600:.1f} h old, more than {max_age / 3600:.1f} h (ledger.restore_max_age)"
        return ""


class SnapshotStore:
    """One file. `now` gives unix seconds, `clock` monotonic ones. Only the poll thread calls it."""

    def __init__(
        self, path: Path, program_id: str, *, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._program_id = program_id
        self._now = now
        self._clock = clock
        self._saved: tuple[Any, ...] = ()
        self._saved_at = float("-inf")

    def load(self) -> Stored | None:
        """Return what is stored for this program, None if there is nothing. Raises StateError if it is corrupt.

        A corrupt file is set aside as NAME.corrupt.
        """
        try:
            return _parse(read_json(self._path), self._program_id)
        except (StateError, _Corrupt) as error:
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_name(self._path.name + ".corrupt"))
            raise StateError(f"{self._path} is not usable and was set aside: {error}") from error

    def save(self, snapshot: Snapshot, searched: frozenset[IPv4Address]) -> None:
        """Write a snapshot if it says something new. A full disk is logged, and tried again at the next poll."""
        what = (snapshot.raw, snapshot.genesis_hash, searched)
        if what == self._saved and self._clock() - self._saved_at < REFRESH_SECONDS:
            return
        try:
            write_json(self._path, self._document(snapshot, searched), durable=True)
        except StateError as error:
            log.warning("%s", error)
            return
        self._saved, self._saved_at = what, self._clock()

    def clear(self) -> None:
        """Forget what is stored. Raises StateError."""
        self._saved = ()
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{self._path} cannot be removed ({error.strerror})") from error

    def _document(self, snapshot: Snapshot, searched: frozenset[IPv4Address]) -> dict[str, Any]:
        body = {
            "program_id": self._program_id,
            "genesis_hash": snapshot.genesis_hash,
            "slot": snapshot.slot,
            "read_at": self._now(),
            "searched": sorted(map(str, searched)),
            "accounts": {key: base64.b64encode(data).decode() for key, data in snapshot.raw.items()},
        }
        return {"version": VERSION, "sha256": _digest(body), **body}


class _Corrupt(Exception):
    """Says what is wrong in the file."""


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _body(document: Any) -> dict[str, Any]:
    """Return what the digest is of, once it fits."""
    if not isinstance(document, dict):
        raise _Corrupt("it does not hold an object")
    if document.get("version") != VERSION:
        raise _Corrupt(f"its version is {document.get('version')!r:.20}, expected {VERSION}")
    body = {key: value for key, value in document.items() if key not in {"version", "sha256"}}
    if document.get("sha256") != _digest(body):
        raise _Corrupt("its digest does not match its content")
    return body


def _parse(document: Any, program_id: str) -> Stored | None:
    if document is None:
        return None
    body = _body(document)
    if body.get("program_id") != program_id:
        return None  # of another network: nothing is known of this one
    slot, read_at, genesis = body.get("slot"), body.get("read_at"), body.get("genesis_hash")
    if not _whole(slot) or not _finite(read_at) or not isinstance(genesis, str):
        raise _Corrupt("slot, read_at or genesis_hash is not what it should be")
    try:
        searched = frozenset(IPv4Address(text) for text in body["searched"])
        raw = {key: base64.b64decode(text, validate=True) for key, text in body["accounts"].items()}
        snapshot = build_snapshot(raw.items(), slot=slot, genesis_hash=genesis)
    except (KeyError, TypeError, AttributeError, AddressValueError, binascii.Error, ValueError) as error:
        raise _Corrupt(f"its accounts cannot be read ({type(error).__name__})") from error
    except LedgerError as error:
        raise _Corrupt(str(error)) from error
    if not all(map(is_address, raw)):
        raise _Corrupt("it names accounts that are no addresses")
    # What was proven absent then is not proven now.
    return Stored(replace(snapshot, complete=False), searched, float(read_at))


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
