"""The rendered files on disk: numbered generations, and a symlink that is swapped to the newest whole.

    STATE/desired -> generations/000007
    STATE/generations/000007/unicast/tunnel.ip ...

A reader sees the old generation or the new one, never half of each.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dzagent.config import Paths
from dzagent.errors import StateError
from dzagent.files import write_atomic
from dzagent.grammar import FILES, MAX_BYTES
from dzagent.model import SERVICE_NAMES, ServiceName
from dzagent.render import stable
from dzagent.wishes import Texts

KEPT: Final = 5
"""Generations that stay on disk, for people who want to see what changed."""

_NUMBER: Final = re.compile(r"[0-9]{6,12}")
_PART: Final = ".new-"


class DesiredStore:
    """Reads and writes the rendered files. One process writes: the one that holds the reconciler's lock."""

    def __init__(self, paths: Paths) -> None:
        self._link = paths.desired
        self._generations = paths.state / "generations"
        self._written: Texts | None = None
        self._generation = 0

    @property
    def generation(self) -> int:
        """The number of the generation that `desired` shows, 0 if there is none."""
        return self._generation

    def read(self) -> Texts:
        """Return the texts of the current generation, {} if there is none. Raises StateError if unreadable."""
        try:
            target = self._link.readlink()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(
                f"{self._link} is not the symlink that it should be ({error.strerror}); remove it, "
                "and the files are rendered anew"
            ) from error
        texts = {name: files for name in SERVICE_NAMES if (files := self._read_service(name))}
        if _NUMBER.fullmatch(target.name):
            self._generation = int(target.name)
            self._written = texts
        return texts

    def write(self, texts: Texts) -> int:
        """Make `texts` the current generation unless it says so already; return its number.

        Raises StateError, with the old generation still in place, for example when the disk is full.
        """
        if self._written is not None and _same(self._written, texts):
            return self._generation
        if self._written is None and not texts and not self._link.is_symlink():
            return 0
        number = self._next_number()
        try:
            self._make(number, texts)
            self._swap(number)
        except OSError as error:
            raise StateError(
                f"{self._generations} cannot take new files ({error.strerror}); the old ones stay"
            ) from error
        self._written, self._generation = {name: dict(files) for name, files in texts.items()}, number
        self._prune(number)
        return number

    # ---- reading -----------------------------------------------------------------------------------------

    def _read_service(self, name: ServiceName) -> dict[str, str]:
        files: dict[str, str] = {}
        for file in FILES:
            path = self._link / name / file
            try:
                with path.open("rb") as opened:
                    data = opened.read(MAX_BYTES + 1)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StateError(f"{path} cannot be read ({error.strerror})") from error
            # What is not ASCII, or too much, is not a text of ours: the parser says so, with the line.
            files[file] = data.decode("ascii", "backslashreplace")
        return files

    def _numbers(self) -> list[int]:
        try:
            names = [entry.name for entry in self._generations.iterdir()]
        except OSError:
            return []
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def _next_number(self) -> int:
        return max([self._generation, *self._numbers()]) + 1

    # ---- writing -----------------------------------------------------------------------------------------

    def _make(self, number: int, texts: Texts) -> None:
        """Write a whole generation beside its place, then move it there."""
        self._generations.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=self._generations))
        try:
            part.chmod(0o755)
            for name, files in texts.items():
                self._make_service(part / name, files, number)
            part.rename(self._generations / f"{number:06}")
        except BaseException:  # re-raised: whatever ends this, nothing half made stays
            shutil.rmtree(part, ignore_errors=True)
            raise

    @staticmethod
    def _make_service(directory: Path, files: Mapping[str, str], number: int) -> None:
        directory.mkdir(mode=0o755)
        for file in FILES:
            if file in files:
                write_atomic(directory / file, stamped(files[file], number).encode("ascii", "replace"))

    def _swap(self, number: int) -> None:
        """Point `desired` at the new generation in one step."""
        new = self._link.with_name(f".{self._link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(Path(self._generations.name) / f"{number:06}")
        new.replace(self._link)
        descriptor = os.open(self._link.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _prune(self, number: int) -> None:
        """Remove old generations and what a killed process left half made; failing to is no harm."""
        old = [f"{n:06}" for n in self._numbers() if n <= number - KEPT]
        with contextlib.suppress(OSError):
            old += [entry.name for entry in self._generations.glob(f"{_PART}*")]
        for name in old:
            shutil.rmtree(self._generations / name, ignore_errors=True)


def stamped(text: str, number: int) -> str:
    """Return a text whose header names this generation."""
    return re.sub(r"^# generation: [0-9]+$", f"# generation: {number}", text, count=1, flags=re.MULTILINE)


def _same(one: Texts, other: Texts) -> bool:
    if one.keys() != other.keys():
        return False
    return all(
        one[name].keys() == other[name].keys()
        and all(
            text == other[name][file] or stable(text) == stable(other[name][file])
            for file, text in one[name].items()
        )
        for name in one
    )
