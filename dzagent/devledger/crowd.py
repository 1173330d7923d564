"""A population like mainnet's in 2026: other people's accounts, so that sizes and costs are real. Pure.

Counts fit the size of mainnet's whole answer (2.9 MB of JSON); addresses and content follow from their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from dzagent.devledger import base58, layout
from dzagent.devledger.node import Source, View
from dzagent.devledger.records import ACTIVATED, GRE_OVER_DIA, NO_KEY

DEVICES, USERS, PASSES, GROUPS, EXCHANGES = 110, 1500, 3150, 20, 32
BLOBS: tuple[tuple[int, int, int], ...] = (
    (3, 92, 32),
    (6, 240, 170),
    (12, 350, 226),
    (12, 8192, 4),
    (10, 110, 14),
    (17, 180, 106),
)
"""Accounts that no part of an agent reads: type, size in bytes, count. Locations, links, resources, others."""

_INTERFACES = 24
_EVERYBODY = int(IPv4Address("100.64.0.1"))
"""Where the client IPs of the crowd begin: a range that no host of a laboratory has."""


def population(scale: int = 1) -> dict[str, bytes]:
    """Return the accounts by address, `scale` times as many as on mainnet."""
    return {address("crowd", n): data for n, data in enumerate(_all(scale))}


def address(kind: str, number: int) -> str:
    """Return an address that follows from a name and a number."""
    return base58.encode(hashlib.sha256(f"{kind} {number}".encode()).digest())


def _all(scale: int) -> Iterator[bytes]:
    """Devices come first, then exchanges and groups, so that users can name them by number."""
    for n in range(DEVICES * scale):
        yield _device(n)
    for n in range(EXCHANGES * scale):
        yield _exchange(n)
    for n in range(GROUPS * scale):
        yield _group(n)
    for n in range(USERS * scale):
        yield _user(n, scale)
    for n in range(PASSES * scale):
        yield _pass(n)
    for kind, size, count in BLOBS:
        for n in range(count * scale):
            yield bytes([kind]) + hashlib.shake_256(f"{kind} {size} {n}".encode()).digest(size - 1)


def _owner(number: int) -> str:
    return address("owner", number % 14)


def _device(number: int) -> bytes:
    ends = [
        layout.Interface(
            f"Switch1/1/{n}",
            IPv4Network((int(IPv4Address("172.16.0.0")) + 64 * number + 2 * n, 31)),
            interface_type=2,
        )
        for n in range(_INTERFACES // 2)
    ]
    return layout.device(
        owner=_owner(number),
        index=100_000 + number,
        bump=255,
        location=address("location", number % 32),
        exchange=address("crowd", DEVICES + number % EXCHANGES),
        device_type=0,
        public_ip=IPv4Address(int(IPv4Address("198.18.0.1")) + 4 * (number % 30_000)),
        status=ACTIVATED,
        code=f"crw{number % 1000:03}-dz{number:03}",
        dz_prefixes=[IPv4Network((int(IPv4Address("148.51.120.0")) + 32 * number, 27))],
        metrics_publisher=address("publisher", number),
        contributor=_owner(number),
        mgmt_vrf="mgmt",
        interfaces=ends,
        reference_count=14,
        users=(14, 128),
        health=3,
        desired_status=ACTIVATED,
        counters=(10, 4, 96, 32, 0, 1, 8),
    )


def _exchange(number: int) -> bytes:
    return layout.exchange(
        owner=_owner(number),
        index=200_000 + number,
        bump=254,
        place=(50.0 + number % 40, 8.0 + number % 120),
        bgp_community=10_000 + number % 1000,
        status=ACTIVATED,
        code=f"xcr{number:03}",
        name=f"Metro {number}",
        reference_count=4,
        devices=(NO_KEY, NO_KEY),
    )


def _group(number: int) -> bytes:
    return layout.multicast_group(
        owner=_owner(number),
        index=300_000 + number,
        bump=253,
        tenant=NO_KEY,
        multicast_ip=IPv4Address(int(IPv4Address("233.84.180.0")) + number % 4096),
        max_bandwidth=10**9,
        status=ACTIVATED,
        code=f"crowd{number:03}",
        publishers=2,
        subscribers=40,
    )


def _user(number: int, scale: int) -> bytes:
    client = IPv4Address(_EVERYBODY + number)
    multicast = number % 5 == 0
    group = address("crowd", (DEVICES + EXCHANGES) * scale + number % GROUPS)
    return layout.user(
        owner=_owner(number),
        index=0 if number % 2 else 400_000 + number,
        bump=252,
        user_type=3 if multicast else 0,
        tenant=NO_KEY,
        device=address("crowd", number % (DEVICES * scale)),
        cyoa_type=GRE_OVER_DIA,
        client_ip=client,
        dz_ip=client,
        tunnel_id=500 + number % 4096,
        tunnel_net=IPv4Network((int(IPv4Address("169.254.0.0")) + 2 * (number % 32_768), 31)),
        status=ACTIVATED,
        publishers=[],
        subscribers=[group] if multicast else [],
        validator=address("validator", number),
        tunnel_endpoint=IPv4Address(0),
        tunnel_flags=0,
        bgp_status=1,
        bgp_times=(10**8 + number, 10**8 + number, 2 * 10**6 + number),
        feeds=(),
    )


def _pass(number: int) -> bytes:
    return layout.access_pass(
        owner=_owner(number),
        bump=251,
        kind=0,
        key=None,
        client_ip=IPv4Address(_EVERYBODY + number),
        payer=address("payer", number),
        last_access_epoch=2**64 - 1,
        connections=number % 2,
        status=number % 2,
        publish=(),
        subscribe=(),
        flags=0,
        tenants=(),
        users=(number % 2, 1, 0, 1),
    )


class Crowd:
    """A source with a population beside its own accounts; its own come first where both have an address."""

    def __init__(self, source: Source, others: Mapping[str, bytes]) -> None:
        self._source = source
        self._others = others
        self._own: Mapping[str, bytes] | None = None
        self._together: Mapping[str, bytes] = {}

    def view(self, commitment: str) -> View:
        """Return the ledger with everybody on it."""
        view = self._source.view(commitment)
        if view.accounts is not self._own:
            self._own = view.accounts
            self._together = dict(sorted({**self._others, **view.accounts}.items()))
        return replace(view, accounts=self._together)
