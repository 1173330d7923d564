"""`dzagent status`."""

from __future__ import annotations

import sys
import time

import click

from dzagent.cli.client import Client, NoApi, client_of
from dzagent.cli.document import healthy
from dzagent.cli.output import Paper, paper, print_json, print_lines
from dzagent.cli.statusview import status_lines

_CLEAR = "\033[H\033[2J"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer of GET /v3/status.")
@click.option(
    "--watch",
    type=click.FloatRange(0.2, 3600),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds or as often as you say, until Ctrl-C.",
)
@click.pass_context
def status(ctx: click.Context, *, as_json: bool, watch: float | None) -> None:
    """Show what is up, what is wrong, and what to do about it.

    Exit status: 0 if everything granted is provisioned, or if the agent is disabled and nothing of it is left;
    1 if something is wrong.
    """
    if as_json and watch is not None:
        raise click.UsageError("--json prints one document: it does not go with --watch")
    client = client_of(ctx)
    if watch is not None:
        _watch(client, watch)
    document = client.status()
    if as_json:
        print_json(document)
    else:
        sheet = paper()
        print_lines(status_lines(document, sheet, time.time()), sheet)
    ctx.exit(0 if healthy(document) else 1)


def _watch(client: Client, every: float) -> None:
    """Show it until somebody interrupts; an API that goes away may come back."""
    while True:
        sheet = paper()
        lines = _screen(client, sheet)
        if sys.stdout.isatty():
            click.echo(_CLEAR, nl=False, color=True)
        print_lines([*lines, ""], sheet)
        sys.stdout.flush()
        time.sleep(every)


def _screen(client: Client, sheet: Paper) -> list[str]:
    now = time.time()
    stamp = sheet.paint(time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)), dim=True)
    try:
        return [stamp, "", *status_lines(client.status(), sheet, now)]
    except NoApi as error:
        return [stamp, "", *sheet.wrap(str(error))]
