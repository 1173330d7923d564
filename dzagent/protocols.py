"""Names of routing protocol numbers, for people: who a foreign route or rule may belong to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NAMES: Final[Mapping[int, str]] = {
    1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird",
    13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted", 18: "keepalived", 42: "babel", 84: "ovn",
    99: "openr", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp", 196: "FRR's static routes",
}  # fmt: skip
"""linux/rtnetlink.h and iproute2's rt_protos; a site may call its own numbers something else."""


def named(protocol: int) -> str:
    """Return a number with its name, where it has one: "protocol 186 (bgp)"."""
    name = NAMES.get(protocol)
    return f"protocol {protocol}" if name is None else f"protocol {protocol} ({name})"
