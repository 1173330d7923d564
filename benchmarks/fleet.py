"""Ten thousand hosts against one RPC, on paper: when do they ask, and what comes together after an outage?

It runs the agent's own rules (ledger/schedule.py, the delays of ledger/push.py, the rests of ledger/endpoints.py) on
a simulated clock, with two endpoints of which one fails, refuses (429 with Retry-After) or is restarted.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from dzagent.errors import RateLimited, Unreachable
from dzagent.ledger.endpoints import Choice
from dzagent.ledger.push import STEADY_SECONDS, delay
from dzagent.ledger.schedule import Hints, Outcome, Pulse

HOSTS = 10_000
SECONDS = 1500
INTERVAL, SEARCH, JITTER = 10.0, 60.0, 0.2
POLL_BYTES, SEARCH_BYTES = 1600, 700
"""Compressed answers of one look-up and one search, as measured on mainnet's sizes."""

EDGES_EVERY, DEVICE_SECONDS, DEVICE_BYTES = 10, 120.0, 39_000
"""One host in ten is an EdgeFiltering user and lists all devices."""

_BUCKET = 30


@dataclass
class Server:
    """One endpoint: down, or refusing, in these spans of seconds; counts what it is asked in each second."""

    name: str
    down: tuple[tuple[float, float], ...] = ()
    limited: tuple[tuple[float, float], ...] = ()
    retry_after: float = 30.0
    requests: list[int] = field(default_factory=lambda: [0] * (SECONDS + 1))
    sent: list[int] = field(default_factory=lambda: [0] * (SECONDS + 1))
    connects: list[int] = field(default_factory=lambda: [0] * (SECONDS + 1))

    def is_down(self, now: float) -> bool:
        return any(start <= now < end for start, end in self.down)

    def ask(self, now: float, size: int) -> None:
        """Count a request; raise what a client would see."""
        self.requests[int(now)] += 1
        if self.is_down(now):
            raise Unreachable("refused")
        if any(start <= now < end for start, end in self.limited):
            raise RateLimited("HTTP 429", self.retry_after)
        self.sent[int(now)] += size


