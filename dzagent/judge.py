"""What a pass was like, in words: the conditions, and what the log complains of. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dzagent.age import ledger_conditions
from dzagent.checkpoint import Pending
from dzagent.conditions import Judgement, Status
from dzagent.contested import Fight
from dzagent.firewall import binding, firewall
from dzagent.foreign.turns import CONDITION as FOREIGN
from dzagent.foreign.turns import Hindrance
from dzagent.guard import LEARNED
from dzagent.held import Held
from dzagent.hostfacts import Identity
from dzagent.intent import IntentView
from dzagent.kernel.watch import WatchView
from dzagent.model import Problem, Result
from dzagent.neighbours import SHARED
from dzagent.passreport import PassReport
from dzagent.rhythm import UNWATCHED
from dzagent.sessions import NO_ENGINE, session_up
from dzagent.status import ServiceView, describe

MAX_NAMED = 5
"""Objects that a condition names one by one."""


def complaints(report: PassReport) -> list[str]:
    """Return everything that a person should know, one sentence each, as the log has it."""
    found = [f"{problem.code}: {problem.message}" for problem in report.wishes.problems]
    found += [
        f"Conflict: {describe(c.wanted.obj)} is held by {c.owner}. {c.advice}" for c in report.plan.conflicts
    ]
    found += [f"Contested: {fight_text(fight, report.suspects)}" for fight in report.fights]
    found += [f"Held: {text}" for text in held_things(report.held)]
    if report.render_problem:
        found.append(f"Rendered: {report.render_problem}")
    if report.hindrance is not None:
        found.append(f"{FOREIGN}: {report.hindrance.message}")
    if report.journal_problem:
        found.append(f"Journaled: {report.journal_problem}")
    if report.intent.message and not report.intent.readable:
        found.append(f"Intent: {report.intent.message}")
    if isinstance(report.facts.identity, Problem):
        found.append(f"{report.facts.identity.code}: {report.facts.identity.message}")
    return found


def judge(report: PassReport, services: Sequence[ServiceView], mode: str) -> list[Judgement]:
    """Return every condition of this pass as (type, status, reason, message)."""
    sync, session = _in_sync(report, mode), session_up(report)
    written = "what is begun and made is written down"
    return [
        ("IntentReadable", *_readable(report.intent)),
        ("IdentityKnown", *_identity(report.facts.identity)),
        *ledger_conditions(report.view, report.age, enabled=report.intent.enabled),
        ("Rendered", *_written(report.render_problem, f"generation {report.generation}")),
        ("Journaled", *_written(report.journal_problem, written)),
        sync,
        session,
        ("Conflict", *_conflict(report)),
        ("Contested", *_flag(bool(report.fights), "Undone", _fights(report), "nobody undoes our repairs")),
        (FOREIGN, *_foreign(report.hindrance)),
        ("StateMigrated", *_taken_over(report)),
        ("Held", *held_words(report.held)),
        ("ConfirmPending", *_pending(report.pending)),
        firewall(report.desired, report.after.nft, report.plan, report.failing),
        *([] if report.watch is None else [_watching(report.watch)]),
        _ready(report, services, sync, session),
    ]


def _readable(intent: IntentView) -> tuple[Status, str, str]:
    return ("True", "Read", intent.message) if intent.readable else ("False", "Corrupt", intent.message)


def _identity(identity: Identity | Problem) -> tuple[Status, str, str]:
    if isinstance(identity, Problem):
        return "False", identity.code, identity.message
    return "True", "Known", f"client IP {identity.client_ip}"


def _written(problem: str | None, otherwise: str) -> tuple[Status, str, str]:
    return ("False", "Failed", problem) if problem else ("True", "Written", otherwise)


def _foreign(hindrance: Hindrance | None) -> tuple[Status, str, str]:
    if hindrance is None:
        return "False", "None", "no doublezerod runs here"
    return "True", hindrance.code, hindrance.message


def _taken_over(report: PassReport) -> tuple[Status, str, str]:
    """Say what became of doublezerod's state; once a person has spoken, an unreadable one does not matter."""
    taken = report.taken_over
    if taken.corrupt and not report.intent.silent:
        return "Unknown", "NotNeeded", "what is wanted has been said to dzagent itself"
    return taken.status, taken.reason, taken.message


