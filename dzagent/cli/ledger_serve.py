"""`dzagent ledger serve`: the development ledger over JSON-RPC, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from dzagent.cli.ledger_options import common, faults_beside, key, open_store
from dzagent.cli.ledger_world import LOCALNET, make
from dzagent.cli.output import print_json
from dzagent.devledger.crowd import Crowd
from dzagent.devledger.crowd import population as crowd
from dzagent.devledger.faults import FaultFile
from dzagent.devledger.faulty import FaultyServer
from dzagent.devledger.history import CONFIRMED_SLOTS, FINALIZED_SLOTS, Depths, History
from dzagent.devledger.node import Clocks, LiveNode, Source
from dzagent.devledger.pair import start_pair
from dzagent.devledger.pubsub import LOOK_SECONDS, PubSubServer
from dzagent.devledger.server import Listen, parse_listen
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
@click.option(
    "--websocket",
    default="auto",
    show_default=True,
    metavar="IP:PORT",
    help="Where subscriptions are served: auto is the next port, none is nowhere.",
)
@click.option(
    "--population",
    type=click.IntRange(0, 10),
    default=0,
    show_default=True,
    help="Other people's accounts beside those of the file, in times of mainnet's in 2026.",
)
@click.option("--real-commitments", is_flag=True, help="Let confirmed be 2 slots behind and finalized 32.")
@click.option(
    "--lag",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    metavar="SLOTS",
    help="Be a node that is behind: serve the same file elsewhere without it for one that is not.",
)
@click.option(
    "--faults",
    "fault_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Switches of `dzagent ledger fault` (default: beside the ledger's file).",
)
@common
def serve(
    *,
    listen: str,
    program_id: str | None,
    websocket: str,
    population: int,
    real_commitments: bool,
    lag: int,
    fault_file: Path | None,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Serve the ledger over JSON-RPC and websockets until Ctrl-C or SIGTERM.

    It answers from real account bytes and follows the file that the other verbs change. Where there is no file
    yet, it makes a ledger with nothing on it. Two of them on one file are two nodes: they can lag or disagree.
    """
    where = parse_listen(listen)
    pushes = None if websocket in {"auto", "none"} else parse_listen(websocket)
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
    depths = Depths(CONFIRMED_SLOTS, FINALIZED_SLOTS, lag) if real_commitments else Depths(lag=lag)
    serving = _Serving(
        node=node,
        source=_source(node, depths, population),
        where=where,
        pushes=pushes,
        auto=websocket == "auto",
        faults=FaultFile(fault_file or faults_beside(store.path)),
    )
    asyncio.run(_serve(serving, store, made=made, as_json=as_json))
    try:
        node.remember_slot()
    except DzagentError as error:
        _warn(f"the slot could not be written down: {error}")


@dataclass(frozen=True, slots=True)
class _Serving:
    """What is served, and where; with `auto` the websockets are at the port after `where`."""

    node: LiveNode
    source: Source
    where: Listen
    pushes: Listen | None
    auto: bool
    faults: FaultFile


def _source(node: LiveNode, depths: Depths, population: int) -> Source:
    source: Source = Crowd(node, crowd(population)) if population else node
    return source if depths == Depths() else History(source, depths)


async def _serve(serving: _Serving, store: Store, *, made: bool, as_json: bool) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server, where, pushing, told = await _start(serving)
    try:
        _announce(serving.node, where, told, store, made=made, as_json=as_json)
        await _look_until(serving.source, over)
    finally:
        if pushing is not None:
            await pushing.stop()
        await server.stop()


async def _start(serving: _Serving) -> tuple[FaultyServer, Listen, PubSubServer | None, Listen | None]:
    """Serve both; a place that was named for websockets must be free, the next port need not."""

    def rpc() -> FaultyServer:
        return FaultyServer(serving.source, serving.where, serving.faults)

    def pushing(where: Listen) -> PubSubServer:
        return PubSubServer(serving.source, where)

    if serving.auto:
        server, where, pusher, told = await start_pair(rpc, pushing, any_port=serving.where.port == 0)
        if not isinstance(pusher, InputError):
            return server, where, pusher, told
        _warn(f"there are no subscriptions: {pusher}")
        return server, where, None, None
    server = rpc()
    where = await server.start()
    if serving.pushes is None:
        return server, where, None, None
    named = pushing(serving.pushes)
    return server, where, named, await named.start()


async def _look_until(source: Source, over: asyncio.Event) -> None:
    """Wait for the end; a source that remembers is shown every change meanwhile."""
    while isinstance(source, History) and not over.is_set():
        source.look()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), LOOK_SECONDS)
    await over.wait()


def _announce(
    node: LiveNode, where: Listen, pushes: Listen | None, store: Store, *, made: bool, as_json: bool
) -> None:
    url, program = f"http://{where}", node.state.program_id
    network = "localnet" if program == LOCALNET else "custom"
    push = None if pushes is None else f"ws://{pushes}"
    if as_json:
        document = {"url": url, "network": network, "program_id": program, "state": str(store.path)}
        print_json({**document, "websocket": push, "genesis_hash": node.state.genesis_hash, "made": made})
    else:
        click.echo(f"serving {store.path} on {url}, program {program}; Ctrl-C ends it")
        custom = "" if network == "localnet" else f', "program_id: {program}"'
        click.echo(f'point an agent at it: "network: {network}", "rpc: {url}"{custom} in its config.yaml')
        if push is not None:
            click.echo(f"changes are announced on {push}")
    sys.stdout.flush()


def _warn(text: str) -> None:
    click.echo(f"dzagent ledger: {text}", err=True)