@dataclass
class Clock:
    """The simulated time, the same for all hosts."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Host:
    """One agent: its pulse, its choice of endpoint, its websocket."""

    def __init__(self, number: int, servers: list[Server], clock: Clock, chance: random.Random) -> None:
        self._servers, self._clock, self._chance = servers, clock, chance
        self._edge = number % EDGES_EVERY == 0
        self._pulse = Pulse()
        self._search_at = self._devices_at = 0.0
        self._choice = Choice(
            [server.name for server in servers], clock=clock, jitter=lambda: 1.0 + 0.2 * chance.random()
        )
        self.hints = Hints(clock, chance.random)
        self.polled_at = float("-inf")
        self.failures = 0
        self.connected_at: float | None = None

    def jitter(self) -> float:
        return self._chance.uniform(1 - JITTER, 1 + JITTER)

    def poll(self) -> float:
        """Poll; return when the next one is due."""
        now = self._clock.now
        self.hints.polled()
        self.polled_at = now
        ok = self._ask(POLL_BYTES)
        if ok and now >= self._search_at:
            self._search_at = now + SEARCH * self.jitter()
            ok = self._ask(SEARCH_BYTES)
        if ok and self._edge and now >= self._devices_at:
            self._devices_at = now + DEVICE_SECONDS * self.jitter()
            ok = self._ask(DEVICE_BYTES)
        self._pulse = self._pulse.then(Outcome.PROVEN if ok else Outcome.FAILED)
        return now + self._pulse.delay(INTERVAL, self.jitter())

    def _ask(self, size: int) -> bool:
        try:
            order = self._choice.order()
        except RateLimited:
            return False
        for index in order:
            try:
                self._servers[index].ask(self._clock.now, size)
            except (Unreachable, RateLimited) as error:
                self._choice.failed(index, error)
                continue
            self._choice.succeeded(index)
            return True
        return False

    def connect(self) -> float | None:
        """Try the websocket of the first server; return when to try again, None once connected."""
        now, server = self._clock.now, self._servers[0]
        server.connects[int(now)] += 1
        if not server.is_down(now):
            self.connected_at = now
            return None
        self.failures += 1
        return now + delay(self.failures - 1, self._chance.random())

    def cut(self) -> float:
        """Lose the websocket; return when to connect again."""
        now = self._clock.now
        if self.connected_at is not None and now - self.connected_at >= STEADY_SECONDS:
            self.failures = 0
        self.connected_at = None
        again = now + delay(self.failures, self._chance.random())
        self.failures += 1
        return again


class Simulation:
    """The hosts and what happens to them, in the order of time."""

    def __init__(self, servers: list[Server], hosts: int = HOSTS) -> None:
        self._chance = random.Random(1)  # noqa: S311 - a simulation that can be repeated, nothing secret
        self._clock = Clock()
        self._hosts = [Host(number, servers, self._clock, self._chance) for number in range(hosts)]
        self._turns = [0] * hosts
        self._events: list[tuple[float, int, str, int]] = []
        for number in range(hosts):
            start = self._chance.uniform(0, INTERVAL)
            self._push(start, number, "poll")
            self._push(start, number, "connect")
        for start, _ in servers[0].down:
            for number in range(hosts):
                self._push(start, number, "cut")

    def change(self, at: float, hosts: int) -> None:
        """Let the own accounts of so many hosts change at one moment."""
        for number in range(hosts):
            self._push(at, number, "change")

    def run(self) -> None:
        """Run to the end."""
        actions = {"poll": self._poll, "connect": self._connect, "cut": self._cut, "change": self._changed}
        while self._events:
            self._clock.now, number, what, turn = heapq.heappop(self._events)
            if what != "poll" or turn == self._turns[number]:
                actions[what](number)

    def _push(self, at: float, number: int, what: str) -> None:
        if at < SECONDS:
            heapq.heappush(self._events, (at, number, what, self._turns[number]))

    def _poll(self, number: int) -> None:
        self._turns[number] += 1
        self._push(self._hosts[number].poll(), number, "poll")

    def _connect(self, number: int) -> None:
        again = self._hosts[number].connect()
        if again is None:
            self._hint(number)
        else:
            self._push(again, number, "connect")

    def _cut(self, number: int) -> None:
        self._push(self._hosts[number].cut(), number, "connect")

    def _changed(self, number: int) -> None:
        if self._hosts[number].connected_at is not None:
            self._hint(number)

    def _hint(self, number: int) -> None:
        host = self._hosts[number]
        host.hints.hint(0, host.polled_at)
        if (at := host.hints.due()) is not None:
            self._turns[number] += 1
            self._push(at, number, "poll")


def peak(values: list[int], start: float, end: float) -> int:
    """Return the most in one second of a span."""
    return max(values[int(start) : int(end)])


def table(servers: list[Server]) -> None:
    names = [f"{server.name}: requests/s (peak)   MB/s" for server in servers]
    print(
        f"{'seconds':>11}  "
        + "  ".join(f"{name:>34}" for name in names)
        + f"  {'new websockets/s (peak)':>24}"
    )
    for start in range(0, SECONDS, _BUCKET):
        cells = []
        for server in servers:
            asked, sent = server.requests[start : start + _BUCKET], server.sent[start : start + _BUCKET]
            cells.append(
                f"{sum(asked) / _BUCKET:>15.0f} ({max(asked):>6}) {sum(sent) / _BUCKET / 1e6:>8.2f}".rjust(34)
            )
        opened = servers[0].connects[start : start + _BUCKET]
        print(
            f"{start:>5}-{start + _BUCKET:<5}  "
            + "  ".join(cells)
            + f"  {sum(opened) / _BUCKET:>15.0f} ({max(opened):>6})"
        )


def scenario(title: str, servers: list[Server], changed: int = 0) -> None:
    print(f"\n{title}")
    simulation = Simulation(servers)
    simulation.change(800.0, changed)
    simulation.run()
    table(servers)
    steady = sum(sum(server.requests[300:540]) for server in servers) / 240
    most = max(peak(server.requests, 700, SECONDS) for server in servers)
    print(
        f"steady {steady:.0f} requests/s; the most in any second from 700 s on: {most} ({most / steady:.1f} times)"
    )


SCENARIOS: dict[str, Callable[[], None]] = {
    "steady": lambda: scenario("Nothing happens", [Server("rpc-a"), Server("rpc-b")]),
    "restart": lambda: scenario(
        "The first RPC is down from 600 s to 690 s; the second one takes over, and gives back",
        [Server("rpc-a", down=((600.0, 690.0),)), Server("rpc-b")],
    ),
    "outage": lambda: scenario(
        "Both are down from 600 s to 900 s",
        [Server("rpc-a", down=((600.0, 900.0),)), Server("rpc-b", down=((600.0, 900.0),))],
    ),
    "limited": lambda: scenario(
        "Both ask for rest (429, Retry-After 30) from 600 s to 720 s",
        [Server("rpc-a", limited=((600.0, 720.0),)), Server("rpc-b", limited=((600.0, 720.0),))],
    ),
    "change": lambda: scenario(
        "At 800 s the users of 500 hosts change at one moment", [Server("rpc-a"), Server("rpc-b")], 500
    ),
}


def main() -> None:
    """Run the scenarios that are named, or all."""
    for name in sys.argv[1:] or SCENARIOS:
        SCENARIOS[name]()


if __name__ == "__main__":
    main()
