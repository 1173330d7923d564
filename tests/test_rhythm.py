"""When passes are due: by time, by what is left to do, and by a debt while somebody storms."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dzagent.rhythm import AT_ONCE, BURSTS, SHARE, UNSETTLED, UNWATCHED, Passed, Rhythm

CALM = Passed(watched=True)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rhythm(clock: Clock) -> Rhythm:
    return Rhythm(60.0, clock, lambda: 0.5)


def test_the_first_pass_is_due_at_once_and_reads_everything(rhythm: Rhythm) -> None:
    assert rhythm.left() == 0
    assert rhythm.full


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 54.0), (0.5, 60.0), (1.0, 66.0)])
def test_the_full_look_is_jittered(clock: Clock, chance: float, seconds: float) -> None:
    rhythm = Rhythm(60.0, clock, lambda: chance)
    rhythm.passed(CALM)
    assert rhythm.left() == pytest.approx(seconds)
    assert not rhythm.full
    clock.now += seconds
    assert rhythm.full


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        (CALM, 60.0),
        (Passed(watched=False), UNWATCHED),
        (Passed(failed=True, watched=True), UNWATCHED),
        (Passed(unsettled=True, watched=True), UNSETTLED),
        (Passed(retry_in=0.7, watched=True), 0.7),
        (Passed(retry_in=0.001, watched=True), AT_ONCE),
        (Passed(retry_in=-9.0, watched=True), UNWATCHED),
    ],
)
def test_the_next_pass_is_when_it_may_be_of_use(rhythm: Rhythm, how: Passed, seconds: float) -> None:
    rhythm.passed(how)
    assert rhythm.left() == pytest.approx(seconds)


def test_a_pass_that_read_a_part_does_not_put_off_the_full_look(rhythm: Rhythm, clock: Clock) -> None:
    rhythm.passed(CALM)
    clock.now += 50
    rhythm.passed(Passed(fully=False, watched=True))
    assert rhythm.left() == pytest.approx(10.0)


def test_a_failed_full_look_stays_due(rhythm: Rhythm, clock: Clock) -> None:
    rhythm.passed(Passed(failed=True, watched=True))
    clock.now += UNWATCHED
    assert rhythm.left() == 0
    assert rhythm.full


def test_an_event_is_answered_at_once(rhythm: Rhythm) -> None:
    rhythm.passed(CALM)
    rhythm.want(urgent=False)
    assert rhythm.left() == 0
    assert not rhythm.full


def storm(rhythm: Rhythm, clock: Clock, *, urgent: bool, cost: float, changed: bool, seconds: float) -> float:
    """Events without end for a time; return the share of a core that passes took."""
    rhythm.passed(CALM)
    spent, end = 0.0, clock.now + seconds
    while clock.now < end:
        rhythm.want(urgent=urgent)
        clock.now += rhythm.left() + cost
        spent += cost
        rhythm.passed(Passed(cost, changed=changed, fully=rhythm.full, watched=True))
        clock.now += 0.003
    return spent / seconds


@pytest.mark.parametrize("cost", [0.005, 0.05, 0.3])
def test_a_storm_of_foreign_events_costs_a_share_of_a_core(rhythm: Rhythm, clock: Clock, cost: float) -> None:
    share = storm(rhythm, clock, urgent=False, cost=cost, changed=False, seconds=120)
    assert SHARE / 2 < share <= SHARE + (BURSTS[False][0] + 2 * cost) / 120


def test_events_about_us_wait_half_a_second_at_most(rhythm: Rhythm, clock: Clock) -> None:
    storm(rhythm, clock, urgent=True, cost=0.05, changed=False, seconds=120)
    rhythm.want(urgent=True)
    assert rhythm.left() <= BURSTS[True][1]


def test_what_repairs_is_hardly_held_up(rhythm: Rhythm, clock: Clock) -> None:
    assert storm(rhythm, clock, urgent=True, cost=0.05, changed=True, seconds=30) > 0.5


def test_a_debt_is_paid_off(rhythm: Rhythm, clock: Clock) -> None:
    storm(rhythm, clock, urgent=False, cost=0.1, changed=False, seconds=30)
    rhythm.want(urgent=False)
    assert rhythm.left() > 0
    clock.now += 60
    rhythm.passed(CALM)
    rhythm.want(urgent=False)
    assert rhythm.left() == 0
