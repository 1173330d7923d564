"""Addresses of accounts: program derived, with the seeds of the serviceability program. Effects: none.

solders is imported late: only making an account needs it, and serving does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

_PREFIX = b"doublezero"


@dataclass(frozen=True, slots=True)
class Place:
    """An address and the bump that the account there holds."""

    account: str
    bump: int


def derive(program_id: str, *seeds: bytes) -> Place:
    """Return the program derived address for these seeds, after the program's own prefix."""
    from solders.pubkey import Pubkey

    address, bump = Pubkey.find_program_address([_PREFIX, *seeds], Pubkey.from_string(program_id))
    return Place(str(address), bump)


def indexed(program_id: str, kind: str, index: int) -> Place:
    """Return where the account number `index` of a kind (device, exchange, multicastgroup, user) stands."""
    return derive(program_id, kind.encode(), index.to_bytes(16, "little"))


def user(program_id: str, client_ip: IPv4Address, user_type: int) -> Place:
    """Return where a user stands that was made for its client IP and type."""
    return derive(program_id, b"user", client_ip.packed, bytes([user_type]))


def tenant(program_id: str, code: str) -> Place:
    """Return where a tenant stands."""
    return derive(program_id, b"tenant", code.encode())


def access_pass(program_id: str, client_ip: IPv4Address, payer: str) -> Place:
    """Return where the access pass of a payer for a client IP stands."""
    from solders.pubkey import Pubkey

    return derive(program_id, b"accesspass", client_ip.packed, bytes(Pubkey.from_string(payer)))
