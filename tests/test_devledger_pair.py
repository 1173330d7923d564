"""The ledger's two servers: JSON-RPC and websockets on ports that follow each other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from dzagent.devledger.pair import MAX_PORT, start_pair
from dzagent.devledger.server import Listen
from dzagent.errors import InputError


@dataclass
class Ports:
    """A host's ports: which are taken, and which are given to who asks for any."""

    free: list[int]
    taken: set[int] = field(default_factory=set)


@dataclass
class Fake:
    ports: Ports
    port: int

    async def start(self) -> Listen:
        self.port = self.port or self.ports.free.pop(0)
        if self.port in self.ports.taken:
            raise InputError(f"cannot listen on {self.port}")
        self.ports.taken.add(self.port)
        return Listen("127.0.0.1", self.port)

    async def stop(self) -> None:
        self.ports.taken.remove(self.port)


def pair(ports: Ports, port: int = 0, tries: int = 20) -> tuple[int, int | None, str]:
    async def run() -> tuple[int, int | None, str]:
        _, where, pusher, told = await start_pair(
            lambda: Fake(ports, port),
            lambda listen: Fake(ports, listen.port),
            any_port=port == 0,
            tries=tries,
        )
        why = str(pusher) if isinstance(pusher, InputError) else ""
        return where.port, told.port if told else None, why

    return asyncio.run(run())


def test_of_any_port_one_is_taken_whose_next_is_free_as_well() -> None:
    ports = Ports(free=[33901, 33801, 33701], taken={33902, 33802})
    assert pair(ports) == (33701, 33702, "")
    assert ports.taken == {33902, 33802, 33701, 33702}


def test_the_port_that_was_named_is_kept_without_websockets() -> None:
    ports = Ports(free=[], taken={8900})
    assert pair(ports, 8899) == (8899, None, "cannot listen on 8900")
    assert ports.taken == {8899, 8900}


def test_the_tries_end_with_a_server_that_serves_alone() -> None:
    ports = Ports(free=[1001, 1003, 1005], taken={1002, 1004})
    assert pair(ports, tries=2) == (1003, None, "cannot listen on 1004")


def test_no_port_follows_the_last() -> None:
    port, told, why = pair(Ports(free=[]), MAX_PORT)
    assert (port, told) == (MAX_PORT, None)
    assert "no port after 65535" in why


def test_a_port_that_was_named_and_is_taken_is_an_error() -> None:
    with pytest.raises(InputError, match="8899"):
        pair(Ports(free=[], taken={8899}), 8899)
