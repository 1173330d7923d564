"""What the verbs of `dzagent ledger` share: the state file, types of values, and how a result is printed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import click

from dzagent.cli.output import print_json, visible
from dzagent.devledger import base58, slots
from dzagent.devledger.people import Done
from dzagent.devledger.records import State
from dzagent.devledger.store import Store, default_path

F = TypeVar("F", bound=Callable[..., Any])
Edit = Callable[[State], tuple[State, Done]]
View = Callable[[State, str], dict[str, Any]]

_STATE = click.option(
    "--state",
    "state_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The ledger's file (default: $XDG_STATE_HOME/dzagent/ledger.json, below ~/.local/state).",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")

force_option = click.option(
    "--force", is_flag=True, help="Accept values that make no sense, to see what an agent does with them."
)


def common(verb: F) -> F:
    """Add the options that every verb has: --state and --json."""
    return _STATE(_JSON(verb))


def open_store(state_file: Path | None) -> Store:
    """Return the ledger's file. Raises InputError where there is no place for one."""
    return Store(state_file or default_path(os.environ), time.time)


def faults_beside(state_file: Path) -> Path:
    """Return where the faults of a ledger's node are, unless another file is named."""
    return state_file.with_name(state_file.name + ".faults")


def change(state_file: Path | None, edit: Edit, view: View | None = None, *, as_json: bool) -> None:
    """Apply a change and say what it did; `view` shows the changed record in JSON. Raises DzagentError."""
    state, done = open_store(state_file).change(edit)
    if as_json:
        shown = {"account": done.account} if view is None else view(state, done.account)
        print_json({"done": done.text, "slot": state.slot, "notes": list(done.notes), **shown})
        return
    click.echo(f"{done.text} (slot {state.slot})")
    for note in done.notes:
        click.echo(f"note: {note}", err=True)


def look(state_file: Path | None) -> tuple[State, int]:
    """Return the ledger and its slot now. Raises InputError."""
    state = open_store(state_file).load()
    return state, slots.slot_at(state, time.time())


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], empty: str, *, as_json: bool
) -> None:
    """Print rows for scripts, or for people."""
    if as_json:
        print_json(rows)
    else:
        print_table(rows, columns, empty)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], empty: str) -> None:
    """Print rows as a table with a heading, or one sentence where there are none."""
    if not rows:
        click.echo(empty)
        return
    names = list(columns)
    cells = [names, *([cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(names))]
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def print_record(record: Mapping[str, Any]) -> None:
    """Print one record, a line for each field."""
    width = max(map(len, record), default=0)
    for name, value in record.items():
        click.echo(f"{name:<{width}}  {cell(value)}")


def cell(value: Any) -> str:
    """Write a value for a table."""
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ",".join(map(visible, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return visible(value)


def ipv4(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """Read an IPv4 address, or several."""
    return _each(_ipv4, value)


def network(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """Read an IPv4 network, or several."""
    return _each(_network, value)


def key(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """Read an address of the ledger, or several."""
    return _each(_key, value)


def status(names: Mapping[str, int]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a reader of a status: one of these names, or the number of one that has no name."""

    def read(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        word = value.lower().replace("_", "-")
        if word in names:
            return names[word]
        if word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255:
            return int(word)
        raise click.BadParameter(f"{value!r} is not one of {', '.join(names)}, or a number up to 255")

    return read


def _each(read: Callable[[str], Any], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(read, value))
    return None if value is None else read(value)


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise click.BadParameter(f"{text!r} is not an IPv4 address such as 198.51.100.7") from error


def _network(text: str) -> IPv4Network:
    try:
        if "/" in text:
            return IPv4Network(text)
    except ValueError as error:
        if str(error).endswith("has host bits set"):
            meant = IPv4Network(text, strict=False)
            raise click.BadParameter(f"{text!r} has host bits set: {meant} is the network") from error
    raise click.BadParameter(f"{text!r} is not an IPv4 network such as 203.0.113.0/26")


def _key(text: str) -> str:
    if not base58.is_key(text):
        raise click.BadParameter(f"{text!r} is not a key: the base58 text of 32 bytes is")
    return text
