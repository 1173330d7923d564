"""What the service manager hears of the loop: that it is ready, that it is alive, and one line about how things are.

The protocol is sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names. Without one nothing is sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from typing import TypeAlias

log = logging.getLogger(__name__)

MAX_STATUS = 300
"""Characters of the line that `systemctl status` shows."""

SEND_SECONDS = 1.0
"""How long a datagram may wait for a busy service manager."""


Send: TypeAlias = Callable[[bytes], None]
"""Sends one message, or loses it; never raises."""


def _silent(_message: bytes) -> None:
    """Nobody listens."""


class Pulse:
    """The sign of life of one loop.

    Only the thread that made it counts, the loop's: one that is alive beside a loop that hangs proves nothing.
    """

    def __init__(self, send: Send = _silent, watchdog: float = 0.0) -> None:
        """watchdog: seconds of silence after which the process is killed, 0 for never."""
        self._send = send
        self._slice = watchdog / 2 if watchdog > 0 else 0.0
        self._thread = threading.get_ident()
        self._observed = False
        self._ready = False
        self._status = ""

    def observed(self) -> None:
        """Say that the kernel was read: the next rest says READY."""
        self._observed = True

    def beat(self) -> None:
        """Say that the loop is alive; from another thread it says nothing."""
        if self._slice and threading.get_ident() == self._thread:
            self._send(b"WATCHDOG=1")

    def rest(
        self, wait: Callable[[float], frozenset[str]], seconds: float, status: str = ""
    ) -> frozenset[str]:
        """Wait for reasons, at most `seconds`, with a beat at least twice in the time of the watchdog.

        wait: returns early only with reasons. status: how things are, for a person.
        """
        self._tell(status)
        while True:
            self.beat()
            part = min(seconds, self._slice) if self._slice else seconds
            reasons = wait(part)
            seconds -= part
            if reasons or seconds <= 0:
                return reasons

    def stopping(self) -> None:
        """Say that the loop has ended on purpose."""
        self._send(b"STOPPING=1")

    def _tell(self, status: str) -> None:
        """Say READY once, and the status whenever it is another."""
        lines = []
        if self._observed and not self._ready:
            self._ready = True
            lines.append("READY=1")
        shown = _line(status)
        if shown != self._status:
            self._status = shown
            lines.append(f"STATUS={shown}")
        if lines:
            self._send("\n".join(lines).encode("utf-8", "replace"))


def _line(text: str) -> str:
    """Return the text as one line without control characters, cut to its limit."""
    words = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(words.split())[:MAX_STATUS]


def pulse_of(environ: MutableMapping[str, str], pid: int) -> Pulse:
    """Return the pulse that the service manager asks for by the environment.

    The variables are removed: no child may speak for us.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    usec, owner = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(pid))
    if not address:
        return Pulse()
    if not address.startswith(("/", "@")) or len(address) == 1:
        log.warning("NOTIFY_SOCKET is %r, expected a path or @NAME: nobody is notified", address)
        return Pulse()
    seconds = int(usec) / 1e6 if usec.isdecimal() and owner == str(pid) else 0.0
    return Pulse(_Sender(address), seconds)


class _Sender:
    """Sends to a datagram socket; a service manager that is busy or gone costs a message, and no more."""

    def __init__(self, address: str, timeout: float = SEND_SECONDS) -> None:
        self._address = os.fsencode("\0" + address[1:] if address.startswith("@") else address)
        self._timeout = timeout

    def __call__(self, message: bytes) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(self._timeout)
            sock.sendto(message, self._address)
