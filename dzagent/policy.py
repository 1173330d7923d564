"""Policies: the numbers and limits of a site. policies/default.yaml describes every key."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal, cast

from dzagent import yamlfile
from dzagent.errors import ConfigError
from dzagent.files import Stamp, absent, stamp
from dzagent.policynft import Nftables, read_nftables
from dzagent.share import places
from dzagent.yamlfile import Item, Section

DEFAULT_OVERLAY_BLOCK = IPv4Network("169.254.0.0/16")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Attributes of the GRE links: TTL of the outer packets, MTU in bytes, path MTU discovery."""

    ttl: int = 64
    mtu: int = 1476
    pmtudisc: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """Tables and rule priorities of an EdgeFiltering user: traffic to and from the DoubleZero prefixes."""

    table_to: int = 100
    table_from: int = 101
    priority_to: int = 100
    priority_from: int = 101


DEFAULT_MARTIANS = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)


@dataclass(frozen=True, slots=True)
class Bgp:
    """What is taken from BGP peers, and how the engine is watched. Times in seconds.

    port: the engine's own listener. poll: between looks at its counters. max_routes: of one peer. min_length: the
    shortest prefix. exclude: addresses and prefixes as text. route_config: doublezerod's exclude file. grace: how
    long a new engine may take. keep_stale: life of routes that outlive their session. ssh_peer: what happens to a
    /32 that is the far end of an SSH session.
    """

    port: int = 11179
    poll: float = 0.15
    max_routes: int = 25_000
    min_length: int = 16
    martians: tuple[IPv4Network, ...] = DEFAULT_MARTIANS
    exclude: tuple[str, ...] = ()
    route_config: Path = Path("/var/lib/doublezerod/route-config.json")
    grace: float = 10.0
    keep_stale: float = 86_400.0
    ssh_peer: str = "warn"


@dataclass(frozen=True, slots=True)
class LedgerRules:
    """What old or changed ledger data means for this site. Times in seconds.

    stale_after: the age from which data is called stale. stale: what then happens to the services, keep or
    teardown. restore_max_age: the greatest age of stored data that brings service back after a reboot.
    changed: another ledger (genesis hash) is held until a person says so, or accepted.
    """

    stale_after: float = 900.0
    stale: Literal["keep", "teardown"] = "keep"
    restore_max_age: float = 86400.0
    changed: Literal["hold", "accept"] = "hold"


@dataclass(frozen=True, slots=True)
class GuardRules:
    """Limits of removals that nothing but our own files explains, of one service.

    removals: objects at once. share: percent of the service's objects at once. per_hour: objects in an hour.
    approve: seconds for which an approval is good.
    """

    removals: int = 10
    share: float = 25.0
    per_hour: int = 30
    approve: float = 600.0


@dataclass(frozen=True, slots=True)
class Contested:
    """When repairs of one object slow down. Times in seconds.

    after, within: this many repairs in that time make it contested. longest: the longest pause between two repairs.
    calm: how long the object must stay as it is until the fight counts as over.
    """

    after: int = 5
    within: float = 600.0
    longest: float = 60.0
    calm: float = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy, checked.

    protocol: number that marks routes and rules as ours. overlay_block: where tunnel /31s must lie.
    prefix_min_length: the shortest prefix from the ledger that may be routed. ssh_ports: local TCP ports whose
    established peers are protected. absent_polls: polls in a row that must miss a user before it counts as deleted.
    """

    protocol: int = 210
    overlay_block: IPv4Network = DEFAULT_OVERLAY_BLOCK
    prefix_min_length: int = 16
    ssh_ports: tuple[int, ...] = (22,)
    tunnel: Tunnel = field(default_factory=Tunnel)
    edge: Edge = field(default_factory=Edge)
    absent_polls: int = 2
    ledger: LedgerRules = field(default_factory=LedgerRules)
    bgp: Bgp = field(default_factory=Bgp)
    guard: GuardRules = field(default_factory=GuardRules)
    nftables: Nftables = field(default_factory=Nftables)
    contested: Contested = field(default_factory=Contested)


_TOP = (
    "extends", "protocol", "overlay_block", "prefix_min_length", "ssh_ports", "tunnel", "edge", "absent_polls",
    "ledger", "bgp", "guard", "nftables", "contested",
)  # fmt: skip
_TUNNEL = ("ttl", "mtu", "pmtudisc")
_LEDGER = ("stale_after", "stale", "restore_max_age", "changed")
_BGP = (
    "port", "poll", "max_routes", "min_length", "martians", "exclude", "route_config", "grace", "keep_stale",
    "ssh_peer",
)  # fmt: skip
_GUARD = ("removals", "share", "per_hour", "approve")
_CONTESTED = ("after", "within", "longest", "calm")
_EDGE = ("table_to", "table_from", "priority_to", "priority_from")

_KERNEL_TABLES = frozenset({253, 254, 255})  # default, main, local (linux/rtnetlink.h)
_NEVER_OVERLAY = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")))
_FOREIGN_PROTOCOLS = {
    8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp",
    17: "mrouted", 18: "keepalived", 42: "babel", 84: "ovn", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp",
    196: "FRR's static routes (zebra adopts them)",
}  # fmt: skip


SITE_POLICIES = Path("/etc/dzagent/policies")
"""Where an operator's named policies are looked for first."""

