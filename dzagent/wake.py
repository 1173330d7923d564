"""What makes the loop run a pass: one object that collects reasons, and a socket that feeds it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from dzagent.errors import StateError

MAX_REASONS = 64
"""Different reasons remembered between two passes; more would tell nobody anything."""


class Wake:
    """Reasons to run a pass, from any thread. Reasons that arrive during a pass cause another one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._reasons: set[str] = set()

    def set(self, reason: str) -> None:
        """Add a reason; the waiting loop returns at once."""
        with self._condition:
            if len(self._reasons) < MAX_REASONS:
                self._reasons.add(reason)
            self._condition.notify_all()

    def wait(self, timeout: float, ignoring: frozenset[str] = frozenset()) -> frozenset[str]:
        """Return the reasons that came, after at most `timeout` seconds; none means the timer.

        ignoring: reasons that do not end the wait, but are returned as well.
        """
        with self._condition:
            self._condition.wait_for(lambda: bool(self._reasons - ignoring), timeout=max(0.0, timeout))
            reasons = frozenset(self._reasons)
            self._reasons.clear()
            return reasons


class WakeSocket:
    """Turns datagrams on a unix socket into reasons. Anybody in the group may send; content is a label only."""

    def __init__(self, path: Path, wake: Wake, *, mode: int = 0o660) -> None:
        self._path = path
        self._wake = wake
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(mode)
        except OSError as error:
            self._socket.close()
            raise StateError(f"{path} cannot be made ({error.strerror})") from error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wake", daemon=True)

    def start(self) -> None:
        """Listen in a thread of its own."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                data = self._socket.recv(64)
            except OSError:  # closed by stop()
                return
            if (
                self._stopping.is_set()
            ):  # an empty datagram looks the same as the end, and anybody may send one
                return
            self._wake.set(data.decode("ascii", "replace") or "wake")

    def stop(self) -> None:
        """Stop listening and remove the socket."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 -- symmetric with bind by path string
