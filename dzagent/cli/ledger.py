"""`dzagent ledger`: decode accounts, and the development ledger. Each verb is imported only when it is used."""

from __future__ import annotations

import click

from dzagent.cli.commands import LazyCommand, LazyGroup

COMMANDS = (
    LazyCommand("decode", "dzagent.cli.decode:decode", "Print any account as JSON."),
    LazyCommand("serve", "dzagent.cli.ledger_serve:serve", "Serve the development ledger over JSON-RPC."),
    LazyCommand("init", "dzagent.cli.ledger_world:init", "Make a ledger with nothing on it."),
    LazyCommand("reset", "dzagent.cli.ledger_world:reset", "Empty the ledger."),
    LazyCommand("show", "dzagent.cli.ledger_world:show", "Everything on the ledger."),
    LazyCommand("user", "dzagent.cli.ledger_users:user", "Add, ban, delete, move, list users..."),
    LazyCommand("pass", "dzagent.cli.ledger_users:access_pass", "Add, delete, list access passes."),
    LazyCommand("device", "dzagent.cli.ledger_fleet:device", "Add, change, delete, list devices."),
    LazyCommand("group", "dzagent.cli.ledger_fleet:group", "Add, change, delete, list multicast groups."),
    LazyCommand("tenant", "dzagent.cli.ledger_fleet:tenant", "Add, delete, list tenants."),
    LazyCommand("exchange", "dzagent.cli.ledger_fleet:exchange", "Add, delete, list exchanges."),
    LazyCommand("config", "dzagent.cli.ledger_world:config", "GlobalConfig and versions: show, set."),
    LazyCommand("node", "dzagent.cli.ledger_world:node", "How the RPC node presents itself: show, set."),
    LazyCommand(
        "account", "dzagent.cli.ledger_world:account", "The bytes of accounts: list, show, put, drop."
    ),
    LazyCommand("fault", "dzagent.cli.ledger_fault:fault", "Make the served node misbehave, or stop that."),
    LazyCommand("forget", "dzagent.cli.ledger_forget:forget", "Let the agent accept another ledger."),
    LazyCommand("dump", "dzagent.cli.ledger_world:dump", "All accounts, for `dzagent render --accounts`."),
)


@click.group(cls=LazyGroup, lazy=COMMANDS)
def ledger() -> None:
    """Decode accounts, and play with a development ledger.

    `dzagent ledger serve` answers JSON-RPC from a file; the other verbs change that file, while it is served or
    not. In one terminal `dzagent ledger serve`, in another:

    \b
      dzagent ledger device add dev1 --public-ip 192.0.2.1 --dz-prefix 203.0.113.0/26
      dzagent ledger user add --client-ip 198.51.100.7 --type IBRL --device dev1
      dzagent ledger user ban 198.51.100.7
    """  # noqa: D301 - click reads the control character as "keep these lines"
