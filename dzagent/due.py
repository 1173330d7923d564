"""The wait for the time of a change that nobody has confirmed yet. It imports little: it may last an hour."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dzagent.errors import StateError
from dzagent.files import read_json

STEP: Final = 1.0
"""How often one looks whether it was confirmed, in seconds."""


def wait_until_due(path: Path, now: Callable[[], float], sleep: Callable[[float], None]) -> bool:
    """Wait for the deadline in the checkpoint `path`; False if it is gone, which is how it looks when confirmed.

    What cannot be read is due: `rollback.py` says what is wrong with it. now: seconds since boot.
    """
    while True:
        try:
            document = read_json(path)
        except StateError:
            return True
        if document is None:
            return False
        deadline = document.get("deadline") if isinstance(document, dict) else None
        if not isinstance(deadline, int | float) or not math.isfinite(deadline):
            return True
        left = deadline - now()
        if left <= 0:
            return True
        sleep(min(left, STEP))
