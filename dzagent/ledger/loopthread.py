"""An event loop beside a program that blocks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from dzagent.errors import Unreachable

GRACE = 1.0
"""Seconds that a cancelled request may take to close its socket before it is left behind."""


T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own; a daemon thread, so that a stuck request cannot hold up the exit."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rpc", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Return what `work` returns; raise Unreachable when it has not ended after `timeout` seconds."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise Unreachable("did not let go of the connection in time") from None
        finally:
            future.cancel()

    def close(self) -> None:
        """End the loop; what still runs in it is cancelled."""
        with contextlib.suppress(Unreachable):
            self.run(_cancel_others(), GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GRACE)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
