"""Changes that no test notices, by module, each with the reason why none can or need (see `mutation.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KNOWN: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {}
"""Reason -> the names of the changes, by file; a name stands twice where two changes bear it."""
