"""Everything one pass looked at and did, for those who tell of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dzagent.age import DataAge
from dzagent.bgp.view import BgpView
from dzagent.checkpoint import Pending
from dzagent.contested import Fight
from dzagent.feed import LedgerView
from dzagent.foreign.firststart import TakenOver
from dzagent.foreign.turns import Hindrance
from dzagent.held import Held
from dzagent.hostfacts import Facts
from dzagent.intent import IntentView
from dzagent.kernel.watch import WatchView
from dzagent.model import Desired, Observed, Outcome, Plan
from dzagent.wishes import Wishes


@dataclass(frozen=True, slots=True)
class PassReport:
    """Everything one pass looked at and did.

    plan: what is left to do after it. failing: how those steps of it ended that failed, now or earlier. fights: what
    somebody else keeps undoing. suspects: who may do so. journal_problem: why the journal cannot be written. ours: links
    of ours in the kernel. pending: a change that is undone unless somebody confirms it.
    """

    intent: IntentView
    view: LedgerView
    facts: Facts
    wishes: Wishes
    desired: Desired
    generation: int
    render_problem: str | None
    before: Observed
    after: Observed
    plan: Plan
    held: tuple[Held, ...]
    outcomes: tuple[Outcome, ...]
    failing: tuple[Outcome, ...]
    bgp: BgpView | None = None
    watch: WatchView | None = None
    age: DataAge = field(default_factory=DataAge)
    hindrance: Hindrance | None = None
    taken_over: TakenOver = field(default_factory=TakenOver)
    pending: Pending | None = None
    fights: tuple[Fight, ...] = ()
    suspects: tuple[str, ...] = ()
    journal_problem: str | None = None
    ours: frozenset[str] = frozenset()
