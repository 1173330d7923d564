"""A network namespace of the running kernel for tests and benchmarks of the kernel part.

Where the running kernel has no GRE, a vxlan link stands in for it: the runner rewrites the tunnel's part of each
command and answer, everything else is real.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dzagent.kernel.run import Completed, run
from e2e.lab.errors import LabError

_GRE = re.compile(r"(dev|name) (\S+)( mtu \d+)? type gre (local \S+ remote \S+ ttl \S+) nopmtudisc")
_INDEX = re.compile(r"if[0-9]+")


@dataclass
class Namespace:
    """Runs `ip` inside a namespace; `gre` tells whether the kernel has GRE links."""

    name: str
    gre: bool = True

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        assert program == "ip"
        if not self.gre:
            stdin = _GRE.sub(self._stand_in, stdin)
        done = run("ip", ["-netns", self.name, *args], stdin)
        return done if self.gre else Completed(done.code, _as_gre(done.stdout), done.stderr)

    def ip(self, command: str) -> str:
        """Do what somebody else does; returns what `ip` says."""
        done = self("ip", command.split())
        assert done.code == 0, done.message
        return done.stdout.decode()

    def _stand_in(self, match: re.Match[str]) -> str:
        number = int(self._named(match[2])[-1]) + 1
        port = " dstport 4789" if match[1] == "name" else ""  # the kernel refuses it in a change
        return f"{match[1]} {match[2]}{match[3] or ''} type vxlan id {number} {match[4]}{port}"

    def _named(self, dev: str) -> str:
        """Return the name of a link that may be given by its index."""
        if _INDEX.fullmatch(dev) is None:
            return dev
        links = json.loads(run("ip", ["-netns", self.name, "-j", "link", "show"]).stdout)
        return next((str(link["ifname"]) for link in links if f"if{link['ifindex']}" == dev), "gone0")


def _as_gre(stdout: bytes) -> bytes:
    lines = []
    for line in stdout.splitlines(keepends=True):
        if b'"vxlan"' not in line:
            lines.append(line)
            continue
        records = json.loads(line)
        for record in records:
            info = record.get("linkinfo", {})
            if info.get("info_kind") == "vxlan":
                data = info["info_data"]
                kept = {name: data[name] for name in ("local", "remote", "ttl")}
                record["linkinfo"] = {"info_kind": "gre", "info_data": {**kept, "pmtudisc": False}}
        lines.append(json.dumps(records).encode() + b"\n")
    return b"".join(lines)


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """Make a namespace with an uplink eth0 (198.51.100.7/24, a default route). Raises LabError."""
    if os.geteuid() != 0 or run("ip", ["netns", "add", name]).code != 0:
        raise LabError("Run as root, where `ip netns add` works.")
    try:
        made = Namespace(name)
        probe = ["link", "add", "gre-probe", "type", "gre", "local", "192.0.2.1", "remote", "192.0.2.2"]
        made.gre = made("ip", probe).code == 0
        if made.gre:
            made.ip("link delete gre-probe")
        for command in (
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "link set eth0 up",
            "link set peer0 up",
            "addr add 198.51.100.7/24 dev eth0",
            "route add default via 198.51.100.1",
        ):
            made.ip(command)
        yield made
    finally:
        run("ip", ["netns", "delete", name])
