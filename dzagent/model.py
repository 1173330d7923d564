"""The value types that the parts of dzagent pass to each other. Imports nothing of ours but `Owned` and nftmodel."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal, TypeAlias

from dzagent.nftmodel import NftSeen, NftTable
from dzagent.owned import Owned

MAIN_TABLE = 254
"""Number of the kernel's main routing table (linux/rtnetlink.h, RT_TABLE_MAIN)."""

ServiceName: TypeAlias = Literal["unicast", "multicast"]
SERVICE_NAMES: tuple[ServiceName, ...] = ("unicast", "multicast")


class UserType(enum.IntEnum):
    """What a user account asks for (ledger, User.user_type); `label` is the text of the status API."""

    IBRL = 0
    IBRL_WITH_ALLOCATED_IP = 1
    EDGE_FILTERING = 2
    MULTICAST = 3

    @property
    def label(self) -> str:
        return _USER_TYPE_LABELS[self]

    @property
    def service(self) -> ServiceName:
        return "multicast" if self is UserType.MULTICAST else "unicast"


_USER_TYPE_LABELS = {
    UserType.IBRL: "IBRL",
    UserType.IBRL_WITH_ALLOCATED_IP: "IBRLWithAllocatedIP",
    UserType.EDGE_FILTERING: "EdgeFiltering",
    UserType.MULTICAST: "Multicast",
}


# ---- what the kernel holds, or should hold -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A GRE tunnel. `extra` names attributes we never set (key, csum, tos...): desired links have none."""

    name: str
    local: IPv4Address
    remote: IPv4Address
    ttl: int
    mtu: int
    alias: str
    pmtudisc: bool = False
    up: bool = True
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address on one of our links; `scope` is iproute2's word (global, link, host)."""

    dev: str
    interface: IPv4Interface
    scope: str
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route with a gateway on one of our links. `extra` names attributes we never set."""

    dst: IPv4Network
    via: IPv4Address | None
    dev: str | None
    table: int
    protocol: int
    src: IPv4Address | None = None
    metric: int = 0
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule `from SRC to DST lookup TABLE`. `extra` names selectors we never set."""

    priority: int
    src: IPv4Network
    dst: IPv4Network
    table: int
    protocol: int
    extra: tuple[str, ...] = ()


KernelObject: TypeAlias = Link | Address | Route | Rule | NftTable
Key: TypeAlias = tuple[object, ...]


def key(obj: KernelObject) -> Key:
    """What the kernel itself takes for the identity of an object: two with one key cannot both exist."""
    if isinstance(obj, Link):
        return ("link", obj.name)
    if isinstance(obj, Address):
        return ("address", obj.dev, obj.interface, obj.extra)
    if isinstance(obj, Route):
        return ("route", obj.table, obj.dst, obj.metric)
    if isinstance(obj, NftTable):
        return ("nft", min(obj.names, default=""))
    return ("rule", obj.priority, obj.src, obj.dst, obj.table, obj.protocol, obj.extra)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a desired object comes from: a line of a file of a service; line 0 where lines come and go."""

    service: ServiceName
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Wanted:
    """A desired object and its origin."""

    obj: KernelObject
    origin: Origin


@dataclass(frozen=True, slots=True)
class Desired:
    """All objects that the kernel should hold, in the order in which the files name them."""

    wanted: tuple[Wanted, ...] = ()

    @property
    def objects(self) -> tuple[KernelObject, ...]:
        return tuple(w.obj for w in self.wanted)


@dataclass(frozen=True, slots=True)
class SeenLink:
    """Any interface of the host. `tunnel` is set for GRE links; `alias` is the ifalias, "" if none.

    altnames: its other names, which no link can have as its own.
    """

    name: str
    ifindex: int
    kind: str
    up: bool
    mtu: int
    alias: str = ""
    tunnel: Link | None = None
    altnames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interest:
    """What an observation must cover: route and rule owner, link names, and keys whose holder must be known.

    tables, ends: tables of our rules and endpoints of our tunnels. What others do there is no part of an observation,
    but worth a look.
    """

    protocol: int
    links: tuple[str, ...]
    exact: tuple[tuple[int, IPv4Network], ...] = ()
    tables: tuple[int, ...] = ()
    ends: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """What the kernel held at one moment.

    links: every interface. addresses: every IPv4 address of the host. routes: all of protocol
    `Interest.protocol` in any table, every holder of an exact key, and the main table's default routes.
    rules: every IPv4 rule. nft: our nftables table.
    """

    links: tuple[SeenLink, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    nft: NftSeen = field(default_factory=NftSeen)


# ---- what the ledger grants ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Service:
    """One provisioned connection, validated: everything that rendering needs, as typed values only."""

    name: ServiceName
    user_type: UserType
    link: str
    tunnel_src: IPv4Address
    tunnel_dst: IPv4Address
    overlay: IPv4Network
    dz_ip: IPv4Address | None
    local_asn: int
    remote_asn: int
    account: str
    device: str
    prefixes: tuple[IPv4Network, ...] = ()
    publish: tuple[IPv4Address, ...] = ()
    subscribe: tuple[IPv4Address, ...] = ()

    @property
    def remote_overlay(self) -> IPv4Address:
        """The even address of the /31: the device (upstream: services, newTunnel)."""
        return self.overlay[0]

    @property
    def local_overlay(self) -> IPv4Address:
        """The odd address of the /31: this host."""
        return self.overlay[1]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person should know: `code` is a CamelCase word, `message` one full sentence.

    `service` is None where it concerns the whole answer; `account` is the base58 address it was read from.
    """

    code: str
    message: str
    service: ServiceName | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Provide:
    """The ledger grants this service."""

    service: Service
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Sound evidence that this service is not granted (any more)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Keep:
    """No sound evidence either way: what works stays, and the problem is shown."""

    problem: Problem


