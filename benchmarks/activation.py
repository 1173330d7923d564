"""How soon a change on the ledger is in the agent's hands: with a websocket, and with polls alone.

From the moment the development ledger's file has changed to the moment the loop is woken with the answer. What then
follows, a pass of the loop and its plan, is in benchmarks/passes.py.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.poll import CLIENT_IP, PROGRAM, serving
from dzagent.config import Config, Intervals, Paths
from dzagent.devledger import people
from dzagent.devledger.store import Store
from dzagent.ledgerside import LedgerSide
from dzagent.policy import Policy

CHANGES = {True: 20, False: 6}
PAUSE, POLL = 1.3, 4.0
"""Seconds between changes with push, and between polls without (10 in real life: the wait is that long, too)."""


def main() -> None:
    print(f"{'':>24} {'p50':>8} {'p99':>8}")
    for push in (True, False):
        times = sorted(measure(push=push))
        name = "with push" if push else f"a poll every {POLL:g} s"
        print(f"{name:>24} {statistics.median(times):>7.2f}s {times[-1]:>7.2f}s")


def measure(*, push: bool) -> list[float]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with serving(root / "ledger.json", 1, websocket=push) as (url, websocket, _):
            return follow(root, url, (websocket,) if push else (), CHANGES[push])


def follow(root: Path, url: str, websocket: tuple[str, ...], changes: int) -> list[float]:
    """Ban and unban the user; return how long the news took each time."""
    config = Config(
        network="localnet",
        program_id=PROGRAM,
        rpc=(url,),
        websocket=websocket,
        intervals=Intervals(poll=3600.0 if websocket else POLL),
        paths=Paths(state=root / "state", run=root / "run"),
    )
    news = threading.Condition()

    def tell() -> None:
        with news:
            news.notify_all()

    side = LedgerSide(config, Policy(), candidates=lambda: (CLIENT_IP,), on_news=tell)
    side.start()
    side.feed.enable(True)
    store = Store(root / "ledger.json", time.time)
    times: list[float] = []

    def set_status(to: int) -> None:
        store.change(lambda state: people.set_status(state, str(CLIENT_IP), to))

    def has(wanted: int) -> Callable[[], bool]:
        return lambda: status() == wanted

    def status() -> int:
        snapshot = side.feed.view().snapshot
        return next((user.status for user in snapshot.users.values()), 0) if snapshot else 0

    try:
        with news:
            news.wait_for(has(1), 60)
        time.sleep(6)
        for number in range(changes):
            wanted = 6 if number % 2 == 0 else 1
            set_status(wanted)
            start = time.monotonic()
            with news:
                news.wait_for(has(wanted), 60)
            times.append(time.monotonic() - start)
            time.sleep(PAUSE)
    finally:
        side.stop()
    return times


if __name__ == "__main__":
    main()
