"""Takes everything of ours down, without a ledger and without a running agent: for the removal of the package.

It is the plan for an empty desired state, so that it is bound to the same marks as every other change.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dzagent.config import Config, Paths
from dzagent.errors import StateError
from dzagent.kernel.execute import execute
from dzagent.kernel.protocol import Kernel
from dzagent.marks import ownership, read_marks
from dzagent.model import Desired, Interest, KernelObject, Outcome, Result
from dzagent.nftmodel import NftSeen, NftTable
from dzagent.ownership import NO_CLAIMS, Claims, Ownership
from dzagent.plan import make_plan
from dzagent.policy import Policy
from dzagent.state import read_intent, write_intent
from dzagent.status import describe

MAX_ROUNDS = 3
"""Looks and attempts: something may vanish, or appear, in between."""

_GOOD = frozenset({Result.DONE, Result.GONE})


@dataclass(frozen=True, slots=True)
class TornDown:
    """What became of it: how many objects of each kind went, and one sentence for each thing that could not."""

    gone: Counter[str]
    problems: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for a person, empty if there was nothing to take down."""
        counts = ", ".join(f"{n} {kind}{'' if n == 1 else _plural(kind)}" for kind, n in self.gone.items())
        return counts and f"took down {counts}"


def _plural(kind: str) -> str:
    return "es" if kind.endswith("s") else "s"


def owners(config: Config, policy: Policy | None, claims: Claims = NO_CLAIMS) -> tuple[Ownership, ...]:
    """Return whose objects go: those of the configuration, and of the last start where that used other marks.

    policy: None if configuration or policy cannot be read; then the record counts, and without one the defaults.
    claims: what the journal knows to be ours whatever its mark says.
    """
    recorded = read_marks(config)
    if policy is not None:
        found = [ownership(config, policy), *([] if recorded is None else [recorded])]
    else:
        found = [recorded or ownership(config, Policy())]
    different = (item for number, item in enumerate(found) if item not in found[:number])
    return tuple(replace(item, claims=claims) for item in different)


def tear_down(kernel: Kernel, whose: Iterable[Ownership]) -> TornDown:
    """Delete every object that bears the marks, and nothing else.

    Raises ObservationError if the kernel cannot be read, KernelError if its tools cannot be started.
    """
    gone: Counter[str] = Counter()
    problems: list[str] = []
    for owner in whose:
        failed, seen = _empty(kernel, owner, gone)
        problems += [f"{describe(item.step.target)}: {item.message or item.result.value}" for item in failed]
        if seen.state == "unread" and seen.reason not in {"", "NftMissing", "NoNftables"}:
            problems.append(f"nft table inet dzagent may be left: {seen.message}")
    return TornDown(gone, tuple(problems))


def _empty(kernel: Kernel, owner: Ownership, gone: Counter[str]) -> tuple[tuple[Outcome, ...], NftSeen]:
    """Take down what one owner has; return what is left, and what nftables last said."""
    interest = Interest(owner.protocol, tuple(owner.links))
    failed: tuple[Outcome, ...] = ()
    seen = NftSeen()
    for _ in range(MAX_ROUNDS):
        observed = kernel.observe(interest)
        seen = observed.nft
        plan = make_plan(Desired(), observed, owner)
        if not plan.steps:
            return (), seen
        outcomes = execute(kernel, plan)
        gone.update(_kind(item.step.target) for item in outcomes if item.result in _GOOD)
        failed = tuple(item for item in outcomes if item.result not in _GOOD)
    return failed, seen


def _kind(obj: KernelObject) -> str:
    return "nft table" if isinstance(obj, NftTable) else type(obj).__name__.lower()


def forget_wish(paths: Paths) -> None:
    """Leave behind that the agent is disabled, and neither sessions nor a change to undo: a later start does nothing.

    Raises StateError if that cannot be written.
    """
    try:
        intent = read_intent(paths.intent)
    except StateError:
        intent = None  # doubt about a wish changes nothing: that is as good as disabled
    if intent is not None and intent.enabled:
        write_intent(paths.intent, replace(intent, enabled=False))
    for path in (paths.sessions, paths.peers, paths.checkpoint):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
