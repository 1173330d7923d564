"""Start the two servers of a ledger on two ports that follow each other: JSON-RPC, then websockets, as nodes do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from dzagent.devledger.server import Listen
from dzagent.errors import InputError

MAX_PORT = 65535
# Of any free port the next may be somebody's outgoing connection (Linux gives those the even ports, and servers the
# odd ones): so many ports are tried until a pair is free.
TRIES = 20


class Server(Protocol):
    """What listens: start returns where, and raises InputError if it cannot."""

    async def start(self) -> Listen: ...

    async def stop(self) -> None: ...


R = TypeVar("R", bound=Server)
P = TypeVar("P", bound=Server)


async def start_pair(
    rpc: Callable[[], R], pushing: Callable[[Listen], P], *, any_port: bool, tries: int = TRIES
) -> tuple[R, Listen, P | InputError, Listen | None]:
    """Start one of `rpc`, and one of `pushing` on its next port; with `any_port` until a pair was free.

    Where the next port cannot be had, the third is why, and `rpc` serves alone. Raises InputError if `rpc` cannot.
    """
    server = rpc()
    where = await server.start()
    try:
        if where.port == MAX_PORT:
            raise InputError(
                f"there is no port after {MAX_PORT} for websockets; choose a place with --websocket"
            )
        pusher = pushing(Listen(where.host, where.port + 1))
        return server, where, pusher, await pusher.start()
    except InputError as error:
        if not any_port or tries <= 1:
            return server, where, error, None
    await server.stop()
    return await start_pair(rpc, pushing, any_port=any_port, tries=tries - 1)
