"""What a pass knows of its own host: who it is, which sources its tunnels have, what must stay reachable.

Everything is worked out from what the pass observed. Two look-ups cost a process each, the source address of the
default route and that of a tunnel; they are asked again when addresses, links or default routes changed, and
otherwise every half minute, so that a pass without work starts one process only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol

from dzagent.config import Config
from dzagent.errors import KernelError
from dzagent.feed import LedgerView
from dzagent.identity import (
    MAX_CANDIDATES,
    SshSession,
    candidates,
    choose_client_ip,
    host_addresses,
    installed_prefixes,
    protected_facts,
    read_ssh_sessions,
)
from dzagent.kernel.protocol import Kernel
from dzagent.ledger.snapshot import Snapshot
from dzagent.matching import ACTIVATED
from dzagent.model import Observed, Problem, Protected, unique
from dzagent.policy import Policy
from dzagent.remembered import RememberedIp
from dzagent.services import Host, tunnel_destinations

LOOKUP_SECONDS: Final = 30.0
"""How long a looked-up source address is good for: a route to one destination may change unseen."""

SSH_SECONDS: Final = 5.0
"""How long a list of SSH sessions is good for while the ledger says nothing new."""

ANYWHERE: Final = IPv4Address("8.8.8.8")
"""Stands for "the outside" in a route look-up, as upstream's (runtime/clientip.go); nothing is sent to it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The client IP, where it is from (words for people), and the host as decisions see it."""

    client_ip: IPv4Address
    source: str
    host: Host


@dataclass(frozen=True, slots=True)
class Facts:
    """Who this host is, or why that is not known; and either way what must stay reachable.

    installed: DoubleZero prefixes that rules of ours route, or did in the last pass: whoever deletes both rules of a
    prefix does not make it a new one.
    """

    identity: Identity | Problem
    protected: Protected
    installed: frozenset[IPv4Network] = frozenset()


