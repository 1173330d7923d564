"""The fake kernel of the unit tests against the running one: the same scripts, the same answers, the same state.

Where the kernel has no GRE links, vxlan links stand in for them (e2e/lab/standin.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import HealthCheck, given, settings

from dzagent.kernel.iproute import IpRoute, failures
from dzagent.kernel.run import Completed, Runner
from dzagent.model import Address, Interest, Link
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace
from tests.fake_kernel import FakeKernel
from tests.kernel_fake.scripts import LINKS, PREFIXES, TABLES, scripts

EXAMPLES = int(os.environ.get("FAKE_SCRIPTS", "300"))
"""How many scripts are tried; set FAKE_SCRIPTS for more."""

INTEREST = Interest(210, LINKS, tuple((table, IPv4Network(p)) for table in TABLES for p in PREFIXES))
NOWHERE = IPv4Address(0)


@dataclass(frozen=True)
class Dump:
    """What a script said by line, and what it left, without what no two kernels share (the indexes)."""

    code: int
    messages: tuple[tuple[int, str], ...]
    links: Counter[Hashable]
    addresses: Counter[Hashable]
    routes: Counter[Hashable]
    rules: tuple[Hashable, ...]


def dump(runner: Runner, lines: Sequence[str]) -> Dump:
    done: Completed = runner("ip", ("-force", "-batch", "-"), "\n".join(lines) + "\n")
    seen = IpRoute(runner).observe(INTEREST)
    return Dump(
        done.code,
        tuple(sorted(failures(done, len(lines)).items())),
        Counter(replace(link, ifindex=0) for link in seen.links),
        Counter(seen.addresses),
        Counter(seen.routes),
        seen.rules,
    )


def fake() -> FakeKernel:
    """Return a fake of the namespace that `namespace` makes."""
    kernel = FakeKernel()
    for name, kind, mtu in (("lo", "", 65536), ("peer0", "veth", 1500), ("eth0", "veth", 1500)):
        kernel.add_link(Link(name, NOWHERE, NOWHERE, 0, mtu, ""), kind)
    kernel.addresses.append(Address("lo", IPv4Interface("127.0.0.1/8"), "host"))
    kernel.ip("addr add 198.51.100.7/24 dev eth0")
    kernel.ip("route add 0.0.0.0/0 via 198.51.100.1 dev eth0")
    return kernel


def real(lines: Sequence[str]) -> Dump:
    with namespace(f"dzagent-fake-{os.getpid()}") as netns:
        return dump(netns, lines)


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    try:
        with namespace(f"dzagent-fake-{os.getpid()}"):
            pass
    except LabError as error:
        pytest.skip(f"NOT TESTED: the fake kernel against the real one. {error}")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FAKE_SCRIPTS" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=False,
)
@given(lines=scripts())
def test_the_fake_does_what_the_kernel_does(lines: list[str]) -> None:
    expected, found = real(lines), dump(fake(), lines)
    for name in ("code", "messages", "links", "addresses", "routes", "rules"):
        assert getattr(found, name) == getattr(expected, name), name


def test_both_forms_of_a_missing_table() -> None:
    with namespace(f"dzagent-fake-{os.getpid()}") as netns:
        single = ("-4", "-N", "-d", "-j", "route", "show", "exact", "10.0.0.0/8", "table", "999")
        both: tuple[Namespace, FakeKernel] = (netns, fake())
        assert both[0]("ip", single) == both[1]("ip", single)
        line = "route show exact 10.0.0.0/8 table 999\n"
        batch = ("-4", "-N", "-d", "-j", "-force", "-batch", "-")
        assert [runner("ip", batch, line) for runner in both] == [Completed(0, b"[]\n", b"")] * 2
