"""Waiting until something is really so, and telling about it while it takes long."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import click

from dzagent.cli import document as doc
from dzagent.cli.advice import advice, with_advice
from dzagent.cli.client import NoApi
from dzagent.cli.document import Json, mapping, number, text
from dzagent.cli.output import visible

PATIENCE = 2.0
"""Seconds before a wait says that it waits."""
GRACE = 5.0
"""Seconds that the API or dzagentd may be away (restarting) before a wait gives up."""
STEP = 0.1
REPEAT = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far it is. `message` says what is missing; `failed`: it will never be so; `away`: nobody works on it."""

    done: bool = False
    message: str = ""
    failed: bool = False
    away: bool = False


Judge: TypeAlias = Callable[[Json], Verdict]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a wait ended; `message` says why where it did not succeed."""

    done: bool
    message: str
    seconds: float


def outcome_json(outcome: Outcome | None) -> dict[str, Any]:
    """Return how a wait ended, for scripts; None: nobody waited."""
    if outcome is None:
        return {"done": None, "waited": False, "seconds": 0.0, "message": ""}
    message = "" if outcome.done else outcome.message
    return {"done": outcome.done, "waited": True, "seconds": round(outcome.seconds, 3), "message": message}


# ---- what is waited for --------------------------------------------------------------------------------------


def judge_enabled(client_ip: str | None) -> Judge:
    """Everything granted is provisioned, for the wish as it now stands in the intent file."""

    def judge(status: Json) -> Verdict:
        early = _taken_up(status, wanted=True)
        if early is not None:
            return early
        if client_ip is not None and text(status, "client_ip") != client_ip:
            return Verdict(message=f"dzagentd does not use client IP {client_ip} yet")
        ready = doc.condition(status, "Ready")
        message = with_advice(text(ready, "message"), advice(ready, status))
        return Verdict(done=doc.healthy(status), message=message, failed=_never_writes(status, ready))

    return judge


def judge_disabled(status: Json) -> Verdict:
    """Nothing of ours is left in the kernel, for the wish as it now stands in the intent file."""
    early = _taken_up(status, wanted=False)
    if early is not None:
        return early
    in_sync = doc.condition(status, "InSync")
    message = text(in_sync, "message") if text(in_sync, "status") != "True" else "services are still shown"
    return Verdict(done=doc.torn_down(status), message=message, failed=_never_writes(status, in_sync))


def _never_writes(status: Json, condition: Json) -> bool:
    """Whether steps wait that this mode never takes."""
    return text(status, "mode") == "observe" and text(condition, "reason") == "Waiting"


def unless_beside_another(judge: Judge) -> Judge:
    """Give up where dzagentd changes nothing because doublezerod runs; a migration that is at work ends by itself."""

    def judged(status: Json) -> Verdict:
        verdict = judge(status)
        found = doc.condition(status, "ForeignDaemon")
        runs = (text(found, "status"), text(found, "reason")) == ("True", "DoublezerodRuns")
        if not runs or verdict.done or verdict.failed or verdict.away:
            return verdict
        return Verdict(message=with_advice(text(found, "message"), advice(found, status)), failed=True)

    return judged


def judge_applied(plan_id: str, before: Json) -> Judge:
    """The plan that was asked for has been applied; `before` is last_apply as it was when we asked."""
    return _judge_last(plan_id, before, "applied", f"dzagentd has not taken up plan {plan_id} yet")


def judge_confirmed(plan_id: str, before: Json) -> Judge:
    """The change that waited stays; `before` is last_apply as it was when we asked."""
    missing = f"dzagentd has not taken up the confirmation of plan {plan_id} yet"
    return _judge_last(plan_id, before, "confirmed", missing)


def _judge_last(plan_id: str, before: Json, wanted: str, missing: str) -> Judge:
    """Judge by last_apply; `missing` is said as long as it is not about what we asked for."""

    def judge(status: Json) -> Verdict:
        if not doc.running(status):
            return _not_running(status)
        last = mapping(status, "last_apply")
        if text(last, "plan_id") != plan_id or number(last, "at") == number(before, "at"):
            return Verdict(message=missing)
        result, message = text(last, "result"), text(last, "message")
        said = f"plan {plan_id} is {result}: {message}" if message else f"plan {plan_id} is {result}"
        return Verdict(done=result == wanted, message=said, failed=result != wanted)

    return judge


def judge_let_through(held: str) -> Judge:
    """What was withheld is withheld no more, as the plan (GET /v3/plan) says."""

    def judge(plan: Json) -> Verdict:
        if not text(plan, "id"):
            return Verdict(message=text(plan, "message"), away=True)
        if any(text(item, "id") == held for item in doc.objects(plan, "held")):
            return Verdict(message=f"{held} is still withheld: dzagentd has not taken up the approval yet")
        return Verdict(done=True)

    return judge


def _taken_up(status: Json, *, wanted: bool) -> Verdict | None:
    """None once dzagentd works on the wish that is waited for."""
    intent = mapping(status, "intent")
    if doc.wanted(status) is None:
        return Verdict(message=text(intent, "message"))
    if doc.wanted(status) is not wanted:
        other = "disable" if wanted else "enable"
        return Verdict(message=f"somebody else has said `dzagent {other}` in the meantime", failed=True)
    if not doc.running(status):
        return _not_running(status)
    if not doc.answered(status):
        return Verdict(message="dzagentd has not taken it up yet")
    return None


def _not_running(status: Json) -> Verdict:
    return Verdict(message=text(mapping(status, "agent"), "message") or "dzagentd does not run", away=True)


# ---- waiting -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Progress:
    """Says what is waited for, on standard error: a spinner on a terminal, plain lines elsewhere."""

    spins: bool = field(default_factory=sys.stderr.isatty)
    _wheel: itertools.cycle[str] = field(default_factory=lambda: itertools.cycle("|/-\\"))
    _said: str = ""
    _said_at: float = 0.0

    def show(self, message: str, elapsed: float) -> None:
        """Tell it, unless it is too early or has just been told."""
        if elapsed < PATIENCE:
            return
        message = visible(message)
        if self.spins:
            line = f"{next(self._wheel)} {message}"[: 70 - 8]
            click.echo(f"\r\033[K{line} ({elapsed:.0f} s)", nl=False, err=True, color=True)
        elif message != self._said or elapsed - self._said_at >= REPEAT:
            click.echo(f"waiting: {message} ({elapsed:.0f} s)", err=True)
        else:
            return
        self._said, self._said_at = message, elapsed

    def clear(self) -> None:
        """Leave the terminal as it was."""
        if self.spins and self._said:
            click.echo("\r\033[K", nl=False, err=True, color=True)


def wait(
    look: Callable[[], Json],
    judge: Judge,
    timeout: float,
    *,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Look at the status until the judge is content, for at most `timeout` seconds.

    An API or an agent that is away for longer than GRACE ends the wait: nobody would make it so. Raises what
    `look` raises, but NoApi.
    """
    began = clock()
    present = began
    try:
        while True:
            verdict = _judged(look, judge)
            now = clock()
            present = present if verdict.away else now
            if verdict.done or verdict.failed or now - present >= GRACE or now - began >= timeout:
                return Outcome(verdict.done, verdict.message, now - began)
            progress.show(verdict.message, now - began)
            sleep(STEP)
    finally:
        progress.clear()


def _judged(look: Callable[[], Json], judge: Judge) -> Verdict:
    try:
        return judge(look())
    except NoApi as error:
        return Verdict(message=str(error), away=True)
