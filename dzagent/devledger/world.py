"""The ledger as a whole: a first state, its GlobalConfig and ProgramConfig, how the node presents itself, raw bytes.

Pure: randomness and time are passed in. Raises InputError.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Network
from typing import Any

from dzagent.devledger import addresses, bank, base58, checks
from dzagent.devledger.people import Done
from dzagent.devledger.records import Config, Node, Program, State, version_numbers
from dzagent.errors import InputError
from dzagent.ledger.jsonrpc import printable

MAX_ACCOUNT_BYTES = 1024 * 1024


def fresh(program_id: str, now: float, entropy: Callable[[int], bytes]) -> State:
    """Return a ledger with a GlobalConfig, a ProgramConfig and nothing else, under a genesis hash of its own.

    `now` is in unix seconds; `entropy(n)` gives n random bytes.
    """
    if not base58.is_key(program_id):
        raise InputError(f"{printable(program_id, 60)!r} is not a program id: the base58 text of 32 bytes is")
    config = addresses.derive(program_id, b"config")
    program = addresses.derive(program_id, b"programconfig")
    return State(
        program_id=program_id,
        genesis_hash=base58.encode(entropy(base58.KEY_BYTES)),
        payer=base58.encode(entropy(base58.KEY_BYTES)),
        slot=1,
        slot_time=now,
        config=Config(config.account, config.bump),
        program=Program(program.account, program.bump),
    )


def emptied(state: State) -> State:
    """Return the same ledger with nothing on it: the genesis hash stays and slots go on, so agents follow."""
    return State(
        program_id=state.program_id,
        genesis_hash=state.genesis_hash,
        payer=state.payer,
        slot=state.slot,
        slot_time=state.slot_time,
        next_index=state.next_index,
        config=Config(state.config.account, state.config.bump),
        program=Program(state.program.account, state.program.bump),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """New values for GlobalConfig and ProgramConfig; None leaves a field as it is."""

    local_asn: int | None = None
    remote_asn: int | None = None
    device_tunnel_block: IPv4Network | None = None
    user_tunnel_block: IPv4Network | None = None
    multicastgroup_block: IPv4Network | None = None
    multicast_publisher_block: IPv4Network | None = None
    version: str | None = None
    min_compatible: str | None = None


_PROGRAM_FIELDS = ("version", "min_compatible")


def set_config(state: State, new: Settings, *, force: bool = False) -> tuple[State, Done]:
    """Change GlobalConfig and ProgramConfig; users keep the tunnels that they have."""
    given = {f.name: value for f in fields(new) if (value := getattr(new, f.name)) is not None}
    _check_settings(given, force=force)
    in_program = {name: given.pop(name) for name in _PROGRAM_FIELDS if name in given}
    config, program = replace(state.config, **given), replace(state.program, **in_program)
    if (config, program) == (state.config, state.program):
        return state, Done(config.account, "the configuration is so already; nothing is changed")
    said = ", ".join(f"{name} {value}" for name, value in {**given, **in_program}.items())
    after = replace(state, config=config, program=program)
    return after, Done(config.account, f"the configuration is changed: {said}")


def _check_settings(given: Mapping[str, Any], *, force: bool) -> None:
    for name, value in given.items():
        if name.endswith("_asn"):
            checks.asn(value, name)
        elif name == "user_tunnel_block":
            checks.tunnel_block(value, force=force)
        elif name == "multicastgroup_block" and not value.subnet_of(checks.MULTICAST) and not force:
            raise InputError(f"multicastgroup_block {value} is not inside 224.0.0.0/4; {checks.INSIST}")
        elif name in _PROGRAM_FIELDS:
            try:
                version_numbers(value)
            except ValueError as error:
                raise InputError(f"{name}: {error}") from None


def set_node(
    state: State,
    *,
    healthy: bool | None = None,
    slots_behind: int | None = None,
    excluded: tuple[str, ...] | None = None,
) -> tuple[State, Done]:
    """Change how the node presents itself. A number of slots makes sense for an unhealthy node only."""
    node = state.node
    if healthy is not None:
        node = replace(node, healthy=healthy, slots_behind=None if healthy else slots_behind)
    elif slots_behind is not None:
        raise InputError("--behind goes with --unhealthy: a healthy node is not behind")
    if excluded is not None:
        node = replace(node, excluded=tuple(dict.fromkeys(_key(text) for text in excluded if text)))
    if node == state.node:
        return state, Done(state.program_id, "the node is so already; nothing is changed")
    return replace(state, node=node), Done(state.program_id, f"the node is {describe_node(node)} now")


def describe_node(node: Node) -> str:
    """Say how the node presents itself."""
    behind = "" if node.slots_behind is None else f", {node.slots_behind} slots behind"
    excluded = f"; does not list {', '.join(node.excluded)}" if node.excluded else ""
    return ("healthy" if node.healthy else f"unhealthy{behind}") + excluded


def put_account(state: State, account: str, text: str) -> tuple[State, Done]:
    """Put any bytes (base64 text) at an address, whatever stood there."""
    _key(account)
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"the data of account {account} is not base64") from None
    if not 0 < len(data) <= MAX_ACCOUNT_BYTES:
        raise InputError(
            f"the data of account {account} has {len(data)} bytes: 1 to {MAX_ACCOUNT_BYTES} can be put"
        )
    raw = {**state.raw, account: base64.b64encode(data).decode()}
    return replace(state, raw=raw), Done(account, f"account {account} holds {len(data)} bytes now")


def drop_account(state: State, account: str) -> tuple[State, Done]:
    """Take put bytes away again; what the ledger itself has at the address shows again."""
    if account not in state.raw:
        there = ", ".join(state.raw) or "none"
        raise InputError(
            f"no bytes were put at {printable(account, 60)!r} (there are: {there}); users, devices and the others "
            "have verbs of their own"
        )
    raw = {key: data for key, data in state.raw.items() if key != account}
    after = replace(state, raw=raw)
    shows = "shows again what the ledger has there" if account in bank.accounts(after) else "is gone"
    return after, Done(account, f"account {account} {shows}")


def _key(text: str) -> str:
    if not base58.is_key(text):
        raise InputError(f"{printable(text, 60)!r} is not an address: the base58 text of 32 bytes is")
    return text
