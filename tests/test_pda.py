"""Derived addresses, against addresses that are known from the ledgers themselves."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from solders.pubkey import Pubkey

from dzagent.config import PROGRAM_IDS
from dzagent.errors import InputError
from dzagent.ledger.pda import (
    access_pass_address,
    config_address,
    program_config_address,
    tenant_address,
    user_address,
    user_index_address,
)

MAINNET, TESTNET = PROGRAM_IDS["mainnet-beta"], PROGRAM_IDS["testnet"]
IP = IPv4Address("198.51.100.7")
PAYER = str(Pubkey(bytes([7] * 32)))


def derive(*seeds: bytes) -> str:
    return str(Pubkey.find_program_address([b"doublezero", *seeds], Pubkey.from_string(MAINNET))[0])


def test_the_config_accounts_of_the_real_ledgers_are_found() -> None:
    assert config_address(MAINNET) == "7jiLhZvcERnAPKnobALqAKGZwe7BR23cUYvrkZCgp5Sy"
    assert config_address(TESTNET) == "8uA3su1WQPXvnhN5DhNueXrmizA8CY7dE5sj1vXkAWnf"
    assert program_config_address(MAINNET) == "AygqqJuwTuG8RQ3x1mT8jXcug3dbQKCLyXCKjC1yrxWD"


def test_a_user_stands_at_its_client_ip_in_network_order_and_its_type() -> None:
    assert user_address(MAINNET, IP, 3) == derive(b"user", bytes([198, 51, 100, 7]), b"\3")
    assert len({user_address(MAINNET, IP, kind) for kind in range(256)}) == 256


def test_an_older_user_stands_at_its_index_in_little_endian() -> None:
    assert user_index_address(MAINNET, 258) == derive(b"user", b"\2\1" + bytes(14))
    assert user_index_address(MAINNET, 2**128 - 1) == derive(b"user", b"\xff" * 16)


def test_tenants_and_access_passes_stand_at_their_names() -> None:
    assert tenant_address(MAINNET, "solana") == derive(b"tenant", b"solana")
    assert tenant_address(MAINNET, "x" * 32) == derive(b"tenant", b"x" * 32)
    assert access_pass_address(MAINNET, IP, PAYER) == derive(b"accesspass", IP.packed, bytes([7] * 32))


def test_what_gives_no_address_is_refused_and_never_a_panic() -> None:
    with pytest.raises(InputError, match="at most 32 bytes"):
        tenant_address(MAINNET, "\u00e9" * 17)
    with pytest.raises(InputError, match="at most 32 bytes"):
        tenant_address(MAINNET, "\ud800" * 17)
    for bad in ("", "0", MAINNET[:-1], "x" * 44):
        with pytest.raises(InputError, match="not an address"):
            config_address(bad)
        with pytest.raises(InputError, match="not an address"):
            access_pass_address(MAINNET, IP, bad)
    for number in (-1, 256):
        with pytest.raises(InputError, match=f"user_type {number}"):
            user_address(MAINNET, IP, number)
    for index in (-1, 2**128):
        with pytest.raises(InputError, match="out of range"):
            user_index_address(MAINNET, index)


def test_the_same_question_is_not_derived_twice() -> None:
    user_address(MAINNET, IP, 1)
    again = user_address(MAINNET, IP, 1)
    assert again is user_address(MAINNET, IP, 1)
