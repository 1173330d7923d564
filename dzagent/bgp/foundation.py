"""What learned routes stand on: while a link or an address is missing, thousands of them only keep it waiting. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from dzagent.bgp.parts import Joined, Learned
from dzagent.model import Address, Desired, Link, Observed, Route

MANY = 256
"""Learned routes that are worth a round of their own: planning fewer costs less than another look."""


def foundation(
    desired: Desired, observed: Observed, learned: Learned, links: Collection[str]
) -> Joined | None:
    """Return both sides without learned routes; None if there are few, or all links and addresses are as desired.

    Routes on `links`, our own, stay as they are meanwhile.
    """
    if sum(map(len, learned.values())) < MANY or _stands(desired, observed):
        return None
    return Joined(desired, replace(observed, routes=tuple(_left(desired, observed, links))))


def _left(desired: Desired, observed: Observed, links: Collection[str]) -> Iterator[Route]:
    """Return the observed routes that no learned one can be: of other devices, or of a key that is rendered."""
    rendered = {(obj.table, obj.dst) for obj in desired.objects if isinstance(obj, Route)}
    numbers = {int(dst.network_address) for _, dst in rendered}  # far cheaper to compare, thousands of times
    for route in observed.routes:
        near = int(route.dst.network_address) in numbers
        if route.dev not in links or (near and (route.table, route.dst) in rendered):
            yield route


def _stands(desired: Desired, observed: Observed) -> bool:
    links = {link.tunnel for link in observed.links if link.tunnel is not None}
    held = {*links, *observed.addresses}
    return all(obj in held for obj in desired.objects if isinstance(obj, (Link, Address)))
