"""Small files that processes share: written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from dzagent.errors import StateError

MAX_BYTES = 16 * 1024 * 1024
"""No file of ours comes near this; whatever is larger was not written by us."""

Stamp: TypeAlias = "tuple[int, int, int, int] | None"
"""A file as it is: it differs after every change. None if there is nothing that may be seen."""


def stamp(path: Path) -> Stamp:
    """Return what tells whether a file has changed, without reading it."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` by `data`: temporary file, fsync (unless on tmpfs: `durable=False`), rename.

    The new file has a later modification time than the old one, however fast they follow and whatever the clock
    does: readers tell by it that there was a write. Raises StateError; the old content is then still in place.
    """
    temp: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temp = Path(name)
        with os.fdopen(fd, "wb") as out:
            os.fchmod(out.fileno(), mode)
            _give_to_owner(out.fileno(), path.parent)
            out.write(data)
            out.flush()
            _make_newer(out.fileno(), path)
            if durable:
                os.fsync(out.fileno())
        temp.replace(path)
    except BaseException as error:  # re-raised: whatever ends this, no temporary file stays
        if temp is not None:
            with contextlib.suppress(OSError):
                temp.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StateError(f"{path} cannot be written ({error.strerror}); the old content stays") from error
        raise
    if durable:
        _sync_directory(path.parent)


def _give_to_owner(fd: int, directory: Path) -> None:
    """What root makes belongs to whom the directory belongs to: the service must be able to go on with it."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):  # a file system without owners, a root without that right
        status = directory.stat()
        os.fchown(fd, status.st_uid, status.st_gid)


def _make_newer(fd: int, old: Path) -> None:
    """Two writes within one tick of the kernel's clock would else have the same modification time."""
    with contextlib.suppress(FileNotFoundError):
        before = old.stat().st_mtime_ns
        if os.fstat(fd).st_mtime_ns <= before:
            os.utime(fd, ns=(before + 1, before + 1))


def _sync_directory(directory: Path) -> None:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot, and need not
            message = f"{directory} cannot be synced ({error.strerror}): what was written may be lost with the power"
            raise StateError(message) from error


def write_json(path: Path, document: object, *, durable: bool = False) -> None:
    """Write a JSON document whole; a lone surrogate, which is no text, becomes "?". Raises StateError."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode("utf-8", "replace"), durable=durable)


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file, at most one byte more than `limit`; never waits on a pipe or a device.

    Raises OSError, with EINVAL for anything that is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(fd)


def absent(path: Path) -> bool:
    """Whether there is provably nothing of that name; what may not be seen, or a dangling symlink, is there."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False
    return False


def read_json(path: Path) -> Any:
    """Read a JSON document; None if, and only if, there is no file. Raises StateError on anything unreadable."""
    try:
        data = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise StateError(f"{path} is larger than {MAX_BYTES} bytes: not a file of ours")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is not valid JSON ({error})") from error
    if document is None:
        raise StateError(f"{path} is not valid: it holds null, which nobody writes")
    return document


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on `path` (made if missing) for the block. Raises StateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        raise StateError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        _give_to_owner(fd, path.parent)
        with contextlib.suppress(OSError):  # whatever the umask says: others of the group write here too
            os.fchmod(fd, 0o660)
        _lock(fd, path)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        raise StateError(f"{path} cannot be locked ({error.strerror})") from error
