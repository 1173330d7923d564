"""The lab's own error."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot be built or run here; the message says why."""
