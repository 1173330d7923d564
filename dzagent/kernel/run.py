"""The only place that starts programs: bounded in time and in output, in a process group of its own.
(`children` starts those that do not end.)

`sh` starts them without a shell. Its own `_timeout` polls and so costs at least 0.1 s a call; a timer that
kills the process group costs nothing unless it fires.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Protocol, cast

import sh

from dzagent.errors import KernelError, KernelTimeout

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for: a fixed list, whatever the environment says."""

PACKAGES = {"ip": "iproute2", "ss": "iproute2", "nft": "nftables", "bird": "bird2", "systemctl": "systemd"}
"""The Debian package that brings a program."""

TIMEOUT = 10.0
"""Seconds that a program gets. Reading 10,000 routes takes 0.05 s; deleting a GRE link up to 0.2 s."""

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of standard output kept; 20,000 routes are about 4 MB."""

_ERROR_LIMIT = 16 * 1024 * 1024
"""Bytes of standard error kept: `ip -batch` names every failed line there, and a lost one would count as done."""

ENVIRONMENT = {"LC_ALL": "C", "PATH": ":".join(SEARCH_PATH)}
"""The whole environment of a program."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended by itself: exit code and raw output."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def message(self) -> str:
        """What it said on standard error, for a person."""
        return self.stderr.decode(errors="replace").strip()


class Runner(Protocol):
    """Starts one program and waits for its end."""

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        """Run it to its end. Raises KernelTimeout if it takes too long, KernelError if it cannot start or says too much."""


@dataclass(slots=True)
class _Sink:
    """Collects output up to a limit, and remembers that there was more."""

    limit: int
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size <= self.limit:
            self.chunks.append(chunk)


def run(
    program: str,
    args: Sequence[str],
    stdin: str = "",
    *,
    timeout: float = TIMEOUT,
    limit: int = OUTPUT_LIMIT,
    search: Sequence[str] = SEARCH_PATH,
) -> Completed:
    """Run `program` with `stdin` as its input; any exit code is a result.

    timeout: seconds until its process group is killed. limit: bytes of standard output.
    Raises KernelTimeout if it does not end in time, KernelError if it is not installed, cannot be started or
    exceeds the limit.
    """
    out, err, expired = _Sink(limit), _Sink(_ERROR_LIMIT), threading.Event()
    command = find(program, search)
    try:
        process = _start(command, args, stdin, out, err)
    except (OSError, sh.ForkException) as error:
        raise KernelError(f"{program} could not be started: {error}") from error

    def expire() -> None:
        expired.set()
        _kill_group(process)

    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    try:
        with suppress(sh.ErrorReturnCode):  # any exit code, or the signal that ended it, is in exit_code
            process.wait()
    finally:
        timer.cancel()
    if expired.is_set():
        raise KernelTimeout(f"{program} did not end within {timeout:g} s and was killed.")
    if out.size > limit:
        raise KernelError(f"{program} wrote more than {limit} bytes.")
    return Completed(int(process.exit_code), b"".join(out.chunks), b"".join(err.chunks))


def _start(command: sh.Command, args: Sequence[str], stdin: str, out: _Sink, err: _Sink) -> sh.RunningCommand:
    """Start it in the background, in a group of its own: `kill_group` would else kill ourselves."""
    return command(
        *args,
        _in=stdin.encode(),
        _out=cast("IO[bytes]", out),  # sh only calls `write`
        _err=cast("IO[bytes]", err),
        _out_bufsize=65536,
        _tty_out=False,
        _env=ENVIRONMENT,
        _new_group=True,
        _bg=True,
        _bg_exc=False,
    )


def find(program: str, search: Sequence[str]) -> sh.Command:
    """Return a program of the search path. Raises KernelError, which names its package, if it is not installed."""
    try:
        return sh.Command(program, search_paths=list(search))
    except sh.CommandNotFound as error:
        package = PACKAGES.get(program, program)
        message = f"The program {program} was not found: install the package {package}."
        raise KernelError(message) from error


def _kill_group(process: sh.RunningCommand) -> None:
    """Kill the program and whatever it started; it may have ended meanwhile."""
    with suppress(ProcessLookupError):
        process.process.kill_group()
