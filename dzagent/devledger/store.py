"""The one file that holds the ledger: changed under a lock, replaced in one step, never replaced silently."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dzagent.devledger import slots
from dzagent.devledger.document import ADVICE, read_state, write_state
from dzagent.devledger.records import State
from dzagent.errors import InputError, StateError
from dzagent.files import MAX_BYTES, locked, read_json, write_atomic

T = TypeVar("T")
Stamp = tuple[int, int, int]
"""What tells two contents of the file apart without reading it: inode, size, time of change."""

GONE: Stamp = (0, 0, 0)


def default_path(environment: Mapping[str, str], home: Callable[[], Path] = Path.home) -> Path:
    """Return $XDG_STATE_HOME/dzagent/ledger.json, or the same below ~/.local/state; raises InputError.

    A relative $XDG_STATE_HOME does not count (XDG base directory specification).
    """
    base = environment.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "dzagent" / "ledger.json"
    try:
        return home() / ".local" / "state" / "dzagent" / "ledger.json"
    except RuntimeError:
        raise InputError(
            "there is no home directory to keep the ledger in: name a file with --state"
        ) from None


class Store:
    """A state file. `now` gives unix seconds."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self.path = path
        self._now = now

    def exists(self) -> bool:
        """Tell whether there is anything at the path."""
        return os.path.lexists(self.path)

    def stamp(self) -> Stamp:
        """Return the stamp of the file, GONE if there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return GONE
        return found.st_ino, found.st_size, found.st_mtime_ns

    def load(self) -> State:
        """Read the file. Raises InputError, also if there is none."""
        try:
            document = read_json(self.path)
        except StateError as error:
            raise InputError(f"{error}; {ADVICE}") from None
        if document is None and not self.exists():
            raise InputError(
                f"there is no ledger at {self.path}: make one with `dzagent ledger init`, or name its file with --state"
            )
        return read_state(document, str(self.path))

    def create(self, make: Callable[[float], State]) -> State:
        """Write the first state; raises InputError if there is a file already, StateError if none can be written."""
        with self._locked():
            if self.exists():
                raise InputError(
                    f"{self.path} exists already: `dzagent ledger reset` empties that ledger, --state names another"
                )
            state = make(self._now())
            self._write(state)
            return state

    def change(self, edit: Callable[[State], tuple[State, T]]) -> tuple[State, T]:
        """Apply a change and return the new state with what `edit` says; a state that is returned as it was given
        is not written. Raises InputError, StateError, and whatever `edit` raises; the file is then as before.
        """
        self.load()  # says that there is none before a lock file is made
        with self._locked():
            before = self.load()
            after, result = edit(before)
            if after is before:
                return before, result
            state = slots.changed(before, after, self._now())
            self._write(state)
            return state, result

    def renew(self, make: Callable[[float], State]) -> tuple[State, Path]:
        """Set the file aside, whatever it holds, and write a first state; returns where the old file is now.

        Raises InputError if there is no file, or something that is no file, and StateError.
        """
        if not self.path.is_file():
            self.load()
            raise InputError(f"{self.path} is not a file: nothing is changed")
        with self._locked():
            aside = self._set_aside()
            state = make(self._now())
            self._write(state)
            return state, aside

    def raise_slot(self, genesis_hash: str, slot: int) -> None:
        """Remember that `slot` was served, if the clock alone would not say so after a restart. Raises InputError, StateError."""
        if not self._forgets(self.load(), genesis_hash, slot):
            return
        with self._locked():
            state = self.load()
            if self._forgets(state, genesis_hash, slot):
                self._write(slots.served(state, slot, self._now()))

    def _forgets(self, state: State, genesis_hash: str, slot: int) -> bool:
        return state.genesis_hash == genesis_hash and slots.slot_at(state, self._now()) < slot

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            yield

    def _set_aside(self) -> Path:
        for number in range(1, 1000):
            aside = self.path.with_name(f"{self.path.name}.old-{number}")
            if os.path.lexists(aside):
                continue
            try:
                self.path.rename(aside)
            except OSError as error:
                raise StateError(f"{self.path} cannot be set aside ({error.strerror})") from error
            return aside
        raise StateError(f"there are 1000 set aside copies beside {self.path}: delete some of them")

    def _write(self, state: State) -> None:
        document = write_state(state)
        read_state(document, str(self.path))  # what is written can be read again
        text = json.dumps(document, indent=1) + "\n"
        if len(text) > MAX_BYTES:
            raise StateError(
                f"the ledger would be larger than {MAX_BYTES} bytes, which is not written: delete some accounts first"
            )
        write_atomic(self.path, text.encode(), durable=False)
