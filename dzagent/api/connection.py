"""One client of the server: what it may use, what it waits for, what it has been answered."""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of a response, and whether the connection ends with it."""

    data: bytes
    close: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may use. Times in seconds, sizes in bytes.

    connections: open at once. request: from the first byte (or the connect) to the whole request. idle: between
    requests. answer: for a client to read its answer. linger, discard: what is still read of a refused body.
    body: largest one that is waited for. readers: threads for requests that change nothing.
    """

    connections: int = 1000
    request: float = 10.0
    idle: float = 15.0
    answer: float = 10.0
    linger: float = 2.0
    discard: int = 1024 * 1024
    body: int = 64 * 1024
    readers: int = 2


class State(enum.Enum):
    """Whom a connection waits for: its client, or for a turn (QUEUED), or for a thread (BUSY)."""

    READING = "reading"
    QUEUED = "queued"
    BUSY = "busy"
    CLOSED = "closed"
    WRITING = "writing"
    LINGERING = "lingering"


WITH_CLIENT = frozenset({State.READING, State.WRITING, State.LINGERING})


@dataclass(eq=False, slots=True)
class Connection:
    """One client. `deadline` is in monotonic seconds; `pending` is what it has not read yet."""

    sock: socket.socket
    deadline: float = 0.0
    state: State = State.READING
    received: bytearray = field(default_factory=bytearray)
    pending: memoryview = field(default_factory=lambda: memoryview(b""))
    close: bool = False
    unread: bool = False
    continued: bool = False
    served: bool = False
    discarded: int = 0
    watched: int = 0
