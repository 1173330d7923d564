"""Carrying out plans as the loop does it: what is due, in rounds of apply and verify, each step accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dzagent.audit import audit_line
from dzagent.backoff import Backoff
from dzagent.guard import Held
from dzagent.kernel.execute import execute
from dzagent.kernel.protocol import Kernel
from dzagent.model import Observed, Outcome, Plan, Result, ServiceName, Step
from dzagent.report import Reporter

audit = logging.getLogger("dzagent.audit")

MAX_ROUNDS = 3
"""Rounds of apply and verify in one pass: an address change drops routes, which the next round puts back."""

MAX_AUDITED = 200
"""Changes of one phase that are logged one by one; a peer can announce thousands of routes at once."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What came of a plan: the plan that is left, what was held back, how each step ended, what still fails."""

    plan: Plan
    held: tuple[Held, ...]
    outcomes: tuple[Outcome, ...]
    failing: tuple[Outcome, ...]
    observed: Observed


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
    ) -> None:
        self._kernel = kernel
        self._reporter = reporter
        self._links = links
        self._now = now
        self._backoff = Backoff()

    def stand(self, plan: Plan, held: tuple[Held, ...], observed: Observed) -> Acted:
        """Do nothing: the plan is shown to a person."""
        return Acted(plan, held, (), self._backoff.standing(plan.steps), observed)

    def act(self, plan: Plan, held: tuple[Held, ...], observed: Observed, using: Round) -> Acted:
        """Apply what is due and look again, until nothing is left that could be done now."""
        outcomes: tuple[Outcome, ...] = ()
        for _ in range(MAX_ROUNDS):
            due = self._due(plan)
            if not due.steps:
                break
            ended = self.run(due, using.causes, _resting(plan, due))
            outcomes += ended
            if all(outcome.result is Result.BLOCKED for outcome in ended):
                break  # nothing was tried
            observed = using.look()
            plan, held = using.replan(observed)
            if not any(outcome.result in {Result.DONE, Result.GONE, Result.RACED} for outcome in ended):
                break
        self._backoff.forget_except(plan.steps)
        return Acted(plan, held, outcomes, self._backoff.standing(plan.steps), observed)

    def run(
        self, plan: Plan, causes: Mapping[ServiceName, str], resting: tuple[Step, ...] = ()
    ) -> tuple[Outcome, ...]:
        """Run every step of a plan once, and account for it. Raises KernelError if the tool cannot be started."""
        ended = execute(self._kernel, plan, resting)
        self._note(ended, causes)
        return ended

    def _due(self, plan: Plan) -> Plan:
        """Return the plan without the steps that failed lately and are not due again."""
        now = self._now()
        phases = (tuple(s for s in phase if self._backoff.ready(s, now)) for phase in plan.phases)
        return replace(plan, phases=tuple(phase for phase in phases if phase))

    def _note(self, outcomes: tuple[Outcome, ...], causes: Mapping[ServiceName, str]) -> None:
        """Remember and log what was tried; what was not is in the plan that is left."""
        now = self._now()
        outcomes = tuple(outcome for outcome in outcomes if outcome.result is not Result.BLOCKED)
        for outcome in outcomes:
            self._backoff.record(outcome, now)
        for outcome in outcomes[:MAX_AUDITED]:
            level = logging.INFO if outcome.result in {Result.DONE, Result.GONE} else logging.WARNING
            audit.log(level, "%s", audit_line(outcome, causes, self._links))
        rest = Counter((o.step.action.value, o.result.value) for o in outcomes[MAX_AUDITED:])
        for (action, result), count in rest.items():
            audit.info("and %s %d more of the same batch: %s", action, count, result)
        self._reporter.events(outcomes[-MAX_AUDITED:])


def _resting(plan: Plan, due: Plan) -> tuple[Step, ...]:
    """Return the steps of the plan that are not due."""
    if len(due.steps) == len(plan.steps):
        return ()
    tried = set(due.steps)
    return tuple(step for step in plan.steps if step not in tried)
