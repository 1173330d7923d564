"""What a learned route costs: from the device's announcement to the kernel, one and all, beside BIRD's own kernel protocol.

Needs root, BIRD, and namespaces of the running kernel. Times are taken from the kernel's own event (`ip -ts monitor`),
counted from before the command to the device is started. "agent" is the whole of it (engine, thread, loop, plan,
guard, `ip -batch`); "bird" is BIRD's kernel protocol in the place of the agent. Figures of one run with both.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from e2e.lab.bgp import DEVICE_IP, LINK, LOCAL, REMOTE, BgpLab, bgp_lab, prefixes
from e2e.lab.errors import LabError
from e2e.lab.processes import Process
from e2e.lab.routers import BirdRouter, Neighbour
from e2e.lab.wait import wait_for

SIZES = (100, 2_000, 20_000)
SINGLES = 15
MASSES = 3
ONE = "198.19.255.1"
IDLE_SECONDS = 10.0
_STAMP = re.compile(r"^\[([0-9T:.-]+)\](.*)$", re.MULTILINE)

KERNEL_MODE = """log stderr all;
router id 198.51.100.7;
protocol device dz_device {{ scan time 60; }}
ipv4 table dzt;
protocol static dzip {{ ipv4 {{ table dzt; }}; route 198.51.100.7/32 blackhole; }}
protocol bgp dz_unicast {{
  local {local} port 11179 as 65000; neighbor {remote} port 179 as 65342;
  interface "{link}"; strict bind yes; direct; allow local as 1; hold time 90;
  connect delay time 1; connect retry time 2; error wait time 1, 5; error forget time 10;
  ipv4 {{ table dzt; next hop self; import where net != 198.51.100.7/32; export where source = RTS_STATIC; }};
}}
protocol kernel dz_kernel {{ kernel table 254; metric 50; scan time 60; ipv4 {{ table dzt; import none;
  export filter {{ if source != RTS_BGP then reject; krt_prefsrc = 198.51.100.7; accept; }}; }}; }}
"""


class Device(BirdRouter):
    """A device whose routes are in two protocols: one route, and all the others, switched on and off."""

    def text(self, neighbours: Iterable[Neighbour], extra: Iterable[str]) -> str:
        """Return its configuration."""
        one = f"protocol static dev_one {{ disabled; ipv4 {{ table dvt; }}; route {ONE}/32 blackhole; }}\n"
        return super().text(neighbours, extra) + one

    def switch(self, name: str, *, on: bool) -> None:
        """Announce or withdraw."""
        self.tell("enable" if on else "disable", name)


@contextmanager
def monitor(lab: BgpLab) -> Iterator[Callable[[], list[tuple[float, str]]]]:
    """Collect the kernel's route events with their times (unix seconds)."""
    with tempfile.NamedTemporaryFile(prefix="dzagent-monitor-") as log:
        command = ["ip", "-netns", lab.host.name, "-ts", "-o", "monitor", "route"]
        process = subprocess.Popen(command, stdout=log, stdin=subprocess.DEVNULL)
        time.sleep(0.3)

        def read() -> list[tuple[float, str]]:
            text = Path(log.name).read_text(encoding="ascii", errors="replace")
            return [(datetime.fromisoformat(m[1]).timestamp(), m[2]) for m in _STAMP.finditer(text)]

        try:
            yield read
        finally:
            process.kill()
            process.wait()


@dataclass
class Run:
    """The measurements of one way at one size, in seconds."""

    singles: list[float]
    withdraws: list[float]
    announce_all: list[float]
    withdraw_all: list[float]


def single(lab: BgpLab, device: Device, *, on: bool) -> float:
    """Announce or withdraw one route; return seconds to the kernel's event."""
    with monitor(lab) as events:
        began = time.time()
        device.switch("dev_one", on=on)
        deleted = not on

        def seen() -> float:
            return next((at for at, text in events() if ONE in text and ("Deleted" in text) == deleted), 0.0)

        return wait_for("the route's event", seen, 10) - began


