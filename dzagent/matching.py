"""Which user account stands for a service of this host, and what it means if none does. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeAlias

from dzagent.ledger.accounts import User
from dzagent.ledger.snapshot import Snapshot
from dzagent.model import Keep, Problem, ServiceName, UserType, Withdraw

ACTIVATED = 1

STATUS_NAMES = (
    "pending",
    "activated",
    "suspended",
    "being deleted",
    "rejected",
    "pending a ban",
    "banned",
    "updating",
    "out of credits",
)
"""User.status on the ledger; a number beyond these is not known and proves nothing."""

MAX_REPORTED = 16
"""Users reported one by one; more than one host can have."""

_USER_ACCOUNT = 7
_USER_TYPE_AT = 50
_CLIENT_IP_AT = slice(116, 120)


@dataclass(frozen=True, slots=True)
class Found:
    """The activated user that counts for a service."""

    account: str
    user: User
    kind: UserType


Matched: TypeAlias = Found | Withdraw | Keep


def match(snapshot: Snapshot, client_ip: IPv4Address, name: ServiceName) -> Matched:
    """Return the first activated user of a service, or what follows from there being none.

    A user that is readably not activated withdraws the service at once. No user withdraws it if the snapshot
    proves absence. Whatever cannot be read or understood keeps it.
    """
    users = [found for found in _users(snapshot, client_ip) if found.kind.service == name]
    activated = next((found for found in users if found.user.status == ACTIVATED), None)
    if activated is not None:
        return activated
    odd = next((found for found in users if not 0 <= found.user.status < len(STATUS_NAMES)), None)
    if odd is not None:
        return _keep_odd_status(odd, name)
    unreadable = _unreadable(snapshot, client_ip, name, sure=bool(users))
    if unreadable is not None:
        message = (
            f"account {unreadable} cannot be read and may be this host's user; the {name} service is kept."
        )
        return Keep(Problem("UnreadableUser", message, name, unreadable))
    if users:
        return Withdraw(f"user {users[0].account} is {STATUS_NAMES[users[0].user.status]}")
    if snapshot.complete:
        return Withdraw(f"no user for client IP {client_ip}")
    message = f"no {name} user for client IP {client_ip} was seen, but its absence is not proven yet; the service is kept."
    return Keep(Problem("AbsenceNotProven", message, name))


def user_problems(snapshot: Snapshot, client_ip: IPv4Address) -> tuple[Problem, ...]:
    """Report the users of this client IP that are left out: unknown types and duplicates."""
    found: list[Problem] = []
    first: dict[ServiceName, str] = {}
    for account, user in _of_client(snapshot, client_ip):
        kind = _kind(user)
        if kind is None:
            message = f"user {account} has user_type {user.user_type}: 0 to 3 are known; it is left out."
            found.append(Problem("UnknownUserType", message, account=account))
        elif user.status == ACTIVATED and first.setdefault(kind.service, account) != account:
            message = f"user {account} is a second activated {kind.service} user of {client_ip}: {first[kind.service]} is used."
            found.append(Problem("DuplicateUser", message, kind.service, account))
    return tuple(found[:MAX_REPORTED])


def _keep_odd_status(odd: Found, name: ServiceName) -> Keep:
    message = (
        f"user {odd.account} has status {odd.user.status}: 0 to {len(STATUS_NAMES) - 1} are known; "
        f"it is not activated, and the {name} service that works is kept."
    )
    return Keep(Problem("UnknownUserStatus", message, name, odd.account))


def _of_client(snapshot: Snapshot, client_ip: IPv4Address) -> Iterator[tuple[str, User]]:
    return ((account, user) for account, user in snapshot.users.items() if user.client_ip == client_ip)


def _users(snapshot: Snapshot, client_ip: IPv4Address) -> Iterator[Found]:
    for account, user in _of_client(snapshot, client_ip):
        kind = _kind(user)
        if kind is not None:
            yield Found(account, user, kind)


def _kind(user: User) -> UserType | None:
    return UserType(user.user_type) if user.user_type in set(UserType) else None


def _unreadable(snapshot: Snapshot, client_ip: IPv4Address, name: ServiceName, *, sure: bool) -> str | None:
    """Return an unreadable account that may be this host's user of a service.

    sure: only one that is so beyond doubt, since a readable user says otherwise.
    """
    named = _named(snapshot)
    for account in sorted(snapshot.unreadable):
        data = snapshot.raw.get(account)
        # Bytes speak for themselves: what other accounts call this one is then anybody's claim.
        if not data and account in named:
            continue
        # Without bytes the poller has vouched that the address is one of ours.
        if data is None or _may_be_ours(data, client_ip, name, sure=sure):
            return account
    return None


def _named(snapshot: Snapshot) -> frozenset[str]:
    """Return the addresses that readable accounts name as something else than a user."""
    names: set[str] = set()
    for user in snapshot.users.values():
        names.update((user.device_pk, user.tenant_pk, *user.publishers, *user.subscribers))
    names.update(device.exchange_pk for device in snapshot.devices.values())
    return frozenset(names)


def _may_be_ours(data: bytes, client_ip: IPv4Address, name: ServiceName, *, sure: bool) -> bool:
    if not data:
        return not sure
    if data[0] != _USER_ACCOUNT:
        return False
    ip, kind = data[_CLIENT_IP_AT], data[_USER_TYPE_AT : _USER_TYPE_AT + 1]
    if sure and (len(ip) < 4 or not kind):
        return False
    its_ip = client_ip.packed.startswith(ip)
    its_kind = not kind or kind[0] not in set(UserType) or UserType(kind[0]).service == name
    return its_ip and its_kind
