"""The checkpoint on disk: how a change is undone, and until when somebody may confirm it.

It lies in /run, like the kernel's own state: a reboot ends both. Objects are lines of our grammar, read back as
strictly as the rendered files, and only for this boot and this network namespace.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dzagent.errors import GrammarError, StateError
from dzagent.files import is_seconds, read_json, write_json
from dzagent.model import KernelObject, Link, Rule
from dzagent.nftmodel import NftTable
from dzagent.objecttext import object_lines, read_object
from dzagent.ownership import Ownership
from dzagent.undo import Undo
from dzagent.undone import Undone

_MAX_OBJECTS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that is undone unless somebody confirms it. deadline: seconds since boot; deadline_at: unix seconds."""

    plan_id: str
    deadline: float
    deadline_at: float
    undo: Undo


class CheckpointFile:
    """The one checkpoint that may be open."""

    def __init__(self, path: Path, owner: Ownership, place: str) -> None:
        """`place` names this boot and this network namespace: `journal.here()`."""
        self.path = path
        self._owner = owner
        self._place = place

    def read(self) -> Pending | None:
        """Return the open checkpoint of this boot and namespace. Raises StateError for one that cannot be read."""
        document = read_json(self.path)
        if document is None:
            return None
        if not isinstance(document, dict) or document.get("version") != 1:
            raise StateError(f"{self.path} is not a checkpoint of this version of dzagent")
        if document.get("place") != self._place:
            return None
        try:
            undo = Undo(
                read_objects(document["restore"], self._owner), read_objects(document["remove"], self._owner)
            )
            plan_id, deadline, at = document["plan_id"], document["deadline"], document["deadline_at"]
            return Pending(_text(plan_id), _seconds(deadline), _seconds(at), undo)
        except (KeyError, TypeError, ValueError, GrammarError) as error:
            raise StateError(f"{self.path} cannot be followed ({error})") from error

    def write(self, pending: Pending) -> None:
        """Put a checkpoint on disk. Raises StateError, or GrammarError for what no line makes."""
        document = {
            "version": 1,
            "place": self._place,
            "plan_id": pending.plan_id,
            "deadline": pending.deadline,
            "deadline_at": pending.deadline_at,
            "restore": [object_lines(obj) for obj in pending.undo.restore],
            "remove": [object_lines(obj) for obj in pending.undo.remove],
        }
        write_json(self.path, document)

    def clear(self) -> None:
        """Remove it: there is nothing to confirm any more. Raises StateError."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{self.path} cannot be removed ({error.strerror})") from error

    def set_aside(self) -> None:
        """Move away what cannot be read, so that a person can look at it and it does not count again."""
        try:
            self.path.replace(self.path.with_name(self.path.name + ".bad"))
        except OSError as error:
            raise StateError(f"{self.path} cannot be moved ({error.strerror})") from error


class UndoneFile:
    """What was rolled back, kept across reboots: a change that cut a host off is not done again by a boot."""

    def __init__(self, path: Path, owner: Ownership) -> None:
        self.path = path
        self._owner = owner

    def read(self) -> Undone | None:
        """Return what was rolled back last. Raises StateError for a file that cannot be read."""
        document = read_json(self.path)
        if document is None:
            return None
        if not isinstance(document, dict) or document.get("version") != 1:
            raise StateError(f"{self.path} is not of this version of dzagent; remove it once you know why")
        try:
            return Undone(
                _text(document["plan_id"]),
                _seconds(document["at"]),
                read_objects(document["made"], self._owner),
                read_objects(document["removed"], self._owner),
            )
        except (KeyError, TypeError, ValueError, GrammarError) as error:
            raise StateError(f"{self.path} cannot be read ({error}); remove it once you know why") from error

    def write(self, undone: Undone | None) -> None:
        """Remember it, durably, or forget it. Raises StateError."""
        if undone is None:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise StateError(f"{self.path} cannot be removed ({error.strerror})") from error
            return
        document = {
            "version": 1,
            "plan_id": undone.plan_id,
            "at": undone.at,
            "made": [object_lines(obj) for obj in undone.made],
            "removed": [object_lines(obj) for obj in undone.removed],
        }
        write_json(self.path, document, durable=True)


def read_objects(entries: Any, owner: Ownership) -> tuple[KernelObject, ...]:
    """Read objects from lists of lines. Raises GrammarError for anything that is not one object, or not ours."""
    if not isinstance(entries, list) or len(entries) > _MAX_OBJECTS:
        raise ValueError("a list of objects is missing or too long")
    return tuple(_object(entry, owner) for entry in entries)


def _object(entry: Any, owner: Ownership) -> KernelObject:
    if not isinstance(entry, list) or not all(isinstance(line, str) and "\n" not in line for line in entry):
        raise ValueError("an object is not a list of lines")
    obj = read_object(entry, "checkpoint")
    if not _ours(obj, owner):
        raise ValueError(f"{entry[0]!r} is not an object of ours")
    return obj


def _ours(obj: KernelObject, owner: Ownership) -> bool:
    if isinstance(obj, Link):
        return owner.links.get(obj.name) == obj.alias
    if isinstance(obj, NftTable):
        return obj.marked
    if getattr(obj, "protocol", owner.protocol) != owner.protocol:
        return False
    return isinstance(obj, Rule) or obj.dev in owner.links


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isalnum() or len(value) > 64:
        raise ValueError("the id of the plan is missing")
    return value


def _seconds(value: Any) -> float:
    if not is_seconds(value) or value < 0:
        raise ValueError("a time is missing")
    return float(value)