def mass(lab: BgpLab, device: Device, size: int, *, on: bool) -> float:
    """Announce or withdraw all routes; return seconds until the last is in (or out of) the kernel."""
    with monitor(lab) as events:
        began = time.time()
        device.switch("dev_extra", on=on)
        wait_for("all routes", lambda: lab.count_of("198.1") == (size if on else 0), 30)
        time.sleep(0.2)
        return max(at for at, text in events() if "198.1" in text) - began


def measure(lab: BgpLab, device: Device, size: int, singles: int) -> Run:
    """Measure one way."""
    found = Run([], [], [], [])
    for n in range(singles):
        time.sleep(0.5 + 0.137 * (n % 5))
        found.singles.append(single(lab, device, on=True))
        time.sleep(0.5 + 0.071 * (n % 7))
        found.withdraws.append(single(lab, device, on=False))
    for _ in range(MASSES):
        time.sleep(2.5)
        found.withdraw_all.append(mass(lab, device, size, on=False))
        time.sleep(2.5)
        found.announce_all.append(mass(lab, device, size, on=True))
    return found


def cpu(pid: int) -> float:
    """Return the seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory(pid: int) -> float:
    """Return the resident memory of a process, in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1]) / 1024


def engine_pid(lab: BgpLab) -> int:
    """Return the process id of the engine: `ip netns exec` has become it."""
    return lab.engine.pid


def show(label: str, size: int, run: Run) -> None:
    """Print one line."""
    ms = [statistics.median(part) * 1000 for part in (run.singles, run.withdraws)]
    worst = max(run.singles) * 1000
    whole = [statistics.median(part) for part in (run.announce_all, run.withdraw_all)]
    print(
        f"  {size:>6}  {label:<6} one announced p50 {ms[0]:6.1f} ms (max {worst:6.1f})   withdrawn p50 {ms[1]:6.1f} ms"
        f"   all announced {whole[0]:5.2f} s   withdrawn {whole[1]:5.2f} s"
    )


def with_agent(size: int, singles: int) -> None:
    """Measure the agent at one size, then what it costs to be idle."""
    with bgp_lab() as lab:
        device = Device(lab.device, lab.root / "device")
        lab.router = device
        lab.start(list(prefixes(size)))
        lab.until("all routes", lambda: lab.count_of("198.1") == size, 60)
        time.sleep(3)
        show("agent", size, measure(lab, device, size, singles))
        time.sleep(3)
        pids = (lab.agent.pid, engine_pid(lab))
        before = [cpu(pid) for pid in pids]
        time.sleep(IDLE_SECONDS)
        used = [(cpu(pid) - b) / IDLE_SECONDS * 100 for pid, b in zip(pids, before, strict=True)]
        print(
            f"          idle: agent {used[0]:.2f} % of a core, engine {used[1]:.2f} %;"
            f" memory: agent {memory(pids[0]):.0f} MB, engine {memory(pids[1]):.0f} MB"
        )


def with_bird(size: int, singles: int) -> None:
    """Measure BIRD's kernel protocol at one size."""
    with bgp_lab() as lab:
        device = Device(lab.device, lab.root / "device")
        lab.router = device
        kind = "gre" if lab.stand_in.gre else "vxlan id 1 dstport 4789"
        lab.host.batch(
            f"link add {LINK} type {kind} local 198.51.100.7 remote {DEVICE_IP} ttl 64",
            f"addr add {LOCAL}/31 dev {LINK} scope link",
            f"link set {LINK} mtu 1400 up",
        )
        config = lab.root / "kernel.conf"
        config.write_text(KERNEL_MODE.format(local=LOCAL, remote=REMOTE, link=LINK))
        engine = ["bird", "-f", "-c", str(config), "-s", str(lab.root / "kernel.ctl")]
        lab.engine = Process("engine", lab.host, engine, lab.root / "engine.log")
        lab.start(list(prefixes(size)), agent=False)
        lab.until("all routes", lambda: lab.count_of("198.1") == size, 60)
        time.sleep(1)
        show("bird", size, measure(lab, device, size, singles))


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--singles", type=int, default=SINGLES)
    options = parser.parse_args()
    print(f"{options.singles} single changes and {MASSES} mass changes a line; medians")
    try:
        for size in options.sizes:
            with_agent(size, options.singles)
            with_bird(size, options.singles)
    except LabError as error:
        print(f"not measured: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
