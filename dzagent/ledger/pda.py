"""Addresses that follow from what is looked for (program derived addresses). Pure.

Seeds: malbeclabs/doublezero, smartcontract/programs/doublezero-serviceability/src/pda.rs. Only these are safe to
derive: groups, devices and exchanges of older ledgers stand at addresses that no seeds of today give.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address

from solders.pubkey import Pubkey

from dzagent.errors import InputError

MAX_SEED = 32
"""Bytes of one seed at most (solana_pubkey::MAX_SEED_LEN)."""

_PREFIX = b"doublezero"


def config_address(program_id: str) -> str:
    """Return the address of the program's GlobalConfig; raise InputError unless program_id is an address."""
    return _derive(program_id, b"config")


def program_config_address(program_id: str) -> str:
    """Return the address of the program's ProgramConfig; raise InputError as config_address."""
    return _derive(program_id, b"programconfig")


def user_address(program_id: str, client_ip: IPv4Address, user_type: int) -> str:
    """Return where a user of this client IP and type stands today (user_type 0 to 255); raise InputError."""
    return _derive(program_id, b"user", client_ip.packed, _number(user_type, 1, "user_type"))


def user_index_address(program_id: str, index: int) -> str:
    """Return where a user with an index (u128) stands, as older users do; raise InputError."""
    return _derive(program_id, b"user", _number(index, 16, "index"))


def tenant_address(program_id: str, code: str) -> str:
    """Return the address of the tenant with a code; raise InputError if it is longer than 32 bytes of UTF-8."""
    return _derive(program_id, b"tenant", code.encode(errors="surrogatepass"))


def access_pass_address(program_id: str, client_ip: IPv4Address, payer: str) -> str:
    """Return the address of the access pass of a client IP and the payer of its users; raise InputError."""
    return _derive(program_id, b"accesspass", client_ip.packed, bytes(_key(payer)))


# A poll derives the addresses of its users every time: up to eight client IPs with four types each.
@lru_cache(maxsize=1024)
def _derive(program_id: str, *seeds: bytes) -> str:
    for seed in seeds:
        # solders panics on a longer one.
        if len(seed) > MAX_SEED:
            raise InputError(
                f"{seed.decode(errors='replace')!r} is too long: at most {MAX_SEED} bytes are possible."
            )
    address, _bump = Pubkey.find_program_address([_PREFIX, *seeds], _key(program_id))
    return str(address)


def _key(text: str) -> Pubkey:
    try:
        return Pubkey.from_string(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not an address: the base58 text of 32 bytes is needed.") from error


def _number(value: int, size: int, what: str) -> bytes:
    if not 0 <= value < 2 ** (8 * size):
        raise InputError(f"{what} {value} is out of range: it has {size} bytes.")
    return value.to_bytes(size, "little")
