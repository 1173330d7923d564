"""`dzagent ledger forget`: what the agent knows of its ledger is forgotten."""

from __future__ import annotations

import click

from dzagent.cli.client import client_of
from dzagent.cli.output import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_context
def forget(ctx: click.Context, *, as_json: bool) -> None:
    """Forget the ledger: its genesis hash, its slots, the stored data. The next answer counts as the first one.

    For a ledger that was replaced on purpose (the condition LedgerChanged). Services stay until the new ledger
    has answered, and go if it does not grant them. Holds for ten minutes if the agent does not run now.
    """
    client_of(ctx).ask("POST", "/v3/ledger/forget")
    if as_json:
        print_json({"forgotten": True})
    else:
        click.echo("what is known of the ledger is forgotten with the next poll")
