"""`dzagent resync`: look at the whole kernel now."""

from __future__ import annotations

import click

from dzagent.cli import document as doc
from dzagent.cli.client import client_of
from dzagent.cli.commands import Failure
from dzagent.cli.document import Json, mapping, text
from dzagent.cli.output import print_json
from dzagent.cli.waiting import Judge, Outcome, Progress, Verdict, outcome_json, wait
from dzagent.cli.waitoptions import result_as_json, timeout_option

TIMEOUT = 60.0


@click.command()
@click.option("--wait/--no-wait", "waits", default=False, show_default=True, help="Wait until it is done.")
@timeout_option(TIMEOUT)
@result_as_json
@click.pass_context
def resync(ctx: click.Context, *, waits: bool, timeout: float, as_json: bool) -> None:
    """Read the whole kernel now, compare it with the files, and repair what differs.

    dzagentd does so by itself every minute (intervals.resync), and sees single changes at once; this is for whoever
    doubts it. With --wait, exit status 0 only if the look was made; what it found is in `dzagent status`.
    """
    client = client_of(ctx)
    token = text(client.ask("POST", "/v3/resync"), "token")
    if not waits:
        _tell(None, as_json=as_json)
        return
    outcome = wait(client.status, judge_resynced(token), timeout, progress=Progress())
    _tell(outcome, as_json=as_json)
    if not outcome.done:
        raise Failure(f"the kernel was not looked at: {outcome.message}")


def judge_resynced(token: str) -> Judge:
    """The look that was asked for has been made."""

    def judge(status: Json) -> Verdict:
        if not doc.running(status):
            why = text(mapping(status, "agent"), "message")
            return Verdict(message=why or "dzagentd does not run", away=True)
        last = mapping(status, "last_resync")
        if text(last, "token") != token:
            return Verdict(message="dzagentd has not looked yet")
        failed = text(last, "result") != "done"
        return Verdict(done=not failed, message=text(last, "message"), failed=failed)

    return judge


def _tell(outcome: Outcome | None, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome_json(outcome))
    elif outcome is None:
        click.echo("asked for a look at the whole kernel; see `dzagent status`")
    elif outcome.done:
        click.echo("the whole kernel was looked at; see `dzagent status`")