MAX_EXTENDS = 8
"""Policies that extend each other in a row; a site needs two or three."""


def load_policy(
    path: Path, search: tuple[Path, ...] | None = None, trail: dict[Path, Stamp] | None = None
) -> Policy:
    """Read and check a policy file. A key that it does not set is as in the policy it extends, or has its default.

    search: where the policies that are extended by name are looked for, after the directory of the file that names
    them; None is the site's directory, then those that came with the program. trail: takes down every file that was
    looked for, as it was before it was read; after an error too. Raises ConfigError.
    """
    search = (SITE_POLICIES, *places("policies")) if search is None else search
    return _load(path, search, (), {} if trail is None else trail)


def _load(path: Path, search: tuple[Path, ...], above: tuple[Path, ...], trail: dict[Path, Stamp]) -> Policy:
    """Load a policy after the one that it extends. above: the files that extend this one, as real paths."""
    trail[path] = stamp(path)
    item, chain = yamlfile.load(path), (*above, path.resolve())
    named = yamlfile.section(item, _TOP, str(path)).entries.get("extends")
    if named is None:
        return parse_policy(item, str(path))
    try:
        base = find_policy(yamlfile.text(named), (path.parent, *search), trail)
    except ConfigError as error:
        if error.file is not None:
            raise
        raise named.error(str(error)) from None
    if base.resolve() in chain:
        names = " -> ".join(map(str, (*chain[chain.index(base.resolve()) :], base.resolve())))
        raise named.error(f"policies extend each other in a circle: {names}")
    if len(chain) >= MAX_EXTENDS:
        raise named.error(f"more than {MAX_EXTENDS} policies extend each other")
    try:
        return parse_policy(item, str(path), _load(base, search, chain, trail))
    except ConfigError as error:
        if error.file == str(base) and not error.line:
            raise named.error(str(error)) from None
        raise


def find_policy(name: str, search: tuple[Path, ...], trail: dict[Path, Stamp] | None = None) -> Path:
    """Find the file of a policy: an absolute path as it is, else NAME.yaml in the first directory that has it.

    A file that is there and cannot be read, or a folder of that name, is returned too: to fall back to another
    policy in silence would be wrong, and loading it says why. Raises ConfigError that names the policies there are.
    trail: as of `load_policy`.
    """
    if name.startswith("/"):
        return Path(name)
    for directory in search:
        path = directory / f"{name}.yaml"
        if trail is not None:
            trail[path] = stamp(path)
        if not absent(path):
            return path
    known = sorted({file.stem for directory in search for file in _files(directory)})
    raise ConfigError(
        f"policy {name!r} was not found in {', '.join(map(str, search)) or 'no directory'}; "
        f"there are: {', '.join(known) or 'none'}"
    )


def _files(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.suffix == ".yaml"]
    except OSError:
        return []


def parse_policy(item: Item | None, file: str, base: Policy | None = None) -> Policy:
    """Check a loaded document, which changes `base` (the defaults if None); raises ConfigError."""
    top = yamlfile.section(item, _TOP, file)
    base = base or Policy()
    return Policy(
        protocol=top.read("protocol", _protocol, base.protocol),
        overlay_block=top.read("overlay_block", _overlay_block, base.overlay_block),
        prefix_min_length=top.read("prefix_min_length", yamlfile.whole(8, 32), base.prefix_min_length),
        ssh_ports=top.read(
            "ssh_ports", yamlfile.list_of(yamlfile.whole(1, 65535), "TCP ports", 16), base.ssh_ports
        ),
        tunnel=_tunnel(top, base.tunnel),
        edge=_edge(top, base.edge),
        absent_polls=top.read("absent_polls", yamlfile.whole(1, 100), base.absent_polls),
        bgp=_bgp(top, base.bgp),
        ledger=_ledger(top, base.ledger),
        guard=_guard(top, base.guard),
        nftables=read_nftables(top, base.nftables),
        contested=_contested(top, base.contested),
    )


def _guard(top: Section, base: GuardRules) -> GuardRules:
    part = yamlfile.subsection(top, "guard", _GUARD)
    count = yamlfile.whole(0, 1_000_000)
    return GuardRules(
        removals=part.read("removals", count, base.removals),
        share=part.read("share", yamlfile.number(0, 100, "percent"), base.share),
        per_hour=part.read("per_hour", count, base.per_hour),
        approve=part.read("approve", yamlfile.number(10, 86_400, "seconds"), base.approve),
    )


