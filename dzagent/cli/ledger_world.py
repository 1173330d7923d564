"""`dzagent ledger init`, `reset`, `show`, `config`, `node`, `account` and `dump`."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

import click

from dzagent.cli.ledger_options import (
    change,
    common,
    force_option,
    key,
    look,
    network,
    open_store,
    print_record,
    print_table,
)
from dzagent.cli.output import print_json
from dzagent.config import PROGRAM_IDS
from dzagent.devledger import bank, world
from dzagent.devledger import show as shown
from dzagent.devledger.people import Done
from dzagent.devledger.records import State
from dzagent.errors import InputError
from dzagent.ledger.jsonrpc import printable

LOCALNET = PROGRAM_IDS["localnet"]

program_id_option = click.option(
    "--program-id",
    callback=key,
    default=LOCALNET,
    metavar="KEY",
    help=f"The serviceability program that owns the accounts (default: that of localnet, {LOCALNET}).",
)
_U32 = click.IntRange(0, 2**32 - 1)


def make(program_id: str, now: float) -> State:
    """Return a first state of a new ledger. Raises InputError."""
    return world.fresh(program_id, now, secrets.token_bytes)


@click.command()
@program_id_option
@common
def init(*, program_id: str, state_file: Path | None, as_json: bool) -> None:
    """Make a ledger with a GlobalConfig, a ProgramConfig and nothing else."""
    store = open_store(state_file)
    state = store.create(lambda now: make(program_id, now))
    _tell(f"made an empty ledger in {store.path}", state, as_json=as_json)


@click.command()
@click.option(
    "--renew",
    is_flag=True,
    help="Begin another ledger, with another genesis hash: agents that follow this one will not follow that one. "
    "The file is set aside, whatever it holds.",
)
@common
def reset(*, renew: bool, state_file: Path | None, as_json: bool) -> None:
    """Take everything off the ledger. It stays the same ledger and its slots go on, so that agents follow."""
    store = open_store(state_file)
    if renew:
        state, aside = store.renew(lambda now: make(LOCALNET, now))
        _tell(f"made an empty ledger in {store.path}; the old file is {aside}", state, as_json=as_json)
        return
    state, done = store.change(
        lambda s: (world.emptied(s), Done(s.program_id, f"the ledger in {store.path} is empty now"))
    )
    _tell(done.text, state, as_json=as_json)


def _tell(text: str, state: State, *, as_json: bool) -> None:
    if as_json:
        print_json({"done": text, **shown.everything(state, state.slot)})
    else:
        click.echo(f"{text} (slot {state.slot})")


@click.command()
@common
def show(*, state_file: Path | None, as_json: bool) -> None:
    """Show everything on the ledger."""
    state, slot = look(state_file)
    everything = shown.everything(state, slot)
    if as_json:
        print_json(everything)
        return
    heads = ("program_id", "genesis_hash", "slot", "payer")
    print_record({**{name: everything[name] for name in heads}, "node": everything["node"]["text"]})
    for part, columns in _PARTS.items():
        click.echo("")
        click.echo(f"{part}: {len(everything[part])}")
        if everything[part]:
            print_table(everything[part], columns, "")


_PARTS = {
    "exchanges": ("code", "name", "status", "devices"),
    "devices": ("code", "public_ip", "dz_prefixes", "exchange", "status", "users"),
    "groups": ("code", "multicast_ip", "status", "publishers", "subscribers"),
    "tenants": ("code", "vrf_id", "users"),
    "users": ("client_ip", "type", "status", "device", "tunnel_net", "dz_ip", "account"),
    "passes": ("client_ip", "type", "status", "payer"),
}


# ---- config and node -------------------------------------------------------------------------------------


@click.group()
def config() -> None:
    """GlobalConfig, and the versions in ProgramConfig."""


@config.command("show")
@common
def show_config(*, state_file: Path | None, as_json: bool) -> None:
    """Show the configuration."""
    state, _ = look(state_file)
    _print(shown.config(state), as_json=as_json)


@config.command("set")
@click.option("--local-asn", type=_U32, metavar="N", help="AS number of every host.")
@click.option("--remote-asn", type=_U32, metavar="N", help="AS number of every device.")
@click.option("--device-tunnel-block", callback=network, metavar="NET", help="For links between devices.")
@click.option(
    "--user-tunnel-block", callback=network, metavar="NET", help="The /31 of new users come from it."
)
@click.option(
    "--multicastgroup-block", callback=network, metavar="NET", help="Addresses of new groups come from it."
)
@click.option(
    "--multicast-publisher-block",
    callback=network,
    metavar="NET",
    help="Addresses of new publishers come from it.",
)
@click.option("--version", metavar="X.Y.Z", help="Version of the program.")
@click.option("--min-compatible", metavar="X.Y.Z", help="Oldest version that still works with it.")
@force_option
@common
def set_config(*, force: bool, state_file: Path | None, as_json: bool, **values: Any) -> None:
    """Change the configuration; users keep the tunnels and addresses that they have."""
    if all(value is None for value in values.values()):
        raise click.UsageError("nothing to set: name at least one value")
    settings = world.Settings(**values)
    change(
        state_file,
        lambda s: world.set_config(s, settings, force=force),
        lambda state, _: shown.config(state),
        as_json=as_json,
    )


@click.group()
def node() -> None:
    """How the RPC node presents itself."""


@node.command("show")
@common
def show_node(*, state_file: Path | None, as_json: bool) -> None:
    """Show how the node presents itself."""
    state, _ = look(state_file)
    record = shown.node(state)
    if as_json:
        print_json(record)
    else:
        click.echo(record["text"])


@node.command("set")
@click.option("--healthy/--unhealthy", default=None, help="What getHealth and GET /health say.")
@click.option(
    "--behind", type=click.IntRange(0, 2**64 - 1), metavar="N", help="With --unhealthy: slots behind."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="KEY",
    help="A program that getProgramAccounts does not list; repeat it, '' for none.",
)
@common
def set_node(
    *,
    healthy: bool | None,
    behind: int | None,
    exclude: tuple[str, ...],
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Change how the node presents itself."""
    if healthy is None and behind is None and not exclude:
        raise click.UsageError("nothing to set: --healthy, --unhealthy or --exclude")
    change(
        state_file,
        lambda s: world.set_node(s, healthy=healthy, slots_behind=behind, excluded=exclude or None),
        lambda state, _: shown.node(state),
        as_json=as_json,
    )


