"""Who this host is: its client IP, and the facts about it that must stay true whatever the ledger says.

Functions are pure over what was observed; the two that look outside (`read_ssh_sessions`, `RpcAddresses`) take
their files, their resolver and their clock as arguments.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Literal, TypeAlias

from dzagent.errors import ObservationError
from dzagent.model import Observed, Problem, Protected, Route, unique
from dzagent.policy import Edge
from dzagent.protect import protect

MAX_CANDIDATES = 8
"""Client IPs that the poller looks up; each costs a search."""

HOW_TO_CHOOSE = "set client_ip in the configuration, or `dzagent enable --client-ip IP`"

RPC_SECONDS = 300.0
"""How long a look-up of the RPC hosts' names is good for."""

# Upstream's set (runtime/clientip.go, IsPublicIPv4). 198.18/15 is not in it on purpose: some hosts use it.
MARTIANS = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

_NEVER_A_CLIENT = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)

_NEXT_HOP = re.compile(r"nexthop via ([0-9.]+)(?: dev (\S+))? weight \d+")

SshSession: TypeAlias = tuple[IPv4Address, IPv4Address]
"""(this host's end, the far end) of an established session."""

ByteOrder: TypeAlias = Literal["little", "big"]


# ---- the client IP ---------------------------------------------------------------------------------------


def is_public_ipv4(ip: IPv4Address) -> bool:
    """Whether an address may be found as client IP without a person naming it."""
    return not any(ip in network for network in MARTIANS)


def choose_client_ip(
    pinned_config: IPv4Address | None,
    pinned_intent: IPv4Address | None,
    default_source: IPv4Address | None,
    local_addresses: Sequence[IPv4Address],
    activated_user_ips: Collection[IPv4Address],
    remembered: IPv4Address | None = None,
) -> tuple[IPv4Address, str] | Problem:
    """Return the client IP and where it is from, or why it is not known.

    A pin is used as it is, private or not. Else the source address of the default route counts if it is public,
    else the one address of this host that an activated user names, else the one that was it before: a ban or a
    deletion takes away the user that named it, and must take effect all the same.
    """
    if pinned_config is not None:
        return pinned_config, "client_ip of the configuration"
    if pinned_intent is not None:
        return pinned_intent, "client_ip given to enable"
    if default_source is not None and is_public_ipv4(default_source):
        return default_source, "source address of the default route"
    named = [ip for ip in unique(local_addresses) if ip in activated_user_ips]
    if remembered in local_addresses and remembered is not None and len(named) != 1:
        return remembered, "address of this host that was the client IP before"
    return _named_by_user(default_source, named)


def _named_by_user(
    default_source: IPv4Address | None, named: Sequence[IPv4Address]
) -> tuple[IPv4Address, str] | Problem:
    """Choose among the host's addresses that activated users name; more than one is a person's choice."""
    if default_source is not None and default_source in named:
        return default_source, "source address of the default route, named by an activated user"
    if len(named) == 1:
        return named[0], "address of this host that an activated user names"
    if named:
        listed = ", ".join(map(str, named))
        message = (
            f"several addresses of this host have activated users ({listed}): to choose one, {HOW_TO_CHOOSE}."
        )
        return Problem("ClientIpAmbiguous", message)
    why = "there is no default route"
    if default_source is not None:
        why = f"the default route's source {default_source} is not public"
    message = f"the client IP is not known: {why}, and no activated user names an address of this host; {HOW_TO_CHOOSE}."
    return Problem("ClientIpUnknown", message)


