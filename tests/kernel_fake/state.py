"""What the kernel holds, and what links and addresses do to each other and to routes.

The lists hold the values of dzagent.model, so that a test can look at them, and edit them behind everybody's
back: what follows from such an edit (the routes that the kernel makes by itself) is caught up with before the
next command.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from dzagent.model import MAIN_TABLE, Address, Link, Route, Rule, SeenLink

LOCAL_TABLE, DEFAULT_TABLE = 255, 253
KERNEL = 2
"""RTPROT_KERNEL: the protocol of routes that follow from addresses."""

ANY = IPv4Network("0.0.0.0/0")
STANDARD_RULES = (
    Rule(0, ANY, ANY, LOCAL_TABLE, KERNEL),
    Rule(32766, ANY, ANY, MAIN_TABLE, KERNEL),
    Rule(32767, ANY, ANY, DEFAULT_TABLE, KERNEL),
)


class Refused(Exception):
    """The kernel, or `ip` itself, says no; the text is what it prints."""


def no_device(name: str) -> Refused:
    return Refused(f'Cannot find device "{name}"')


EXISTS = "RTNETLINK answers: File exists"


@dataclass
class State:
    """links by name; addresses in the order of their making; connected: routes that follow from addresses."""

    links: dict[str, SeenLink] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    standard: list[Rule] = field(default_factory=lambda: list(STANDARD_RULES))
    connected: list[Route] = field(default_factory=list)
    tables: set[int] = field(default_factory=lambda: {MAIN_TABLE, LOCAL_TABLE})
    next_index: int = 100
    known: set[Address] = field(default_factory=set)

    def catch_up(self) -> None:
        """Take in what was edited in the lists directly."""
        there = {a for a in self.addresses if self.is_up(a.dev)}
        if there != self.known:
            for address in self.known - there:
                self._disconnect(address)
            for address in self.addresses:
                if address in there - self.known:
                    self._connect(address)
            self.known = there
        self.tables |= {route.table for route in self.routes}

    # ---- links ---------------------------------------------------------------------------------------------

    def link(self, name: str) -> SeenLink:
        """Find a link by its name, or as "if7" by its index. Raises Refused."""
        seen = self.links.get(name)
        if seen is None and name.startswith("if") and name[2:].isdecimal():
            seen = next((link for link in self.links.values() if link.ifindex == int(name[2:])), None)
            if seen is None:
                raise Refused("RTNETLINK answers: No such device")
        if seen is None:
            raise no_device(name)
        return seen

    def is_up(self, dev: str | None) -> bool:
        return dev in self.links and self.links[dev].up

    def make_link(self, name: str, kind: str, mtu: int, tunnel: Link | None) -> SeenLink:
        if name in self.links or (tunnel is not None and self._pair_is_taken(tunnel)):
            raise Refused(EXISTS)
        self.next_index += 1
        up, alias = (False, "") if tunnel is None else (tunnel.up, tunnel.alias)
        seen = SeenLink(name, self.next_index, kind, up, mtu, alias, tunnel)
        self.links[name] = seen
        return seen

    def change_link(self, seen: SeenLink, tunnel: Link) -> None:
        """Change the tunnel's own attributes. The kernel tells tunnels without keys apart by their ends."""
        if seen.tunnel is None:
            raise Refused("Failed to get existing tunnel info.")
        if self._pair_is_taken(tunnel):
            raise Refused(EXISTS)
        self.links[seen.name] = replace(seen, tunnel=tunnel)

    def set_attributes(self, seen: SeenLink, *, mtu: int | None = None, alias: str | None = None) -> None:
        mtu, alias = seen.mtu if mtu is None else mtu, seen.alias if alias is None else alias
        tunnel = None if seen.tunnel is None else replace(seen.tunnel, mtu=mtu, alias=alias)
        self.links[seen.name] = replace(seen, mtu=mtu, alias=alias, tunnel=tunnel)

    def set_master(self, seen: SeenLink, master: str | None) -> None:
        if seen.tunnel is not None:
            kept = [token for token in seen.tunnel.extra if not token.startswith("master ")]
            extra = tuple(sorted([*kept, *([] if master is None else [f"master {master}"])]))
            self.links[seen.name] = replace(seen, tunnel=replace(seen.tunnel, extra=extra))

    def set_up(self, seen: SeenLink, *, up: bool) -> None:
        """A link that goes down drops every route over it; going up brings back only what addresses bring."""
        if up == seen.up:
            return
        tunnel = None if seen.tunnel is None else replace(seen.tunnel, up=up)
        self.links[seen.name] = replace(seen, up=up, tunnel=tunnel)
        if not up:
            self._drop_routes(seen.name)
        self._settle(seen.name)

    def drop_link(self, seen: SeenLink) -> None:
        while held := [address for address in self.addresses if address.dev == seen.name]:
            self.drop_address(held[0])
        self._drop_routes(seen.name)
        del self.links[seen.name]

    def _pair_is_taken(self, tunnel: Link) -> bool:
        return not _keyed(tunnel) and any(
            seen.tunnel is not None
            and seen.name != tunnel.name
            and not _keyed(seen.tunnel)
            and (seen.tunnel.local, seen.tunnel.remote) == (tunnel.local, tunnel.remote)
            for seen in self.links.values()
        )

    def _drop_routes(self, dev: str) -> None:
        self.routes = [route for route in self.routes if not over(route, dev)]
        self.connected = [route for route in self.connected if route.dev != dev]

    # ---- addresses -----------------------------------------------------------------------------------------

    def add_address(self, address: Address) -> None:
        """One subnet of a link has one scope, whatever it was that came first."""
        for other in self._siblings(address):
            if other.interface.ip == address.interface.ip:
                raise Refused("Error: ipv4: Address already assigned.")
            if other.scope != address.scope:
                raise Refused("Error: ipv4: Invalid scope value.")
        self.addresses.append(address)
        self._settle(address.dev)

    def drop_address(self, address: Address) -> None:
        """A primary address takes its secondaries along; the last address of a link takes all its routes."""
        siblings = self._siblings(address)
        primary = siblings[0] is address
        for gone in siblings if primary else [address]:
            self.addresses = [other for other in self.addresses if other is not gone]
            self._disconnect(gone)
            self.known.discard(gone)
            self._forget_source(gone)
        if not any(other.dev == address.dev for other in self.addresses):
            self._drop_routes(address.dev)

    def _forget_source(self, gone: Address) -> None:
        """Where no link has the address, routes of main with it as their source go, those of other tables stay."""
        ip = gone.interface.ip
        if not self.is_local(ip):
            self.routes = [r for r in self.routes if not (r.table == MAIN_TABLE and r.src == ip)]
            self.connected = [route for route in self.connected if route.src != ip]

    def is_local(self, ip: IPv4Address) -> bool:
        return any(address.interface.ip == ip for address in self.addresses)

    def _siblings(self, address: Address) -> list[Address]:
        """Return the addresses of one subnet of a link: the first of them is the primary one."""
        return [
            other for other in self.addresses if other.dev == address.dev and subnet(other) == subnet(address)
        ]

    # ---- routes that follow from addresses -----------------------------------------------------------------

    def _settle(self, dev: str) -> None:
        for address in self.addresses:
            if address.dev == dev and address not in self.known and self.is_up(dev):
                self._connect(address)
                self.known.add(address)
        self.known = {address for address in self.known if self.is_up(address.dev)}

    def _connect(self, address: Address) -> None:
        route = self._follows(address)
        if route is not None and route not in self.connected:
            self.connected.append(route)

    def _disconnect(self, address: Address) -> None:
        network = subnet(address)
        gone = Route(network, None, address.dev, MAIN_TABLE, KERNEL, address.interface.ip)
        if gone in self.connected:
            self.connected.remove(gone)

    def _follows(self, address: Address) -> Route | None:
        network = subnet(address)
        alone = network == IPv4Network((address.interface.ip, 32))
        if alone or self._siblings(address)[0] is not address:
            return None
        return Route(network, None, address.dev, MAIN_TABLE, KERNEL, address.interface.ip)


# ---- small facts -------------------------------------------------------------------------------------------


def subnet(address: Address) -> IPv4Network:
    """The subnet of an address: that of its peer, if it has one."""
    peer = next((token for token in address.extra if token.startswith("peer ")), None)
    return address.interface.network if peer is None else IPv4Interface(peer.split()[1]).network


def over(route: Route, dev: str) -> bool:
    """Tell whether a route has its only nexthop over a link."""
    return route.dev == dev and not any(token.startswith("nexthop ") for token in route.extra)


def broadcasts(state: State) -> Iterator[tuple[str, IPv4Address]]:
    """Yield the broadcast addresses that the local table holds, with their links."""
    for address in state.addresses:
        network = subnet(address)
        if network.prefixlen < 31 and state.is_up(address.dev):
            yield address.dev, network.broadcast_address


def _keyed(link: Link) -> bool:
    return any(token.startswith(("key ", "ikey ", "okey ")) for token in link.extra)
