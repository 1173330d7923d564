"""The simulated routing decision against `ip route get`, over random rules and tables in a network namespace."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from dzagent.kernel.iproute import IpRoute
from dzagent.model import Interest, Observed, Route
from dzagent.routing import LOCAL_TABLE, decide
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace

SCRIPTS, QUESTIONS = 60, 8
TABLES = (7, 8, 9, 254)
DEVICES = ("d0", "d1", "d2")
SOURCES = ("198.51.100.7", "10.9.0.1", "10.200.0.1")
REFUSED = ("type blackhole", "type unreachable", "type prohibit")


@pytest.fixture
def netns() -> Iterator[Namespace]:
    try:
        with namespace(f"dzagent-routing-{os.getpid()}") as made:
            for device in DEVICES:
                made.ip(f"link add {device} type veth peer name p{device}")
                made.ip(f"link set {device} up")
                made.ip(f"link set p{device} up")
            for source in SOURCES[1:]:
                made.ip(f"addr add {source}/32 dev lo")
            yield made
    except LabError as error:
        pytest.skip(f"NOT TESTED: the real kernel. {error}")


def prefix(chance: random.Random) -> IPv4Network:
    """Return one of few networks, so that they often meet."""
    length = chance.choice((0, 8, 9, 16, 24, 32))
    address = chance.choice(("10.9.0.1", "10.1.2.3", "10.200.0.9", "10.1.2.200"))
    return IPv4Network(f"{address}/{length}", strict=False)


def a_rule(chance: random.Random) -> str:
    words = [f"rule add pref {chance.randrange(1, 40) * 10} protocol 99"]
    words += [f"from {prefix(chance)}"] if chance.random() < 0.4 else []
    words += [f"to {prefix(chance)}"] if chance.random() < 0.5 else []
    words += ["iif lo"] if chance.random() < 0.15 else []
    kind = chance.random()
    if kind < 0.12:
        words.append(f"goto {chance.randrange(1, 45) * 10}")
    elif kind < 0.2:
        words.append(chance.choice(("unreachable", "blackhole", "prohibit", "nop")))
    else:
        words.append(f"table {chance.choice(TABLES)}")
        words += [f"suppress_prefixlength {chance.choice((0, 8, 16))}"] if chance.random() < 0.2 else []
    text = " ".join(words)
    return (
        text.replace("rule add", "rule add not")
        if chance.random() < 0.15 and (" from " in text or " to " in text)
        else text
    )


def a_route(chance: random.Random) -> str:
    kind = chance.choice(("unicast",) * 6 + ("unreachable", "blackhole", "throw"))
    device = f" dev {chance.choice(DEVICES)}" if kind == "unicast" else ""
    metric = f" metric {chance.choice((1, 5))}" if chance.random() < 0.3 else ""
    return f"route add {kind} {prefix(chance)}{device} table {chance.choice(TABLES)} proto 210{metric}"


def build(netns: Namespace, chance: random.Random) -> None:
    """Make the namespace's rules and routes anew; what the kernel refuses (a jump backwards, a twin) is left out."""
    lines = ["rule flush", "rule add pref 32766 table 254", "rule add pref 32767 table 253"]
    lines += [f"route flush table {table} proto 210" for table in TABLES]
    lines += [a_rule(chance) for _ in range(chance.randrange(1, 14))]
    lines += [a_route(chance) for _ in range(chance.randrange(0, 14))]
    netns("ip", ("-force", "-batch", "-"), "\n".join(lines) + "\n")


def answer(netns: Namespace, dst: IPv4Address, src: IPv4Address) -> str | None:
    """Return the device that the kernel would use, None if it refuses."""
    bound = () if src == IPv4Address(0) else ("from", str(src))
    done = netns("ip", ("-4", "-j", "route", "get", str(dst), *bound))
    return str(json.loads(done.stdout)[0]["dev"]) if done.code == 0 else None


def simulated(observed: Observed, dst: IPv4Address, src: IPv4Address) -> str | None:
    local = {address.interface.ip for address in observed.addresses}
    here = [Route(IPv4Network(ip), None, "lo", LOCAL_TABLE, 2) for ip in local]
    way = decide(observed.rules, (*here, *observed.routes), dst, src)
    if way is None or way.route is None or set(REFUSED) & set(way.route.extra):
        return None
    assert way.certain
    return way.route.dev


def test_the_simulated_decision_is_the_kernel_s(netns: Namespace) -> None:
    kernel, asked, ways = IpRoute(netns), 0, set()
    for seed in range(SCRIPTS):
        chance = random.Random(seed)  # noqa: S311 a seed, so that a failure can be repeated
        build(netns, chance)
        observed = kernel.observe(Interest(210, ()))
        for _ in range(QUESTIONS):
            dst = IPv4Address(chance.choice(("10.1.2.3", "10.1.2.77", "10.9.0.1", "10.9.7.7", "10.77.1.1")))
            src = IPv4Address(chance.choice((*SOURCES, "0.0.0.0")))  # noqa: S104 no source yet, not a bind
            expected = answer(netns, dst, src)
            found = simulated(observed, dst, src)
            rules = "\n".join(map(str, (*observed.rules, *observed.routes)))
            assert found == expected, f"seed {seed}: {dst} from {src}\n{rules}"
            asked += 1
            ways.add(expected)
    assert asked == SCRIPTS * QUESTIONS
    assert {None, "d0", "d1", "d2", "eth0"} <= ways, "the scripts lead everywhere"
