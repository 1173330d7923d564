"""What is ours: the policy check, by mark or by journal. The one place that makes `Owned` values. Pure.

Marks: links by the configured name and ifalias, routes and rules by our protocol number, addresses by being on a
link of ours. The journal names the links that we made by number and kind, so that ours stays ours when somebody
clears its alias or renames it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import TypeVar

from dzagent.model import Address, Link, Observed, Route, Rule, SeenLink
from dzagent.owned import Owned, Proof, vouch

T = TypeVar("T")

_NOWHERE = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class LinkClaim:
    """A link that we made or adopted, as the kernel tells it from all others: by its number and kind."""

    name: str
    ifindex: int
    kind: str

    def fits(self, seen: SeenLink) -> bool:
        """Tell whether this is the very link, whatever it is called now. The kernel gives no number twice."""
        return (seen.ifindex, seen.kind) == (self.ifindex, self.kind)


@dataclass(frozen=True, slots=True)
class Claims:
    """What the journal knows of the kernel's objects.

    links: links of ours. making: links whose making had begun when we last heard of them. table: the handle of our
    nftables table, None if there is none.
    """

    links: tuple[LinkClaim, ...] = ()
    making: tuple[Link, ...] = ()
    table: int | None = None

    def link(self, seen: SeenLink) -> LinkClaim | None:
        """Return what the journal knows of a link, None if nothing."""
        return next((claim for claim in self.links if claim.fits(seen)), None)

    def half_made(self, seen: SeenLink) -> bool:
        """Tell whether a link without a mark is one that we were stopped at making: then it has our parameters."""
        return any(_twin(seen, link) for link in self.making)


NO_CLAIMS = Claims()


@dataclass(frozen=True, slots=True)
class Ownership:
    """How our objects are told: protocol number of routes and rules, the alias of each link by its name, the journal."""

    protocol: int
    links: Mapping[str, str]
    claims: Claims = field(default=NO_CLAIMS)

    def owns(self, seen: SeenLink) -> bool:
        """Tell whether a link is ours."""
        return self.link(seen) is not None

    def link(self, seen: SeenLink) -> Owned[Link] | None:
        """Vouch for a link of our name that bears our mark, or that the journal knows; None if it is not ours."""
        if seen.name not in self.links:
            return self._renamed(seen)
        if self.links[seen.name] == seen.alias:
            return vouch(as_link(seen), Proof.MARK)
        if self.claims.link(seen) is not None or self.claims.half_made(seen):
            return vouch(as_link(seen), Proof.JOURNAL)
        return None

    def _renamed(self, seen: SeenLink) -> Owned[Link] | None:
        """A link of another name is ours if it bears our mark, and the journal knows that we made it."""
        if seen.alias in self.links.values() and self.claims.link(seen) is not None:
            return vouch(as_link(seen), Proof.JOURNAL)
        return None

    def adopt(self, seen: SeenLink, wanted: Link) -> Owned[Link] | None:
        """Vouch for a link of our name that nobody has marked, and that is what we would make."""
        if seen.name in self.links and _twin(seen, wanted):
            return vouch(as_link(seen), Proof.TWIN)
        return None

    def address(self, address: Address, on: Owned[Link] | None) -> Owned[Address] | None:
        """Vouch for an address on a link of ours: all IPv4 addresses there are ours."""
        if on is not None and address.dev == on.obj.name:
            return vouch(address, on.proof)
        return None

    def route(self, route: Route) -> Owned[Route] | None:
        """Vouch for a route of our protocol."""
        return vouch(route, Proof.MARK) if route.protocol == self.protocol else None

    def rule(self, rule: Rule) -> Owned[Rule] | None:
        """Vouch for a rule of our protocol."""
        return vouch(rule, Proof.MARK) if rule.protocol == self.protocol else None

    def table(self, table: T, *, marked: bool, handle: int | None) -> Owned[T] | None:
        """Vouch for the nftables table of our name, if it bears our marker or the handle that the journal knows."""
        if marked:
            return vouch(table, Proof.MARK)
        if handle is not None and handle == self.claims.table:
            return vouch(table, Proof.JOURNAL)
        return None


def without_renamed(observed: Observed, owner: Ownership) -> Observed:
    """Return what was seen without the addresses of links of ours that somebody renamed: they are not the host's."""
    renamed = {link.name for link in observed.links if link.name not in owner.links and owner.owns(link)}
    if not renamed:
        return observed
    return replace(observed, addresses=tuple(a for a in observed.addresses if a.dev not in renamed))


def _twin(seen: SeenLink, link: Link) -> bool:
    """Tell whether a link without any alias equals another in all that is set in one step; up comes later."""
    return (
        seen.alias == ""
        and seen.tunnel is not None
        and replace(seen.tunnel, alias=link.alias, up=link.up) == link
    )


def as_link(seen: SeenLink) -> Link:
    """Return any link as a `Link`, so that a step can name it."""
    if seen.tunnel is not None:
        return seen.tunnel
    extra = (f"kind {seen.kind or 'unknown'}",)
    return Link(seen.name, _NOWHERE, _NOWHERE, 0, seen.mtu, seen.alias, up=seen.up, extra=extra)
