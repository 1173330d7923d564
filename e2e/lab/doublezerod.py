"""A stand-in for doublezerod: sets up the kernel as it does, and takes everything down when it is told to stop.

`python -m e2e.lab.doublezerod SCRIPT [FLAGS]`: SCRIPT is a JSON file with the commands of `ip -batch` for "up" and
"down". What is there already is tolerated, as upstream does.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

NAME = "doublezerod"


@dataclass(frozen=True, slots=True)
class Script:
    """The commands of one service, and what it learned (prefixes); `kind` is the link's, for kernels without GRE."""

    up: tuple[str, ...]
    down: tuple[str, ...]

    def write(self, path: Path) -> Path:
        """Write it where the process finds it."""
        path.write_text(json.dumps({"up": self.up, "down": self.down}))
        return path


def script(
    *,
    ends: tuple[str, str],
    overlay: tuple[str, str],
    dz_ip: str = "",
    prefixes: Sequence[str] = (),
    learned: Sequence[str] = (),
    source: str = "",
    kind: str = "gre",
) -> Script:
    """Return what doublezerod's Setup does (upstream: services): EdgeFiltering if there are prefixes, else IBRL.

    ends: of the tunnel, ours and theirs. overlay: the /31, ours and theirs. source: of the learned routes.
    """
    dev, (ours, theirs), table = "doublezero0", overlay, "100" if prefixes else "main"
    what = f"{kind} local {ends[0]} remote {ends[1]} ttl 64"
    lines = [
        f"link add name {dev} mtu 1476 type {what}{' nopmtudisc' if kind == 'gre' else ''}",
        f"addr add {ours}/31 dev {dev} scope link",
        f"link set dev {dev} up",
    ]
    rules = []
    if dz_ip:
        lines.append(f"addr add {dz_ip}/32 dev {dev}")
    for prefix in prefixes:
        rules += [f"to {prefix} priority 100 table 100 protocol kernel"]
        rules += [f"from {prefix} priority 101 table 101 protocol kernel"]
    lines += [f"rule add {rule}" for rule in rules]
    if prefixes:
        lines.append(f"route replace default via {theirs} src {dz_ip} table 101")
    lines += [
        f"route replace {prefix} via {theirs} src {source} table {table} proto 186" for prefix in learned
    ]
    down = (*(f"rule del {rule}" for rule in rules), f"link set dev {dev} down", f"link delete dev {dev}")
    return Script(tuple(lines), down)


def run(lines: Sequence[str]) -> None:
    """Run them in one process, whatever fails."""
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(["ip", "-force", "-batch", "-"], input=text, text=True, check=False)


def main() -> NoReturn:
    """Set up, and wait for the end."""
    Path("/proc/self/comm").write_text(NAME)
    commands = json.loads(Path(sys.argv[1]).read_text())

    def stop(*_: object) -> NoReturn:
        run(commands["down"])
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    run(commands["up"])
    print("provisioned", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
