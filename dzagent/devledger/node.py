"""The ledger as one node serves it: what the file holds now, at a slot that only rises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from dzagent.devledger import bank, records, slots
from dzagent.devledger.records import State
from dzagent.devledger.store import Store
from dzagent.errors import DzagentError


@dataclass(frozen=True, slots=True)
class View:
    """The ledger at one slot. `accounts` are all accounts of the program, sorted by address."""

    slot: int
    genesis_hash: str
    program_id: str
    accounts: Mapping[str, bytes]
    node: records.Node


class Source(Protocol):
    """Where answers come from: the seam for nodes that lag, disagree, know several commitments or hold a crowd."""

    def view(self, commitment: str) -> View:
        """Return the ledger as it is at this commitment (processed, confirmed or finalized)."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """`wall` gives unix seconds, `monotonic` seconds that never go back."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


class LiveNode:
    """Follows a state file: looks at it at each view, reads it when it has changed. All commitments see the same.

    A file that cannot be read any more changes nothing: the last good state is served, `warn` gets one sentence,
    and the node is unhealthy until the file is good again. Not for use by several threads at once.
    """

    def __init__(self, store: Store, clocks: Clocks, warn: Callable[[str], None]) -> None:
        """Read the file; raises InputError."""
        self._store = store
        self._clocks = clocks
        self._warn = warn
        self._stamp = store.stamp()
        state = store.load()
        self._state, self._accounts = state, bank.accounts(state)
        self._broken = False
        self._base = slots.slot_at(state, clocks.wall())
        self._since = clocks.monotonic()

    @property
    def state(self) -> State:
        """What is served now."""
        return self._state

    @property
    def slot(self) -> int:
        """The slot now."""
        passed = max(0.0, self._clocks.monotonic() - self._since)
        return min(slots.MAX_SLOT, self._base + int(passed / slots.SLOT_SECONDS))

    def view(self, commitment: str) -> View:
        """Return the ledger as the file has it now."""
        del commitment
        self._follow()
        node = replace(self._state.node, healthy=False) if self._broken else self._state.node
        return View(self.slot, self._state.genesis_hash, self._state.program_id, self._accounts, node)

    def remember_slot(self) -> None:
        """Write down how far slots have come, if a clock that was set back would forget it. Raises InputError, StateError."""
        self._store.raise_slot(self._state.genesis_hash, self.slot)

    def _follow(self) -> None:
        stamp = self._store.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            state = self._store.load()
        except DzagentError as error:
            self._broken = True
            self._warn(f"{error}; the last good state is served meanwhile")
            return
        if self._broken:
            self._warn(f"{self._store.path} is good again")
        self._broken = False
        # Two contents never share a slot: a reader that saw the old one must be able to tell.
        self._base = max(slots.slot_at(state, self._clocks.wall()), self.slot + 1)
        self._since = self._clocks.monotonic()
        self._state, self._accounts = state, bank.accounts(state)
