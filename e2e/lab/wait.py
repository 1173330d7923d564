"""Waiting for a condition, with a limit that fits how fast this lab is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from e2e.lab.errors import LabError

SLOW = float(os.environ.get("LAB_SLOW", "1"))
"""1 on a real processor, 10 under emulation: every limit is multiplied by it."""

STEP = 0.02 * SLOW
"""Seconds between two looks: where everything is slow, looking takes the processor from what is waited for."""

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], limit: float = 15.0) -> T:
    """Return the first true value of `look`, asked again and again. Raises LabError after `limit` s (x SLOW)."""
    end = time.monotonic() + limit * SLOW
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise LabError(f"not within {limit * SLOW:.0f} s: {what}")
        time.sleep(STEP)


def stays(what: str, look: Callable[[], bool], seconds: float) -> None:
    """Check that a condition holds all the time for `seconds` (x SLOW). Raises LabError."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if not look():
            raise LabError(f"no longer true: {what}")
        time.sleep(STEP)
