"""Each user type: exactly the links, addresses, routes and rules that it must have, and traffic through them."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from dzagent.model import UserType
from e2e.lab.topology import CLIENT_IP, DEV1, DEV2, PEER_DZ_IP
from e2e.lab.view import NOTHING, gre
from e2e.lab.world import World, condition

UNICAST = [UserType.IBRL, UserType.IBRL_WITH_ALLOCATED_IP, UserType.EDGE_FILTERING]


@pytest.mark.parametrize("kind", UNICAST, ids=lambda kind: kind.label)
def test_a_unicast_service(world: World, host: Host, kind: UserType) -> None:
    granted = world.grant(kind)
    # Said twice on purpose: here as the literal values, in `expected` from the account.
    assert granted.view.links == (gre("doublezero0", "unicast", CLIENT_IP, DEV1.public_ip),)
    assert len(granted.view.addresses) == (1 if kind is UserType.IBRL else 2)
    assert host.interface("doublezero0").exists
    assert world.host.pings(granted.far)
    if kind is not UserType.IBRL:
        assert world.network.devices["dev1"].pings(granted.dz_ip), "the device reaches the DoubleZero address"


def test_edge_filtering_reaches_another_user_through_the_device(world: World) -> None:
    granted = world.grant(UserType.EDGE_FILTERING)
    assert granted.view.rules == {
        f"100: from all to {DEV1.prefix} lookup 100",
        f"100: from all to {DEV2.prefix} lookup 100",
        f"101: from {DEV1.prefix} to all lookup 101",
        f"101: from {DEV2.prefix} to all lookup 101",
    }
    assert world.host.pings(PEER_DZ_IP, "-I", granted.dz_ip)
    assert world.network.peer.pings(granted.dz_ip, "-I", PEER_DZ_IP)


@pytest.mark.parametrize(
    ("publish", "subscribe"),
    [(("blocks",), ()), ((), ("blocks",)), (("blocks",), ("shreds",)), (("blocks",), ("blocks", "shreds"))],
    ids=["publisher", "subscriber", "both", "both, one group shared"],
)
def test_a_multicast_service(world: World, publish: tuple[str, ...], subscribe: tuple[str, ...]) -> None:
    options = [f"--publish={code}" for code in publish] + [f"--subscribe={code}" for code in subscribe]
    granted = world.grant(UserType.MULTICAST, "dev1", *options)
    assert granted.view.links[0].name == "doublezero1"
    assert len(granted.view.routes) == len({*publish, *subscribe})
    assert len(granted.view.addresses) == (2 if publish else 1)
    assert world.host.pings(granted.far)


def test_groups_change_in_place(world: World) -> None:
    world.grant(UserType.MULTICAST, "dev1", "--subscribe=blocks")
    index = world.index("doublezero1")
    world.ledger.groups(UserType.MULTICAST, subscribe=("blocks", "shreds"))
    world.becomes(world.granted(UserType.MULTICAST).view)
    world.ledger.groups(UserType.MULTICAST, subscribe=("shreds",))
    world.becomes(world.granted(UserType.MULTICAST).view)
    assert world.index("doublezero1") == index


def test_both_services_side_by_side(world: World) -> None:
    unicast = world.grant(UserType.IBRL)
    multicast = world.add(UserType.MULTICAST, "dev1", "--subscribe=blocks")
    world.becomes(world.granted(UserType.IBRL, UserType.MULTICAST).view)
    assert world.host.pings(unicast.far)
    assert world.host.pings(multicast.far)
    index = world.index("doublezero1")
    world.ledger.delete(UserType.IBRL)
    world.becomes(multicast.view, 30)
    assert world.index("doublezero1") == index, "the other service was not touched"
    assert world.host.pings(multicast.far)


def test_status_and_files_say_what_is_there(world: World, host: Host) -> None:
    granted = world.grant(UserType.IBRL)
    status = world.says("ready", lambda s: condition(s, "Ready")[0] == "True")
    (service,) = status["services"]
    assert (service["user_type"], service["tunnel_dst"]) == ("IBRL", DEV1.public_ip)
    assert (service["current_device"], service["account"]) == ("dev1", granted.account)
    tunnel = host.file(str(world.agent.desired / "unicast" / "tunnel.ip"))
    assert f"local {CLIENT_IP} remote {DEV1.public_ip} ttl 64 nopmtudisc" in tunnel.content_string
    _, upstream = world.agent.request("GET", "/status")
    assert upstream[0]["tunnel_name"] == "doublezero0"


def test_nothing_granted_is_nothing_made(world: World) -> None:
    assert world.view() == NOTHING
    _, upstream = world.agent.request("GET", "/status")
    assert upstream == [{"doublezero_status": {"session_status": "disconnected"}}]
