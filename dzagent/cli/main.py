"""`dzagent`: the verbs, each imported only when it is used, so that help and status are quick."""

from __future__ import annotations

from pathlib import Path

import click

from dzagent import __version__
from dzagent.cli.commands import LazyCommand, LazyGroup, Options
from dzagent.configoption import CONFIG_OPTION

COMMANDS = (
    LazyCommand("status", "dzagent.cli.status:status", "What is up, what is wrong, and what to do."),
    LazyCommand("enable", "dzagent.cli.switch:enable", "Set up what the ledger grants, and keep it."),
    LazyCommand("disable", "dzagent.cli.switch:disable", "Take everything down, and keep it down."),
    LazyCommand("plan", "dzagent.cli.plans:plan", "The steps that are left, each with its reason."),
    LazyCommand("diff", "dzagent.cli.plans:diff", "What the kernel lacks or has too much."),
    LazyCommand("apply", "dzagent.cli.plans:apply", "Apply exactly the plan that you looked at."),
    LazyCommand("confirm", "dzagent.cli.permit:confirm", "Keep a change that would else be rolled back."),
    LazyCommand("approve", "dzagent.cli.permit:approve", "Let one withheld thing through, once."),
    LazyCommand("resync", "dzagent.cli.resync:resync", "Look at the whole kernel now."),
    LazyCommand("events", "dzagent.cli.events:events", "The last changes, each with its reason and result."),
    LazyCommand(
        "routes", "dzagent.cli.routes:routes", "What BGP taught, what is installed, what is refused."
    ),
    LazyCommand("migrate", "dzagent.cli.migrate:migrate", "Take over from doublezerod; --undo goes back."),
    LazyCommand("api", "dzagent.cli.api:api", "Serve the HTTP API on the unix socket."),
    LazyCommand("render", "dzagent.cli.render:render", "Render files from accounts: no root, no host."),
    LazyCommand("ledger", "dzagent.cli.ledger:ledger", "Decode accounts; a development ledger."),
)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@CONFIG_OPTION
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The API's socket, if it is not the one of the configuration.",
)
@click.version_option(__version__, prog_name="dzagent")
@click.pass_context
def main(ctx: click.Context, config_file: Path | None, socket: Path | None) -> None:
    """Keep this host's DoubleZero tunnels equal to what the ledger says.

    Exit status: 0 it is so; 1 something is wrong, or it did not happen; 2 unusable input. `dzagent status` exits
    with 0 if the agent is ready or deliberately disabled.
    """
    ctx.obj = Options(config_file, socket)


if __name__ == "__main__":
    main()
