"""A clock that no person sets."""

from __future__ import annotations

import time


def boot_seconds() -> float:
    """Return seconds since boot, time asleep included (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
