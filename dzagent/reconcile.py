"""The loop. Every pass is the same, whether it is the first after boot, a repair, or a teardown:

look     what a person wants, what the kernel holds, what the ledger last said
wish     which services should exist, as rendered text          (wisher, services, render)
plan     parse that text and compare it with the kernel         (texts, planner, plan, guard)
act      apply the smallest change, observe again, repeat       (actor, kernel)
tell     publish status and plan, if they changed               (report)
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dzagent.actor import Acted, Actor, Round
from dzagent.age import DataAge, is_stale
from dzagent.audit import causes
from dzagent.bgp.joining import Joiner, Learned
from dzagent.bgp.view import BgpView
from dzagent.contested import Contest
from dzagent.doubt import services_up, textless
from dzagent.drive import Drive, cpu_seconds
from dzagent.errors import DzagentError, KernelTimeout, ObservationError
from dzagent.feed import LedgerView
from dzagent.firewall import LeakGuard, firewall_problems
from dzagent.foreign.turns import HANDED_BACK, Hindrance
from dzagent.guard import own_addresses, withhold
from dzagent.held import Held
from dzagent.hostfacts import Facts
from dzagent.intent import IntentView, settle
from dzagent.kernel.watchlines import NOTHING
from dzagent.keyed import repairs
from dzagent.marks import ownership
from dzagent.model import (
    SERVICE_NAMES,
    Desired,
    Interest,
    Observed,
    Plan,
    Problem,
    ServiceName,
)
from dzagent.neighbours import Neighbours, places
from dzagent.ownership import without_renamed
from dzagent.parts import Bgp, Parts
from dzagent.passreport import PassReport
from dzagent.plan import FEW_EXACT, MAX_EXACT, exact_keys
from dzagent.plan_nft import table_handle
from dzagent.planner import Planner, Setting
from dzagent.protect import SSH_PEER
from dzagent.rhythm import Passed, Rhythm
from dzagent.safeguards import Ask, Safeguards
from dzagent.screen import Screen
from dzagent.state import ApplyRequest
from dzagent.texts import RenderedTexts
from dzagent.wake import Wake
from dzagent.wisher import Before, Wisher
from dzagent.wishes import Wishes

log = logging.getLogger(__name__)
audit = logging.getLogger("dzagent.audit")

GROUND_SECONDS = 5.0
"""How long new learned routes are judged by what the last pass knew to be protected: SSH sessions come and go."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the last pass left behind, for changes of learned routes that come before the next one."""

    desired: Desired
    observed: Observed
    setting: Setting