def _print(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        print_record(record)


# ---- bytes -----------------------------------------------------------------------------------------------


@click.group()
def account() -> None:
    """The bytes of accounts. `put` sets any bytes, to see what an agent does with them."""


@account.command("list")
@common
def list_accounts(*, state_file: Path | None, as_json: bool) -> None:
    """List all accounts with type and size."""
    state, _ = look(state_file)
    rows = [{**row, "put": row["pubkey"] in state.raw} for row in shown.accounts(state)]
    if as_json:
        print_json([{name: cell_ for name, cell_ in row.items() if name != "data"} for row in rows])
    else:
        print_table(rows, ("pubkey", "type", "space", "put"), "no accounts")


@account.command("show")
@click.argument("address")
@common
def show_account(*, address: str, state_file: Path | None, as_json: bool) -> None:
    """Print the bytes of an account as base64; pipe it to `dzagent ledger decode`."""
    state, _ = look(state_file)
    data = bank.accounts(state).get(address)
    if data is None:
        raise InputError(
            f"there is no account {printable(address, 60)!r}: `dzagent ledger account list` names them"
        )
    text = base64.b64encode(data).decode()
    if as_json:
        print_json({"pubkey": address, "space": len(data), "data": text})
    else:
        click.echo(text)


@account.command("put")
@click.argument("address", callback=key)
@click.argument("text", metavar="[BASE64]", required=False)
@click.option("--file", "file", type=click.Path(path_type=Path), help="A file with the bytes themselves.")
@common
def put_account(
    *, address: str, text: str | None, file: Path | None, state_file: Path | None, as_json: bool
) -> None:
    """Put any bytes at an address, in place of what the ledger has there, until they are dropped."""
    if (text is None) == (file is None):
        raise click.UsageError("the bytes come as BASE64 or with --file: give one of them")
    data = text if text is not None else _base64_of(file or Path())
    change(state_file, lambda s: world.put_account(s, address, data), as_json=as_json)


def _base64_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(world.MAX_ACCOUNT_BYTES + 1)
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror})", file=str(file)) from error
    return base64.b64encode(data).decode()


@account.command("drop")
@click.argument("address")
@common
def drop_account(*, address: str, state_file: Path | None, as_json: bool) -> None:
    """Take bytes away that were put at an address."""
    change(state_file, lambda s: world.drop_account(s, address), as_json=as_json)


@click.command()
@common
def dump(*, state_file: Path | None, as_json: bool) -> None:  # noqa: ARG001 - the dump is JSON anyway
    """Print all accounts as JSON, as `dzagent render --accounts` reads them."""
    state, _ = look(state_file)
    print_json([{"pubkey": row["pubkey"], "data": row["data"]} for row in shown.accounts(state)])