class OutsideView(Protocol):
    """Who may be asked for this host's address."""

    @property
    def server(self) -> str:
        """The host that is asked."""

    @property
    def error(self) -> str:
        """Why the last look-up failed, "" if it did not."""

    def known(self) -> IPv4Address | None:
        """Return the address that was told last."""

    def ask(self) -> None:
        """Ask if it is due, without waiting."""

    def again(self) -> None:
        """Make the next `ask` due."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """SSH sessions, and what they were listed for: an answer, routed prefixes, until when (monotonic seconds)."""

    snapshot: Snapshot | None
    routed: frozenset[IPv4Network]
    until: float
    sessions: frozenset[SshSession]


class HostProbe:
    """Collects the facts of a pass. `clock` gives monotonic seconds; the loop's thread alone calls it.

    `outside` is asked only where neither a route nor an activated user tells the client IP. `remembered` holds who we
    were: whoever names us may be gone, and what stands for that address has to follow.

    Only `candidates` is for other threads too.
    """

    def __init__(
        self,
        config: Config,
        policy: Policy,
        kernel: Kernel,
        *,
        clock: Callable[[], float],
        ssh_sessions: Callable[[Collection[int]], frozenset[SshSession]] = read_ssh_sessions,
        outside: OutsideView | None = None,
        remembered: RememberedIp | None = None,
    ) -> None:
        self._outside = outside
        self._remembered = remembered or RememberedIp()
        self._pinned = config.client_ip
        self._links = (config.links.unicast, config.links.multicast)
        self._policy = policy
        self._ssh_sessions = ssh_sessions
        self._clock = clock
        self._sources = _Sources(kernel, clock)
        self._listed: _Listed | None = None
        self._candidates: tuple[IPv4Address, ...] = ()
        self._observed = Observed()
        self._intended: IPv4Address | None = None
        self._default: IPv4Address | None = None
        self._routed: frozenset[IPv4Network] = frozenset()
        self._installed: frozenset[IPv4Network] = frozenset()

    def candidates(self) -> Sequence[IPv4Address]:
        """Return the client IPs that the ledger must be asked about."""
        return self._candidates

    def look(self, observed: Observed, intended: IPv4Address | None) -> bool:
        """Take in what a pass observed and the address pinned by `enable`; tell whether the candidates changed."""
        self._observed, self._intended = observed, intended
        routed = installed_prefixes(observed, self._policy.protocol, self._policy.edge)
        self._installed, self._routed = self._routed | routed, routed
        if self._sources.refresh(observed, self._links) and self._outside:
            self._outside.again()
        pinned = self._pinned or intended
        self._default = None if pinned else self._sources.towards(ANYWHERE)
        before = self._candidates
        found = candidates(self._pinned, intended, observed, self._default, self._links)
        told = self._outside.known() if self._outside and not pinned else None
        self._candidates = unique([told, *found])[:MAX_CANDIDATES] if told else found
        return self._candidates != before

    def facts(self, view: LedgerView) -> Facts:
        """Return the facts of the pass that `look` took in last."""
        try:
            ssh = self._ssh(view.snapshot)
        except KernelError as error:
            problem = Problem("HostFactsUnreadable", str(error))
            return Facts(problem, self._protected(view, frozenset()), self._installed)
        protected = self._protected(view, ssh)
        local = host_addresses(self._observed, self._links)
        found = choose_client_ip(
            self._pinned,
            self._intended,
            self._default,
            local,
            _activated_ips(view.snapshot),
            self._before(view.snapshot),
        )
        if isinstance(found, Problem) and found.code == "ClientIpUnknown" and view.snapshot is not None:
            found = self._told(found)
        if isinstance(found, Problem):
            return Facts(found, protected, self._installed)
        ip, source = found
        if ip in local and self._pinned is None and self._intended is None:
            self._remembered.keep(ip)
        if ip == self._intended != self._pinned and ip not in local:
            source = f"{source}, which no interface of this host has"
        host = self._host(ip, protected, view.snapshot)
        return Facts(Identity(ip, source, host), protected, self._installed)

    def _before(self, snapshot: Snapshot | None) -> IPv4Address | None:
        """Return who we were, as long as that means anything: a tunnel of ours stands, or some user names it still."""
        ip = self._remembered.ip
        stands = any(link.name in self._links for link in self._observed.links)
        named = snapshot is not None and any(user.client_ip == ip for user in snapshot.users.values())
        return ip if stands or named else None

    def _ssh(self, snapshot: Snapshot | None) -> frozenset[SshSession]:
        """Return the SSH sessions, listed anew for every new answer of the ledger and whenever what we route changes.

        The kernel walks all its sockets to list them: 7 ms on an idle machine, half of a pass without work.
        """
        if not self._policy.ssh_ports:
            return frozenset()
        now, last = self._clock(), self._listed
        if last is None or last.snapshot is not snapshot or last.routed != self._routed or now >= last.until:
            last = _Listed(
                snapshot, self._routed, now + SSH_SECONDS, self._ssh_sessions(self._policy.ssh_ports)
            )
            self._listed = last
        return last.sessions

    def _told(self, unknown: Problem) -> tuple[IPv4Address, str] | Problem:
        """Ask outside: the ledger has answered and names none of this host's addresses."""
        if self._outside is None:
            return unknown
        self._outside.ask()
        address = self._outside.known()
        if address is not None:
            return address, f"outside look-up at {self._outside.server}"
        state = self._outside.error or "it has not answered yet"
        return Problem("ClientIpUnknown", f"{unknown.message.rstrip('.')}; {self._outside.server}: {state}.")

    def _protected(self, view: LedgerView, ssh: frozenset[SshSession]) -> Protected:
        return protected_facts(self._observed, self._links, rpc=sorted(view.rpc_addresses), ssh=sorted(ssh))

    def _host(self, ip: IPv4Address, protected: Protected, snapshot: Snapshot | None) -> Host:
        wanted = tunnel_destinations(snapshot, ip) if snapshot is not None else ()
        sources = {dst: self._sources.towards(dst) for dst in wanted}
        return Host(
            client_ip=ip,
            tunnel_sources={dst: source for dst, source in sources.items() if source is not None},
            protected=protected,
            installed_prefixes=self._installed,
            addresses=frozenset(host_addresses(self._observed, self._links)),
        )


class _Sources:
    """Source addresses that the kernel uses, by destination, each asked for at most once in a while."""

    def __init__(self, kernel: Kernel, clock: Callable[[], float]) -> None:
        self._kernel = kernel
        self._clock = clock
        self._seen: object = None
        self._known: dict[IPv4Address, tuple[IPv4Address | None, float]] = {}

    def refresh(self, observed: Observed, own: Collection[str]) -> bool:
        """Forget everything if what decides about sources has changed; tell whether it has."""
        seen = _routing_facts(observed, own)
        if seen == self._seen:
            return False
        self._seen = seen
        self._known = {}
        return True

    def towards(self, dst: IPv4Address) -> IPv4Address | None:
        """Return the source towards `dst`, None if there is none or it cannot be asked: then nobody guesses."""
        now = self._clock()
        known = self._known.get(dst)
        if known is not None and now - known[1] < LOOKUP_SECONDS:
            return known[0]
        try:
            source = self._kernel.source_for(dst)
        except KernelError:
            return None
        self._known[dst] = (source, now)
        return source


def _routing_facts(observed: Observed, own: Collection[str]) -> object:
    """Return what the choice of a source depends on, without our own tunnels."""
    return (
        tuple((link.name, link.ifindex, link.up) for link in observed.links if link.name not in own),
        tuple(address for address in observed.addresses if address.dev not in own),
        tuple(r for r in observed.routes if r.dst.prefixlen == 0 and r.dev not in own),
    )


def _activated_ips(snapshot: Snapshot | None) -> frozenset[IPv4Address]:
    users = () if snapshot is None else snapshot.users.values()
    return frozenset(user.client_ip for user in users if user.status == ACTIVATED)
