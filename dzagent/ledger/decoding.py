"""Accounts decoded once, and read as what they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from dzagent.errors import DecodeError
from dzagent.ledger.accounts import Account, Device, ProgramConfig, User, decode
from dzagent.ledger.answers import Present, Seen

_A = TypeVar("_A", User, Device, ProgramConfig)


class DecodeCache:
    """Decodes an account only if its bytes changed: a device costs 0.2 ms, and there are hundreds."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[bytes, Account]] = {}

    def __call__(self, address: str, data: bytes) -> Account:
        cached = self._seen.get(address)
        if cached is not None and cached[0] == data:
            return cached[1]
        account = decode(data)
        self._seen[address] = (data, account)
        return account

    def keep(self, addresses: Collection[str]) -> None:
        """Forget all other addresses."""
        if self._seen.keys() != set(addresses):
            self._seen = {key: value for key, value in self._seen.items() if key in addresses}


def present(seen: Mapping[str, Seen]) -> dict[str, bytes]:
    """Return the bytes of those that are there."""
    return {key: one.data for key, one in seen.items() if isinstance(one, Present)}


def read_as(
    raw: Mapping[str, bytes], kind: type[_A], decoder: Callable[[str, bytes], Account]
) -> dict[str, _A]:
    """Decode those accounts that are of one type; the others are reported elsewhere."""
    found: dict[str, _A] = {}
    for address, data in raw.items():
        try:
            account = decoder(address, data)
        except DecodeError:
            continue
        if isinstance(account, kind):
            found[address] = account
    return found
