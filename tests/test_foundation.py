"""What many learned routes stand on is planned first, without them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from dzagent.bgp.foundation import MANY, foundation
from dzagent.model import Address, Desired, Observed, Origin, Route, Wanted

VIA = IPv4Address("169.254.0.4")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.5/31"), "link")
STATIC = Route(IPv4Network("0.0.0.0/0"), VIA, "doublezero0", 101, 210)
FOREIGN = Route(IPv4Network("10.0.0.0/8"), IPv4Address("198.51.100.1"), "eth0", 254, 4)
SAME_KEY = replace(STATIC, metric=7)
SAME_PREFIX = replace(STATIC, table=100)
LEARNED = {
    f"198.18.{n >> 8}.{n & 255}/32": Route(
        IPv4Network(f"198.18.{n >> 8}.{n & 255}/32"), VIA, "doublezero0", 100, 210
    )
    for n in range(MANY)
}
DESIRED = Desired(tuple(Wanted(obj, Origin("unicast", "unicast/x", 1)) for obj in (ADDRESS, STATIC)))
LINKS = ("doublezero0",)


def test_learned_routes_wait_for_the_address_under_them() -> None:
    held = (STATIC, *LEARNED.values(), FOREIGN, SAME_KEY, SAME_PREFIX)
    found = foundation(DESIRED, Observed(routes=held), {"unicast": LEARNED}, LINKS)
    assert found is not None
    assert found.desired == DESIRED
    assert found.observed.routes == (STATIC, FOREIGN, SAME_KEY)


def test_nothing_waits_for_what_stands_or_carries_little() -> None:
    standing = Observed(addresses=(ADDRESS,), routes=tuple(LEARNED.values()))
    assert foundation(DESIRED, standing, {"unicast": LEARNED}, LINKS) is None
    few = dict(list(LEARNED.items())[1:])
    assert foundation(DESIRED, Observed(), {"unicast": few}, LINKS) is None