def _ledger(top: Section, base: LedgerRules) -> LedgerRules:
    part = yamlfile.subsection(top, "ledger", _LEDGER)
    stale = part.read("stale", yamlfile.one_of("keep", "teardown"), str(base.stale))
    changed = part.read("changed", yamlfile.one_of("hold", "accept"), str(base.changed))
    return LedgerRules(
        stale_after=part.read("stale_after", yamlfile.number(30, 31_536_000, "seconds"), base.stale_after),
        stale=cast("Literal['keep', 'teardown']", stale),
        restore_max_age=part.read(
            "restore_max_age", yamlfile.number(0, 31_536_000, "seconds"), base.restore_max_age
        ),
        changed=cast("Literal['hold', 'accept']", changed),
    )


def _protocol(item: Item) -> int:
    value = yamlfile.whole(1, 255)(item)
    if value <= 4:
        raise item.error(f"{value} is one of the kernel's own protocol numbers; choose another, such as 210")
    if value in _FOREIGN_PROTOCOLS:
        raise item.error(f"{value} belongs to {_FOREIGN_PROTOCOLS[value]}; choose another, such as 210")
    return value


def _overlay_block(item: Item) -> IPv4Network:
    value = yamlfile.network(item)
    if not 8 <= value.prefixlen <= 31:
        raise item.expected("an IPv4 network with a prefix length from 8 to 31")
    wrong = next((network for network in _NEVER_OVERLAY if value.overlaps(network)), None)
    if wrong is not None:
        raise item.error(
            f"{value} overlaps {wrong}, which no link can have; choose another, such as 169.254.0.0/16"
        )
    return value


def _tunnel(top: Section, base: Tunnel) -> Tunnel:
    part = yamlfile.subsection(top, "tunnel", _TUNNEL)
    return Tunnel(
        ttl=part.read("ttl", yamlfile.whole(1, 255), base.ttl),
        mtu=part.read("mtu", yamlfile.whole(576, 65511), base.mtu),
        pmtudisc=part.read("pmtudisc", yamlfile.truth, base.pmtudisc),
    )


def _edge(top: Section, base: Edge) -> Edge:
    part = yamlfile.subsection(top, "edge", _EDGE)
    priority = yamlfile.whole(1, 32765)
    edge = Edge(
        table_to=part.read("table_to", _table, base.table_to),
        table_from=part.read("table_from", _table, base.table_from),
        priority_to=part.read("priority_to", priority, base.priority_to),
        priority_from=part.read("priority_from", priority, base.priority_from),
    )
    if edge.table_to == edge.table_from:
        item = top.entries["edge"]
        raise item.error(f"table_to and table_from are both {edge.table_to}; they need two different tables")
    return edge


def _bgp(top: Section, base: Bgp) -> Bgp:
    part = yamlfile.subsection(top, "bgp", _BGP)
    seconds = yamlfile.number(0, 7 * 86_400, "seconds")
    return Bgp(
        port=part.read("port", yamlfile.whole(1024, 65535), base.port),
        poll=part.read("poll", yamlfile.number(0.05, 0.2, "seconds"), base.poll),
        max_routes=part.read("max_routes", yamlfile.whole(1, 30_000), base.max_routes),
        min_length=part.read("min_length", yamlfile.whole(8, 32), base.min_length),
        martians=part.read(
            "martians", yamlfile.list_of(yamlfile.network, "IPv4 networks", 256), base.martians
        ),
        exclude=part.read(
            "exclude", yamlfile.list_of(_excluded, "IPv4 addresses or prefixes", 4096), base.exclude
        ),
        route_config=part.read("route_config", yamlfile.absolute_path, base.route_config),
        grace=part.read("grace", yamlfile.number(3, 300, "seconds"), base.grace),
        keep_stale=part.read("keep_stale", seconds, base.keep_stale),
        ssh_peer=part.read("ssh_peer", yamlfile.one_of("warn", "withhold"), base.ssh_peer),
    )


def _contested(top: Section, base: Contested) -> Contested:
    part = yamlfile.subsection(top, "contested", _CONTESTED)
    seconds = yamlfile.number(1, 86_400, "seconds")
    return Contested(
        after=part.read("after", yamlfile.whole(1, 1_000_000), base.after),
        within=part.read("within", seconds, base.within),
        longest=part.read("longest", seconds, base.longest),
        calm=part.read("calm", seconds, base.calm),
    )


def _excluded(item: Item) -> str:
    """Read a plain address, or a prefix: they mean different things, so the text is kept."""
    value = yamlfile.text(item)
    return str(yamlfile.network(item) if "/" in value else yamlfile.ipv4(item))


def _table(item: Item) -> int:
    value = yamlfile.whole(1, 2**32 - 1)(item)
    if value in _KERNEL_TABLES:
        raise item.error(f"{value} is one of the kernel's own tables (253 default, 254 main, 255 local)")
    return value
