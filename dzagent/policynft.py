"""The part of a policy that is about the nftables table. policies/default.yaml and strict.yaml describe every key."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias, cast

from dzagent import yamlfile
from dzagent.nftvalues import ValueRefused, name, port_interval
from dzagent.yamlfile import Item, Section

Ports: TypeAlias = tuple[int, int]
"""First and last port of a range."""

LIVENESS_PORT = 44_880
"""UDP port of route liveness (upstream: liveness), to which any other DoubleZero user may send."""

MAX_PORTS = 64
"""Ranges in one list: more than a host has services."""

MAX_CHAIN_NAME = 32


@dataclass(frozen=True, slots=True)
class ChainNames:
    """Names of the chains, each after its service's name: `unicast_input`."""

    input: str = "input"
    leak: str = "leak"
    mss_from: str = "mss_from"
    mss_into: str = "mss_into"
    mss_out: str = "mss_out"


@dataclass(frozen=True, slots=True)
class Nftables:
    """What the table does.

    inbound: what new traffic may come in by the tunnels, anything (open) or only what tcp_ports and udp_ports name
    (listed). conntrack: with `listed`, answers are known by connection tracking.
    """

    enabled: bool = True
    inbound: Literal["open", "listed"] = "open"
    tcp_ports: tuple[Ports, ...] = ()
    udp_ports: tuple[Ports, ...] = ((LIVENESS_PORT, LIVENESS_PORT),)
    conntrack: bool = False
    leak_guard: bool = True
    clamp_mss: bool = True
    chains: ChainNames = field(default_factory=ChainNames)


_KEYS = tuple(item.name for item in fields(Nftables))
_CHAINS = tuple(item.name for item in fields(ChainNames))


def read_nftables(top: Section, base: Nftables) -> Nftables:
    """Read and check the keys under `nftables`; raises ConfigError."""
    part = yamlfile.subsection(top, "nftables", _KEYS)
    ports = yamlfile.list_of(_ports, "ports or ranges", MAX_PORTS)
    found = Nftables(
        enabled=part.read("enabled", yamlfile.truth, base.enabled),
        inbound=cast(
            "Literal['open', 'listed']",
            part.read("inbound", yamlfile.one_of("open", "listed"), str(base.inbound)),
        ),
        tcp_ports=part.read("tcp_ports", ports, base.tcp_ports),
        udp_ports=part.read("udp_ports", ports, base.udp_ports),
        conntrack=part.read("conntrack", yamlfile.truth, base.conntrack),
        leak_guard=part.read("leak_guard", yamlfile.truth, base.leak_guard),
        clamp_mss=part.read("clamp_mss", yamlfile.truth, base.clamp_mss),
        chains=_chains(part, base.chains),
    )
    if found.conntrack and found.inbound == "open":
        item = part.entries.get("conntrack") or part.entries["inbound"]
        raise item.error("conntrack: true has a use only with inbound: listed; set that, or conntrack: false")
    return found


def _chains(part: Section, base: ChainNames) -> ChainNames:
    inner = yamlfile.subsection(part, "chains", _CHAINS)
    names = {key: inner.read(key, _chain_name, getattr(base, key)) for key in _CHAINS}
    for key, item in inner.entries.items():
        twin = next((other for other in _CHAINS if other != key and names[other] == names[key]), None)
        if twin is not None:
            raise item.error(f"{names[key]} is the name of the chain {twin} as well; each needs its own")
    return ChainNames(**names)


def _chain_name(item: Item) -> str:
    value = yamlfile.text(item)
    try:
        name(value)
    except ValueRefused as refused:
        raise item.error(f"chain name {refused}") from None
    if len(value) > MAX_CHAIN_NAME:
        raise item.expected(f"a chain name of at most {MAX_CHAIN_NAME} characters")
    return value


def _ports(item: Item) -> Ports:
    """Read one port, or a range as text: `8000-10000`."""
    value = item.plain("a port from 1 to 65535, or a range such as 8000-10000")
    try:
        return port_interval(value)
    except ValueRefused:
        raise item.expected("a port from 1 to 65535, or a range such as 8000-10000") from None
