"""The loop. Every pass is the same, whether it is the first after boot, a repair, or a teardown:

look     what a person wants, what the kernel holds, what the ledger last said
wish     which services should exist, as rendered text          (services, wishes, render)
plan     parse that text and compare it with the kernel         (grammar, plan, guard)
act      apply the smallest change, observe again, repeat       (kernel)
tell     publish status and plan, if they changed               (report)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from dzagent.audit import audit_line, causes
from dzagent.backoff import Backoff
from dzagent.config import Config
from dzagent.desired import DesiredStore
from dzagent.doubt import spare, textless
from dzagent.errors import DzagentError, InputError, ObservationError, StateError
from dzagent.feed import LedgerView
from dzagent.guard import Held, check
from dzagent.hostfacts import Facts, HostProbe
from dzagent.intent import IntentReader, IntentView
from dzagent.judge import PassReport
from dzagent.kernel.execute import execute
from dzagent.kernel.protocol import Kernel
from dzagent.model import (
    SERVICE_NAMES,
    Decision,
    Desired,
    Interest,
    Observed,
    Outcome,
    Plan,
    Problem,
    Protected,
    Result,
    Route,
    Service,
    ServiceName,
)
from dzagent.plan import Ownership, make_plan
from dzagent.policy import Policy
from dzagent.render import Templates, parse_texts, render_service
from dzagent.report import Reporter
from dzagent.services import decide
from dzagent.wake import Wake
from dzagent.wishes import Text, Texts, Wishes, keep_all, nothing, wish

log = logging.getLogger(__name__)
audit = logging.getLogger("dzagent.audit")

MAX_ROUNDS = 3
"""Rounds of apply and verify in one pass: an address change drops routes, which the next round puts back."""

MAX_EXACT = 256
"""Keys of static routes whose holder is read in every pass; more than the ledger's groups ever are."""


