"""A client of BIRD's control socket: one command at a time, bounded in time and in size.

The protocol (BIRD 2.0.7 to 3.x): after a banner every command is a line; the answer's lines start with a
four-digit code and "-" (more follows) or " " (the last one), or with a space (continues the line before).
Codes from 8000 are refusals.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dzagent.errors import EngineError, EngineGone, EngineRefused, EngineSilent

TIMEOUT: Final = 2.0
"""Seconds that one answer may take in all; 20,000 routes take 0.05 s."""

LIMIT: Final = 32 * 1024 * 1024
"""Bytes of one answer: about 250,000 routes."""

_CHUNK: Final = 256 * 1024
_LAST: Final = re.compile(rb"(?:^|\n)(\d{4}) [^\n]*\n\Z")
_TAIL: Final = 1024
"""Bytes at the end of an answer that hold its last line, whatever that line says."""
_BANNER: Final = re.compile(rb"0001 BIRD v?(\S+) ready\.\n")


class ControlSocket:
    """One connection, made when it is needed and dropped after any trouble."""

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = TIMEOUT,
        limit: int = LIMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._limit = limit
        self._now = monotonic
        self._socket: socket.socket | None = None
        self.version = ""
        self.connections = 0
        """How often a connection was made: another number is, perhaps, another engine."""

    def command(self, text: str) -> str:
        """Send one command and return its whole answer.

        Raises EngineGone if nothing listens, EngineSilent if no whole answer comes in time, EngineRefused if
        the engine says no, EngineError for an answer that is none of its protocol.
        """
        if self._socket is None:
            self._connect()
        try:
            answer = self._exchange(text.encode("ascii") + b"\n")
        except BaseException:  # re-raised: half an answer must not be read as the start of the next
            self.close()
            raise
        code = _LAST.search(answer[-_TAIL:])
        if code is not None and code[1] >= b"8000":
            message = answer.decode("ascii", "replace").strip().splitlines()[-1][5:]
            raise EngineRefused(f"BIRD refuses `{text}`: {message or 'no reason given'}")
        return answer.decode("ascii", "replace")

    def close(self) -> None:
        """Drop the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self._timeout)
        try:
            made.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            made.close()
            raise EngineGone(f"no BGP engine listens on {self._path}: is dzagent-bird running?") from error
        except OSError as error:
            made.close()
            kind = EngineSilent if isinstance(error, (TimeoutError, BlockingIOError)) else EngineError
            reason = error.strerror or "no answer in time"
            raise kind(f"the BGP engine's socket {self._path} cannot be opened ({reason})") from error
        self._socket = made
        self.connections += 1
        try:
            banner = self._receive(self._now() + self._timeout)
        except BaseException:  # re-raised: half an answer must not be read as the start of the next
            self.close()
            raise
        match = _BANNER.fullmatch(banner)
        if match is None:
            self.close()
            raise EngineError(f"{self._path} is not BIRD's control socket: it greets with {_shown(banner)}")
        self.version = match[1].decode("ascii", "replace")

    def _exchange(self, line: bytes) -> bytes:
        if self._socket is None:
            raise EngineGone(f"no BGP engine listens on {self._path}")
        deadline = self._now() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(line)
        except OSError as error:
            raise self._lost(error) from error
        return self._receive(deadline)

    def _receive(self, deadline: float) -> bytes:
        """Read until a last line; everything before it belongs to the same answer."""
        held, parts, size = self._socket, bytearray(), 0
        if held is None:
            raise EngineGone(f"no BGP engine listens on {self._path}")
        while True:
            left = deadline - self._now()
            if left <= 0:
                raise EngineSilent(
                    f"the BGP engine on {self._path} did not answer within {self._timeout:g} s"
                )
            try:
                held.settimeout(left)
                chunk = held.recv(_CHUNK)
            except OSError as error:
                raise self._lost(error) from error
            if not chunk:
                raise EngineGone(f"the BGP engine on {self._path} has closed the connection")
            parts += chunk
            size += len(chunk)
            if size > self._limit:
                raise EngineError(
                    f"the BGP engine on {self._path} answers with more than {self._limit} bytes"
                )
            if chunk.endswith(b"\n") and _LAST.search(bytes(parts[-_TAIL:])):
                return bytes(parts)

    def _lost(self, error: OSError) -> EngineError:
        if isinstance(error, TimeoutError):
            return EngineSilent(f"the BGP engine on {self._path} did not answer within {self._timeout:g} s")
        return EngineGone(f"the connection to the BGP engine on {self._path} is lost ({error.strerror})")


def _shown(data: bytes) -> str:
    return ascii(data[:60].decode("ascii", "replace"))
