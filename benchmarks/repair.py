"""How long a repair takes: from somebody's deletion to the presence of the object, as the kernel's own events tell.

Needs root (a namespace of the running kernel; where that has no GRE a vxlan link stands in for it). The agent is the
real loop with the real watch. Both times are stamps of one `ip -ts monitor`, so that nothing of the measuring is
measured. `contested.after` is above the number of deletions, but in the run called "fight", which shows the default
limiting one. Figures are of a machine that does nothing else: the load is printed beside them.

`python -m benchmarks.repair [--rounds 100] [--sizes 20,200,10000] [--part kinds,costs,storms,fight]`
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, cast

from dzagent.policy import Contested, Policy
from e2e.lab.errors import LabError
from e2e.lab.wait import wait_for
from e2e.lab.watching import WatchedAgent, in_namespace, learned_routes, watched_agent

SOURCE = IPv4Address("148.51.0.9")
PREFIX = "148.51.120.0/21"
PARTS = ("kinds", "costs", "storms", "fight")
_STAMP = re.compile(r"^\[([0-9T:.-]+)\](.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """A kind of object: how it is deleted (by round), and what events say that it is gone and that it is back."""

    name: str
    delete: Callable[[int], str]
    gone: Callable[[int], str]
    back: Callable[[int], str]


def _learned(n: int) -> str:
    return f"198.18.0.{1 + n % 16}"


def _same(text: str) -> Callable[[int], str]:
    return lambda _: text


_RULES = (
    f"rule del priority 100 to {PREFIX} table 100\nrule del priority 101 from {PREFIX} table 101",
    rf"Deleted 101:\tfrom {PREFIX}",
    rf"^101:\tfrom {PREFIX}",
)
KINDS = (
    Kind("link", _same("link delete doublezero0"), _same(r"Deleted \d+: doublezero0: "), _same(r"^\d+: doublezero0: ")),
    Kind(
        "address",
        _same("addr del 169.254.0.5/31 dev doublezero0"),
        _same(r"Deleted \d+: doublezero0 .*169\.254\.0\.5/31"),
        _same(r"^\d+: doublezero0 .*169\.254\.0\.5/31"),
    ),
    Kind(
        "route",
        _same("route del default table 101 proto 210"),
        _same(r"Deleted default .*table 101"),
        _same(r"^default .*table 101"),
    ),
    Kind(
        "rule",
        _same(f"rule del priority 100 to {PREFIX} table 100"),
        _same(rf"Deleted 100:\tfrom all to {PREFIX}"),
        _same(rf"^100:\tfrom all to {PREFIX}"),
    ),
    Kind("pair of rules", _same(_RULES[0]), _same(_RULES[1]), _same(_RULES[2])),
    Kind(
        "learned route",
        lambda n: f"route del {_learned(n)} table 100 proto 210",
        lambda n: rf"Deleted {re.escape(_learned(n))} ",
        lambda n: rf"^{re.escape(_learned(n))} ",
    ),
)  # fmt: skip


@contextmanager
def monitor(agent: WatchedAgent) -> Iterator[Callable[[], list[tuple[float, str]]]]:
    """Collect the kernel's events with their times (unix seconds)."""
    with tempfile.NamedTemporaryFile(prefix="dzagent-monitor-") as log:
        command = [
            "ip",
            "-netns",
            agent.net.name,
            "-ts",
            "-o",
            "-4",
            "monitor",
            "link",
            "address",
            "route",
            "rule",
        ]
        process = subprocess.Popen(command, stdout=log, stdin=subprocess.DEVNULL)
        time.sleep(0.3)

        def read() -> list[tuple[float, str]]:
            text = Path(log.name).read_text(encoding="utf-8", errors="replace")
            return [(datetime.fromisoformat(m[1]).timestamp(), m[2].strip()) for m in _STAMP.finditer(text)]

        try:
            yield read
        finally:
            process.kill()
            process.wait()


