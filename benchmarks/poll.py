"""What a poll costs: ours by address, and a full fetch with our decoder, on a ledger like mainnet's and ten times that.

CPU is user and system time of the process; memory is its greatest size above what it was before the first poll; the
server is the development ledger, in Python: its time is a ratio, not a promise about a real node.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from dzagent.config import PROGRAM_IDS
from dzagent.devledger import fleet, people
from dzagent.devledger.records import State
from dzagent.devledger.store import Store
from dzagent.ledger.poller import DirectPoller
from dzagent.ledger.rpc import Rpc
from dzagent.model import UserType

CLIENT_IP = IPv4Address("198.51.100.7")
PROGRAM = PROGRAM_IDS["localnet"]
POLLS = {"direct": 300, "full": 10}
WARM_UP = 3
SECONDS_A_DAY, POLL_SECONDS, SEARCH_SECONDS = 86400, 10, 60


@dataclass(frozen=True, slots=True)
class Result:
    """One way of polling on one population; times in milliseconds, sizes in bytes, per poll."""

    mode: str
    scale: int
    cpu: float
    wall: float
    received: float
    sent: float
    server_cpu: float
    peak: float


def main() -> None:
    if len(sys.argv) > 1:
        mode, scale, url, server = sys.argv[1:]
        print(json.dumps(asdict(measure(mode, int(scale), url, int(server)))))
        return
    results = [result for scale in (1, 10) for result in on_population(scale)]
    show(results)
    print()
    search = daily(results[0])
    print(f"a day of steady polls, one search a minute among them: {search / 1e6:.1f} MB received")


def on_population(scale: int) -> Iterator[Result]:
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(Path(directory) / "ledger.json", scale) as (url, _, pid),
    ):
        for mode in POLLS:
            command = [sys.executable, "-m", "benchmarks.poll", mode, str(scale), url, str(pid)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            yield Result(**json.loads(done.stdout))


def add_user(state: State) -> tuple[State, None]:
    """Put a device and a user for CLIENT_IP on the ledger."""
    state, _ = fleet.add_exchange(state, "xfra", "Frankfurt", (50.1, 8.6))
    state, _ = fleet.add_device(
        state, "dev1", IPv4Address("192.0.2.1"), [IPv4Network("203.0.113.0/29")], exchange="xfra"
    )
    state, _ = people.add_user(state, people.NewUser(CLIENT_IP, UserType.IBRL, "dev1"))
    return state, None


@contextlib.contextmanager
def serving(path: Path, scale: int, *, websocket: bool = False) -> Iterator[tuple[str, str, int]]:
    """Serve a populated ledger; yields its URL, that of its websocket ("" for none) and the process."""
    push = "127.0.0.1:0" if websocket else "none"
    words = ["ledger", "serve", "--listen", "127.0.0.1:0", "--websocket", push, "--json"]
    command = [sys.executable, "-m", "dzagent.cli.main", *words, "--state", str(path)]
    process = subprocess.Popen([*command, "--population", str(scale)], stdout=subprocess.PIPE, text=True)
    try:
        text = ""
        while not text.rstrip().endswith("}"):
            if process.stdout is None or not (line := process.stdout.readline()):
                raise SystemExit("the development ledger did not start")
            text += line
        Store(path, time.time).change(add_user)
        document = json.loads(text)
        yield document["url"], document["websocket"] or "", process.pid
    finally:
        process.terminate()
        process.wait()


def measure(mode: str, scale: int, url: str, server: int) -> Result:
    """Poll in this process, which does nothing else."""
    rpc = Rpc([url], timeout=120.0, budget=10**9)
    poller = DirectPoller(rpc, PROGRAM, full_fetch=mode == "full")
    base = resident("VmRSS")
    for _ in range(WARM_UP):
        time.sleep(0.5)  # slots go on
        snapshot = poller.poll([CLIENT_IP])
    if not (snapshot.users and snapshot.complete):
        raise SystemExit(f"the poll found {len(snapshot.users)} users")
    count = POLLS[mode]
    traffic, cpu, wall, served = rpc.traffic, time.process_time(), time.perf_counter(), cpu_of(server)
    for _ in range(count):
        poller.poll([CLIENT_IP])
    now = rpc.traffic
    return Result(
        mode=mode,
        scale=scale,
        cpu=(time.process_time() - cpu) / count * 1000,
        wall=(time.perf_counter() - wall) / count * 1000,
        received=(now.received - traffic.received) / count,
        sent=(now.sent - traffic.sent) / count,
        server_cpu=(cpu_of(server) - served) / count * 1000,
        peak=resident("VmHWM") - base,
    )


def resident(what: str) -> int:
    """Return this process's memory in bytes: VmRSS now, VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {what}")


def cpu_of(pid: int) -> float:
    """Return user and system seconds of a process (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def daily(direct: Result) -> float:
    """Return bytes received in a day: a poll every 10 s, and 700 bytes for the search of every minute."""
    return SECONDS_A_DAY / POLL_SECONDS * direct.received + SECONDS_A_DAY / SEARCH_SECONDS * 700


def show(results: list[Result]) -> None:
    head = ("population", "poll", "CPU ms", "wall ms", "received", "sent", "server CPU ms", "peak memory")
    print("{:>10} {:>7} {:>9} {:>9} {:>11} {:>7} {:>14} {:>12}".format(*head))
    for one in results:
        print(
            f"{one.scale:>9}x {one.mode:>7} {one.cpu:>9.2f} {one.wall:>9.2f} {one.received:>9.0f} B {one.sent:>5.0f} B "
            f"{one.server_cpu:>14.2f} {one.peak / 1e6:>9.1f} MB"
        )
    for scale in sorted({one.scale for one in results}):
        direct, full = (one for one in results if one.scale == scale)
        print(
            f"{scale:>9}x full / direct: CPU {full.cpu / direct.cpu:.0f}, received {full.received / direct.received:.0f}, "
            f"server {full.server_cpu / max(direct.server_cpu, 0.01):.0f}"
        )


if __name__ == "__main__":
    main()
