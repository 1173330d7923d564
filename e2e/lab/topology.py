"""The network of the lab: a host with the agent, two DoubleZero devices, a ledger, another user.

            host 198.51.100.7 ----+         +---- dev1   192.0.2.1 and .2   dz prefix 203.0.113.0/26
                                  | router  |---- dev2   192.0.2.9          dz prefix 203.0.113.64/26
      peer 192.0.2.25 ------------+         +---- ledger 192.0.2.17:8899

The host is the lab's own namespace, or a container that boots a distribution; the others have names. `peer` is another user of dev1, with a tunnel of its own
and the DoubleZero address 203.0.113.40. All addresses are of documentation ranges: the client IP is pinned.
"""

from __future__ import annotations

from dataclasses import dataclass

from e2e.lab.netns import Namespace

CLIENT_IP = "198.51.100.7"
GATEWAY = "198.51.100.1"
LEDGER_IP = "192.0.2.17"
LEDGER_PORT = 8899
"""Where the agent asks: a proxy that tells the truth, until a test makes it lie."""
TRUE_LEDGER_PORT = 8898
MULTICAST_ENDPOINT = "192.0.2.2"
"""A second address of dev1: two GRE tunnels of one host need different far ends."""
PEER_IP = "192.0.2.25"
PEER_DZ_IP = "203.0.113.40"
PEER_NET = ("169.254.255.0", "169.254.255.1")


@dataclass(frozen=True, slots=True)
class Site:
    """A namespace behind the router: its addresses (the first is the main one) in a /29, and its gateway."""

    name: str
    addresses: tuple[str, ...]
    gateway: str


@dataclass(frozen=True, slots=True)
class DeviceSite(Site):
    """A DoubleZero device: users get addresses from `prefix`, `endpoints` are where tunnels may end."""

    prefix: str = ""

    @property
    def public_ip(self) -> str:
        """Its address on the ledger."""
        return self.addresses[0]


DEV1 = DeviceSite("dev1", ("192.0.2.1", "192.0.2.2"), "192.0.2.6", prefix="203.0.113.0/26")
DEV2 = DeviceSite("dev2", ("192.0.2.9",), "192.0.2.14", prefix="203.0.113.64/26")
DEVICES = (DEV1, DEV2)
LEDGER = Site("ledger", (LEDGER_IP,), "192.0.2.22")
PEER = Site("peer", (PEER_IP,), "192.0.2.30")
DESK = Site("desk", ("192.0.2.33",), "192.0.2.38")
"""Where the tests sit if they are not on the host: this process's own namespace."""


@dataclass(frozen=True, slots=True)
class Network:
    """The namespaces; `host` is the lab's own, or one that somebody else makes and connects."""

    host: Namespace
    router: Namespace
    ledger: Namespace
    peer: Namespace
    devices: dict[str, Namespace]


def build_network(host: Namespace | None = None) -> Network:
    """Make all namespaces and connect them. Raises LabError.

    host: the namespace of a host that is not there yet; it is left to `host_link` to connect it.
    """
    here = Namespace()
    network = Network(
        host=host or here,
        router=Namespace("router"),
        ledger=Namespace(LEDGER.name),
        peer=Namespace(PEER.name),
        devices={site.name: Namespace(site.name) for site in DEVICES},
    )
    sites = (*DEVICES, LEDGER, PEER)
    for name in ("router", *(site.name for site in sites)):
        here.ip(f"netns add {name}")
    for site in sites:
        _connect(network.router, site)
    network.router.batch("link set lo up")
    if host is None:
        host_link(network, "eth0")
        here.batch(*host_commands("eth0"))
    else:
        _connect_desk(network)
    for namespace in (network.router, *network.devices.values()):
        namespace.sysctl("ip_forward", 1)
    # Distributions filter by reverse path: the answers of another user come in by a tunnel.
    for namespace in (*([here] if host is None else []), *network.devices.values(), network.peer):
        namespace.sysctl("conf/all/rp_filter", 0)
        namespace.sysctl("conf/default/rp_filter", 0)
    _connect_peer(network)
    return network


def _connect(router: Namespace, site: Site) -> None:
    router.batch(
        f"link add to-{site.name} type veth peer name eth0 netns {site.name}",
        f"addr add {site.gateway}/29 dev to-{site.name}",
        f"link set to-{site.name} up",
    )
    Namespace(site.name).batch(
        "link set lo up",
        *(f"addr add {address}/29 dev eth0" for address in site.addresses),
        "link set eth0 up",
        f"route add default via {site.gateway}",
    )


def _connect_desk(network: Network) -> None:
    Namespace().batch(
        "link add desk0 type veth peer name to-desk netns router",
        f"addr add {DESK.addresses[0]}/29 dev desk0",
        "link set desk0 up",
        "link set lo up",
        f"route add default via {DESK.gateway}",
    )
    network.router.batch(f"addr add {DESK.gateway}/29 dev to-desk", "link set to-desk up")


def host_link(network: Network, name: str) -> None:
    """Make the host's link, in this namespace, with the router at its other end. Raises LabError."""
    Namespace().ip(f"link add {name} type veth peer name to-host netns router")
    network.router.batch(f"addr add {GATEWAY}/24 dev to-host", "link set to-host up")


def host_commands(name: str) -> tuple[str, ...]:
    """Return the `ip` commands that configure the host's link, in the host."""
    return (
        f"addr add {CLIENT_IP}/24 dev {name}",
        f"link set {name} up",
        "link set lo up",
        f"route add default via {GATEWAY}",
    )


def _connect_peer(network: Network) -> None:
    """Give the other user its tunnel to dev1, and dev1 the way to it. What it can reach it learns by BGP."""
    device, user = PEER_NET
    network.devices["dev1"].batch(
        f"link add peer0 type gre local {DEV1.public_ip} remote {PEER_IP} ttl 64",
        f"addr add {device}/31 dev peer0",
        "link set peer0 up",
        f"route add {PEER_DZ_IP}/32 dev peer0",
    )
    network.peer.batch(
        f"link add dz0 type gre local {PEER_IP} remote {DEV1.public_ip} ttl 64",
        f"addr add {user}/31 dev dz0",
        f"addr add {PEER_DZ_IP}/32 dev dz0",
        "link set dz0 up",
    )