def candidates(
    config_ip: IPv4Address | None,
    intent_ip: IPv4Address | None,
    observed: Observed,
    default_source: IPv4Address | None,
    exclude_links: Collection[str],
) -> tuple[IPv4Address, ...]:
    """Return the client IPs that the ledger must be asked about, the likeliest first, at most MAX_CANDIDATES."""
    for pinned in (config_ip, intent_ip):
        if pinned is not None:
            return (pinned,)
    if default_source is not None and is_public_ipv4(default_source):
        return (default_source,)
    local = [ip for ip in host_addresses(observed, exclude_links) if not _in_any(ip, _NEVER_A_CLIENT)]
    first = [default_source] if default_source in local else []
    return unique([*first, *sorted(local, key=lambda ip: not is_public_ipv4(ip))])[:MAX_CANDIDATES]


def _in_any(ip: IPv4Address, networks: Iterable[IPv4Network]) -> bool:
    return any(ip in network for network in networks)


# ---- what the host holds ---------------------------------------------------------------------------------


def underlay(observed: Observed, exclude_links: Collection[str]) -> tuple[IPv4Interface, ...]:
    """Return every address with its network, without loopback and without those on our own links."""
    return tuple(
        address.interface
        for address in observed.addresses
        if address.dev not in exclude_links and not address.interface.ip.is_loopback
    )


def host_addresses(observed: Observed, exclude_links: Collection[str]) -> tuple[IPv4Address, ...]:
    """Return the addresses of the host, each once, without loopback and without those on our own links."""
    return unique(interface.ip for interface in underlay(observed, exclude_links))


def gateways(observed: Observed, exclude_links: Collection[str]) -> tuple[IPv4Address, ...]:
    """Return the next hops of default routes, in any table that was read, that are not on our own links."""
    defaults = (route for route in observed.routes if route.dst.prefixlen == 0)
    return unique(
        via for route in defaults for via, dev in _next_hops(route) if dev is None or dev not in exclude_links
    )


def _next_hops(route: Route) -> Iterator[tuple[IPv4Address, str | None]]:
    """Yield (gateway, device); a multipath route has its own only in its tokens (kernel/tokens.py)."""
    if route.via is not None:
        yield route.via, route.dev
    for token in route.extra:
        match = _NEXT_HOP.fullmatch(token)
        if match is not None:
            yield IPv4Address(match[1]), match[2]


def tunnel_endpoints(observed: Observed, links: Collection[str]) -> tuple[IPv4Address, ...]:
    """Return the outer addresses of the tunnels that are up under our names."""
    tunnels = [link.tunnel for link in observed.links if link.name in links and link.tunnel is not None]
    return unique(end for tunnel in tunnels for end in (tunnel.local, tunnel.remote))


def installed_prefixes(observed: Observed, protocol: int, edge: Edge) -> frozenset[IPv4Network]:
    """Return the DoubleZero prefixes that rules of our protocol number route already, one way or both."""
    ours = [rule for rule in observed.rules if rule.protocol == protocol]
    to = {rule.dst for rule in ours if rule.table == edge.table_to}
    from_ = {rule.src for rule in ours if rule.table == edge.table_from}
    return frozenset(prefix for prefix in to | from_ if prefix.prefixlen > 0)


def protected_facts(
    observed: Observed,
    links: Collection[str],
    *,
    endpoints: Iterable[IPv4Address] = (),
    rpc: Iterable[IPv4Address] = (),
    ssh: Iterable[SshSession] = (),
) -> Protected:
    """Put together what must stay reachable; `links` are our own, `endpoints` tunnels that are not up yet."""
    return protect(
        interfaces=underlay(observed, links),
        gateways=gateways(observed, links),
        endpoints=(*tunnel_endpoints(observed, links), *endpoints),
        rpc=rpc,
        ssh=ssh,
    )


# ---- SSH sessions ----------------------------------------------------------------------------------------

_ESTABLISHED = "01"
_MAPPED_WORDS = (0, 0, 0xFFFF)
"""The first 96 bits of an IPv4 address in IPv6 form, ::ffff:0:0/96 (RFC 4291, 2.5.5.2)."""


