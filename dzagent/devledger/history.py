"""Three views of one ledger: processed, confirmed, finalized; and nodes that are behind.

A view at a depth of N slots is the ledger as it was N slots ago. What was not seen then is not known: the oldest
content that is remembered stands in for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dzagent.devledger.node import Source, View

CONFIRMED_SLOTS = 2
FINALIZED_SLOTS = 32
"""How far the views of a real cluster are behind the newest one."""

MAX_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Depths:
    """By how many slots each view is behind; `lag` is added to all of them: a node that does not keep up."""

    confirmed: int = 0
    finalized: int = 0
    lag: int = 0

    def of(self, commitment: str) -> int:
        """Return the depth of one view."""
        own = {"confirmed": self.confirmed, "finalized": self.finalized}.get(commitment, 0)
        return own + self.lag


class History:
    """Remembers what a source showed, and shows it later. Contents are told apart by identity: sources replace them."""

    def __init__(self, source: Source, depths: Depths) -> None:
        self._source = source
        self.depths = depths
        self._seen: deque[tuple[int, Mapping[str, bytes]]] = deque(maxlen=MAX_REMEMBERED)
        self.look()

    def look(self) -> View:
        """Take in what the source shows now. Whoever wants every change remembered calls it often."""
        view = self._source.view("processed")
        if not self._seen or self._seen[-1][1] is not view.accounts:
            self._seen.append((view.slot, view.accounts))
        return view

    def view(self, commitment: str) -> View:
        """Return the ledger as it is at this commitment."""
        newest = self.look()
        depth = self.depths.of(commitment)
        if depth == 0:
            return newest
        slot = max(0, newest.slot - depth)
        known = [accounts for since, accounts in self._seen if since <= slot]
        return replace(newest, slot=slot, accounts=known[-1] if known else self._seen[0][1])
