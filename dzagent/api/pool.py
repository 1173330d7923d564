"""Threads that answer requests, and whose turn it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dzagent.api.connection import Answer, Connection, State


@dataclass(frozen=True, slots=True)
class Job:
    """A whole request and whose it is."""

    connection: Connection
    request: bytes


class Pool:
    """Threads for one kind of request, and who waits for them.

    The first request of a connection and later ones take turns: a client that sends a thousand in a row waits for
    itself, and nobody waits for it.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._queues: tuple[deque[Job], deque[Job]] = (deque(), deque())
        self._turn = 0

    def put(self, job: Job) -> None:
        """Let a request wait for its turn."""
        self._queues[job.connection.served].append(job)

    def next(self) -> Job | None:
        """Return whose turn it is, None if nobody waits or no thread is free."""
        if not self._free:
            return None
        for which in (self._turn, 1 - self._turn):
            queue = self._queues[which]
            while queue:
                job = queue.popleft()
                if job.connection.state is State.QUEUED:  # and not dropped while it waited
                    self._turn = 1 - which
                    return job
        return None

    def run(self, work: Callable[[], Answer]) -> Future[Answer]:
        """Use a free thread; `release` gives it back."""
        self._free -= 1
        return self._executor.submit(work)

    def release(self) -> None:
        """A thread has done its work."""
        self._free += 1

    def close(self) -> None:
        """Start nothing more; what runs goes on."""
        self._executor.shutdown(wait=False, cancel_futures=True)
