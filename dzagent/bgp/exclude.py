"""The exclude lists, read anew when their files change: that of the policy, and doublezerod's route-config.json.

A list that cannot be read changes nothing: the last good one stays, and the problem is shown. Format of the latter:
malbeclabs/doublezero client/doublezerod/internal/routing/config.go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from dzagent.bgp.rules import Exclude, read_exclude
from dzagent.errors import DzagentError, StateError
from dzagent.files import read_json
from dzagent.policy import load_policy

MAX_ENTRIES: Final = 10_000

Stamp: TypeAlias = "tuple[int, int, int] | None"


class ExcludeFile:
    """One file with a list. `read` returns its list, or raises ValueError or DzagentError."""

    def __init__(self, path: Path, read: Callable[[Path], Exclude]) -> None:
        self._path = path
        self._read = read
        self._stamp: Stamp = None
        self.list = Exclude()
        self.problem = ""

    def look(self) -> bool:
        """Read the file if it changed; tells whether list or problem did."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before = (self.list, self.problem)
        try:
            self.list, self.problem = self._read(self._path), ""
        except (ValueError, DzagentError) as error:
            self.problem = f"the exclude list of {self._path} is not used, the last good one stays: {error}"
        return before != (self.list, self.problem)


class Excludes:
    """All exclude lists together."""

    def __init__(self, files: tuple[ExcludeFile, ...]) -> None:
        self._files = files

    def look(self) -> bool:
        """Read what changed; tells whether anything did."""
        changed = [file.look() for file in self._files]
        return any(changed)

    @property
    def all(self) -> Exclude:
        """What is excluded by any of them."""
        found = Exclude()
        for file in self._files:
            found |= file.list
        return found

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with them."""
        return tuple(file.problem for file in self._files if file.problem)


def from_policy(path: Path) -> Exclude:
    """Read the list of a policy file; the rest of the file is as it was at the start."""
    return read_exclude(load_policy(path).bgp.exclude)


def from_route_config(path: Path) -> Exclude:
    """Read doublezerod's file: {"exclude": ["192.0.2.1"]}. Without a file nothing is excluded."""
    document = read_json(path)
    if document is None:
        return Exclude()
    entries: Any = document.get("exclude", []) if isinstance(document, dict) else None
    if entries is None and isinstance(document, dict):
        entries = []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise StateError(f'{path} does not have the form {{"exclude": ["192.0.2.1"]}}')
    if len(entries) > MAX_ENTRIES:
        raise StateError(f"{path} excludes more than {MAX_ENTRIES} addresses")
    return read_exclude(entries)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