def repair_ms(agent: WatchedAgent, kind: Kind, n: int) -> float:
    """Delete, wait for the repair; return the milliseconds between the two events."""
    with monitor(agent) as events:
        # on a busy machine the last repair may still go on
        wait_for("the object", lambda: agent.net("ip", ["-batch", "-"], kind.delete(n) + "\n").code == 0, 60)

        def both() -> list[float]:
            found = events()
            gone = next((at for at, text in found if re.search(kind.gone(n), text)), None)
            back = [
                at for at, text in found if gone is not None and at >= gone and re.search(kind.back(n), text)
            ]
            return back if gone is None else [at - gone for at in back]

        return wait_for(f"the repair of a {kind.name}", both, 60)[0] * 1000


def table_ms(agent: WatchedAgent) -> float:
    """Delete the nftables table; return the milliseconds between the kernel's messages of that and of the next change."""
    with in_namespace(agent.net.name) as generations:
        generations.settimeout(60)
        times: list[float] = []

        def read() -> None:
            with suppress(TimeoutError):
                while len(times) < 2:
                    generations.recv(4096)
                    times.append(time.monotonic())

        reader = threading.Thread(target=read)
        reader.start()
        if agent.nft("delete", "table", "inet", "dzagent").code != 0:
            raise LabError("the table inet dzagent is not there")
        reader.join()
    if len(times) < 2 or agent.nft("list", "table", "inet", "dzagent").code != 0:
        raise LabError("the table inet dzagent did not come back")
    return (times[1] - times[0]) * 1000


def percentiles(values: list[float]) -> str:
    """Return median, 99th percentile and worst of milliseconds."""
    values = sorted(values)
    return f"{values[len(values) // 2]:8.1f} {values[min(len(values) - 1, int(len(values) * 0.99))]:8.1f} {values[-1]:8.1f}"


def kinds(agent: WatchedAgent, size: int, rounds: int) -> None:
    """Print the times of every kind at one size."""
    print(f"\n{size} learned routes, {rounds} deletions a kind, ms: median, p99, worst")
    for kind in KINDS:
        times = []
        for n in range(rounds):
            agent.calm(0.05)
            times.append(repair_ms(agent, kind, n))
            whole(agent, size)
        print(f"  {kind.name:<16} {percentiles(times)}", flush=True)
    table(agent, rounds)


def table(agent: WatchedAgent, rounds: int) -> None:
    """Print the times of the nftables table, where there is one."""
    if not agent.generations.healthy:
        print("  nftables         not measured: it cannot be listened to here")
        return
    times = []
    for _ in range(rounds):
        agent.calm(0.05)
        times.append(table_ms(agent))
    print(f"  {'nftables table':<16} {percentiles(times)}", flush=True)


def whole(agent: WatchedAgent, size: int) -> None:
    """Wait until every learned route is there (again)."""

    def there() -> bool:
        done = agent.net("ip", ["-4", "route", "show", "table", "100"])
        return done.stdout.count(b"\n") >= size

    wait_for("all routes", there, 60)