_HELD_REASONS = {
    "capture": "WouldCapture",
    "volume": "TooMuch",
    "rollback": "RolledBack",
    "dependent": "StandsOnHeld",
}
MAX_HELD_TOLD = 5
"""Things that the condition names; `dzagent plan` shows all of them."""


def held_words(held: Sequence[Held]) -> tuple[Status, str, str]:
    """Say what is withheld, why, and how to let it through: each thing once, however many steps it has."""
    told = held_things(held)
    if not told:
        return ("False", "None", "nothing is withheld")
    more = [f"and {len(told) - MAX_HELD_TOLD} more: see `dzagent plan`"] if len(told) > MAX_HELD_TOLD else []
    following = sum(not item.id for item in held)
    more += [f"{following} more steps wait for these"] if following else []
    first = next(item for item in held if item.id)
    return ("True", _HELD_REASONS[first.kind], "; ".join([*told[:MAX_HELD_TOLD], *more]))


def held_things(held: Sequence[Held]) -> list[str]:
    """Return one text for each thing that is withheld: what, why, and the command that lets it through."""
    things: dict[str, list[Held]] = {}
    for item in held:
        if item.id:
            things.setdefault(item.id, []).append(item)
    return [_held_thing(name, items) for name, items in things.items()]


def _held_thing(name: str, items: Sequence[Held]) -> str:
    what = describe(items[0].step.target)
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return f"{what}{more}: {items[0].reason.rstrip('.')}; `dzagent approve {name}` lets it through once"


def _pending(pending: Pending | None) -> tuple[Status, str, str]:
    if pending is None:
        return ("False", "None", "no change waits for its confirmation")
    when = time.strftime("%H:%M:%S", time.gmtime(pending.deadline_at))
    message = f"plan {pending.plan_id} is rolled back at {when} UTC unless you say `dzagent confirm {pending.plan_id}`"
    return ("True", "Unconfirmed", message)


def fight_text(fight: Fight, suspects: Sequence[str]) -> str:
    """Name an object that somebody keeps undoing, and who that may be. The same as long as the fight is the same."""
    who = "; ".join(filter(None, (fight.rival, *suspects)))
    what = f"somebody keeps undoing {describe(fight.step.target)}"
    if fight.step.after is None:
        what = f"somebody keeps adding {describe(fight.step.target)} where only we may"
    return f"{what}; {who}" if who else what


def _conflict(report: PassReport) -> tuple[Status, str, str]:
    """Name who holds what we need; or, if nobody does, who is beside us where only one should be."""
    held = [f"{describe(c.wanted.obj)} is held by {c.owner}" for c in report.plan.conflicts[:MAX_NAMED]]
    if held:
        return "True", "ForeignObject", "; ".join(held)
    beside = [p.message for p in report.wishes.problems if p.code in SHARED]
    return _flag(bool(beside), "ForeignNeighbour", "; ".join(beside), "nobody else holds what we need")


def _fights(report: PassReport) -> str:
    """Name what is fought over: object, count, and suspects, once."""
    shown = [f"{describe(f.step.target)}, repairs of late: {f.count}" for f in report.fights[:MAX_NAMED]]
    more = [f"and {len(report.fights) - MAX_NAMED} more"] if len(report.fights) > MAX_NAMED else []
    rivals = dict.fromkeys(fight.rival for fight in report.fights if fight.rival)
    return "; ".join((*shown, *more, *rivals, *report.suspects))


