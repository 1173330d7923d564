"""What learned routes stand on: while a link or an address is missing, thousands of them only keep it waiting. Pure."""

from __future__ import annotations

from collections.abc import Collection

from dzagent.bgp.joining import Joined, Learned, join
from dzagent.model import Address, Desired, Link, Observed

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
    return join(desired, observed, {}, links)


def _stands(desired: Desired, observed: Observed) -> bool:
    links = {link.tunnel for link in observed.links if link.tunnel is not None}
    held = {*links, *observed.addresses}
    return all(obj in held for obj in desired.objects if isinstance(obj, (Link, Address)))
