"""Vouching for objects in tests, where no kernel has been looked at."""

from __future__ import annotations

from typing import TypeVar

from dzagent.owned import Owned, Proof, vouch

T = TypeVar("T")


def ours(obj: T) -> Owned[T]:
    """Take an object for one of ours."""
    return vouch(obj, Proof.MARK)
