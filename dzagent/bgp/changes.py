"""What changed of the learned routes of late, one version a change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dzagent.model import Route, ServiceName

MAX_CHANGES: Final = 64
"""Changes that are remembered one by one; whoever is further behind takes the whole."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed up to `version`: for each service and prefix the route now, None if there is none."""

    version: int
    routes: Mapping[tuple[ServiceName, str], Route | None] = field(default_factory=dict)


class ChangeLog:
    """The last changes, by the prefixes that they touched. Not locked: its owner is."""

    def __init__(self) -> None:
        self.version = 0
        """How many changes there were."""
        self._changes: deque[tuple[int, tuple[tuple[ServiceName, str], ...]]] = deque(maxlen=MAX_CHANGES)

    def note(self, name: ServiceName, prefixes: Iterable[str]) -> bool:
        """Remember that these prefixes changed; tells whether there were any."""
        keys = tuple((name, prefix) for prefix in prefixes)
        if keys:
            self.version += 1
            self._changes.append((self.version, keys))
        return bool(keys)

    def restart(self) -> None:
        """Make everybody take the whole: a service came, went, or became another."""
        self.version += 1
        self._changes.clear()

    def since(self, version: int) -> Mapping[tuple[ServiceName, str], None] | None:
        """Return what changed after a version, each once; None if that is too long ago, or too much was replaced."""
        newer = [keys for number, keys in self._changes if number > version]
        if len(newer) != self.version - version:
            return None
        return {key: None for keys in newer for key in keys}
