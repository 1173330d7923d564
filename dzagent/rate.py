"""How much went without a proven cause within the last hour. On tmpfs, so that a restart gives nobody a new hour."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from dzagent.errors import StateError
from dzagent.files import read_json, write_json
from dzagent.model import SERVICE_NAMES, ServiceName

log = logging.getLogger(__name__)

HOUR: Final = 3600.0
MAX_ENTRIES: Final = 4096
"""More than an hour has: each is at least one object, and a limit allows few."""

_Entry: TypeAlias = tuple[float, ServiceName, int]
"""When, in seconds since boot, of which service, and how many objects."""


class Rate:
    """Remembers what went, for an hour. `place` names the boot and the namespace (`journal.here`); others are ignored.

    A file that cannot be read or written stops nothing: then this process alone counts.
    """

    def __init__(self, path: Path | None = None, place: str = "") -> None:
        self._path = path
        self._place = place
        self._gone = list(self._load())

    def note(self, counts: Mapping[ServiceName, int], now: float) -> None:
        """Remember how many objects went; `now` gives seconds since boot."""
        new: list[_Entry] = [(now, name, count) for name, count in counts.items() if count]
        if not new:
            return
        self._forget(now)
        self._gone = [*self._gone, *new][-MAX_ENTRIES:]
        self._save()

    def recent(self, now: float) -> Mapping[ServiceName, int]:
        """Return how many objects of each service went within the last hour."""
        self._forget(now)
        total: Counter[ServiceName] = Counter()
        for _, name, count in self._gone:
            total[name] += count
        return dict(total)

    def _forget(self, now: float) -> None:
        self._gone = [entry for entry in self._gone if 0 <= now - entry[0] < HOUR]

    def _save(self) -> None:
        if self._path is None:
            return
        try:
            write_json(self._path, {"version": 1, "place": self._place, "gone": self._gone})
        except StateError as error:
            log.warning("%s", error)

    def _load(self) -> Iterator[_Entry]:
        try:
            document: Any = None if self._path is None else read_json(self._path)
        except StateError as error:
            log.warning("%s: what went within the last hour is not known", error)
            return
        if not isinstance(document, dict) or document.get("place") != self._place:
            return
        gone = document.get("gone")
        for entry in gone[:MAX_ENTRIES] if isinstance(gone, list) else ():
            if isinstance(entry, list) and len(entry) == 3:
                yield from _read(*entry)


def _read(at: Any, name: Any, count: Any) -> Iterator[_Entry]:
    if isinstance(at, (int, float)) and math.isfinite(at) and name in SERVICE_NAMES and type(count) is int:
        yield float(at), name, max(count, 0)
