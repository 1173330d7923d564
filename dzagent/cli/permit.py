"""`dzagent approve` and `dzagent confirm`."""

from __future__ import annotations

import click

from dzagent.cli.client import client_of
from dzagent.cli.commands import Failure
from dzagent.cli.document import mapping, text
from dzagent.cli.output import print_json
from dzagent.cli.plans import CONFIRM
from dzagent.cli.waiting import Progress, judge_confirmed, judge_let_through, outcome_json, wait
from dzagent.cli.waitoptions import result_as_json, timeout_option

TIMEOUT = 30.0

_WAIT = click.option(
    "--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until dzagentd has taken it up."
)
_TIMEOUT = timeout_option(TIMEOUT)


@click.command()
@click.argument("held", metavar="ID")
@_WAIT
@_TIMEOUT
@CONFIRM
@result_as_json
@click.pass_context
def approve(
    ctx: click.Context, *, held: str, waits: bool, timeout: float, confirm: int | None, as_json: bool
) -> None:
    """Let exactly one withheld thing through, once: the ID is the one that `dzagent plan` shows beside it.

    The approval is good for ten minutes (guard.approve of the policy) and not for a restarted dzagentd; anything else,
    or the same thing for another reason, has another ID. With apply: manual it makes the thing part of the plan, which
    you then apply. Exit status 0 if it is withheld no more (with --no-wait: if it was asked for).
    """
    client = client_of(ctx)
    client.approve(held, confirm)
    outcome = wait(client.plan, judge_let_through(held), timeout, progress=Progress()) if waits else None
    if as_json:
        print_json({"id": held, **outcome_json(outcome)})
    if outcome is not None and not outcome.done:
        raise Failure(f"{held} was not let through: {outcome.message}")
    if as_json:
        return
    plan = client.plan() if waits else {}
    if not waits:
        click.echo(f"asked for {held} to be let through; see `dzagent plan`")
    elif text(plan, "mode") == "manual":
        click.echo(f"{held} is let through; apply it with: dzagent apply {text(plan, 'id')}")
    else:
        click.echo(f"{held} is let through, once; see `dzagent events`")
        if confirm is not None:
            click.echo(f"it is rolled back in {confirm} s unless you confirm: `dzagent status` shows how")


@click.command()
@click.argument("plan_id", metavar="PLAN-ID")
@_WAIT
@_TIMEOUT
@result_as_json
@click.pass_context
def confirm(ctx: click.Context, *, plan_id: str, waits: bool, timeout: float, as_json: bool) -> None:
    """Keep a change that was applied with --confirm, and that would else be rolled back.

    Exit status 0 if it stays (with --no-wait: if it was asked for), 1 if it was too late.
    """
    client = client_of(ctx)
    before = mapping(client.status(), "last_apply")
    client.confirm(plan_id)
    outcome = (
        wait(client.status, judge_confirmed(plan_id, before), timeout, progress=Progress()) if waits else None
    )
    if as_json:
        print_json({"plan_id": plan_id, **outcome_json(outcome)})
    if outcome is not None and not outcome.done:
        raise Failure(f"plan {plan_id} was not confirmed: {outcome.message}")
    if not as_json:
        click.echo(f"plan {plan_id} is confirmed: it stays" if waits else f"asked to confirm plan {plan_id}")
