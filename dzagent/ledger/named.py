"""The accounts that users name (device, groups, tenant, and the device's exchange) and which bytes of them to use.

Pure. Nothing is ever dropped for being absent here: a user that names an account says that it exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dzagent.errors import DecodeError
from dzagent.ledger.accounts import NO_KEY, Account, Device, Exchange, MulticastGroup, Tenant, User
from dzagent.ledger.answers import Absent, Present, Seen, Unreadable
from dzagent.ledger.snapshot import Decoder, undecodable
from dzagent.model import Problem

Kinds: TypeAlias = Mapping[str, type[Account]]
"""Address -> the type that an account must have to be there."""

MAX_NAMED = 400
"""Addresses followed in one poll: a hostile user account could list a hundred thousand groups."""


@dataclass(frozen=True, slots=True)
class Named:
    """Bytes to use by address, and what is wrong with the others."""

    good: Mapping[str, bytes] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    unreadable: frozenset[str] = frozenset()


def named_by_users(users: Iterable[User]) -> dict[str, type[Account]]:
    """Return what users name, each once, at most MAX_NAMED; devices first, since nothing works without them."""
    users = list(users)
    kinds: dict[str, type[Account]] = {}
    for user in users:
        kinds.setdefault(user.device_pk, Device)
        kinds.setdefault(user.tenant_pk, Tenant)
    for user in users:
        for group in (*user.publishers, *user.subscribers):
            kinds.setdefault(group, MulticastGroup)
    kinds.pop(NO_KEY, None)
    return dict(list(kinds.items())[:MAX_NAMED])


def named_by_devices(devices: Iterable[Device]) -> dict[str, type[Account]]:
    """Return the exchanges of devices."""
    keys = [device.exchange_pk for device in devices if device.exchange_pk != NO_KEY]
    return dict.fromkeys(keys[:MAX_NAMED], Exchange)


def choose(before: Mapping[str, bytes], seen: Mapping[str, Seen], kinds: Kinds, decoder: Decoder) -> Named:
    """Take each account from the answer if it is sound, else its last good bytes, and say so."""
    good: dict[str, bytes] = {}
    problems: list[Problem] = []
    unreadable: set[str] = set()
    for address, kind in kinds.items():
        old = before.get(address)
        sight = seen.get(address, Absent(0))
        why = doubt(address, sight, kind, old, decoder)
        if why is None and isinstance(sight, Present):
            good[address] = sight.data
            continue
        if old is not None:
            good[address] = old
        elif not isinstance(sight, Absent):
            unreadable.add(address)
        problems.append(_problem(address, kind, sight, why or "", had_one=old is not None))
    return Named(good, tuple(problems), frozenset(unreadable))


def shrunk(new: Account, old: Account) -> bool:
    """Tell whether an account lost fields at its end: programs only ever add some, so its bytes were cut."""
    return bool(set(new.missing) - set(old.missing))


def doubt(address: str, seen: Seen, kind: type[Account], old: bytes | None, decoder: Decoder) -> str | None:
    """Say why what was seen must not be used as an account of this kind, None if it may.

    `old` are the last good bytes at the address: indexes never change, and accounts never lose fields.
    """
    if not isinstance(seen, Present):
        return seen.why if isinstance(seen, Unreadable) else "it is absent"
    try:
        account = decoder(address, seen.data)
        before = None if old is None or old == seen.data else decoder(address, old)
    except DecodeError as error:
        return str(error)
    if not isinstance(account, kind):
        return f"it is not a {kind.__name__} account"
    if before is None:
        return None
    # Addresses are derived from the index: another index is another account in the wrong place.
    if getattr(account, "index", None) != getattr(before, "index", None):
        return "another account's content is in its place"
    return "it was cut short" if shrunk(account, before) else None


def _problem(address: str, kind: type[Account], seen: Seen, why: str, *, had_one: bool) -> Problem:
    if not isinstance(seen, Absent):
        return undecodable(address, why)
    use = "its last known content stays in use" if had_one else "what names it cannot be provided"
    return Problem(
        "MissingAccount", f"{kind.__name__} {address} is not on the ledger; {use}.", account=address
    )
