"""Ends doublezerod so that its tunnels stay: by SIGKILL, since its clean stop takes them down."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dzagent.errors import MigrationError
from dzagent.foreign.sight import Eyes, Sighting
from dzagent.migration.units import Units

PATIENCE: Final = 10.0
"""Seconds until whatever was killed must be gone."""
STEP: Final = 0.02


def kill_process(eyes: Eyes, pid: int) -> None:
    """Kill one process, if it (still) is a doublezerod: the descriptor keeps the number from meaning another one."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if eyes.is_one(pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Ending:
    """Ends every doublezerod of this network namespace. `kill`, `sleep` and `clock` are replaced in tests."""

    eyes: Eyes
    units: Units
    kill: Callable[[Eyes, int], None] = kill_process
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def end(self, unit: str, *, has_unit: bool) -> bool:
        """Kill it and see it gone; tells whether there was one. Raises MigrationError if it does not go.

        has_unit: whether systemd has such a unit; it must have been kept from starting before.
        """
        first = seen = self.eyes.look()
        if has_unit and seen is not None:
            self.units.kill(unit)
        began = self.clock()
        while seen is not None:
            if self.clock() - began >= PATIENCE:
                raise MigrationError(_stays(seen))
            for pid in self.eyes.processes():
                self.kill(self.eyes, pid)
            self.sleep(STEP)
            seen = self.eyes.look()
        return first is not None


def _stays(seen: Sighting) -> str:
    return (
        f"doublezerod ({seen.how}) does not end, or comes back: end it by SIGKILL, and what starts it (a supervisor, a "
        "container's restart policy), then run `dzagent migrate` again"
    )