def used(agent: WatchedAgent, *, reads: bool = True) -> float:
    """Return the seconds of a core that the agent has used: its two threads, the monitor, and what it ran (`reads`)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = agent.watch._child  # noqa: SLF001 - a benchmark looks
    files = [f"/proc/self/task/{thread.native_id}/stat" for thread in agent.threads]
    files += [] if child is None else [f"/proc/{child.pid}/stat"]
    ticks = 0
    for file in files:
        words = Path(file).read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK") + ((ended.ru_utime + ended.ru_stime) if reads else 0.0)


def costs(agent: WatchedAgent, size: int, seconds: float = 20.0) -> None:
    """Print what looks cost, and an idle while; writes are counted by watching the kernel."""
    agent.calm(1)
    with monitor(agent) as events:
        before, passes = used(agent), len(agent.passes)
        time.sleep(seconds)
        idle = used(agent) - before
        print(
            f"  idle {seconds:.0f} s: {idle / seconds * 100:.2f} % of a core, {len(agent.passes) - passes} passes"
        )
        times = [one_pass(agent, "a look") for _ in range(20)]
        print(f"  pass without work                {percentiles(times)} ms")
        times = [one_pass(agent, "resync") for _ in range(10)]
        print(f"  full resync of {size:>6} routes     {percentiles(times)} ms")
        own = [
            text
            for _, text in events()
            if "proto dzagent" in text or "proto 210" in text or "doublezero0" in text
        ]
        print(f"  writes seen by the kernel during all this: {len(own)}", flush=True)


def one_pass(agent: WatchedAgent, reason: str) -> float:
    """Wake the loop; return the milliseconds of its pass."""
    passes = len(agent.passes)
    agent.wake.set(reason)
    wait_for("a pass", lambda: len(agent.passes) > passes, 30)
    return agent.passes[-1] * 1000


class Storm(threading.Thread):
    """Foreign changes at a rate, in a thread: `lines(n)` is the n-th piece of a batch of `ip`."""

    def __init__(self, agent: WatchedAgent, rate: int, lines: Callable[[int], str]) -> None:
        super().__init__(daemon=True)
        self._rate, self._lines, self.ended = rate, lines, threading.Event()
        command = ["ip", "-netns", agent.net.name, "-force", "-batch", "-"]
        self._ip = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.sent = 0

    def run(self) -> None:
        """Write until told to end."""
        pipe = cast("IO[str]", self._ip.stdin)
        began = time.monotonic()
        while not self.ended.wait(0.01):
            due = int((time.monotonic() - began) * self._rate)
            pipe.write("".join(map(self._lines, range(self.sent, due))))
            pipe.flush()
            self.sent = due
        pipe.close()
        self._ip.wait()

    def stop(self) -> None:
        """End it."""
        self.ended.set()
        self.join()


def _foreign(n: int) -> str:
    there = f"10.{n // 512 % 256}.{n // 2 % 256}.0/24 via 198.51.100.1 dev eth0 proto 12"
    return f"route {'del' if n % 2 else 'add'} {there}\n"


def _links(n: int) -> str:
    return f"link set eth0 alias storm{n}\n"


def storms(agent: WatchedAgent, rounds: int) -> None:
    """Print what foreign storms cost, and how long repairs take meanwhile."""
    print(
        "\nforeign storms: share of a core (agent and monitor), memory, repairs of a learned route and of a rule"
    )
    for name, rate, lines in (
        ("5,000 routes/s", 5000, _foreign),
        ("500 link changes/s", 500, _links),
    ):
        agent.calm(0.3)
        storm = Storm(agent, rate, lines)
        storm.start()
        time.sleep(2)
        _print_storm(agent, name, storm, rounds)
        storm.stop()
    _rewriting(agent, rounds)
    _million(agent, rounds)


def _print_storm(agent: WatchedAgent, name: str, storm: Storm | None, rounds: int) -> None:
    memory = _memory()
    before, at, passes, began = used(agent), storm.sent if storm else 0, len(agent.passes), time.monotonic()
    time.sleep(10)
    seconds = time.monotonic() - began
    share = (used(agent) - before) / seconds * 100
    print(
        f"  {name:<28} {((storm.sent if storm else 0) - at) / seconds:7.0f}/s {share:5.1f} % , "
        f"{len(agent.passes) - passes} passes, memory {_memory() - memory:+d} KiB, overruns {agent.watch.view().overruns}"
    )
    for kind in (KINDS[5], KINDS[3]):
        times = [repair_ms(agent, kind, n) for n in range(rounds)]
        print(f"    {kind.name:<26} {percentiles(times)} ms", flush=True)


def _rewriting(agent: WatchedAgent, rounds: int) -> None:
    """Rewrite an nft set of 50,000 elements again and again."""
    enter = ["ip", "netns", "exec", agent.net.name, "nft", "-f", "-"]
    elements = ",".join(f"20.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(50_000))
    make = "add table inet foreign\nadd set inet foreign s { type ipv4_addr; }\n"
    text = f"flush set inet foreign s\nadd element inet foreign s {{ {elements} }}\n"
    if subprocess.run(enter, input=make, text=True, capture_output=True, check=False).returncode != 0:
        print("  nft is not there: no set was rewritten")
        return
    ended, count = threading.Event(), [0]

    def rewrite() -> None:
        while not ended.is_set():
            subprocess.run(enter, input=text, text=True, capture_output=True, check=False)
            count[0] += 1

    thread = threading.Thread(target=rewrite, daemon=True)
    thread.start()
    before, began, passes = used(agent, reads=False), time.monotonic(), len(agent.passes)  # nft is not ours
    time.sleep(10)
    seconds = time.monotonic() - began
    share = (used(agent, reads=False) - before) / seconds * 100
    print(
        f"  50,000-element set rewritten {count[0] / seconds:7.1f}/s {share:5.1f} %, {len(agent.passes) - passes} passes"
    )
    for kind in (KINDS[5], KINDS[3]):
        times = [repair_ms(agent, kind, n) for n in range(rounds)]
        print(f"    {kind.name:<26} {percentiles(times)} ms", flush=True)
    ended.set()
    thread.join()


def _million(agent: WatchedAgent, rounds: int, count: int = 1_000_000) -> None:
    """Put a million foreign routes into the main table."""
    with tempfile.NamedTemporaryFile("w", prefix="dzagent-routes-", suffix=".batch") as batch:
        for n in range(count):
            a = 0x14000000 + n * 256
            batch.write(
                f"route add {a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.0/24 via 198.51.100.1 dev eth0 proto 12\n"
            )
        batch.flush()
        began = time.monotonic()
        subprocess.run(["ip", "-netns", agent.net.name, "-batch", batch.name], check=True)
        print(
            f"  1,000,000 foreign routes were added in {time.monotonic() - began:.0f} s, {agent.watch.view().overruns} overruns"
        )
    agent.calm(0.5)
    costs(agent, 0, 10)
    _print_storm(agent, "1,000,000 foreign routes", None, rounds)


def _memory() -> int:
    """Return the resident memory of this process in KiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0])


