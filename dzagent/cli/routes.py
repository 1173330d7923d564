"""`dzagent routes`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from dzagent.cli.client import client_of
from dzagent.cli.document import Json, mapping, number, objects, text, texts
from dzagent.cli.output import Paper, paper, print_json, print_lines, seconds

SHOWN = 40
"""Routes of one service that are listed without --all."""


@click.command()
@click.option(
    "--all", "everything", is_flag=True, help=f"List every route, not the first {SHOWN} of a service."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer of GET /v3/routes, all of it.")
@click.pass_context
def routes(ctx: click.Context, *, everything: bool, as_json: bool) -> None:
    """Show what was learned over BGP, what of it the kernel holds, and what was refused and why.

    A route that is "absent" is known and not installed: withheld, in conflict, or about to be. Exit status 0.
    """
    document = client_of(ctx).ask("GET", "/v3/routes")
    if as_json:
        print_json(document)
        return
    sheet = paper()
    print_lines(route_lines(document, None if everything else SHOWN, sheet, time.time()), sheet)


def route_lines(document: Json, most: int | None, sheet: Paper, now: float) -> list[str]:
    """Return the lines for all services; `most` routes of each, None for all."""
    services, peers = mapping(document, "services"), mapping(mapping(document, "bgp"), "peers")
    names = list(dict.fromkeys((*services, *peers)))
    if not names:
        return sheet.wrap(text(document, "message") or "no route was learned: no service has a BGP session")
    lines: list[str] = []
    for name in names:
        lines += [*_head(name, mapping(peers, name), sheet), *_listed(mapping(services, name), most, now)]
        lines += _refused(mapping(peers, name), sheet)
    return lines


def _head(name: str, peer: Json, sheet: Paper) -> Iterator[str]:
    session = mapping(peer, "session")
    counts = ", ".join(
        f"{int(number(peer, key) or 0)} {key}"
        for key in ("learned", "installed", "stale")
        if number(peer, key)
    )
    said = f"{name}: {text(session, 'status') or 'no session'}, peer {text(peer, 'peer') or 'unknown'}"
    yield from sheet.wrap(f"{said}: {counts or 'nothing learned'}")


def _listed(service: Json, most: int | None, now: float) -> Iterator[str]:
    stale = mapping(service, "stale")
    states = [(p, "present") for p in texts(service, "present")] + [
        (p, "absent") for p in texts(service, "absent")
    ]
    rows = sorted(states, key=lambda row: (row[1] == "present", _order(row[0])))
    tail = f"via {text(service, 'via')} dev {text(service, 'dev')} src {text(service, 'src')}"
    for prefix, state in rows[:most]:
        since = number(stale, prefix)
        age = "" if since is None else f"  stale for {seconds(max(0.0, now - since))}"
        yield f"  {prefix:<18} {state:<8} {tail}{age}"
    if most is not None and len(rows) > most:
        yield f"  and {len(rows) - most} more: dzagent routes --all"


def _refused(peer: Json, sheet: Paper) -> Iterator[str]:
    for route in objects(peer, "refused_routes"):
        line = f"{text(route, 'prefix')} refused, {text(route, 'code')}: {text(route, 'message')}"
        yield from sheet.wrap(line, "  ", "      ")
    listed = len(objects(peer, "refused_routes"))
    total = sum(int(number(mapping(peer, "refused"), code) or 0) for code in mapping(peer, "refused"))
    if total > listed:
        yield f"  and {total - listed} more are refused"


def _order(prefix: str) -> tuple[tuple[int, str], ...]:
    return tuple((len(part), part) for part in prefix.split("."))
