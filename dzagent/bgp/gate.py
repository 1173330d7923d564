"""The gate: which learned routes may be installed now. The seam for whoever watches that a route works.

A gate is a set of prefixes, or `None` for every prefix. A closed route stays known, counted and shown; it is only
not installed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import TypeAlias

from dzagent.model import ServiceName

Open: TypeAlias = frozenset[str] | None
"""Prefix texts that may be installed, such as "198.51.100.7/32"; None opens the gate for all."""


class Gate:
    """What may be installed, per service; any thread may change it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[ServiceName, Open] = {}
        self.on_change: Callable[[], None] = _nobody
        """Called after every change, without the lock."""

    def set(self, service: ServiceName, prefixes: Collection[str] | None) -> None:
        """Let exactly these prefixes of a service through; None lets all through."""
        new = None if prefixes is None else frozenset(prefixes)
        with self._lock:
            changed = self._open.get(service) != new
            self._open[service] = new
        if changed:
            self.on_change()

    def of(self, service: ServiceName) -> Open:
        """Return what is open for a service."""
        with self._lock:
            return self._open.get(service)


def _nobody() -> None:
    """Nobody listens yet."""
