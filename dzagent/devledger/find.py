"""What a person names -> the account that is meant. Pure; every error says what there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import TypeVar

from dzagent.devledger.records import (
    CODE,
    USER_TYPES,
    Device,
    Exchange,
    Group,
    Pass,
    State,
    Tenant,
    User,
    name_of,
)
from dzagent.errors import InputError
from dzagent.ledger.jsonrpc import printable

N = TypeVar("N", Exchange, Device, Group, Tenant)

MAX_SHOWN = 12
"""Candidates that an error lists."""


def listed(names: Iterable[str]) -> str:
    """Write names for an error, the first few of many."""
    names = list(names)
    rest = len(names) - MAX_SHOWN
    return ", ".join(names[:MAX_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def named(items: Mapping[str, N], kind: str, code: str) -> tuple[str, N]:
    """Return the (address, record) that a code or an address names; raises InputError with the codes there are."""
    if code in items:
        return code, items[code]
    for address, item in items.items():
        if item.code == code:
            return address, item
    there = listed(item.code for item in items.values())
    hint = f"there are: {there}" if there else f"add one with `dzagent ledger {kind} add`"
    raise InputError(f"there is no {kind} {printable(code, 60)!r}; {hint}")


def free_code(items: Mapping[str, N], kind: str, code: str) -> str:
    """Check a code for a new record; raises InputError."""
    if not CODE.fullmatch(code):
        raise InputError(
            f"{printable(code, 60)!r} cannot be the code of the {kind}: use 1 to 32 letters, digits, '_', ':', '.', '-'"
        )
    if any(item.code == code for item in items.values()):
        raise InputError(
            f"{kind} {code} exists already: choose another code, or delete it with `dzagent ledger {kind} delete`"
        )
    return code


def label(user: User) -> str:
    """Return `CLIENT_IP:TYPE`, by which a user can be named."""
    return f"{user.client_ip}:{name_of(USER_TYPES, user.user_type)}"


def user(state: State, text: str) -> tuple[str, User]:
    """Return the user that an account, a client IP or `CLIENT_IP:TYPE` names; raises InputError."""
    found = state.users.get(text)
    if found is not None:
        return text, found
    ip, _, kind = text.partition(":")
    matches = [
        (account, item)
        for account, item in state.users.items()
        if str(item.client_ip) == ip and kind.lower() in {"", name_of(USER_TYPES, item.user_type).lower()}
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = listed(f"{account} ({label(item)})" for account, item in matches)
        raise InputError(
            f"{text} names {len(matches)} users: {several}; name one by its account or as CLIENT_IP:TYPE"
        )
    same_ip = [item for item in state.users.values() if str(item.client_ip) == ip]
    there = listed(label(item) for item in same_ip or state.users.values())
    hint = f"there are: {there}" if there else "add one with `dzagent ledger user add`"
    raise InputError(
        f"there is no user {printable(text, 60)!r} (an account, CLIENT_IP or CLIENT_IP:TYPE); {hint}"
    )


def access_pass(state: State, text: str) -> tuple[str, Pass]:
    """Return the pass that an account or a client IP names; raises InputError."""
    found = state.passes.get(text)
    if found is not None:
        return text, found
    matches = [(account, item) for account, item in state.passes.items() if str(item.client_ip) == text]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = listed(f"{account} (payer {item.payer})" for account, item in matches)
        raise InputError(f"{text} names {len(matches)} passes: {several}; name one by its account")
    there = listed(str(item.client_ip) for item in state.passes.values())
    hint = f"there are: {there}" if there else "add one with `dzagent ledger pass add`"
    raise InputError(f"there is no pass {printable(text, 60)!r} (an account or CLIENT_IP); {hint}")


def code_of(items: Mapping[str, N], address: str) -> str:
    """Return the code at an address, the address itself where there is none."""
    item = items.get(address)
    return address if item is None else item.code


def users_of(state: State, client_ip: IPv4Address) -> dict[str, User]:
    """Return the users of a client IP by account."""
    return {account: item for account, item in state.users.items() if item.client_ip == client_ip}
