"""The configuration of one host: /etc/dzagent/config.yaml. Every key is described in packaging/config.yaml.

Program ids of the networks: DoubleZero's client/doublezerod/internal/config/constants.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dzagent.errors import ConfigError
from dzagent.model import ServiceName

DEFAULT_CONFIG = Path("/etc/dzagent/config.yaml")
COMPAT_SOCKET = Path("/run/doublezerod/doublezerod.sock")
"""Where DoubleZero's own command line looks for its daemon."""

OUTSIDE_LOOKUP = "https://ifconfig.me/ip"
"""Who is asked for this host's address where it cannot be known otherwise (upstream: runtime/clientip.go)."""

Network = Literal["mainnet-beta", "testnet", "devnet", "localnet", "custom"]
ApplyMode = Literal["auto", "manual", "observe"]
Commitment = Literal["finalized", "confirmed", "processed"]

PROGRAM_IDS: Mapping[str, str] = {
    "mainnet-beta": "ser2VaTMAcYTaauMrTSfSrxBaUDq7BLNs2xfUugTAGv",
    "testnet": "DZtnuQ839pSaDMFG5q1ad2V95G82S5EC4RrB3Ndw2Heb",
    "devnet": "GYhQDKuESrasNZGyhMJhGYFtbzNijYhcrN9poSqCQVah",
    "localnet": "7CTniUa88iJKUHTrCkB4TjAoG6TD7AMivhQeuqN2LPtX",
}
LOCALNET_RPC = "http://localhost:8899"

NEVER_CLIENT_IP: tuple[IPv4Network, ...] = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
"""Networks no host can be reached in from outside: never a client IP, pinned or not."""
PRIVATE_CLIENT_IP: tuple[IPv4Network, ...] = tuple(
    IPv4Network(text)
    for text in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16")
)
"""Networks that the public DoubleZero networks do not accept as a client IP; laboratories use them."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Every file of the program, from two directories: `state` outlives a reboot, `run` does not."""

    state: Path = Path("/var/lib/dzagent")
    run: Path = Path("/run/dzagent")

    @property
    def intent(self) -> Path:
        """What a person wants: enabled or not, a pinned address. Written by the API alone."""
        return self.state / "intent" / "state.json"

    @property
    def taken_over(self) -> Path:
        """What of doublezerod's state became the first intent, by digest: that happens once."""
        return self.state / "intent" / "taken-over.json"

    @property
    def migration(self) -> Path:
        """How far `dzagent migrate` is, and what it needs to go back."""
        return self.state / "migration" / "record.json"

    @property
    def turn(self) -> Path:
        """Locked (flock): shared by a pass of the reconciler, exclusive by `dzagent migrate`."""
        return self.agent / "turn"

    @property
    def approval(self) -> Path:
        """The id of the plan that a person approved."""
        return self.state / "intent" / "apply.json"

    @property
    def approvals(self) -> Path:
        """What a person lets past the guard."""
        return self.state / "intent" / "approve.json"

    @property
    def confirmation(self) -> Path:
        """The id of the plan that a person confirmed."""
        return self.state / "intent" / "confirm.json"

    @property
    def undone(self) -> Path:
        """What was rolled back, and is not done again by itself."""
        return self.state / "undone.json"

    @property
    def client_ip(self) -> Path:
        """Who this host was when that was last found out."""
        return self.state / "client-ip.json"

    @property
    def trust(self) -> Path:
        """By which templates, policy, version and configuration each service was made."""
        return self.state / "trust.json"

    @property
    def last_policy(self) -> Path:
        """The last good policy, for a start that finds a bad one."""
        return self.state / "last-policy.yaml"

    @property
    def checkpoint(self) -> Path:
        """How the last change is undone, and until when somebody may confirm it."""
        return self.agent / "rollback.json"

    @property
    def accepted(self) -> Path:
        """What a person has let past the guard, and is in the kernel."""
        return self.agent / "accepted.json"

    @property
    def gone(self) -> Path:
        """How much went without a proven cause within the last hour."""
        return self.agent / "gone.json"

    @property
    def forget(self) -> Path:
        """A person's word that what is known of the ledger is to be forgotten."""
        return self.state / "intent" / "forget.json"

    @property
    def snapshot(self) -> Path:
        """The last good answer of the ledger, for a reboot without an RPC."""
        return self.state / "ledger" / "last.json"

    @property
    def desired(self) -> Path:
        """Symlink to the current generation of rendered files."""
        return self.state / "desired"

    @property
    def agent(self) -> Path:
        """Directory of the files that the reconciler publishes."""
        return self.run / "agent"

    @property
    def wake(self) -> Path:
        """Datagram socket of the reconciler: any datagram wakes its loop."""
        return self.agent / "wake"

    @property
    def status(self) -> Path:
        """The status document."""
        return self.agent / "status.json"

    @property
    def plan(self) -> Path:
        """The last plan."""
        return self.agent / "plan.json"

    @property
    def events(self) -> Path:
        """The last events."""
        return self.agent / "events.json"

    @property
    def journal(self) -> Path:
        """What the reconciler has begun in the kernel, and which objects it made."""
        return self.agent / "journal"

    @property
    def ledger(self) -> Path:
        """What the last poll of the ledger said."""
        return self.agent / "ledger.json"

    @property
    def sessions(self) -> Path:
        """The rendered BGP sessions, which the engine includes."""
        return self.state / "bgp" / "services.conf"

    @property
    def peers(self) -> Path:
        """The peers that were last wanted: for a start without a ledger."""
        return self.state / "bgp" / "peers.json"

    @property
    def engine(self) -> Path:
        """The BGP engine's control socket."""
        return self.run / "bird" / "bird.ctl"

    @property
    def engine_seen(self) -> Path:
        """Is there once an engine has answered on this host: from then on its sessions are waited for."""
        return self.state / "bgp" / "engine-seen"

    @property
    def bgp(self) -> Path:
        """Sessions and counters of BGP."""
        return self.agent / "bgp.json"

    @property
    def routes(self) -> Path:
        """Learned routes."""
        return self.agent / "routes.json"

    @property
    def lock(self) -> Path:
        """Locked (flock) by the one reconciler that may write to the kernel."""
        return self.agent / "lock"

    @property
    def socket(self) -> Path:
        """The API's socket."""
        return self.run / "dzagent.sock"


