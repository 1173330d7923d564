"""The list of all devices, kept while something needs it: what a new list changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dzagent.errors import LedgerError
from dzagent.ledger.accounts import Device
from dzagent.ledger.answers import Listing, Present
from dzagent.ledger.named import choose
from dzagent.ledger.search import broken_entries
from dzagent.ledger.snapshot import Decoder
from dzagent.model import Problem

DEVICE_FILTER = {0: b"\x05"}
"""The bytes by offset that every device account has."""

RETRY_SECONDS = 30.0


def only_devices(listing: Listing) -> Listing:
    """Return the part of a list of everything that a node would give for DEVICE_FILTER, and what cannot be read."""
    found = {
        address: one
        for address, one in listing.found.items()
        if not isinstance(one, Present) or one.data[:1] in {b"", b"\x05"}
    }
    return Listing(listing.slot, found, listing.broken)


@dataclass(frozen=True, slots=True)
class DeviceList:
    """The last list of all devices. The next one is due at `due_at` monotonic seconds, None for at once."""

    good: Mapping[str, bytes] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    due_at: float | None = None
    slot: int = -1

    def due(self, now: float) -> bool:
        """Tell whether to ask for a new list."""
        return self.due_at is None or now >= self.due_at

    def failed(self, error: LedgerError, now: float) -> DeviceList:
        """Return what holds after a list that did not come: the last one, and why."""
        message = f"The list of all devices could not be refreshed, the last one stays in use: {error}"
        return replace(self, problems=(Problem("StaleDeviceList", message),), due_at=now + RETRY_SECONDS)

    def weigh(self, listing: Listing, decoder: Decoder, absent_polls: int, due_at: float) -> DeviceList:
        """Take a list in; a device that it misses stays until `absent_polls` sound lists in a row miss it."""
        seen = {
            address: one
            for address, one in listing.found.items()
            if address in self.good or not isinstance(one, Present) or one.data[:1] in {b"", b"\x05"}
        }
        chosen = choose(self.good, seen, dict.fromkeys(seen, Device), decoder)
        sound = listing.slot > self.slot and not listing.broken
        missed = {key: self.missed.get(key, 0) + sound for key in self.good if key not in seen}
        kept = {key: self.good[key] for key, count in missed.items() if count < absent_polls}
        broken = (broken_entries("device list", listing.broken),) if listing.broken else ()
        return DeviceList(
            good={**kept, **chosen.good},
            missed={key: missed[key] for key in kept},
            problems=(*broken, *chosen.problems),
            due_at=due_at,
            slot=listing.slot,
        )
