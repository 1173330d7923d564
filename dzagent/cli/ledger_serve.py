"""`dzagent ledger serve`: the development ledger over JSON-RPC, in the foreground."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import click

from dzagent.cli.ledger_options import common, key, open_store
from dzagent.cli.ledger_world import LOCALNET, make
from dzagent.cli.output import print_json
from dzagent.devledger.node import Clocks, LiveNode
from dzagent.devledger.server import Listen, RpcServer, parse_listen
from dzagent.devledger.store import Store
from dzagent.errors import DzagentError, InputError


@click.command()
@click.option(
    "--listen",
    default=str(Listen()),
    show_default=True,
    metavar="IP:PORT",
    help="Where; port 0 is any free one.",
)
@click.option(
    "--program-id",
    callback=key,
    metavar="KEY",
    help="Owner of the accounts of a ledger that is made now (default: that of localnet).",
)
@common
def serve(*, listen: str, program_id: str | None, state_file: Path | None, as_json: bool) -> None:
    """Serve the ledger over JSON-RPC until Ctrl-C or SIGTERM.

    It answers from real account bytes and follows the file that the other verbs change. Where there is no file
    yet, it makes a ledger with nothing on it.
    """
    where = parse_listen(listen)
    store = open_store(state_file)
    made = not store.exists()
    if made:
        store.create(lambda now: make(program_id or LOCALNET, now))
        if not as_json:
            click.echo(f"made an empty ledger in {store.path}: it has a GlobalConfig and a ProgramConfig")
    node = LiveNode(store, Clocks(time.time, time.monotonic), _warn)
    if program_id not in {None, node.state.program_id}:
        raise InputError(
            f"{store.path} is a ledger of program {node.state.program_id}: leave --program-id out, or name another "
            "file with --state"
        )
    asyncio.run(_serve(node, where, store, made=made, as_json=as_json))
    try:
        node.remember_slot()
    except DzagentError as error:
        _warn(f"the slot could not be written down: {error}")


async def _serve(node: LiveNode, where: Listen, store: Store, *, made: bool, as_json: bool) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server = RpcServer(node, where)
    where = await server.start()
    _announce(node, where, store, made=made, as_json=as_json)
    try:
        await over.wait()
    finally:
        await server.stop()


def _announce(node: LiveNode, where: Listen, store: Store, *, made: bool, as_json: bool) -> None:
    url, program = f"http://{where}", node.state.program_id
    network = "localnet" if program == LOCALNET else "custom"
    if as_json:
        document = {"url": url, "network": network, "program_id": program, "state": str(store.path)}
        print_json({**document, "genesis_hash": node.state.genesis_hash, "made": made})
    else:
        click.echo(f"serving {store.path} on {url}, program {program}; Ctrl-C ends it")
        custom = "" if network == "localnet" else f', "program_id: {program}"'
        click.echo(f'point an agent at it: "network: {network}", "rpc: {url}"{custom} in its config.yaml')
    sys.stdout.flush()


def _warn(text: str) -> None:
    click.echo(f"dzagent ledger: {text}", err=True)
