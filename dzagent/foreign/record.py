"""How far `dzagent migrate` is, and what it needs to go back: one small file, written whole.

The command writes it, as root; the reconciler reads it, since an unfinished migration is no time for its own changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from dzagent.errors import StateError
from dzagent.files import is_seconds, read_json, write_json

Phase: TypeAlias = Literal["migrating", "migrated", "undoing", "undone"]
PHASES: Final = frozenset({"migrating", "migrated", "undoing", "undone"})
UNFINISHED: Final[Mapping[Phase, str]] = {
    "migrating": "run `dzagent migrate` again to go on, or `dzagent migrate --undo` to go back",
    "undoing": "run `dzagent migrate --undo` again to finish it",
}
"""The phases in which nobody but `dzagent migrate` may write, and what to do about them."""


@dataclass(frozen=True, slots=True)
class Record:
    """One migration.

    boot: the boot that it belongs to: a later one has nothing left of what was half done. at: unix seconds of its
    start. unit: doublezerod's unit. stopped: how that was kept from starting ("mask", "drop-in", "" if not).
    enabled, active: the unit as it was before. objects: what was taken over, as text. enabled_before: the intent.
    """

    phase: Phase
    boot: str
    at: float
    unit: str
    stopped: str = ""
    enabled: str = ""
    active: bool = False
    objects: tuple[str, ...] = ()
    intent_before: bool | None = None

    def now(self, phase: Phase) -> Record:
        """Return the record in another phase."""
        return replace(self, phase=phase)


def read_record(path: Path) -> Record | None:
    """Return the last migration, None if there was none. Raises StateError if the file is not one of ours."""
    document = read_json(path)
    if document is None:
        return None
    try:
        return _record(document)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{path} is not a record of a migration; remove it, and `dzagent migrate` starts anew"
        raise StateError(message) from error


def write_record(path: Path, record: Record) -> None:
    """Write it durably: it must be there before what it tells about happens. Raises StateError.

    Root writes it into a directory that may be another user's, through no symlink of theirs; and whatever root's
    umask says, the reconciler must be able to read it.
    """
    if path.parent.is_symlink():
        raise StateError(f"{path.parent} is a symlink: remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
    except OSError as error:
        raise StateError(f"{path.parent} cannot be made ({error.strerror})") from error
    write_json(path, asdict(record), durable=True)


def _record(document: Any) -> Record:
    phase, at = document["phase"], document["at"]
    if phase not in PHASES or not is_seconds(at):
        raise ValueError(phase, at)
    texts = {name: _text(document.get(name, "")) for name in ("stopped", "enabled")}
    intent = document.get("intent_before")
    return Record(
        cast("Phase", phase),
        _text(document["boot"]),
        float(at),
        _text(document["unit"]),
        active=document.get("active") is True,
        objects=tuple(_text(item) for item in document.get("objects", ())),
        intent_before=intent if isinstance(intent, bool) else None,
        **texts,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the kernel's name of this boot, "" if it has none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
