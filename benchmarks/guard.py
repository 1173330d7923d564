"""What the guards of a plan cost: with 800 rules of ours, 50 marked rules of others, and 20,000 learned routes.

Needs no root: the kernel is the one of the unit tests. Times are the best of many in milliseconds; `x prefixes` is the
ratio to judging the same plan by prefixes alone, measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from dzagent.guard import check
from dzagent.model import (
    Action,
    Address,
    Link,
    Observed,
    Origin,
    Plan,
    Protected,
    Route,
    Rule,
    SeenLink,
    Step,
)
from dzagent.screen import Screen, screen

ROUNDS = 9
ANY = IPv4Network("0.0.0.0/0")
VIA, OWN, RPC = IPv4Address("169.254.0.0"), IPv4Address("198.51.100.7"), IPv4Address("192.0.2.50")
TUNNEL = Link("doublezero0", OWN, IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
PROTECTED = Protected(
    {RPC: "the RPC endpoint", OWN: "an address of this host", IPv4Address("198.51.100.1"): "a gateway"},
    {IPv4Network(f"10.{n}.0.0/24"): "a network of this host" for n in range(20)},
)
OURS = tuple(
    rule
    for n in range(400)
    for prefix in (IPv4Network((0x94000000 + (n << 8), 24)),)
    for rule in (Rule(100, ANY, prefix, 100, 210), Rule(101, prefix, ANY, 101, 210))
)
THEIRS = tuple(
    Rule(50 + n, ANY, IPv4Network(f"172.16.{n}.0/24"), 7, 4, (f"fwmark {n}/0xff",)) for n in range(50)
)
HOST = Observed(
    links=(SeenLink("doublezero0", 9, "gre", up=True, mtu=1476, alias="dzagent:unicast", tunnel=TUNNEL),),
    addresses=tuple(
        Address(f"br{n}", IPv4Interface((0x0A000001 + (n << 16), 24)), "global") for n in range(20)
    ),
    routes=(Route(ANY, IPv4Address("198.51.100.1"), "eth0", 254, 3),),
    rules=(
        Rule(0, ANY, ANY, 255, 2),
        Rule(49, ANY, ANY, 9, 4),
        *THEIRS,
        *OURS,
        Rule(32766, ANY, ANY, 254, 2),
    ),
)
BY = Screen(PROTECTED, links={"unicast": "doublezero0"}, protocol=210)
LEARNED = Origin("unicast", "learned/unicast.routes", 0)


def plan(*objects: Route | Rule) -> Plan:
    steps = tuple(Step(Action.ADD, None, obj, "missing", LEARNED) for obj in objects)
    return Plan("plan", (steps,))


PLANS = {
    "nothing to do": Plan("plan"),
    "one learned route": plan(Route(IPv4Network("203.0.113.0/24"), VIA, "doublezero0", 254, 210)),
    "20,000 learned routes": plan(
        *(
            Route(IPv4Network((0x05000000 + (n << 8), 24)), VIA, "doublezero0", 254, 210)
            for n in range(20_000)
        )
    ),
    "one rule": plan(Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)),
    "800 rules": plan(*OURS),
    "a route where a rule of others leads": plan(Route(ANY, VIA, "doublezero0", 9, 210)),
}


def best(what: Callable[[], object]) -> float:
    """Return the shortest time in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        what()
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


def main() -> None:
    print(f"{'plan':<42}{'ms':>10}{'x prefixes':>12}")
    for name, made in PLANS.items():
        alone = best(lambda made=made: check(made, PROTECTED))  # type: ignore[misc]
        whole = best(lambda made=made: screen(made, HOST, BY))  # type: ignore[misc]
        print(f"{name:<42}{whole:>10.3f}{whole / alone:>12.1f}")


if __name__ == "__main__":
    main()
