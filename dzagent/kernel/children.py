"""Programs that run as long as the agent does, and talk all the while: the sibling of `run`.

Output comes through a pipe of our own, so that no thread handles it between the program and its reader. A child that
outlives the agent by a kill -9 is ended by the kernel: `setpriv` asks for that where it is installed, and writing
into a pipe that nobody reads ends the child in any case.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import sh

from dzagent.errors import KernelError
from dzagent.kernel.run import ENVIRONMENT, SEARCH_PATH, find

_TIED: Final = ("--pdeathsig", "KILL")
"""Options of `setpriv` that end the program with the thread that started it."""

CHUNK: Final = 65536
"""Bytes that are read at once: what a pipe holds."""


class Child(Protocol):
    """A running program whose output is read piece by piece. One thread uses it, except for `interrupt`."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def read(self, seconds: float | None) -> bytes | None:
        """Return what it said, b"" if that is nothing within `seconds` (or on an interrupt), None at its end."""

    def interrupt(self) -> None:
        """Make a `read` that waits return."""

    def end(self) -> int:
        """Kill it and whatever it started; return how it ended (a negative number is a signal)."""


class Starter(Protocol):
    """Starts a child."""

    def __call__(self, program: str, args: Sequence[str]) -> Child:
        """Raises KernelError if it cannot be started."""


class ShChild:
    """Implements `Child` with `sh`: no shell, a process group and an environment of its own."""

    def __init__(self, program: str, args: Sequence[str], search: Sequence[str] = SEARCH_PATH) -> None:
        command, words = _tied(program, args, search)
        self._read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._nudged, self._nudge = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write_end, True)  # the program's own end: it waits for us, and the kernel counts
        try:
            with Path(os.devnull).open("rb") as nothing:
                self._process = command(
                    *words,
                    _in=nothing,
                    _out=write_end,
                    _err=write_end,
                    _tty_out=False,
                    _env=ENVIRONMENT,
                    _new_group=True,
                    _bg=True,
                    _bg_exc=False,
                )
        except (OSError, sh.ForkException) as error:
            self._close()
            raise KernelError(f"{program} could not be started: {error}") from error
        finally:
            os.close(write_end)
        self._poll = select.poll()
        self._poll.register(self._read_end, select.POLLIN)
        self._poll.register(self._nudged, select.POLLIN)

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid)

    def read(self, seconds: float | None) -> bytes | None:
        """Return what it said, b"" if that is nothing within `seconds` (or on an interrupt), None at its end."""
        ready = dict(self._poll.poll(None if seconds is None else max(0.0, seconds) * 1000))
        if self._nudged in ready:
            with suppress(BlockingIOError):
                os.read(self._nudged, CHUNK)
        if self._read_end not in ready:
            return b""
        try:
            return os.read(self._read_end, CHUNK) or None
        except BlockingIOError:
            return b""

    def interrupt(self) -> None:
        """Make a `read` that waits return."""
        with suppress(OSError):
            os.write(self._nudge, b"!")

    def end(self) -> int:
        """Kill it and whatever it started; return how it ended (a negative number is a signal)."""
        with suppress(ProcessLookupError):
            self._process.process.kill_group()
        with suppress(sh.ErrorReturnCode):
            self._process.wait()
        self._close()
        return int(self._process.exit_code)

    def _close(self) -> None:
        for descriptor in (self._read_end, self._nudged, self._nudge):
            with suppress(OSError):
                os.close(descriptor)


def start(program: str, args: Sequence[str]) -> Child:
    """Start a program that runs until it is ended. Raises KernelError if it cannot be started.

    The calling thread must live as long as the child: the kernel ends the child with it.
    """
    return ShChild(program, args)


def _tied(program: str, args: Sequence[str], search: Sequence[str]) -> tuple[sh.Command, list[str]]:
    """Return the command that runs `program` tied to our life, or as it is where `setpriv` is missing."""
    found = find(program, search)
    try:
        tie = find("setpriv", search)
    except KernelError:
        return found, list(args)
    return tie, [*_TIED, str(found), *args]