def _watching(watch: WatchView) -> Judgement:
    """Say whether changes of the kernel are seen at once; while they are not, it is read every few seconds."""
    if watch.healthy:
        return ("Watching", "True", "Monitoring", "changes of the kernel are seen as they happen")
    message = f"the kernel is read every {UNWATCHED:g} s instead: {watch.message or 'the watch begins'}"
    return ("Watching", "False", "NoMonitor", message)


def _flag(on: bool, reason: str, message: str, otherwise: str) -> tuple[Status, str, str]:
    return ("True", reason, message) if on else ("False", "None", otherwise)


def _count(steps: int) -> str:
    return "1 step is" if steps == 1 else f"{steps} steps are"


def _in_sync(report: PassReport, mode: str) -> Judgement:
    left = binding(report.plan, report.failing)
    steps, failed = len(left), [outcome for outcome in report.failing if outcome.step in left]
    waiting = sum(item.kind in {"volume", "rollback"} for item in report.held)
    if waiting and not steps:
        return ("InSync", "False", "Held", f"{_count(waiting)} withheld: see `dzagent plan`")
    if not steps and not report.plan.conflicts:
        return ("InSync", "True", "Equal", "the kernel holds what the files say")
    if report.plan.conflicts and not steps:
        return ("InSync", "False", "Conflict", f"{len(report.plan.conflicts)} objects are held by others")
    waits = _waiting(report, mode, _count(steps))
    if waits is not None:
        return waits
    raced = [o for o in report.outcomes if o.result is Result.RACED and o.step in left]
    why = next((outcome.message for outcome in (*failed, *raced)), "they are retried")
    return ("InSync", "False", "StepsLeft", f"{_count(steps)} left: {why}")


def _waiting(report: PassReport, mode: str, steps: str) -> Judgement | None:
    """Say what the steps that are left wait for; None if they need not wait."""
    if report.hindrance is not None:
        return ("InSync", "False", report.hindrance.code, f"{steps} waiting for our turn")
    if mode != "auto":
        hint = f"dzagent apply {report.plan.id}" if mode == "manual" else "observe mode never writes"
        return ("InSync", "False", "Waiting", f"{steps} waiting ({hint})")
    if report.intent.enabled is None:
        return ("InSync", "Unknown", "IntentUnknown", f"{steps} waiting: {report.intent.message}")
    return None


def _ready(
    report: PassReport, services: Sequence[ServiceView], sync: Judgement, session: Judgement
) -> Judgement:
    def no(reason: str, message: str) -> Judgement:
        return ("Ready", "False", reason, message)

    if report.intent.enabled is not True:
        return no("Disabled", report.intent.message or "the agent is disabled")
    if report.wishes.kept:
        problem = next(iter(report.wishes.kept.values()))
        return no(problem.code, problem.message)
    if any(not _is_learned(item) for item in report.held):  # what a peer announces does not make us unready
        return no("Held", "something is withheld: see `dzagent plan`")
    missing = _not_made(report, sync) or _missing(report, services, session)
    if missing is not None:
        return no(*missing)
    what = "both services are" if len(services) > 1 else f"the {services[0].name} service is"
    return ("Ready", "True", "Provisioned", f"{what} provisioned")


def _not_made(report: PassReport, sync: Judgement) -> tuple[str, str] | None:
    """Say why the kernel is not as it should be, or is nobody's to change: a reason and a message."""
    if report.hindrance is not None:
        return report.hindrance.code, report.hindrance.message
    return None if sync[1] == "True" else (sync[2], sync[3])


def _missing(
    report: PassReport, services: Sequence[ServiceView], session: Judgement
) -> tuple[str, str] | None:
    """Say what is missing where the kernel is as it should be: a reason and a message."""
    if not services:
        reasons = "; ".join(dict.fromkeys(report.wishes.withdrawn.values()))
        return "NoService", f"the ledger grants nothing: {reasons}"
    if report.bgp is not None and session[1] != "True" and session[2] != NO_ENGINE:
        return "SessionDown", session[3]
    return None


def _is_learned(held: Held) -> bool:
    origin = held.step.origin
    return origin is not None and origin.file.startswith(LEARNED)
