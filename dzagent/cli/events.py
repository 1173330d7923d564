"""`dzagent events`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import click

from dzagent.cli.client import client_of
from dzagent.cli.document import Json, number, objects, text
from dzagent.cli.output import Paper, paper, print_json, print_lines
from dzagent.cli.planview import because

_GOOD = frozenset({"done", "gone"})


@click.command()
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=20, show_default=True, help="How many, newest last."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer of GET /v3/events, all of it.")
@click.pass_context
def events(ctx: click.Context, *, lines: int, as_json: bool) -> None:
    """Show the last changes that dzagentd tried, each with its reason and result; times are UTC.

    They begin when dzagentd was started; its log has them all. Exit status 0.
    """
    document = client_of(ctx).events()
    if as_json:
        print_json(document)
        return
    sheet = paper()
    print_lines(event_lines(document, lines, sheet), sheet)


def event_lines(document: Json, count: int, sheet: Paper) -> list[str]:
    """Return the lines of the newest `count` events."""
    shown = objects(document, "events")[-count:]
    if not shown:
        return sheet.wrap(text(document, "message") or "nothing has changed since dzagentd was started")
    return [line for event in shown for line in _event(event, sheet)]


def _event(event: Json, sheet: Paper) -> Iterator[str]:
    result = text(event, "result")
    colour = None if result in _GOOD else "red"
    head = f"{_time(number(event, 'at'))} {result}: {text(event, 'action')} {text(event, 'object')}"
    yield from (sheet.paint(line, colour) for line in sheet.wrap(head, rest="    "))
    yield from sheet.wrap(because(event), "    ")
    if text(event, "message"):
        yield from sheet.wrap(text(event, "message"), "    ")


def _time(at: float | None) -> str:
    try:
        return f"{datetime.fromtimestamp(at or 0.0, timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return "?"
