"""Failed steps wait by their class; a step that changed never waits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest
import tenacity

from dzagent.backoff import PERMANENT_SECONDS, Backoff
from dzagent.model import Action, Address, Outcome, Result, Step

ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
STEP = Step(Action.ADD, None, ADDRESS, "missing")
OTHER = Step(Action.ADD, None, replace(ADDRESS, dev="doublezero1"), "missing")


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(tenacity.wait_exponential(multiplier=1, max=60))


def test_a_transient_failure_waits_longer_each_time(backoff: Backoff) -> None:
    now, waits = 0.0, []
    for _ in range(8):
        backoff.record(Outcome(STEP, Result.TRANSIENT), now)
        retry = backoff.next_retry()
        assert retry is not None
        assert not backoff.ready(STEP, retry - 0.001)
        assert backoff.ready(STEP, retry)
        waits.append(retry - now)
        now = retry
    assert waits == sorted(waits)
    assert waits[-1] == 60


def test_others_do_not_wait(backoff: Backoff) -> None:
    backoff.record(Outcome(STEP, Result.TRANSIENT), 0)
    assert backoff.ready(OTHER, 0)


def test_a_permanent_failure_waits_until_its_step_changes(backoff: Backoff) -> None:
    backoff.record(Outcome(STEP, Result.PERMANENT), 0)
    assert not backoff.ready(STEP, PERMANENT_SECONDS - 1)
    assert backoff.ready(replace(STEP, after=replace(ADDRESS, scope="global")), 0)
    assert backoff.ready(STEP, PERMANENT_SECONDS)


@pytest.mark.parametrize("result", [Result.DONE, Result.GONE, Result.RACED])
def test_success_forgets(backoff: Backoff, result: Result) -> None:
    backoff.record(Outcome(STEP, Result.TRANSIENT), 0)
    backoff.record(Outcome(STEP, result), 0)
    assert backoff.ready(STEP, 0)


def test_memory_is_as_small_as_the_plan(backoff: Backoff) -> None:
    backoff.record(Outcome(STEP, Result.TRANSIENT), 0)
    backoff.forget_except((OTHER,))
    assert backoff.next_retry() is None


def test_the_default_wait_has_jitter_and_a_bound() -> None:
    backoff = Backoff()
    for _ in range(20):
        backoff.record(Outcome(STEP, Result.TRANSIENT), 0)
    retry = backoff.next_retry()
    assert retry is not None
    assert 0 < retry <= 61
