"""From the ledger's decisions to the texts that should be rendered: pure, and careful with what works.

A service that is granted is rendered; one that is withdrawn is left out; one about which nothing sound is known
keeps the text that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dzagent.errors import InputError
from dzagent.model import SERVICE_NAMES, Decision, Keep, Problem, Provide, Service, ServiceName

Text: TypeAlias = Mapping[str, str]
Texts: TypeAlias = Mapping[ServiceName, Text]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What every service should look like.

    texts: rendered files per service. granted: services that the ledger grants and that rendered.
    kept: services whose old text stays, with the reason. withdrawn: why a service is not there.
    """

    texts: Texts
    granted: Mapping[ServiceName, Service]
    kept: Mapping[ServiceName, Problem]
    withdrawn: Mapping[ServiceName, str]
    problems: tuple[Problem, ...] = ()


def nothing(reason: str) -> Wishes:
    """No service at all, and why: a disabled agent."""
    return Wishes({}, {}, {}, dict.fromkeys(SERVICE_NAMES, reason))


def keep_all(texts: Texts, problem: Problem) -> Wishes:
    """Whatever is there stays: nothing sound is known about any service."""
    return Wishes(dict(texts), {}, dict.fromkeys(SERVICE_NAMES, problem), {}, (problem,))


def wish(decisions: Mapping[ServiceName, Decision], old: Texts, render: Callable[[Service], Text]) -> Wishes:
    """Turn decisions into texts. A service that does not render keeps its old text, and says why."""
    texts: dict[ServiceName, Text] = {}
    granted: dict[ServiceName, Service] = {}
    kept: dict[ServiceName, Problem] = {}
    withdrawn: dict[ServiceName, str] = {}
    problems: list[Problem] = []
    for name, decision in decisions.items():
        if isinstance(decision, Provide):
            problems.extend(decision.problems)
            try:
                texts[name] = render(decision.service)
                granted[name] = decision.service
            except InputError as error:
                kept[name] = Problem("NotRendered", str(error), name, decision.service.account)
        elif isinstance(decision, Keep):
            kept[name] = decision.problem
        else:
            withdrawn[name] = decision.reason
    for name, problem in kept.items():
        problems.append(problem)
        if name in old:
            texts[name] = old[name]
    return Wishes(texts, granted, kept, withdrawn, tuple(problems))
