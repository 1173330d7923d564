"""What joining takes and gives. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dzagent.model import Desired, Observed, Problem, Route, ServiceName

Learned: TypeAlias = Mapping[ServiceName, Mapping[str, Route]]
Installed: TypeAlias = Mapping[tuple[ServiceName, str], Route]


@dataclass(frozen=True, slots=True)
class Joined:
    """Both sides for the plan, and which learned routes the kernel holds as they should be."""

    desired: Desired
    observed: Observed
    installed: Installed = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    equal: Mapping[int, Route] = field(default_factory=dict)
