"""What goes wrong, and when: at one line of `ip -batch`, at one process, or at one step.

A fault strikes where it fits and counts how often it did, so that a test can say that it was met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dzagent.errors import KernelError
from dzagent.model import Result, Step

Way: TypeAlias = Literal["fails", "lies", "times out", "killed", "interrupted", "terminated", "truncated"]
"""How a line goes wrong.

fails: refused, nothing changes. lies: carried out, and reported as refused. times out: carried out with the rest
of the process, which then does not end in time. killed: the process dies of SIGKILL before the line.
interrupted: the system call returns EINTR, nothing changes. terminated: as killed, by SIGTERM.
truncated: half of the process's answer is lost (lines that read).
"""


@dataclass
class Fault:
    """Makes the next step that fits fail, once. `error` raises instead, as if the tool could not start."""

    fits: Callable[[Step], bool]
    result: Result = Result.TRANSIENT
    error: KernelError | None = None


@dataclass
class LineFault:
    """Strikes at lines that fit, `times` times (None: always). `met` counts."""

    fits: Callable[[str], bool]
    way: Way
    times: int | None = 1
    message: str = "RTNETLINK answers: Device or resource busy"
    met: int = 0

    def strikes(self, line: str) -> bool:
        if (self.times is not None and self.met >= self.times) or not self.fits(line):
            return False
        self.met += 1
        return True


class Killed(BaseException):
    """The agent's own process ends here, as by SIGKILL: nothing catches it, nothing cleans up."""
