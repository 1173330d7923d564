"""The API's listening sockets: given by systemd, or made here beside a lock that says who serves them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from dzagent.errors import StateError

GROUP = "dzagent"
"""Members of this group may use the API."""
FIRST_FD = 3
"""Number of the first descriptor that systemd passes (sd_listen_fds)."""
BACKLOG = 1024
"""Connections that may wait to be taken: few enough that whoever is last waits for milliseconds."""
_UMASK = 0o117  # the socket comes out as 0660


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens at `path`. `inode` and `lock` are set if it was made here, and so is removed here."""

    sock: socket.socket
    path: str
    inode: int | None = None
    lock: int | None = None

    def remove(self) -> None:
        """Remove the socket file, if it is still ours, and give up the lock."""
        if self.inode is not None:
            with contextlib.suppress(OSError):
                if Path(self.path).lstat().st_ino == self.inode:
                    Path(self.path).unlink()
        if self.lock is not None:
            os.close(self.lock)


def passed_by_systemd(environ: MutableMapping[str, str], pid: int, first: int = FIRST_FD) -> list[Listener]:
    """Return the sockets of socket activation (LISTEN_PID, LISTEN_FDS), [] if there are none for this process.

    The variables are removed, so that no child takes them for its own. Raises StateError on anything that is not a
    listening unix stream socket.
    """
    wanted, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if wanted != str(pid) or not count:
        return []
    if not count.isdecimal() or not 0 < int(count) <= 16:
        raise StateError(f"LISTEN_FDS is {count!r}, expected the number of sockets that systemd passes")
    return [_passed(number) for number in range(first, first + int(count))]


def _passed(number: int) -> Listener:
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise StateError(
            f"descriptor {number} is not a socket ({error.strerror}): see dzagent-api.socket"
        ) from error
    os.set_inheritable(number, False)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens:
        sock.close()
        raise StateError(
            f"descriptor {number} is not a listening unix socket: the API has no other protection than the "
            "permissions of its socket (ListenStream=/run/dzagent/dzagent.sock)"
        )
    return Listener(sock, str(sock.getsockname()))


def listen(paths: Iterable[Path], group: str = GROUP) -> list[Listener]:
    """Listen at every path, for a group if it exists. Raises StateError if one cannot be had; then none is left."""
    made: list[Listener] = []
    try:
        made.extend(_listen(path, group) for path in paths)
    except StateError:
        for listener in made:
            listener.sock.close()
            listener.remove()
        raise
    return made


def _listen(path: Path, group: str) -> Listener:
    """Listen at `path`, in the place of a dead server's socket but never of a live one's."""
    lock = _lock(path)
    try:
        _clear(path)
        sock = _bind(path, group)
    except OSError as error:
        os.close(lock)
        raise StateError(f"{path} cannot be made ({error.strerror or error})") from error
    except StateError:
        os.close(lock)
        raise
    return Listener(sock, str(path), path.lstat().st_ino, lock)


def _lock(path: Path) -> int:
    """Hold a lock beside the socket for as long as it is served: two servers that start at once cannot both win."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        hint = f": run this as a user who may write to {path.parent}" if denied else ""
        raise StateError(f"{path} cannot be made ({error.strerror}){hint}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise _served(path) from error
    return lock


def _served(path: Path) -> StateError:
    return StateError(f"another server answers on {path}: stop it first (systemctl stop dzagent-api)")


def _clear(path: Path) -> None:
    """Remove the socket that a dead server left. Raises StateError, OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StateError(f"{path} is in the way: it is not a socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(str(path))
    if code == errno.ECONNREFUSED:
        path.unlink()
    elif code != errno.ENOENT:  # it answers, or its queue is full, or it is another user's
        raise _served(path)


def _bind(path: Path, group: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_UMASK)
    try:
        sock.bind(str(path))
        _give_to_group(path, group)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _give_to_group(path: Path, group: str) -> None:
    """Let the group in, where it exists and we may; under systemd the unit's Group= has done it."""
    with contextlib.suppress(KeyError, OSError):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
