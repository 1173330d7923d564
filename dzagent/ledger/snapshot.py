"""Accounts by address -> one typed picture of the ledger at a slot. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dzagent.errors import DecodeError, Unusable
from dzagent.ledger.accounts import (
    Account,
    Device,
    Exchange,
    GlobalConfig,
    MulticastGroup,
    ProgramConfig,
    Tenant,
    User,
    decode,
)
from dzagent.model import Problem

Decoder: TypeAlias = Callable[[str, bytes], Account]
"""Address and bytes -> account; raises DecodeError. The address lets a cache know what it saw before."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the ledger said at `slot`; mappings go from base58 address to account, in the order of the input.

    `unreadable` are addresses whose bytes could not be decoded: neither present nor absent.
    `complete` says that a user who is in neither `users` nor `unreadable` is proven absent.
    `raw` holds the bytes that all this was decoded from: build_snapshot makes the same picture of them.
    """

    slot: int
    genesis_hash: str
    config: GlobalConfig
    users: Mapping[str, User] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    groups: Mapping[str, MulticastGroup] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    exchanges: Mapping[str, Exchange] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    raw: Mapping[str, bytes] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    complete: bool = True
    program: ProgramConfig | None = None


def build_snapshot(
    accounts: Iterable[tuple[str, bytes]],
    *,
    slot: int = 0,
    genesis_hash: str = "",
    decoder: Decoder | None = None,
) -> Snapshot:
    """Decode accounts into a snapshot; raise Unusable without a readable GlobalConfig.

    An account that cannot be decoded becomes the Problem "UndecodableAccount"; types that provisioning does not
    need, known or not, are skipped. Raises Unusable if one address comes with two different contents, or if
    there are two GlobalConfigs: there is no telling which one is meant.
    """
    raw = _by_address(accounts)
    read = decoder or _decode
    decoded: dict[str, Account] = {}
    problems: list[Problem] = []
    for address, data in raw.items():
        try:
            decoded[address] = read(address, data)
        except DecodeError as error:
            problems.append(undecodable(address, str(error)))
    return Snapshot(
        slot=slot,
        genesis_hash=genesis_hash,
        config=_only_config(decoded),
        users={k: v for k, v in decoded.items() if isinstance(v, User)},
        devices={k: v for k, v in decoded.items() if isinstance(v, Device)},
        groups={k: v for k, v in decoded.items() if isinstance(v, MulticastGroup)},
        tenants={k: v for k, v in decoded.items() if isinstance(v, Tenant)},
        exchanges={k: v for k, v in decoded.items() if isinstance(v, Exchange)},
        problems=tuple(problems),
        raw=raw,
        unreadable=frozenset(raw.keys() - decoded.keys()),
        program=next((v for v in decoded.values() if isinstance(v, ProgramConfig)), None),
    )


def undecodable(address: str, why: str) -> Problem:
    """Report an account that exists but cannot be read; what was known of it before stays in use."""
    message = f"Account {address} cannot be read ({why.rstrip('.')}); nothing is changed because of it."
    return Problem("UndecodableAccount", message, account=address)


def _decode(_address: str, data: bytes) -> Account:
    return decode(data)


def _by_address(accounts: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    raw: dict[str, bytes] = {}
    for address, data in accounts:
        if raw.setdefault(address, data) != data:
            raise Unusable(f"The answer is not usable: it has two contents for account {address}.")
    return raw


def _only_config(decoded: Mapping[str, Account]) -> GlobalConfig:
    configs = [account for account in decoded.values() if isinstance(account, GlobalConfig)]
    if len(configs) != 1:
        found = "no readable" if not configs else "more than one"
        raise Unusable(f"The answer is not usable: it has {found} GlobalConfig account.")
    return configs[0]
