"""When a step that failed may be tried again: per object, by the class of its failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import tenacity
from tenacity.wait import wait_base

from dzagent.model import Key, Outcome, Result, Step, key

PERMANENT_SECONDS = 60.0
"""A permanent failure is tried again when its step changes, or after this long: the host may have changed."""


@dataclass(frozen=True, slots=True)
class _Failure:
    outcome: Outcome
    step: Step
    attempts: int
    retry_at: float


class Backoff:
    """Remembers failures. Times are seconds of the caller's clock; nothing here sleeps."""

    def __init__(self, wait: wait_base | None = None) -> None:
        self._wait = wait or tenacity.wait_exponential(multiplier=0.5, max=60) + tenacity.wait_random(0, 0.5)
        self._failures: dict[Key, _Failure] = {}

    def ready(self, step: Step, now: float) -> bool:
        """Whether this step may be tried now; a step that changed since it failed always may."""
        failure = self._failures.get(_key(step)) if self._failures else None
        return failure is None or failure.step != step or now >= failure.retry_at

    def record(self, outcome: Outcome, now: float) -> None:
        """Take in how a step ended."""
        if not self._failures and outcome.result is Result.DONE:
            return
        step_key = _key(outcome.step)
        if outcome.result in {Result.DONE, Result.GONE, Result.RACED}:
            self._failures.pop(step_key, None)
        elif outcome.result is Result.PERMANENT:
            self._failures[step_key] = _Failure(outcome, outcome.step, 1, now + PERMANENT_SECONDS)
        elif outcome.result is Result.TRANSIENT:
            before = self._failures.get(step_key)
            attempts = before.attempts + 1 if before is not None and before.step == outcome.step else 1
            self._failures[step_key] = _Failure(outcome, outcome.step, attempts, now + self._delay(attempts))

    def _delay(self, attempts: int) -> float:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = attempts
        return self._wait(state)

    def standing(self, steps: Iterable[Step]) -> tuple[Outcome, ...]:
        """Return how those of these steps ended that failed and have not been done since, in their order."""
        if not self._failures:
            return ()
        found = ((step, self._failures.get(_key(step))) for step in steps)
        return tuple(f.outcome for step, f in found if f is not None and f.step == step)

    def next_retry(self) -> float | None:
        """Return the earliest time at which something may be tried again."""
        return min((failure.retry_at for failure in self._failures.values()), default=None)

    def forget_except(self, steps: tuple[Step, ...]) -> None:
        """Drop what is no longer planned, so that the memory stays as small as the plan."""
        planned = {_key(step) for step in steps}
        self._failures = {k: f for k, f in self._failures.items() if k in planned}


def _key(step: Step) -> Key:
    return (step.action, *key(step.target))
