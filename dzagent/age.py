"""What the age of the ledger's data means for the services. Pure.

Age is measured on a clock that no one can set: a wall clock that jumps by a year takes nothing down.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from dzagent.conditions import Judgement, Status
from dzagent.feedview import LedgerView
from dzagent.model import Problem, ServiceName
from dzagent.policy import LedgerRules
from dzagent.wishes import Texts, Wishes, keep_all, nothing


def is_stale(view: LedgerView, rules: LedgerRules, now: float) -> bool:
    """Tell whether the data is older than the policy likes, or has not come for that long."""
    age = view.age(now)
    return age is not None and age > rules.stale_after


def torn_down(rules: LedgerRules) -> Wishes:
    """Return what a site wants that takes services down rather than trust old data."""
    return nothing(
        f"no sound answer of the ledger for {rules.stale_after:g} s, and the policy says teardown (ledger.stale)"
    )


def without_answer(view: LedgerView, old: Texts, up: Collection[ServiceName]) -> Wishes:
    """Return what to want while the ledger has said nothing: what is up stays, with or without its data.

    A service that is not up (a reboot) comes back from its text unless the stored data is too old to say so.
    """
    problem = Problem("NoLedgerAnswer", view.error or "the ledger has not answered yet")
    if not view.not_restored:
        return keep_all(old, problem)
    kept = {name: text for name, text in old.items() if name in up}
    wishes = keep_all(kept, problem)
    lost = [name for name in old if name not in up]
    if not lost:
        return wishes
    message = f"{' and '.join(lost)} does not come back without an answer of the ledger: {view.not_restored}."
    return replace(wishes, problems=(*wishes.problems, Problem("NotRestored", message)))


def restored_problem(view: LedgerView) -> tuple[Problem, ...]:
    """Say that services are as an earlier process read them."""
    if not view.restored or view.snapshot is None:
        return ()
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(view.fetched_at))
    message = (
        f"services are restored from the ledger data of slot {view.snapshot.slot}, stored {when} UTC; "
        "the ledger has not answered since this agent started."
    )
    return (Problem("RestoredFromDisk", message),)


@dataclass(frozen=True, slots=True)
class DataAge:
    """Whether the data was stale when a pass began."""

    stale: bool = False
    stale_after: float = 900.0


def ledger_conditions(view: LedgerView, age: DataAge, *, enabled: bool | None) -> list[Judgement]:
    """Return the conditions about the ledger as (type, status, reason, message)."""
    if enabled is False:
        rest: tuple[Status, str, str] = ("Unknown", "Disabled", "a disabled agent asks the ledger nothing")
        return [("LedgerReachable", *rest), ("LedgerStale", *rest), ("LedgerChanged", *rest), _clock(view)]
    return [_reachable(view), _stale(view, age), _changed(view), _clock(view)]


def _reachable(view: LedgerView) -> Judgement:
    if view.error is not None:
        return ("LedgerReachable", "False", view.error_code or "Error", view.error)
    if view.lagging:
        return ("LedgerReachable", "True", "NodeLagging", view.lagging)
    if view.snapshot is None or view.restored:
        return ("LedgerReachable", "Unknown", "Waiting", "no answer yet")
    return ("LedgerReachable", "True", "Answered", "the last poll gave a sound answer")


def _stale(view: LedgerView, age: DataAge) -> Judgement:
    limit = f"{age.stale_after:g} s"
    if view.snapshot is None:
        if age.stale:
            return ("LedgerStale", "True", "NeverAnswered", f"no sound answer came for {limit}")
        return ("LedgerStale", "Unknown", "NoAnswerYet", view.not_restored or "no answer yet")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(view.fetched_at))
    what = f"the data is of slot {view.snapshot.slot}, read {when} UTC"
    if age.stale:
        why = view.error or view.lagging or "no poll succeeded since"
        return ("LedgerStale", "True", "TooOld", f"{what}, more than {limit} ago: {why}")
    if view.restored:
        return ("LedgerStale", "False", "Restored", f"{what}, by an earlier process")
    return ("LedgerStale", "False", "Fresh", f"the data is younger than {limit}")


def _changed(view: LedgerView) -> Judgement:
    if view.error_code == "LedgerChanged":
        return ("LedgerChanged", "True", "GenesisHash", view.error or "another ledger answers")
    if view.snapshot is None:
        return ("LedgerChanged", "Unknown", "NoAnswerYet", "no answer yet")
    return ("LedgerChanged", "False", "Same", f"genesis hash {view.snapshot.genesis_hash}")


def _clock(view: LedgerView) -> Judgement:
    if view.clock_doubt:
        return ("ClockRight", "False", "Differs", f"{view.clock_doubt}: TLS and times in logs need it right")
    if view.clock_offset is None:
        return ("ClockRight", "Unknown", "NotTold", "no RPC endpoint has told its time yet")
    return ("ClockRight", "True", "Agrees", "this host's clock and the RPC's agree within five minutes")
