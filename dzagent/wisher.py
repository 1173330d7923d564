"""Which services should exist now: the intent, what the ledger said, and who this host is -> wishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dzagent.age import restored_problem, torn_down, without_answer
from dzagent.feed import LedgerView
from dzagent.hostfacts import Facts
from dzagent.intent import IntentView
from dzagent.model import Decision, Problem, Service, ServiceName
from dzagent.policy import Policy
from dzagent.render import Templates, render_service
from dzagent.services import decide
from dzagent.wishes import Text, Texts, Wishes, keep_all, nothing, wish


@dataclass(frozen=True, slots=True)
class Before:
    """What there is before a decision: rendered texts, services whose link is up, and whether the data is stale."""

    texts: Texts
    up: frozenset[ServiceName]
    stale: bool


class Wisher:
    """Turns what is known into wishes. Whoever knows nothing sound keeps what is there."""

    def __init__(self, policy: Policy, templates: Templates, links: Mapping[ServiceName, str]) -> None:
        self._policy = policy
        self._templates = templates
        self._links = links

    def wish(self, intent: IntentView, view: LedgerView, facts: Facts, before: Before) -> Wishes:
        """Return what every service should look like. What a person says comes first, then the ledger."""
        if intent.enabled is None:
            return keep_all(before.texts, Problem("IntentUnknown", intent.message))
        if not intent.enabled:
            return nothing("disabled: `dzagent enable` provisions what the ledger grants")
        if before.stale and self._policy.ledger.stale == "teardown":
            return torn_down(self._policy.ledger)
        return self._by_ledger(view, facts, before)

    def _by_ledger(self, view: LedgerView, facts: Facts, before: Before) -> Wishes:
        old = before.texts
        if isinstance(facts.identity, Problem):
            return keep_all(old, facts.identity)
        if view.snapshot is None:
            return without_answer(view, old, before.up)
        if facts.identity.client_ip not in view.searched:
            why = "the ledger has not been asked about this client IP yet"
            return keep_all(old, Problem("NotSearched", why))
        decisions = decide(view.snapshot, facts.identity.host, self._policy, self._links)
        by_name: Mapping[ServiceName, Decision] = {
            "unicast": decisions.unicast,
            "multicast": decisions.multicast,
        }
        wishes = wish(by_name, old, self._renderer(view.snapshot.slot))
        known = (*restored_problem(view), *view.snapshot.problems, *decisions.problems)
        return replace(wishes, problems=(*known, *wishes.problems))

    def _renderer(self, slot: int) -> Callable[[Service], Text]:
        links = tuple(self._links.values())
        return lambda service: render_service(service, self._policy, self._templates, slot=slot, links=links)
