"""The exclude lists, read anew when their files change: that of the policy, and doublezerod's route-config.json.

A list that cannot be read changes nothing: the last good one stays, and the problem is shown. Format of the latter:
malbeclabs/doublezero client/doublezerod/internal/routing/config.go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from dzagent.bgp.rules import Exclude, read_exclude
from dzagent.errors import DzagentError, StateError
from dzagent.files import Stamp, read_json, stamp
from dzagent.policyfiles import CODE, PolicyFiles

MAX_ENTRIES: Final = 10_000


class Listing(Protocol):
    """One list, and what is wrong with it: a code and a message, "" for nothing."""

    code: str

    @property
    def list(self) -> Exclude:
        """What the list excludes."""

    @property
    def problem(self) -> str:
        """What is wrong with it, "" if nothing."""

    def look(self) -> bool:
        """Read it if it changed; tells whether list or problem did."""


class PolicyList:
    """The list of the policy."""

    code = CODE

    def __init__(self, files: PolicyFiles) -> None:
        self._files = files
        self.list = read_exclude(files.sound.bgp.exclude)

    @property
    def problem(self) -> str:
        """What is wrong with the policy, "" if nothing."""
        return self._files.problem

    def look(self) -> bool:
        """Read the policy if it changed; tells whether it did, or what is wrong with it."""
        found = self._files.look()
        if found:
            self.list = read_exclude(self._files.sound.bgp.exclude)
        return found


class ExcludeFile:
    """One file with a list. `read` returns its list, or raises ValueError or DzagentError."""

    code = "ExcludeList"

    def __init__(self, path: Path, read: Callable[[Path], Exclude]) -> None:
        self._path = path
        self._read = read
        self._stamp: Stamp = None
        self.list = Exclude()
        self.problem = ""

    def look(self) -> bool:
        """Read the file if it changed; tells whether list or problem did."""
        found = stamp(self._path)
        if found == self._stamp:
            return False
        self._stamp = found
        before = (self.list, self.problem)
        try:
            self.list, self.problem = self._read(self._path), ""
        except (ValueError, DzagentError) as error:
            self.problem = f"the exclude list of {self._path} is not used, the last good one stays: {error}"
        return before != (self.list, self.problem)


class Excludes:
    """All exclude lists together."""

    def __init__(self, files: tuple[Listing, ...]) -> None:
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
    def problems(self) -> tuple[tuple[str, str], ...]:
        """What is wrong with them: codes and messages."""
        return tuple((file.code, file.problem) for file in self._files if file.problem)


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
