"""Who the host is and what its tunnels' sources are, with few questions to the kernel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from dzagent.config import Config
from dzagent.errors import KernelError, ObservationError
from dzagent.feed import LedgerView
from dzagent.hostfacts import ANYWHERE, LOOKUP_SECONDS, SSH_SECONDS, Facts, HostProbe, Identity
from dzagent.model import Address, Observed, Problem, Route, SeenLink
from dzagent.policy import Policy
from dzagent.remembered import RememberedIp
from tests.fake_kernel import FakeKernel
from tests.service_fakes import ALLOCATED, CLIENT, GATEWAY, IBRL, SSH_FROM, snapshot

PUBLIC = IPv4Address("8.9.10.11")
DEVICE = IPv4Address("192.0.2.1")


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class CountingKernel(FakeKernel):
    """Counts look-ups; `broken` makes them fail."""

    lookups: int = 0
    broken: bool = False

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        self.lookups += 1
        if self.broken:
            raise KernelError("ip could not be started")
        return super().source_for(dst)


def observed(*ips: IPv4Address) -> Observed:
    return Observed(
        links=(SeenLink("eth0", 2, "", up=True, mtu=1500),),
        addresses=tuple(Address("eth0", IPv4Interface((ip, 24)), "global") for ip in ips or (CLIENT,)),
        routes=(Route(IPv4Network("0.0.0.0/0"), GATEWAY, "eth0", 254, 4),),
    )


def no_ssh(_: Collection[int]) -> frozenset[tuple[IPv4Address, IPv4Address]]:
    return frozenset()


def probe(kernel: FakeKernel, config: Config | None = None, clock: Clock | None = None) -> HostProbe:
    return HostProbe(
        config or Config(client_ip=CLIENT), Policy(), kernel, clock=clock or Clock(), ssh_sessions=no_ssh
    )


def identity(facts: Facts) -> Identity:
    assert isinstance(facts.identity, Identity), facts.identity
    return facts.identity


def test_a_pinned_address_needs_no_question() -> None:
    kernel = CountingKernel()
    prober = probe(kernel)
    assert prober.look(observed(), None)
    assert prober.candidates() == (CLIENT,)
    assert identity(prober.facts(LedgerView())).client_ip == CLIENT
    assert kernel.lookups == 0


def test_the_pin_of_enable_counts_after_the_configuration_s() -> None:
    prober = probe(CountingKernel(), Config())
    prober.look(observed(), PUBLIC)
    assert (prober.candidates(), identity(prober.facts(LedgerView())).client_ip) == ((PUBLIC,), PUBLIC)
    prober = probe(CountingKernel())
    prober.look(observed(), PUBLIC)
    assert prober.candidates() == (CLIENT,)


def test_the_default_source_is_asked_once_until_something_changes() -> None:
    kernel, clock = CountingKernel(sources={ANYWHERE: PUBLIC}), Clock()
    prober = probe(kernel, Config(), clock)
    assert prober.look(observed(PUBLIC), None)
    assert not prober.look(observed(PUBLIC), None)
    assert (kernel.lookups, prober.candidates()) == (1, (PUBLIC,))
    clock.now += LOOKUP_SECONDS
    prober.look(observed(PUBLIC), None)
    assert kernel.lookups == 2
    other = IPv4Address("8.9.10.12")
    kernel.sources[ANYWHERE] = other
    assert prober.look(observed(other), None)
    assert (kernel.lookups, prober.candidates()) == (3, (other,))


def test_what_happens_on_our_own_links_changes_nothing() -> None:
    kernel = CountingKernel(sources={ANYWHERE: PUBLIC})
    prober = probe(kernel, Config())
    before = observed(PUBLIC)
    prober.look(before, None)
    ours = Address("doublezero0", IPv4Interface("169.254.0.5/31"), "link")
    link = SeenLink("doublezero0", 9, "gre", up=True, mtu=1476)
    prober.look(replace(before, addresses=(*before.addresses, ours), links=(*before.links, link)), None)
    assert kernel.lookups == 1


def test_a_look_up_that_fails_is_no_answer_and_is_asked_again() -> None:
    kernel = CountingKernel(sources={ANYWHERE: PUBLIC}, broken=True)
    prober = probe(kernel, Config())
    prober.look(observed(PUBLIC), None)
    assert isinstance(prober.facts(LedgerView()).identity, Problem)
    kernel.broken = False
    prober.look(observed(PUBLIC), None)
    assert identity(prober.facts(LedgerView())).client_ip == PUBLIC


@pytest.mark.parametrize("known", [True, False])
def test_the_sources_of_tunnels_that_need_one_are_looked_up(known: bool) -> None:
    kernel = CountingKernel(sources={DEVICE: CLIENT} if known else {})
    prober = probe(kernel)
    view = LedgerView(snapshot=snapshot(ALLOCATED))
    for _ in range(3):
        prober.look(observed(), None)
        host = identity(prober.facts(view)).host
    assert host.tunnel_sources == ({DEVICE: CLIENT} if known else {})
    assert kernel.lookups == 1
    assert host.addresses == {CLIENT}


def test_types_that_use_the_client_ip_ask_nothing() -> None:
    kernel = CountingKernel()
    prober = probe(kernel)
    prober.look(observed(), None)
    prober.facts(LedgerView(snapshot=snapshot(IBRL)))
    assert kernel.lookups == 0


def test_gateways_rpc_and_ssh_are_protected() -> None:
    rpc = IPv4Address("192.0.2.50")
    prober = HostProbe(
        Config(client_ip=CLIENT),
        Policy(),
        CountingKernel(),
        clock=Clock(),
        ssh_sessions=lambda _: frozenset({(CLIENT, SSH_FROM)}),
    )
    prober.look(observed(), None)
    facts = prober.facts(LedgerView(rpc_addresses=frozenset({rpc})))
    assert set(facts.protected.addresses) == {GATEWAY, rpc, CLIENT, SSH_FROM}


def test_unreadable_ssh_sessions_stop_everything_that_the_ledger_says() -> None:
    def unreadable(_: Collection[int]) -> frozenset[tuple[IPv4Address, IPv4Address]]:
        raise ObservationError("/proc/net/tcp cannot be read.")

    prober = HostProbe(
        Config(client_ip=CLIENT), Policy(), CountingKernel(), clock=Clock(), ssh_sessions=unreadable
    )
    prober.look(observed(), None)
    facts = prober.facts(LedgerView())
    assert isinstance(facts.identity, Problem)
    assert facts.identity.code == "HostFactsUnreadable"
    assert GATEWAY in facts.protected.addresses


def test_no_ports_means_no_question_about_ssh() -> None:
    prober = HostProbe(
        Config(client_ip=CLIENT),
        replace(Policy(), ssh_ports=()),
        CountingKernel(),
        clock=Clock(),
        ssh_sessions=lambda _: pytest.fail("asked"),
    )
    prober.look(observed(), None)
    identity(prober.facts(LedgerView()))


class FakeOutside:
    """An outside server that has or has not answered."""

    server, error = "h.example", ""

    def __init__(self, address: IPv4Address | None = None) -> None:
        self.address = address
        self.asked = self.renewed = 0

    def known(self) -> IPv4Address | None:
        return self.address

    def ask(self) -> None:
        self.asked += 1

    def again(self) -> None:
        self.renewed += 1


def test_outside_is_asked_only_after_the_ledger_named_nobody() -> None:
    told = FakeOutside()
    prober = HostProbe(Config(), Policy(), CountingKernel(), clock=Clock(), ssh_sessions=no_ssh, outside=told)
    private = IPv4Address("10.1.2.3")
    prober.look(observed(private), None)
    assert isinstance(prober.facts(LedgerView()).identity, Problem)
    assert told.asked == 0
    answered = LedgerView(snapshot(None))
    found = prober.facts(answered).identity
    assert isinstance(found, Problem)
    assert "h.example: it has not answered yet" in found.message
    assert told.asked == 1
    told.address = PUBLIC
    assert prober.look(observed(private), None)
    assert prober.candidates() == (PUBLIC, private)
    who = identity(prober.facts(answered))
    assert (who.client_ip, who.source) == (PUBLIC, "outside look-up at h.example")
    renewed = told.renewed
    prober.look(observed(IPv4Address("10.9.9.9")), None)
    assert told.renewed == renewed + 1


BANNED = replace(IBRL, status=6)


def test_who_we_were_counts_while_a_tunnel_stands_or_a_user_names_it(tmp_path: Path) -> None:
    path = tmp_path / "client-ip.json"

    def found(seen: Observed, ledger: LedgerView) -> Identity | Problem:
        prober = HostProbe(
            Config(),
            Policy(),
            FakeKernel(),
            clock=Clock(),
            ssh_sessions=no_ssh,
            remembered=RememberedIp(path),
        )
        prober.look(seen, None)
        return prober.facts(ledger).identity

    nobody, banned, named = (
        LedgerView(snapshot(None)),
        LedgerView(snapshot(BANNED)),
        LedgerView(snapshot(IBRL)),
    )
    assert isinstance(found(observed(), banned), Problem)  # nobody has ever named us
    assert isinstance(found(observed(), named), Identity)
    who = found(observed(), banned)
    assert isinstance(who, Identity)
    assert (who.client_ip, who.source) == (CLIENT, "address of this host that was the client IP before")
    assert isinstance(found(observed(), nobody), Problem)
    tunnel = SeenLink("doublezero0", 9, "dzagent:unicast", up=True, mtu=1476)
    assert isinstance(found(replace(observed(), links=(tunnel,)), nobody), Identity)
    assert isinstance(
        found(observed(IPv4Address("10.9.9.9")), banned), Problem
    )  # the host has another address


@pytest.mark.parametrize("text", ["", "{", "[]", '{"client_ip": 7}', '{"client_ip": "8.8.8.8/32"}', "null"])
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "client-ip.json"
    path.write_text(text)
    memory = RememberedIp(path)
    assert memory.ip is None
    memory.keep(PUBLIC)
    assert RememberedIp(path).ip == PUBLIC


def test_a_memory_that_cannot_be_written_holds_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = RememberedIp(tmp_path / "file" / "client-ip.json")
    memory.keep(PUBLIC)
    assert memory.ip == PUBLIC


def test_a_pin_of_enable_that_no_interface_has_is_used_and_told() -> None:
    prober = probe(CountingKernel(), Config())
    prober.look(observed(), PUBLIC)
    assert identity(prober.facts(LedgerView())).source.endswith("which no interface of this host has")
    prober.look(observed(PUBLIC), PUBLIC)
    assert identity(prober.facts(LedgerView())).source == "client_ip given to enable"


def test_sessions_are_listed_for_every_new_answer_and_otherwise_now_and_then() -> None:
    listed: list[int] = []

    def sessions(_: Collection[int]) -> frozenset[tuple[IPv4Address, IPv4Address]]:
        listed.append(1)
        return frozenset()

    clock = Clock()
    prober = HostProbe(
        Config(client_ip=CLIENT), Policy(), CountingKernel(), clock=clock, ssh_sessions=sessions
    )
    prober.look(observed(), None)
    view = LedgerView(snapshot=snapshot(IBRL))
    for expected in (1, 1, 1):
        prober.facts(view)
        assert len(listed) == expected
    prober.facts(LedgerView(snapshot=snapshot(IBRL)))
    assert len(listed) == 2
    clock.now += SSH_SECONDS
    prober.facts(view)
    prober.facts(view)
    assert len(listed) == 3