class Reconciler:
    """Keeps the kernel equal to what the ledger grants. One thread calls it; nothing here is shared."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        links = parts.config.links
        self._links: Mapping[ServiceName, str] = {name: links.of(name) for name in SERVICE_NAMES}
        self._owner = ownership(parts.config, parts.policy)
        self._interest = Interest(parts.policy.protocol, (links.unicast, links.multicast))
        self._wisher = Wisher(parts.policy, parts.templates, self._links)
        self._texts = RenderedTexts(parts.store, self._owner)
        self._joiner = Joiner()
        self._leaks = LeakGuard()
        self._learned: tuple[int, Learned] = (0, {})
        self._unknown_peers: tuple[str, ...] = ()
        self._ground: _Ground | None = None
        self._planner = Planner(self._links, self._joiner)
        self._actor = Actor(
            parts.kernel,
            parts.reporter,
            self._links,
            parts.now,
            parts.journal,
            Contest(parts.policy.contested),
            parts.managers,
        )
        self._neighbours = Neighbours(parts.around, parts.policy.protocol, parts.now)
        self._safeguards = Safeguards(
            Ask(
                config=parts.config,
                policy=parts.policy,
                kernel=parts.kernel,
                reporter=parts.reporter,
                owner=self._owner,
                journal=parts.journal,
                links=self._links,
                now=parts.now,
                unix=parts.unix,
                helper=parts.helper,
            )
        )
        self._passed_at = 0.0
        self._most_exact = MAX_EXACT
        self._hindrance: Hindrance | None = None
        self._told: BgpView | None = None
        self.tried = 0
        """How many steps were tried so far."""

    def run(self, wake: Wake, stopping: Callable[[], bool]) -> None:
        """Run passes until told to stop. Stopping leaves the kernel as it is: stop is not disable."""
        parts, paths = self._parts, self._parts.config.paths
        rhythm = Rhythm(parts.config.intervals.resync, time.monotonic, random.random)
        files = (
            *(paths.intent, paths.approval, paths.approvals, paths.confirmation),
            *parts.templates.files,
        )
        Drive(self, rhythm, cpu_seconds, self._rest, parts.watched, files).run(wake, stopping)

    def _rest(self, wait: Callable[[float], frozenset[str]], seconds: float) -> frozenset[str]:
        """Wait for reasons, or until a change has to be undone; let the service manager hear that the loop is alive."""
        left = self._safeguards.seconds_left()
        seconds = seconds if left is None else min(seconds, left)
        reasons = self._parts.pulse.rest(wait, seconds, self._parts.reporter.headline)
        return reasons | {"deadline"} if self._safeguards.seconds_left() == 0.0 else reasons

    @property
    def urgent(self) -> bool:
        """Whether the watch has seen that objects of ours are touched."""
        return self._parts.watched is not None and self._parts.watched.news().urgent

    @property
    def outdated(self) -> bool:
        """Whether the status tells of sessions and routes what is not so any more."""
        return self._parts.bgp is not None and self._parts.bgp.view() != self._told

    def resync_asked(self, token: str) -> None:
        """The next pass is one that a person asked for."""
        self._parts.reporter.resync_asked(token)

    def run_changes(self) -> bool:
        """Carry out what changed of the learned routes since the last time; False if a whole pass is needed.

        Works on the difference alone, from what the last pass knew of the kernel: nothing is read but the learned
        routes that the watch says somebody has touched.
        """
        try:
            with self._parts.turn() as hindrance:
                return hindrance is None and self._changes()
        except DzagentError as error:
            log.info("a whole pass instead: %s", error)
        except Exception:  # the loop's boundary, as of a pass
            log.exception("unexpected failure while routes were changed")
        return False

    def run_pass(self) -> Passed:
        """Run one pass. Whatever fails is reported; the next pass tries again from what is then true."""
        try:
            with self._parts.turn() as self._hindrance:
                return self._pass()
        except ObservationError as error:
            self._parts.reporter.failed("ObservationFailed", str(error))
        except DzagentError as error:
            self._parts.reporter.failed(type(error).__name__, str(error))
        except Exception as error:  # the loop's boundary: a defect must not end the agent
            log.exception("unexpected failure of a pass")
            self._parts.reporter.failed("InternalError", f"internal error: {error!r}")
        return Passed(failed=True)

    def _pass(self) -> Passed:
        self._ground, self._passed_at = None, self._parts.now()
        if self._parts.watched is not None and self._parts.watched.news().around:
            self._neighbours.again()
        self._safeguards.first(self._parts.intent.read())
        observed = self._look()
        standing = any(self._owner.owns(link) for link in observed.links)
        intent = settle(self._parts.intent.read(), standing=standing)
        view, facts = self._look_around(observed, intent)
        age = self._age(view)
        before = Before(self._texts.old(), services_up(observed, self._owner), age.stale)
        wishes = self._wisher.wish(intent, view, facts, before)
        desired, wishes = self._texts.parse(wishes)
        generation = self._texts.write(wishes)
        self._listen(wishes, observed, intent)
        observed = self._observe_keys(desired, observed)
        whole, guards = desired, self._guards(wishes, facts, desired, observed, intent)
        desired, held = withhold(desired, facts.protected, guards.own, guards.installed, guards.permits)
        desired, unguarded = self._leaks.limit(desired)
        setting = self._setting(wishes, view, guards, held)
        acted = self._act(desired, observed, setting, intent)
        self._safeguards.settle(wishes, intent, whole, self._learned[1], acted)
        self._remember(desired, setting, acted, intent)
        beside = self._neighbours.problems(desired, acted.observed)
        problems = (
            *self._problems(guards),
            *beside,
            *unguarded,
            *firewall_problems(desired, acted.observed),
        )
        self._told = None if self._parts.bgp is None else self._parts.bgp.view()
        self._parts.reporter.tell(
            PassReport(
                intent=intent,
                view=view,
                facts=facts,
                wishes=replace(wishes, problems=(*wishes.problems, *problems)),
                desired=desired,
                generation=generation,
                render_problem=self._texts.problem,
                before=observed,
                after=acted.observed,
                plan=acted.plan,
                held=(*held, *acted.held),
                outcomes=acted.outcomes,
                failing=acted.failing,
                fights=acted.fights,
                suspects=acted.suspects,
                journal_problem=self._parts.journal.problem,
                ours=frozenset(link.name for link in acted.observed.links if self._owner.owns(link)),
                bgp=self._told,
                age=age,
                hindrance=self._hindrance,
                taken_over=self._parts.taken_over,
                pending=self._safeguards.pending,
                watch=None if self._parts.watched is None else self._parts.watched.view(),
            )
        )
        others = bool(held or acted.held or beside or self._hindrance)
        return self._ending(acted, facts, others)

    def _ending(self, acted: Acted, facts: Facts, others: bool) -> Passed:
        """Say when the next pass should be; `others`: something is withheld, in our places, or at work, and may go unseen."""
        self.tried += len(acted.outcomes)
        left = bool(acted.plan.steps or acted.plan.conflicts or others)
        waits = bool(acted.failing or acted.fights) and self._parts.config.apply == "auto"
        retry_at = self._actor.next_due() if waits else None
        return Passed(
            changed=bool(acted.outcomes),
            unsettled=left or isinstance(facts.identity, Problem),
            retry_in=None if retry_at is None else retry_at - self._parts.now(),
        )

    def _look(self) -> Observed:
        """Read the kernel: the end of whatever was begun."""
        observed = self._parts.kernel.observe(self._interest)
        journal = self._parts.journal
        self._parts.pulse.observed()
        if self._hindrance is not None and self._hindrance.code == HANDED_BACK:
            journal.disown()
        known = replace(self._owner, claims=journal.claims)
        table = table_handle(observed.nft, known, journal.claims.table)
        self._owner = journal.settle(self._owner, observed.links, table)
        return observed

    # ---- look ----------------------------------------------------------------------------------------

    def _look_around(self, observed: Observed, intent: IntentView) -> tuple[LedgerView, Facts]:
        """Find out who we may be before the ledger is asked: a poll without a client IP would prove nothing."""
        changed = self._parts.probe.look(without_renamed(observed, self._owner), intent.client_ip)
        self._parts.feed.enable(intent.enabled is True)
        if changed:
            self._parts.feed.poke()
        view = self._parts.feed.view()
        return view, self._parts.probe.facts(view)

    def _age(self, view: LedgerView) -> DataAge:
        rules = self._parts.policy.ledger
        return DataAge(is_stale(view, rules, self._parts.now()), rules.stale_after)

    # ---- learned routes ------------------------------------------------------------------------------------

    def _listen(self, wishes: Wishes, observed: Observed, intent: IntentView) -> None:
        """Tell BGP which services there are, and take what it has learned.

        Two agents must not dial one device: sessions are not begun while another one runs, but may be ended.
        """
        bgp = self._parts.bgp
        if bgp is None:
            return
        if self._parts.config.apply != "observe" and (self._hindrance is None or intent.enabled is False):
            mine = (route for route in observed.routes if route.protocol == self._owner.protocol)
            self._unknown_peers = tuple(self._links[name] for name in sorted(bgp.want(wishes, mine)))
        self._learned = bgp.learned()

    def _remember(self, desired: Desired, setting: Setting, acted: Acted, intent: IntentView) -> None:
        """Keep what changes of learned routes can be planned from, unless something else is left to do first."""
        self._joiner.forget_contested(acted.plan)
        self._joiner.contest(acted.outcomes)
        bgp = self._parts.bgp
        if bgp is None:
            return
        self._tell_installed(bgp)
        acts = self._parts.config.apply == "auto" and self._hindrance is None
        if acts and intent.enabled is not None and not acted.plan.steps:
            self._ground = _Ground(desired, acted.observed, setting)

    def _problems(self, guards: Screen) -> tuple[Problem, ...]:
        """Return what a person should know about learned routes, such as that they lead to an SSH peer, and safeguards."""
        installed = self._joiner.installed
        return (
            *self._safeguards.problems,
            *self._joiner.problems,
            *(
                Problem("SshPeerRouted", f"{address}, {what}, is reached over DoubleZero now", name)
                for address, what in guards.protected.addresses.items()
                if what == SSH_PEER
                for name in SERVICE_NAMES
                if (name, f"{address}/32") in installed
            ),
        )

    def _changes(self) -> bool:
        bgp, ground, watched = self._parts.bgp, self._ground, self._parts.watched
        touched = NOTHING if watched is None else watched.news()
        changes = None if bgp is None else bgp.changes(self._learned[0])
        if not touched and (bgp is None or (changes is not None and not changes.routes)):
            return True
        if bgp is None or ground is None or changes is None:
            return False
        if changes.routes and self._parts.now() - self._passed_at >= GROUND_SECONDS:
            return False
        if watched is not None and touched:
            found = repairs(touched, bgp.learned()[1], self._joiner, watched)
            if found is None:
                return False
            changes = replace(changes, routes={**changes.routes, **found})
        quick = self._joiner.quick(ground.desired, ground.observed, changes.routes, self._owner)
        plan, _ = self._planner.check(quick.plan, ground.observed, ground.setting)
        self._learned = (changes.version, {})
        due = self._actor.due(plan)
        left = len(due.steps) < len(plan.steps) or (watched is not None and bool(watched.news()))
        if not due.steps:
            return not left
        outcomes = self._actor.run(due, ground.setting.causes)
        self.tried += len(outcomes)
        self._joiner.contest(outcomes)
        sound = self._joiner.done(quick, outcomes)
        self._tell_installed(bgp)
        return sound and not left

    def _tell_installed(self, bgp: Bgp) -> None:
        if self._joiner.news:
            self._joiner.news = False
            bgp.installed(dict(self._joiner.installed))

    # ---- plan and act ----------------------------------------------------------------------------------

    def _observe_keys(self, desired: Desired, observed: Observed) -> Observed:
        """Look again if the plan needs to know who holds keys that were not read: steady state never does."""
        tables, ends = places(desired)
        self._interest = replace(self._interest, tables=tables, ends=ends)
        keys = exact_keys(desired, observed, self._owner, self._joiner.contested)[: self._most_exact]
        if set(keys) <= set(self._interest.exact):
            if len(keys) < len(self._interest.exact):
                self._interest = replace(self._interest, exact=keys)
            return observed
        self._interest = replace(self._interest, exact=keys)
        try:
            return self._look()
        except KernelTimeout:  # too many routes here: ours are made by an exclusive add whoever holds the key
            self._most_exact = max(FEW_EXACT, self._most_exact // 8)
            self._interest = replace(self._interest, exact=())
            raise

    def _guards(
        self, wishes: Wishes, facts: Facts, desired: Desired, observed: Observed, intent: IntentView
    ) -> Screen:
        bgp = None if self._parts.bgp is None else self._parts.bgp.view()
        return self._safeguards.guards(facts, own_addresses(desired), observed, wishes, intent, bgp)

    def _setting(self, wishes: Wishes, view: LedgerView, guards: Screen, held: tuple[Held, ...]) -> Setting:
        """Collect what limits the plan of this pass, and what its changes are due to."""
        slot = view.snapshot.slot if view.snapshot is not None else 0
        return Setting(self._owner, guards, textless(wishes), causes(wishes, slot), held)

    def _act(self, desired: Desired, observed: Observed, setting: Setting, intent: IntentView) -> Acted:
        used: list[Held] = []
        # what a person has let through is one plan, with one way back
        acts = (
            self._parts.config.apply == "auto"
            and intent.enabled is not None
            and self._hindrance is None
            and not setting.guards.approved
        )

        def replan(seen: Observed) -> tuple[Plan, tuple[Held, ...]]:
            now = replace(setting, owner=self._owner)  # the last look may have found more of ours
            first = self._planner.foundation(desired, seen, self._learned[1], now) if acts else None
            if first is not None and first[0].steps:
                return first
            planned = self._planner.plan(desired, seen, self._learned, self._unknown_peers, now)
            used.extend(self._planner.used)
            return planned

        plan, held = replan(observed)
        may, request = self._may_act(plan, intent)
        if not may or not self._safeguards.ready(plan, observed, used, request, setting.guards):
            return self._actor.stand(plan, held, observed)
        acted = self._actor.act(plan, held, observed, Round(self._look, replan, setting.causes))
        self._safeguards.acted(plan, acted, used, setting.guards)
        return acted

    def _may_act(self, plan: Plan, intent: IntentView) -> tuple[bool, ApplyRequest | None]:
        """Automatic mode acts, unless nobody knows what is wanted; manual mode acts on the plan asked for.

        Nobody acts while another agent runs.
        """
        mode = self._parts.config.apply
        if mode == "observe" or intent.enabled is None or self._hindrance is not None:
            return False, None
        if mode == "auto":
            return True, None
        request = self._parts.reporter.take_request(plan)
        return request is not None, request
