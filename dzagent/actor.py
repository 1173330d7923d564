"""Carrying out plans as the loop does it: what is due, in rounds of apply and verify, each step accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from dzagent.audit import audit_line
from dzagent.backoff import Backoff
from dzagent.contested import Contest, Fight, rival
from dzagent.held import Held
from dzagent.journal import Journal
from dzagent.kernel.execute import execute
from dzagent.kernel.protocol import Kernel
from dzagent.model import Action, Key, Observed, Outcome, Plan, Result, ServiceName, Step, key
from dzagent.report import Reporter
from dzagent.status import describe

audit = logging.getLogger("dzagent.audit")

MAX_ROUNDS = 3
"""Rounds of apply and verify in one pass: an address change drops routes, which the next round puts back."""

MAX_AUDITED = 200
"""Changes of one phase that are logged one by one; a peer can announce thousands of routes at once."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What came of a plan: the plan that is left, what was held back, how each step ended, what still fails.

    fights: what somebody else keeps undoing. suspects: who on this host may do so, one phrase each.
    """

    plan: Plan
    held: tuple[Held, ...]
    outcomes: tuple[Outcome, ...]
    failing: tuple[Outcome, ...]
    observed: Observed
    fights: tuple[Fight, ...] = ()
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What a round needs: a new look at the kernel, the plan for what was seen, and causes for the audit log."""

    look: Callable[[], Observed]
    replan: Callable[[Observed], tuple[Plan, tuple[Held, ...]]]
    causes: Mapping[ServiceName, str]


class Actor:
    """Runs what is due of a plan, and remembers what failed."""

    def __init__(
        self,
        kernel: Kernel,
        reporter: Reporter,
        links: Mapping[ServiceName, str],
        now: Callable[[], float],
        journal: Journal,
        contest: Contest,
        managers: Callable[[], tuple[str, ...]],
    ) -> None:
        self._kernel = kernel
        self._reporter = reporter
        self._links = links
        self._now = now
        self._journal = journal
        self._backoff = Backoff()
        self._contest = contest
        self._fought = Fought(managers)

    def stand(self, plan: Plan, held: tuple[Held, ...], observed: Observed) -> Acted:
        """Do nothing: the plan is shown to a person."""
        return self._end(plan, held, (), observed)

    def act(self, plan: Plan, held: tuple[Held, ...], observed: Observed, using: Round) -> Acted:
        """Apply what is due and look again, until nothing is left that could be done now."""
        outcomes: tuple[Outcome, ...] = ()
        for _ in range(MAX_ROUNDS):
            due = self.due(plan)
            if not due.steps:
                break
            ended = self.run(due, using.causes, self._resting(plan, due))
            outcomes += ended
            if all(outcome.result is Result.BLOCKED for outcome in ended):
                break  # nothing was tried
            observed = using.look()
            plan, held = using.replan(observed)
            if not any(outcome.result in {Result.DONE, Result.GONE, Result.RACED} for outcome in ended):
                break
        self._backoff.forget_except(plan.steps)
        return self._end(plan, held, outcomes, observed)

    def _end(
        self, plan: Plan, held: tuple[Held, ...], outcomes: tuple[Outcome, ...], observed: Observed
    ) -> Acted:
        found = self._contest.settle(plan.steps, self._now())
        fights = tuple(replace(fight, rival=rival(fight.step, observed)) for fight in found)
        new = self._fought.news(fights)
        for fight in new:
            audit.warning(
                "contested %s: %s", describe(fight.step.target), self._contest.sentence(fight.count)
            )
        self._reporter.events([self._contest.outcome(fight) for fight in new])
        failing = (*self._backoff.standing(plan.steps), *self._contest.standing(plan.steps))
        return Acted(plan, held, outcomes, failing, observed, fights, self._fought.suspects)

    def next_due(self) -> float | None:
        """Return the earliest time at which something may be tried again, on the clock of `now`; None if nothing waits."""
        times = (self._backoff.next_retry(), self._contest.next_due())
        return min((time for time in times if time is not None), default=None)

    def run(
        self, plan: Plan, causes: Mapping[ServiceName, str], resting: tuple[Step, ...] = ()
    ) -> tuple[Outcome, ...]:
        """Run every step of a plan once, and account for it. Raises KernelError if the tool cannot be started."""
        self._journal.begin(plan.steps)
        ended = execute(self._kernel, plan, resting)
        self._note(ended, causes)
        return ended

    def due(self, plan: Plan) -> Plan:
        """Return the plan without the steps that failed, or were undone, lately and are not due again."""
        now = self._now()
        phases = (
            tuple(s for s in phase if self._backoff.ready(s, now) and self._contest.ready(s, now))
            for phase in plan.phases
        )
        return replace(plan, phases=tuple(phase for phase in phases if phase))

    def _resting(self, plan: Plan, due: Plan) -> tuple[Step, ...]:
        """Return the steps of the plan that are not due and on which others stand.

        What is fought over and is there, if not as it should be, still carries what stands on it.
        """
        if len(due.steps) == len(plan.steps):
            return ()
        tried, now = set(due.steps), self._now()
        left = (step for step in plan.steps if step not in tried)
        return tuple(s for s in left if s.action is not Action.CHANGE or not self._backoff.ready(s, now))

    def _note(self, outcomes: tuple[Outcome, ...], causes: Mapping[ServiceName, str]) -> None:
        """Remember and log what was tried; what was not is in the plan that is left."""
        now = self._now()
        outcomes = tuple(outcome for outcome in outcomes if outcome.result is not Result.BLOCKED)
        for outcome in outcomes:
            self._backoff.record(outcome, now)
        self._contest.record(outcomes, now)
        for outcome in outcomes[:MAX_AUDITED]:
            level = logging.INFO if outcome.result in {Result.DONE, Result.GONE} else logging.WARNING
            audit.log(level, "%s", audit_line(outcome, causes, self._links))
        rest = Counter((o.step.action.value, o.result.value) for o in outcomes[MAX_AUDITED:])
        for (action, result), count in rest.items():
            audit.info("and %s %d more of the same batch: %s", action, count, result)
        self._reporter.events(outcomes[-MAX_AUDITED:])


class Fought:
    """Knows which fights are new, and asks then who may be behind them: a look at every process is not cheap."""

    def __init__(self, managers: Callable[[], tuple[str, ...]]) -> None:
        self._managers = managers
        self._known: frozenset[Key] = frozenset()
        self.suspects: tuple[str, ...] = ()
        """One phrase for each known suspect of what goes on now."""

    def news(self, fights: Collection[Fight]) -> tuple[Fight, ...]:
        """Return the fights that have begun since the last time."""
        keys = {key(fight.step.target): fight for fight in fights}
        new = tuple(fight for object_key, fight in keys.items() if object_key not in self._known)
        if new or not fights:
            self.suspects = self._managers() if new else ()
        self._known = frozenset(keys)
        return new
