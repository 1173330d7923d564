"""Conditions as Kubernetes has them: a type, True/False/Unknown, a reason, a message, and since when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["True", "False", "Unknown"]

Judgement: TypeAlias = tuple[str, Status, str, str]
"""A condition before it is dated: type, status, reason, message."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about the agent. `since` is the unix time of its last change of status."""

    type: str
    status: Status
    reason: str
    message: str
    since: float = 0.0
    generation: int = 0


class Conditions:
    """The present set; remembers when each last changed its status."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._conditions: dict[str, Condition] = {}

    def set(self, condition: Condition) -> None:
        """Replace the condition of this type; `since` moves only when the status does."""
        before = self._conditions.get(condition.type)
        same = before is not None and before.status == condition.status
        since = before.since if same and before is not None else self._clock()
        self._conditions[condition.type] = replace(condition, since=since)

    @property
    def all(self) -> Mapping[str, Condition]:
        """Every condition by its type, in the order of first mention."""
        return dict(self._conditions)