def fight(rounds: int) -> None:
    """Show the default limit: one learned route and one rule are deleted again and again."""
    print("\na fight with the default limit: repairs in 20 s, and the condition")
    with watched_agent(learned_routes(20, 100, SOURCE)) as agent:
        for kind in (KINDS[5], KINDS[3]):
            ended, repairs = time.monotonic() + 20, 0
            while time.monotonic() < ended and repairs < 50 * rounds:
                try:
                    repair_ms(agent, kind, 0)
                except LabError:
                    break
                repairs += 1
            print(f"  {kind.name:<16} {repairs} repairs")
        text = agent.config.paths.status.read_text(encoding="utf-8")
        print("  Contested:", "yes" if '"Undone"' in text else "no", flush=True)


def main() -> int:
    """Print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--sizes", default="20,200,10000")
    parser.add_argument("--part", default=",".join(PARTS))
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # each repair is in the audit log
    parts = options.part.split(",")
    policy = Policy(contested=Contested(after=1_000_000))
    load = os.getloadavg()[0]
    print(
        f"load {load:.1f} on {os.cpu_count()} processors"
        + ("; NOT IDLE: times are too long" if load > 0.7 else "")
    )
    try:
        for size in map(int, options.sizes.split(",")):
            if "kinds" in parts or "costs" in parts:
                with watched_agent(learned_routes(size, 100, SOURCE), policy=policy) as agent:
                    if "kinds" in parts:
                        kinds(agent, size, options.rounds)
                    if "costs" in parts:
                        costs(agent, size)
        if "storms" in parts:
            with watched_agent(learned_routes(200, 100, SOURCE), policy=policy) as agent:
                storms(agent, min(options.rounds, 30))
        if "fight" in parts:
            fight(options.rounds)
    except LabError as error:
        print(f"not measured: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
