"""Small files that processes share: written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dzagent.errors import StateError

MAX_BYTES = 16 * 1024 * 1024
"""No file of ours comes near this; whatever is larger was not written by us."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` by `data`: temporary file, fsync (unless on tmpfs: `durable=False`), rename.

    Raises StateError; the old content is then still in place.
    """
    temp = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temp = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(fd, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(data)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        Path(temp).replace(path)
        if durable:
            _sync_directory(path.parent)
    except OSError as error:
        if temp is not None:
            Path(temp).unlink(missing_ok=True)
        raise StateError(f"{path} cannot be written ({error.strerror}); the old content stays") from error


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, document: object, *, durable: bool = False) -> None:
    """Write a JSON document whole. Raises StateError."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode(), durable=durable)


def read_json(path: Path) -> Any:
    """Read a JSON document; None if there is no file. Raises StateError on anything unreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise StateError(f"{path} is larger than {MAX_BYTES} bytes: not a file of ours")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is not valid JSON ({error})") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on `path` (made if missing) for the block. Raises StateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        raise StateError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