def ssh_peers(
    text: str, ports: Collection[int], byteorder: ByteOrder = sys.byteorder
) -> frozenset[SshSession]:
    """Read /proc/net/tcp or /proc/net/tcp6: established IPv4 sessions whose local port is one of `ports`.

    The kernel prints addresses as words in its own byte order and ports as numbers (net/ipv4/tcp_ipv4.c,
    get_tcp4_sock). Lines of another form, IPv6 and loopback are passed over.
    """
    suffixes = tuple(f":{port:04X}" for port in ports)
    return frozenset(_sessions(text, suffixes, byteorder))


def _sessions(text: str, suffixes: tuple[str, ...], byteorder: ByteOrder) -> Iterator[SshSession]:
    for line in text.splitlines():
        fields = line.split(None, 4)
        if len(fields) < 4 or fields[3] != _ESTABLISHED or not fields[1].endswith(suffixes):
            continue
        local, peer = _address(fields[1], byteorder), _address(fields[2], byteorder)
        if local is not None and peer is not None and not peer.is_loopback:
            yield local, peer


def _address(field: str, byteorder: ByteOrder) -> IPv4Address | None:
    digits = field.partition(":")[0]
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    words = [int.from_bytes(raw[at : at + 4], "big") for at in range(0, len(raw), 4)]
    if byteorder == "little":
        words = [int.from_bytes(word.to_bytes(4, "big"), "little") for word in words]
    if len(raw) == 4:
        return IPv4Address(words[0])
    if len(raw) == 16 and tuple(words[:3]) == _MAPPED_WORDS:
        return IPv4Address(words[3])
    return None


def read_ssh_sessions(
    ports: Collection[int], proc: Path = Path("/proc/net"), byteorder: ByteOrder = sys.byteorder
) -> frozenset[SshSession]:
    """Read the host's established SSH sessions; raise ObservationError if they cannot be read."""
    sessions: set[SshSession] = set()
    for name in ("tcp", "tcp6"):
        try:
            text = (proc / name).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError as error:
            if name == "tcp6":  # a kernel without IPv6
                continue
            raise ObservationError(f"{proc / name} is missing: SSH sessions cannot be protected.") from error
        except OSError as error:
            raise ObservationError(f"{proc / name} cannot be read ({error.strerror}).") from error
        sessions |= ssh_peers(text, ports, byteorder)
    return frozenset(sessions)


# ---- the RPC endpoints -----------------------------------------------------------------------------------


def lookup_ipv4(host: str) -> frozenset[IPv4Address]:
    """Ask the system's resolver for a host's IPv4 addresses; raise OSError. It may block for long."""
    answers = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    return frozenset(IPv4Address(str(answer[4][0])) for answer in answers)


class RpcAddresses:
    """The addresses of the RPC hosts, looked up in the caller's thread at most every `seconds`.

    A name that cannot be looked up keeps its last addresses: a broken resolver must not unprotect the RPC.
    `clock` gives monotonic seconds. Not for several threads at once.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        clock: Callable[[], float],
        lookup: Callable[[str], frozenset[IPv4Address]] = lookup_ipv4,
        seconds: float = RPC_SECONDS,
    ) -> None:
        self._hosts = tuple(dict.fromkeys(hosts))
        self._clock = clock
        self._lookup = lookup
        self._seconds = seconds
        self._known: dict[str, frozenset[IPv4Address]] = {}
        self._due: dict[str, float] = {}

    def addresses(self) -> frozenset[IPv4Address]:
        """Return the addresses of all hosts, after looking up those that are due."""
        now = self._clock()
        for host in self._hosts:
            if now >= self._due.get(host, now):
                self._refresh(host, now)
        return frozenset().union(*self._known.values())

    def _refresh(self, host: str, now: float) -> None:
        try:
            found = self._lookup(host)
        except (OSError, UnicodeError):  # the latter for a name that IDNA refuses
            return  # due again at the next call
        if found:
            self._known[host] = found
            self._due[host] = now + self._seconds
