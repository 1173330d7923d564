"""The latest wish wins: file, running state and answers agree after a thousand calls, whatever the ledger does."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from dzagent.api.app import create_app
from dzagent.feed import LedgerFeed, Timing
from dzagent.ledger.poller import Cost
from dzagent.ledger.snapshot import Snapshot
from dzagent.state import read_intent
from dzagent.wake import Wake, WakeSocket
from tests.service_fakes import CLIENT, IBRL, snapshot
from tests.test_reconcile import World

CALLS = 1000
LIMIT = 30.0


class SlowPoller:
    """A ledger that answers when it is let."""

    cost = Cost()
    refusal = ""

    def __init__(self) -> None:
        self.answering = threading.Event()

    def poll(self, _client_ips: Sequence[IPv4Address]) -> Snapshot:
        self.answering.wait(LIMIT)
        return snapshot(IBRL)

    def forget(self) -> None:
        """Nothing is remembered."""


def until(what: Callable[[], bool]) -> None:
    """Wait for a condition, with a limit that only a broken program reaches."""
    end = time.monotonic() + LIMIT
    pause = threading.Event()
    while not what():
        assert time.monotonic() < end, "it never came true"
        pause.wait(0.005)


def test_a_thousand_random_calls_during_a_slow_fetch_end_in_agreement(tmp_path: Path) -> None:
    world, poller, wake = World(tmp_path), SlowPoller(), Wake()
    feed = LedgerFeed(
        poller,
        candidates=lambda: [CLIENT],
        on_news=lambda: wake.set("ledger"),
        publish=lambda _: None,
        resolve=frozenset,
        endpoint=lambda: "node",
        interval=0.01,
        timing=Timing(time.time, time.monotonic, lambda: 1.0),
    )
    world.feed = feed  # type: ignore[assignment] # the real one in the place of the fake
    world.restart()
    sock = WakeSocket(world.config.paths.wake, wake)
    stopping = threading.Event()
    loop = threading.Thread(target=world.loop.run, args=(wake, stopping.is_set))
    client = create_app(world.config).test_client()
    chance = random.Random(7)
    sock.start()
    feed.start()
    loop.start()
    try:
        enabled = False
        for number in range(CALLS):
            enabled = chance.random() < 0.5
            answer = client.post("/enable" if enabled else "/disable")
            assert answer.json == {"status": "ok"}
            if number == CALLS // 2:
                poller.answering.set()
        intent = read_intent(world.config.paths.intent)
        assert intent is not None
        assert intent.enabled is enabled
        until(lambda: json.loads(world.config.paths.status.read_text())["enabled"] is enabled)
        until(lambda: ("doublezero0" in world.kernel.links) is enabled)
        assert client.get("/v2/status").json["reconciler_enabled"] is enabled  # type: ignore[index] # a JSON object
        client.post("/disable")
        until(lambda: "doublezero0" not in world.kernel.links)
    finally:
        stopping.set()
        wake.set("stop")
        loop.join(LIMIT)
        feed.stop()
        sock.stop()
