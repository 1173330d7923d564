"""A condition's time moves with its status, and with nothing else."""

from __future__ import annotations

from dzagent.conditions import Condition, Conditions


def test_the_transition_time_moves_with_the_status_only() -> None:
    times = iter([100.0, 200.0, 300.0])
    conditions = Conditions(lambda: next(times))
    conditions.set(Condition("InSync", "False", "StepsLeft", "3 steps"))
    conditions.set(Condition("InSync", "False", "StepsLeft", "2 steps", generation=4))
    assert conditions.all["InSync"] == Condition("InSync", "False", "StepsLeft", "2 steps", 100.0, 4)
    conditions.set(Condition("InSync", "True", "Equal", ""))
    assert conditions.all["InSync"].since == 200.0
