"""`dzagent plan`, `diff` and `apply`."""

from __future__ import annotations

import click

from dzagent.cli.client import client_of
from dzagent.cli.commands import Failure
from dzagent.cli.document import mapping
from dzagent.cli.output import paper, print_json, print_lines
from dzagent.cli.planview import diff_lines, difference, differs, plan_lines
from dzagent.cli.waiting import Outcome, Progress, judge_applied, outcome_json, wait
from dzagent.cli.waitoptions import result_as_json, timeout_option
from dzagent.state import MAX_CONFIRM, MIN_CONFIRM

TIMEOUT = 60.0
CONFIRM = click.option(
    "--confirm",
    type=click.IntRange(MIN_CONFIRM, MAX_CONFIRM),
    metavar="SECONDS",
    help="Roll it back unless `dzagent confirm` comes within this time.",
)
"""Of the verbs that change something: the way back."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer of GET /v3/plan.")
@click.pass_context
def plan(ctx: click.Context, *, as_json: bool) -> None:
    """Show the steps that are left, each with its reason, and the commands exactly as they would run.

    Also what is withheld because it would cut off this host, and what is in the way and whose it is. It is the
    plan of dzagentd's last look at the kernel. Exit status 0.
    """
    document = client_of(ctx).plan()
    if as_json:
        print_json(document)
        return
    sheet = paper()
    print_lines(plan_lines(document, sheet), sheet)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--exit-code", "by_code", is_flag=True, help="Exit with 1 if there is a difference.")
@click.pass_context
def diff(ctx: click.Context, *, as_json: bool, by_code: bool) -> None:
    """Show what the kernel lacks (+), has too much (-) or has otherwise (~); ! marks what stays as it is.

    Exit status 0, with --exit-code 1 if there is a difference.
    """
    document = client_of(ctx).plan()
    sheet = paper()
    if as_json:
        print_json(difference(document))
    else:
        print_lines(diff_lines(document, sheet), sheet)
    ctx.exit(1 if by_code and differs(document) else 0)


@click.command()
@click.argument("plan_id", metavar="PLAN-ID")
@click.option("--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until it is applied.")
@timeout_option(TIMEOUT)
@CONFIRM
@result_as_json
@click.pass_context
def apply(
    ctx: click.Context, *, plan_id: str, waits: bool, timeout: float, confirm: int | None, as_json: bool
) -> None:
    """Apply exactly the plan that `dzagent plan` showed, for a configuration with apply: manual.

    If anything has moved since, the plan has another id and nothing is changed. With --confirm the way back is worked
    out and checked first, and taken by itself at the end of that time, even if dzagentd has died. What was rolled back
    is not done again until you approve it or something else is wanted. Exit status 0 only if every step was done (with
    --no-wait: if it was asked for).
    """
    client = client_of(ctx)
    before = mapping(client.status(), "last_apply")
    client.apply(plan_id, confirm)
    if not waits:
        _tell(plan_id, None, as_json=as_json)
        return
    outcome = wait(client.status, judge_applied(plan_id, before), timeout, progress=Progress())
    _tell(plan_id, outcome, as_json=as_json)
    if not outcome.done:
        back = "" if confirm is None else "; what was done of it is rolled back unless it is confirmed"
        raise Failure(f"plan {plan_id} was not applied: {outcome.message}{back}")
    if confirm is not None and not as_json:
        click.echo(f"it is rolled back in {confirm} s unless you say: dzagent confirm {plan_id}")


def _tell(plan_id: str, outcome: Outcome | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"plan_id": plan_id, **outcome_json(outcome)})
    elif outcome is None:
        click.echo(f"asked for plan {plan_id}; see `dzagent status`")
    elif outcome.done:
        click.echo(f"plan {plan_id} is applied")
