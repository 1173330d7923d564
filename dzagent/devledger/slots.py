"""Slots: one every 400 ms, as on a real ledger, and never back. Pure."""

from __future__ import annotations

from dataclasses import replace

from dzagent.devledger.records import State

SLOT_SECONDS = 0.4
MAX_SLOT = 2**62
"""Slots stay below this, whatever a clock says."""


def slot_at(state: State, now: float) -> int:
    """Return the slot at `now` (unix seconds); a clock that was set back stands still until it has caught up."""
    passed = max(0.0, now - state.slot_time)
    return min(MAX_SLOT, state.slot + int(passed / SLOT_SECONDS))


def changed(before: State, after: State, now: float) -> State:
    """Return `after` as the change that follows `before`: a higher slot and the next revision."""
    slot = min(MAX_SLOT, slot_at(before, now) + 1)
    return replace(after, slot=slot, slot_time=now, revision=before.revision + 1)


def served(state: State, slot: int, now: float) -> State:
    """Return the same state, known to have reached `slot` by `now`."""
    return replace(state, slot=min(MAX_SLOT, slot), slot_time=now)
