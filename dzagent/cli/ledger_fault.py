"""`dzagent ledger fault`: make the served node misbehave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from dzagent.cli.ledger_options import common, faults_beside, key, open_store
from dzagent.cli.output import print_json
from dzagent.devledger.faults import ANSWERS, TRANSPORT, Fault, FaultFile, make

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.option(
    "--faults",
    "fault_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The switches of one node, as `dzagent ledger serve --faults` has it (default: beside the ledger's file).",
)


def _open(fault_file: Path | None, state_file: Path | None) -> FaultFile:
    if fault_file is not None:
        return FaultFile(fault_file)
    store = open_store(state_file)
    store.load()  # says that there is none, rather than switch something on that nobody serves
    return FaultFile(faults_beside(store.path))


@click.group()
def fault() -> None:
    """Make the node that is served misbehave, to see what an agent makes of it. See `dzagent ledger fault list`."""


@fault.command("list")
@_FILE
@common
def list_(*, fault_file: Path | None, state_file: Path | None, as_json: bool) -> None:
    """What is switched on, and all faults there are."""
    on = _open(fault_file, state_file).read()
    if as_json:
        print_json({"on": [asdict(one) for one in on], "faults": {**TRANSPORT, **ANSWERS}})
        return
    for one in on:
        click.echo(f"on: {_describe(one)}")
    if not on:
        click.echo("nothing is switched on; there are:")
    for name, text in {**TRANSPORT, **ANSWERS}.items():
        click.echo(f"  {name:16}{text}")


@fault.command("set")
@click.argument("name")
@click.option("--method", metavar="METHOD", help="Only for this method, such as getProgramAccounts.")
@click.option("--account", callback=key, metavar="KEY", help="The account that is meant, where one is.")
@click.option(
    "--count", type=click.IntRange(1), metavar="N", help="For so many requests (default: until cleared)."
)
@_FILE
@common
def set_(
    *,
    name: str,
    method: str | None,
    account: str | None,
    count: int | None,
    fault_file: Path | None,
    state_file: Path | None,
    as_json: bool,
) -> None:
    """Switch a fault on, before those that are on already."""
    file = _open(fault_file, state_file)
    new = make(name, method, account, count)
    file.write((new, *(one for one in file.read() if one != new)))
    _tell(f"on: {_describe(new)}", asdict(new), as_json=as_json)


@fault.command("clear")
@click.argument("name", required=False)
@_FILE
@common
def clear(*, name: str | None, fault_file: Path | None, state_file: Path | None, as_json: bool) -> None:
    """Switch one fault off, or all."""
    file = _open(fault_file, state_file)
    if name is not None:
        make(name)
    left = tuple(one for one in file.read() if name is not None and one.name != name)
    file.write(left)
    _tell(f"{len(left)} faults are left on", {"on": [asdict(one) for one in left]}, as_json=as_json)


def _describe(one: Fault) -> str:
    text = {**TRANSPORT, **ANSWERS}[one.name]
    method = f", for {one.method}" if one.method else ""
    account = f", account {one.account}" if one.account else ""
    left = f", {one.left} times" if one.left else ""
    return f"{one.name} ({text}){method}{account}{left}"


def _tell(text: str, document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(text)