Decision: TypeAlias = Provide | Withdraw | Keep


# ---- the plan --------------------------------------------------------------------------------------------


class Action(enum.Enum):
    """What a step does to its object."""

    ADD = "add"
    CHANGE = "change"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Step:
    """One smallest change: what is held goes, or becomes `after`.

    held: what the kernel holds now, which must be provably ours; None for an add. after: None for a delete.
    Raises TypeError for anything else: no step can change or delete what nobody has vouched for.
    """

    action: Action
    held: Owned[KernelObject] | None
    after: KernelObject | None
    reason: str
    origin: Origin | None = None

    def __post_init__(self) -> None:
        changes, makes = self.action is not Action.ADD, self.action is not Action.DELETE
        if isinstance(self.held, Owned) != changes or (self.held is not None) != changes:
            raise TypeError(f"a step that {_DOES[self.action]} held by us, not {self.held!r}")
        if (self.after is not None) != makes:
            raise TypeError(f"{self.action.value} has {self.after!r} as its result")

    @property
    def before(self) -> KernelObject | None:
        """What the kernel holds now, None for an add."""
        return None if self.held is None else self.held.obj

    @property
    def target(self) -> KernelObject:
        """The object that the step is about: as it shall be, or that goes."""
        obj = self.after if self.after is not None else self.before
        if obj is None:
            raise ValueError("a step needs an object")
        return obj


_DOES = {
    Action.ADD: "adds needs nothing",
    Action.CHANGE: "changes needs an object",
    Action.DELETE: "deletes needs an object",
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """A desired object whose key another owner holds; `owner` names the holder for a person."""

    wanted: Wanted
    owner: str
    advice: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Phases run in order; the steps of one phase do not depend on each other.

    `id` is a hash of the desired and the observed state that the plan was made from.
    """

    id: str
    phases: tuple[tuple[Step, ...], ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for phase in self.phases for step in phase)


class Result(enum.Enum):
    """How a step ended, and so what happens next."""

    DONE = "done"
    GONE = "gone"  # a delete found nothing to delete: as good as done
    RACED = "raced"  # somebody was faster: observe again now
    TRANSIENT = "transient"  # may work later: retried with backoff
    PERMANENT = "permanent"  # will not work until its inputs change
    BLOCKED = "blocked"  # not tried: what it stands on failed
    CONTESTED = "contested"  # not tried yet: somebody keeps undoing it


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one step; `message` is the tool's own text where it failed."""

    step: Step
    result: Result
    message: str = ""


# ---- facts about the host --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Protected:
    """Destinations whose routing must never change because of us, each with what it is, for messages."""

    addresses: Mapping[IPv4Address, str] = field(default_factory=dict)
    networks: Mapping[IPv4Network, str] = field(default_factory=dict)


def unique(items: Iterable[IPv4Address]) -> tuple[IPv4Address, ...]:
    """Keep the first of each, in order."""
    return tuple(dict.fromkeys(items))
