"""Who on this host is known to change links, routes and rules: looked up when somebody keeps undoing our work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

MANAGERS: Final[Mapping[str, str]] = {
    "systemd-network": (
        "systemd-networkd runs (it removes routes and rules that it does not know, unless networkd.conf says "
        "ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no)"
    ),
    "NetworkManager": "NetworkManager runs (have it leave doublezero* alone: unmanaged-devices)",
    "zebra": "FRR's zebra runs",
    "doublezerod": "doublezerod runs (both cannot manage one host: stop it)",
    "bird": "a BIRD runs that may be told to write the kernel",
    "bird6": "a BIRD runs that may be told to write the kernel",
    "dhclient": "dhclient runs",
    "dhcpcd": "dhcpcd runs",
    "connmand": "ConnMan runs",
    "keepalived": "keepalived runs",
    "charon": "strongSwan runs",
    "cilium-agent": "Cilium runs",
    "calico-node": "Calico runs",
}
"""What is said of a program by its /proc/PID/comm (15 characters)."""

OURS: Final = "bird"
"""The BGP engine is a BIRD too, without the right to write the kernel: one of them says nothing."""


def running_managers(proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Return one phrase for each known manager that runs in this network namespace; never raises."""
    here = _namespace(proc / "self")
    names = [name for name in _names(proc, here) if name in MANAGERS]
    if names.count(OURS) == 1:
        names.remove(OURS)
    return tuple(dict.fromkeys(MANAGERS[name] for name in sorted(names)))


def _names(proc: Path, here: str | None) -> Iterator[str]:
    try:
        entries = [entry.name for entry in os.scandir(proc) if entry.name.isdigit()]
    except OSError:
        return
    for pid in entries:
        try:
            name = (proc / pid / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:  # it has ended
            continue
        if name in MANAGERS and _namespace(proc / pid) in {None, here}:
            yield name


def _namespace(process: Path) -> str | None:
    """Return which network namespace a process is in, None if it is not for us to see: then it may be ours."""
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return None