class Feed(Protocol):
    """What the loop needs of the ledger side."""

    def view(self) -> LedgerView:
        """Return the newest view without waiting."""

    def enable(self, enabled: bool) -> None:
        """Poll, or rest."""

    def poke(self) -> None:
        """Poll at once, if enabled."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop is made of; every effect behind a type that tests replace."""

    config: Config
    policy: Policy
    kernel: Kernel
    feed: Feed
    store: DesiredStore
    templates: Templates
    intent: IntentReader
    probe: HostProbe
    reporter: Reporter
    now: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a plan is made in.

    protected: destinations that must stay reachable, except `own`, our DoubleZero addresses. textless: services
    that must not be taken down, because no text says how they should look. causes: for the audit log.
    """

    protected: Protected
    own: tuple[IPv4Address, ...]
    textless: frozenset[ServiceName]
    causes: Mapping[ServiceName, str]


@dataclass(frozen=True, slots=True)
class _Acted:
    """What came of a plan: the plan that is left, what was held back, how each step ended."""

    plan: Plan
    held: tuple[Held, ...]
    outcomes: tuple[Outcome, ...]
    observed: Observed


class Reconciler:
    """Keeps the kernel equal to what the ledger grants. One thread calls it; nothing here is shared."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        links = parts.config.links
        self._links: Mapping[ServiceName, str] = {name: links.of(name) for name in SERVICE_NAMES}
        self._owner = Ownership(
            protocol=parts.policy.protocol,
            links={links.unicast: "dzagent:unicast", links.multicast: "dzagent:multicast"},
        )
        self._interest = Interest(parts.policy.protocol, (links.unicast, links.multicast))
        self._backoff = Backoff()
        self._texts: Texts | None = None
        self._parsed: tuple[Texts, Desired] = ({}, Desired())

    def run(self, wake: Wake, stopping: Callable[[], bool]) -> None:
        """Run passes until told to stop. Stopping leaves the kernel as it is: stop is not disable."""
        while not stopping():
            self.run_pass()
            wake.wait(self._parts.config.intervals.observe)

    def run_pass(self) -> None:
        """Run one pass. Whatever fails is reported; the next pass tries again from what is then true."""
        try:
            self._pass()
        except ObservationError as error:
            self._parts.reporter.failed("ObservationFailed", str(error))
        except DzagentError as error:
            self._parts.reporter.failed(type(error).__name__, str(error))
        except Exception as error:  # the loop's boundary: a defect must not end the agent
            log.exception("unexpected failure of a pass")
            self._parts.reporter.failed("InternalError", f"internal error: {error!r}")

    def _pass(self) -> None:
        observed = self._parts.kernel.observe(self._interest)
        intent = _settle(self._parts.intent.read(), observed, self._owner)
        view, facts = self._look_around(observed, intent)
        old, store_error = self._old_texts()
        wishes = self._wish(intent, view, facts, old)
        desired, wishes, trouble = self._parse(wishes, old)
        generation, write_error = self._write(wishes, old, store_error)
        observed = self._observe_keys(desired, observed)
        acted = self._act(desired, observed, self._setting(wishes, facts, view), intent)
        self._parts.reporter.tell(
            PassReport(
                intent=intent,
                view=view,
                facts=facts,
                wishes=wishes,
                desired=desired,
                generation=generation,
                render_problem=trouble or write_error,
                before=observed,
                after=acted.observed,
                plan=acted.plan,
                held=acted.held,
                outcomes=acted.outcomes,
            )
        )

    # ---- look ----------------------------------------------------------------------------------------

    def _look_around(self, observed: Observed, intent: IntentView) -> tuple[LedgerView, Facts]:
        """Find out who we may be before the ledger is asked: a poll without a client IP would prove nothing."""
        changed = self._parts.probe.look(observed, intent.client_ip)
        self._parts.feed.enable(intent.enabled is True)
        if changed:
            self._parts.feed.poke()
        view = self._parts.feed.view()
        return view, self._parts.probe.facts(view)

    # ---- wish ----------------------------------------------------------------------------------------

    def _old_texts(self) -> tuple[Texts, str | None]:
        """Return the texts that are rendered now: from memory, at first from disk."""
        if self._texts is not None:
            return self._texts, None
        try:
            self._texts = self._parts.store.read()
        except StateError as error:
            return {}, str(error)
        return self._texts, None

    def _wish(self, intent: IntentView, view: LedgerView, facts: Facts, old: Texts) -> Wishes:
        if intent.enabled is None:
            return keep_all(old, Problem("IntentUnknown", intent.message))
        if not intent.enabled:
            return nothing("disabled: `dzagent enable` provisions what the ledger grants")
        if isinstance(facts.identity, Problem):
            return keep_all(old, facts.identity)
        if view.snapshot is None:
            return keep_all(old, Problem("NoLedgerAnswer", view.error or "the ledger has not answered yet"))
        if facts.identity.client_ip not in view.searched:
            return keep_all(
                old, Problem("NotSearched", "the ledger has not been asked about this client IP yet")
            )
        decisions = decide(view.snapshot, facts.identity.host, self._parts.policy, self._links)
        by_name: Mapping[ServiceName, Decision] = {
            "unicast": decisions.unicast,
            "multicast": decisions.multicast,
        }
        wishes = wish(by_name, old, self._renderer(view.snapshot.slot))
        return replace(wishes, problems=(*view.snapshot.problems, *decisions.problems, *wishes.problems))

    def _renderer(self, slot: int) -> Callable[[Service], Mapping[str, str]]:
        parts = self._parts
        return lambda service: render_service(service, parts.policy, parts.templates, slot=slot)

    def _parse(self, wishes: Wishes, old: Texts) -> tuple[Desired, Wishes, str | None]:
        """Parse the rendered text; a service whose text is not in the grammar keeps its old text."""
        if wishes.texts == self._parsed[0]:
            return self._parsed[1], wishes, None
        texts: dict[ServiceName, Text] = {}
        trouble: list[Problem] = []
        for name, text in wishes.texts.items():
            problem = self._outside_grammar(name, text)
            if problem is None:
                texts[name] = text
                continue
            trouble.append(problem)
            if name in old and self._outside_grammar(name, old[name]) is None:
                texts[name] = old[name]
        kept = {**wishes.kept, **{p.service: p for p in trouble if p.service}}
        wishes = replace(wishes, texts=texts, kept=kept, problems=(*wishes.problems, *trouble))
        self._parsed = (texts, parse_texts(texts, self._owner))
        return self._parsed[1], wishes, trouble[0].message if trouble else None

    def _outside_grammar(self, name: ServiceName, text: Text) -> Problem | None:
        try:
            parse_texts({name: text}, self._owner)
        except InputError as error:
            return Problem("OutsideGrammar", str(error), name)
        return None

    def _write(self, wishes: Wishes, old: Texts, store_error: str | None) -> tuple[int, str | None]:
        """Write a new generation if the text changed. A full disk is reported; repairs go on from memory.

        What is not understood is not lost: files that cannot be read are not replaced while a service is kept for
        what they may say, and a text outside the grammar stays where a person can see it.
        """
        store, doubtful = self._parts.store, textless(wishes)
        if store_error is not None and doubtful:
            return store.generation, store_error
        self._texts = {**{name: old[name] for name in doubtful if name in old}, **wishes.texts}
        try:
            return store.write(self._texts), None
        except StateError as error:
            return store.generation, str(error)

    # ---- plan and act ----------------------------------------------------------------------------------

    def _observe_keys(self, desired: Desired, observed: Observed) -> Observed:
        """Look again if the plan needs to know who holds keys that were not read: steady state never does."""
        keys = _exact_keys(desired)
        if set(keys) <= set(self._interest.exact):
            if len(keys) < len(self._interest.exact):
                self._interest = replace(self._interest, exact=keys)
            return observed
        self._interest = replace(self._interest, exact=keys)
        return self._parts.kernel.observe(self._interest)

    def _setting(self, wishes: Wishes, facts: Facts, view: LedgerView) -> _Setting:
        """Collect what limits the plan of this pass, and what its changes are due to."""
        ends = {
            end for service in wishes.granted.values() for end in (service.tunnel_src, service.tunnel_dst)
        }
        own = {service.dz_ip for service in wishes.granted.values() if service.dz_ip is not None}
        slot = view.snapshot.slot if view.snapshot is not None else 0
        return _Setting(facts.protected, tuple(own - ends), textless(wishes), causes(wishes, slot))

    def _act(self, desired: Desired, observed: Observed, setting: _Setting, intent: IntentView) -> _Acted:
        outcomes: tuple[Outcome, ...] = ()
        plan, held = self._plan(desired, observed, setting)
        may_act = self._may_act(plan, intent)
        for _ in range(MAX_ROUNDS):
            due = self._due(plan)
            if not may_act or not due.steps:
                break
            ended = execute(self._parts.kernel, due)
            outcomes += ended
            self._note(ended, setting)
            observed = self._parts.kernel.observe(self._interest)
            plan, held = self._plan(desired, observed, setting)
            if not any(outcome.result in {Result.DONE, Result.GONE, Result.RACED} for outcome in ended):
                break
        if may_act:
            self._backoff.forget_except(plan.steps)
        return _Acted(plan, held, outcomes, observed)

    def _plan(self, desired: Desired, observed: Observed, setting: _Setting) -> tuple[Plan, tuple[Held, ...]]:
        plan = spare(make_plan(desired, observed, self._owner), setting.textless, self._links)
        return check(plan, setting.protected, setting.own)

    def _may_act(self, plan: Plan, intent: IntentView) -> bool:
        """Automatic mode acts, unless nobody knows what is wanted; manual mode acts on the plan asked for."""
        mode = self._parts.config.apply
        if mode == "observe" or intent.enabled is None:
            return False
        if mode == "auto":
            return True
        return self._parts.reporter.take_request(plan)

    def _due(self, plan: Plan) -> Plan:
        """Return the plan without the steps that failed lately and are not due again."""
        now = self._parts.now()
        phases = (tuple(s for s in phase if self._backoff.ready(s, now)) for phase in plan.phases)
        return replace(plan, phases=tuple(phase for phase in phases if phase))

    def _note(self, outcomes: tuple[Outcome, ...], setting: _Setting) -> None:
        now = self._parts.now()
        for outcome in outcomes:
            self._backoff.record(outcome, now)
            level = logging.INFO if outcome.result in {Result.DONE, Result.GONE} else logging.WARNING
            audit.log(level, "%s", audit_line(outcome, setting.causes, self._links))
        self._parts.reporter.events(outcomes)


def _settle(intent: IntentView, observed: Observed, owner: Ownership) -> IntentView:
    """A lost intent file beside a tunnel of ours is doubt, not a wish to tear it down."""
    ours = any(owner.links.get(link.name) == link.alias for link in observed.links)
    if not (intent.silent and ours):
        return intent
    message = "the intent file is gone but a tunnel of ours is up: say `dzagent enable` or `dzagent disable`"
    return replace(intent, enabled=None, message=message)


def _exact_keys(desired: Desired) -> tuple[tuple[int, IPv4Network], ...]:
    """Return the keys of desired routes whose holder must be known before an exclusive add."""
    routes = (obj for obj in desired.objects if isinstance(obj, Route))
    return tuple(dict.fromkeys((route.table, route.dst) for route in routes))[:MAX_EXACT]
