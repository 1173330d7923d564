"""The proof that an object is ours: a value that only the policy check can make. Imports nothing of ours.

A step changes or deletes what it holds as `Owned`, and nothing else can be put there: mypy refuses a bare object,
and so does `Step` itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Proof(enum.Enum):
    """What says that an object is ours."""

    MARK = "mark"  # our alias, our protocol number, our marker, or its place on a link of ours
    JOURNAL = "journal"  # it is the very object that we made, whatever was done to its mark
    TWIN = "twin"  # nobody's mark, and in every parameter what we would make


_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class Owned(Generic[T_co]):
    """An object of the kernel that is provably ours. Made by `dzagent.ownership` alone, with `vouch`."""

    obj: T_co
    proof: Proof = field(compare=False)
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("an Owned object comes from the policy check (dzagent.ownership) alone")


def vouch(obj: T, proof: Proof) -> Owned[T]:
    """Vouch that an object is ours. For the policy check alone; a test holds that nobody else calls this."""
    return Owned(obj, proof, _SEAL)
