"""The safeguards of the loop: what a plan is judged by, who has let something through, and the way back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from dzagent import __version__
from dzagent.actor import Acted
from dzagent.approvals import Approvals
from dzagent.bgp.joining import Learned
from dzagent.bgp.view import BgpView
from dzagent.checkpoint import CheckpointFile, Pending, UndoneFile
from dzagent.config import Config
from dzagent.confirming import Confirming, Files, NoWayBack
from dzagent.errors import StateError
from dzagent.held import Held
from dzagent.hostfacts import Facts
from dzagent.intent import IntentView
from dzagent.journal import Journal, here
from dzagent.kernel.protocol import Kernel
from dzagent.model import Desired, Observed, Plan, Problem, Result, ServiceName
from dzagent.ownership import Ownership
from dzagent.policy import Policy
from dzagent.rate import Rate
from dzagent.report import Reporter
from dzagent.screen import Screen
from dzagent.state import ApplyRequest
from dzagent.trust import Trust, makers
from dzagent.volume import Unproven, removed
from dzagent.wishes import Wishes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """What the safeguards are made of. now: seconds since boot. unix: seconds since 1970. helper: see `Confirming`."""

    config: Config
    policy: Policy
    kernel: Kernel
    reporter: Reporter
    owner: Ownership
    journal: Journal
    links: Mapping[ServiceName, str]
    now: Callable[[], float]
    unix: Callable[[], float]
    helper: Callable[[], None] | None = None


class Safeguards:
    """Everything that stands between a plan and the kernel. The loop's thread alone calls it."""

    def __init__(self, ask: Ask) -> None:
        paths, place = ask.config.paths, here()
        self._policy, self._links = ask.policy, ask.links
        self._now = ask.now
        self._reporter = ask.reporter
        self._trust = Trust(paths.trust, makers(ask.config, ask.policy, __version__))
        self._rate = Rate(paths.gone, place)
        self._approvals = Approvals(paths.approvals, paths.accepted, place, ask.policy.guard.approve, ask.now)
        files = Files(
            CheckpointFile(paths.checkpoint, ask.owner, place),
            UndoneFile(paths.undone, ask.owner),
            paths.confirmation,
        )
        self._confirming = Confirming(
            files,
            ask.kernel,
            ask.reporter,
            ask.owner,
            ask.journal,
            ask.links,
            ask.now,
            ask.unix,
            ask.helper,
        )

    # ---- before a pass ---------------------------------------------------------------------------------

    def first(self, intent: IntentView) -> None:
        """Do what comes before everything else: a change that nobody confirmed in time is undone.

        Raises KernelError and StateError: then nothing else may happen.
        """
        self._confirming.tick(intent)

    def seconds_left(self) -> float | None:
        """Return the seconds until `first` has something to do, None if nothing waits."""
        return self._confirming.seconds_left()

    @property
    def pending(self) -> Pending | None:
        """The change that waits for its confirmation."""
        return self._confirming.pending

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What a person should know."""
        return self._confirming.problems

    # ---- before a plan ---------------------------------------------------------------------------------

    def guards(
        self,
        facts: Facts,
        own: tuple[IPv4Address, ...],
        observed: Observed,
        wishes: Wishes,
        intent: IntentView,
        bgp: BgpView | None,
    ) -> Screen:
        """Return what the plan of this pass is judged by."""
        self._approvals.refresh()
        self._approvals.forget_absent(observed)
        why = self._trust.unproven(wishes, intent)
        recent = self._rate.recent(self._now()) if why else {}
        return Screen(
            protected=facts.protected,
            own=own,
            installed=facts.installed,
            ssh_hosts=self._policy.bgp.ssh_peer == "warn",
            links=self._links,
            protocol=self._policy.protocol,
            limits=self._policy.guard,
            unproven=Unproven(
                why,
                _refusing(bgp) if why else frozenset(),
                recent=recent,
                tables=self._policy.nftables.enabled,
            ),
            approved=self._approvals.ids,
            accepted=self._approvals.accepted,
            undone=self._confirming.undone(intent),
            spared=frozenset(wishes.withdrawn),
        )

    def ready(
        self,
        plan: Plan,
        observed: Observed,
        used: Iterable[Held],
        request: ApplyRequest | None,
        guards: Screen,
    ) -> bool:
        """Make sure of the way back, if a person wants one; False if there is none, and so the plan must not run."""
        used = tuple(used)
        seconds = self._approvals.confirm_within(used)
        if request is not None and request.confirm is not None:
            seconds = request.confirm
        pending = self._confirming.pending
        try:
            if request is not None and pending is not None:
                raise NoWayBack(
                    f"plan {pending.plan_id} waits for its confirmation: `dzagent confirm {pending.plan_id}`"
                )
            if seconds is not None and plan.steps:
                self._confirming.begin(plan, observed, seconds, guards)
        except (NoWayBack, StateError) as error:
            log.warning("plan %s is not applied: %s", plan.id, error)
            self._approvals.drop(used)
            self._reporter.applied(plan.id, "refused", str(error))
            return False
        return True

    # ---- after a plan ----------------------------------------------------------------------------------

    def acted(self, plan: Plan, acted: Acted, used: Iterable[Held], guards: Screen) -> None:
        """Take in what was tried: approvals are used up, and what went without a cause counts."""
        tried = {id(outcome.step) for outcome in acted.outcomes}
        let_through = tuple(item for item in used if id(item.step) in tried)
        self._approvals.consume(let_through, acted.outcomes)
        self._confirming.approve(let_through)
        gone = {id(outcome.step) for outcome in acted.outcomes if outcome.result is Result.DONE}
        unproven = guards.unproven
        counts = {name: removed(plan, name, unproven, self._links, gone) for name in unproven.why}
        self._rate.note(counts, self._now())

    def settle(
        self, wishes: Wishes, intent: IntentView, desired: Desired, learned: Learned, acted: Acted
    ) -> None:
        """Take in the end of a pass."""
        self._trust.settle(wishes, acted.plan, acted.held)
        self._confirming.settle(wishes, intent, desired, learned)


def _refusing(bgp: BgpView | None) -> frozenset[ServiceName]:
    """Return the services of whose announced routes some are refused."""
    if bgp is None:
        return frozenset()
    return frozenset(name for name, item in bgp.peers.items() if any(item.refused.counts.values()))
