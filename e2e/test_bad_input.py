"""What the ledger must not be able to do to a working tunnel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from dzagent.config import PROGRAM_IDS
from dzagent.ledger.pda import config_address
from dzagent.ledger.snapshot import Snapshot
from dzagent.model import UserType
from e2e.lab.liar import Lies
from e2e.lab.topology import CLIENT_IP, DEV1, DEV2, GATEWAY
from e2e.lab.view import View
from e2e.lab.wait import stays
from e2e.lab.world import Granted, World, condition, problem_codes

# Offsets in a User without groups and in a Device (the layouts of the serviceability program).
STATUS, TUNNEL_NET, DZ_IP = "131", "126", "120"
ENDPOINT = 132 + 4 + 4 + 32
PUBLIC_IP = 115

Change = Callable[[Granted, Snapshot], Lies]


def _user(offset: int | str, data: bytes) -> Change:
    return lambda granted, _: Lies(patch={granted.account: {str(offset): data.hex()}})


def _net(text: str) -> bytes:
    address, _, length = text.partition("/")
    return IPv4Address(address).packed + bytes([int(length)])


def _endpoint(address: str) -> Change:
    return _user(ENDPOINT, IPv4Address(address).packed)


def _no_config(_: Granted, __: Snapshot) -> Lies:
    return Lies(drop=frozenset({config_address(PROGRAM_IDS["localnet"])}))


def _no_device(_: Granted, snapshot: Snapshot) -> Lies:
    return Lies(drop=frozenset(snapshot.devices))


def _public_ip(address: str) -> Change:
    def change(_: Granted, snapshot: Snapshot) -> Lies:
        return Lies(patch={k: {str(PUBLIC_IP): IPv4Address(address).packed.hex()} for k in snapshot.devices})

    return change


@dataclass(frozen=True)
class Case:
    """A lie, and what status must say: a problem's code, or the ledger's condition where no answer is usable."""

    change: Change
    code: str = ""
    reachable: str = "True"


CASES: Mapping[str, Case] = {
    "tunnel_net is a /30": Case(_user(TUNNEL_NET, _net("169.254.0.0/30")), "InvalidOverlay"),
    "tunnel_net has a length of 33": Case(_user(TUNNEL_NET, _net("169.254.0.0/33")), "InvalidOverlay"),
    "tunnel_net is outside the block": Case(_user(TUNNEL_NET, _net("10.0.0.0/31")), "InvalidOverlay"),
    "the device has no address": Case(_public_ip("0.0.0.0"), "InvalidEndpoint"),  # noqa: S104 - the ledger's "not set"
    "the endpoint is loopback": Case(_endpoint("127.0.0.1"), "InvalidEndpoint"),
    "the endpoint is multicast": Case(_endpoint("224.0.0.5"), "InvalidEndpoint"),
    "the endpoint is this host": Case(_endpoint(CLIENT_IP), "InvalidEndpoint"),
    "the endpoint is broadcast": Case(_endpoint("255.255.255.255"), "InvalidEndpoint"),
    "the status is unknown": Case(_user(STATUS, b"\xc8"), "UnknownUserStatus"),
    "the GlobalConfig is missing": Case(_no_config, reachable="False"),
    "the device is missing": Case(_no_device),
}


@pytest.fixture(scope="module")
def tunnel(started: World) -> Iterator[tuple[World, Granted]]:
    """A working tunnel that every lie is tried on: making one takes longer than a lie."""
    started.reset()
    yield started, started.grant(UserType.IBRL)
    started.reset()


def _lie_for_two_polls(world: World, lies: Lies) -> None:
    world.ledger.lie(lies)
    polls = world.polls()
    world.says("two polls with the lie", lambda _: world.polls() >= polls + 2, 30)


def _told(case: Case, status: dict[str, Any]) -> bool:
    if case.reachable == "False":
        return condition(status, "LedgerReachable")[0] == "False"
    return not case.code or case.code in problem_codes(status)


@pytest.mark.parametrize("name", CASES)
def test_a_working_tunnel_survives(tunnel: tuple[World, Granted], name: str) -> None:
    (world, granted), case = tunnel, CASES[name]
    world.becomes(granted.view)
    index = world.index("doublezero0")
    _lie_for_two_polls(world, case.change(granted, world.ledger.snapshot()))
    world.says(f"{case.code or 'the lie'} is named", lambda status: _told(case, status), 30)
    stays("the tunnel", lambda: world.view() == granted.view, 0.5)
    assert world.index("doublezero0") == index
    assert world.host.pings(granted.far)


def test_prefixes_that_would_take_the_uplink_are_left_out(world: World) -> None:
    texts = ("0.0.0.0/0", f"{GATEWAY}/24", "192.0.2.0/24", "127.0.0.0/16")
    hostile = [str(IPv4Network(text, strict=False)) for text in texts]
    options = [f"--dz-prefix={prefix}" for prefix in (*hostile, DEV2.prefix)]
    world.ledger.verb("device", "set", "dev2", "--force", *options)
    try:
        world.ledger.add_user(UserType.EDGE_FILTERING)
        status = world.says("they are refused", lambda s: "PrefixRefused" in problem_codes(s), 30)
        said = [p["message"] for p in status["problems"] if p["code"] == "PrefixRefused"]
        for prefix in hostile:
            assert any(prefix in text for text in said), prefix
        world.says("the good ones are routed", lambda _: len(world.view().rules) == 4, 30)
        assert world.host.pings(DEV1.public_ip), "the uplink works"
        assert world.host.pings(world.granted(UserType.EDGE_FILTERING).far), "the tunnel works"
        assert {DEV1.prefix, DEV2.prefix} == {
            rule.split(" to ")[1].split(" ")[0] for rule in world.view().rules if "from all" in rule
        }
    finally:
        world.ledger.verb("device", "set", "dev2", f"--dz-prefix={DEV2.prefix}")


def test_a_user_that_comes_with_a_bad_field_gets_nothing_and_is_named(world: World) -> None:
    world.ledger.add_user(UserType.IBRL)
    granted = world.granted(UserType.IBRL)
    world.becomes(granted.view)
    world.agent.disable()
    world.becomes(View())
    world.ledger.lie(_endpoint("127.0.0.1")(granted, world.ledger.snapshot()))
    world.agent.enable()
    world.says("it is named", lambda s: "InvalidEndpoint" in problem_codes(s), 30)
    assert not world.host.json("link show dev doublezero0")