@dataclass(frozen=True, slots=True)
class Doublezerod:
    """Where the other agent, doublezerod, has its state, its socket and its unit. Its files are only read."""

    state: Path = Path("/var/lib/doublezerod")
    socket: Path = COMPAT_SOCKET
    unit: str = "doublezerod.service"


@dataclass(frozen=True, slots=True)
class Intervals:
    """Times in seconds: between polls of the ledger, between looks at the whole kernel, total of one RPC call;
    between searches for own users, and between lists of all devices while something needs them.
    """

    poll: float = 10.0
    resync: float = 60.0
    rpc_timeout: float = 10.0
    search: float = 60.0
    devices: float = 120.0


@dataclass(frozen=True, slots=True)
class Links:
    """Interface names of the two services."""

    unicast: str = "doublezero0"
    multicast: str = "doublezero1"

    def of(self, service: ServiceName) -> str:
        """Return the interface of a service."""
        return self.unicast if service == "unicast" else self.multicast


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked. `rpc` may be empty: see `require_rpc`.

    websocket: URLs of subscriptions, empty for none. rpc_budget: requests a minute. outside_lookup: the URL that
    tells this host's address, "" for none. remarks: what a person should know about the file, one sentence each.
    """

    network: Network = "mainnet-beta"
    program_id: str = PROGRAM_IDS["mainnet-beta"]
    rpc: tuple[str, ...] = ()
    client_ip: IPv4Address | None = None
    apply: ApplyMode = "auto"
    policy: str = "default"
    templates: Path = Path("/etc/dzagent/templates.d")
    intervals: Intervals = field(default_factory=Intervals)
    paths: Paths = field(default_factory=Paths)
    links: Links = field(default_factory=Links)
    compat_socket: bool = False
    log_level: str = "info"
    outside_lookup: str = OUTSIDE_LOOKUP
    websocket: tuple[str, ...] = ()
    rpc_budget: int = 120
    commitment: Commitment = "finalized"
    full_fetch: bool = False
    doublezerod: Doublezerod = field(default_factory=Doublezerod)
    remarks: tuple[str, ...] = ()
    file: str = str(DEFAULT_CONFIG)

    def require_rpc(self) -> tuple[str, ...]:
        """Return the ledger endpoints; raises ConfigError with what to write where none is set."""
        if self.rpc:
            return self.rpc
        raise ConfigError(
            f"rpc is not set: network {self.network} needs the URL of a ledger RPC endpoint "
            "(rpc: https://HOST/TOKEN, from your RPC provider)",
            file=self.file,
        )


def refuse_client_ip(address: IPv4Address, network: str) -> str | None:
    """Why `address` cannot be the client IP of a host of this network, as one sentence; None if it can.

    Documentation ranges pass: examples and laboratories use them, and no ledger grants them anything.
    """
    if any(address in net for net in NEVER_CLIENT_IP):
        return f"{address} cannot be a client IP: no other host can send to it"
    if network not in {"localnet", "custom"} and any(address in net for net in PRIVATE_CLIENT_IP):
        return f"{address} cannot be a client IP on {network}: it is a private address"
    return None


def redact_url(url: str) -> str:
    """Return the URL without what may be a secret: only scheme, host and port are left."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
