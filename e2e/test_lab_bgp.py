"""Sessions in the lab: the devices are routers (FRR, BIRD), and two users reach each other through them."""

from __future__ import annotations

import signal

import pytest

from dzagent.model import UserType
from e2e.lab.topology import PEER_DZ_IP
from e2e.lab.view import NOTHING, learned
from e2e.lab.wait import wait_for
from e2e.lab.world import SESSION_UP, World, condition

UNICAST = (UserType.IBRL, UserType.IBRL_WITH_ALLOCATED_IP, UserType.EDGE_FILTERING)


@pytest.mark.parametrize("kind", UNICAST, ids=lambda kind: kind.label)
def test_the_other_user_is_learned_with_gateway_source_and_table(world: World, kind: UserType) -> None:
    granted = world.grant(kind)
    table = "100" if kind is UserType.EDGE_FILTERING else "254"
    route = f"{PEER_DZ_IP}/32 via {granted.far} dev doublezero0 src {granted.dz_ip} table {table}"
    assert learned(world.host) == {route}
    assert condition(world.agent.status(), "SessionUp") == ("True", "Established")


def test_two_users_reach_each_other(world: World) -> None:
    granted = world.grant(UserType.IBRL_WITH_ALLOCATED_IP)
    assert wait_for("a ping to the other user", lambda: world.host.pings(PEER_DZ_IP, "-I", granted.dz_ip), 10)
    assert wait_for("a ping from it", lambda: world.network.peer.pings(granted.dz_ip, "-I", PEER_DZ_IP), 20)


def test_another_make_of_device(world: World) -> None:
    granted = world.grant(UserType.IBRL, "dev2")
    assert learned(world.host) == {
        f"{PEER_DZ_IP}/32 via {granted.far} dev doublezero0 src {granted.dz_ip} table 254"
    }


def test_the_api_says_what_doublezerod_would(world: World) -> None:
    granted = world.grant(UserType.IBRL)
    code, status = world.agent.request("GET", "/status")
    assert (code, status[0]["doublezero_status"]["session_status"]) == (200, SESSION_UP)
    assert status[0]["doublezero_status"]["last_session_update"] > 0
    route = {
        "network": "localnet",
        "local_ip": granted.dz_ip,
        "peer_ip": PEER_DZ_IP,
        "kernel_state": "present",
    }
    assert wait_for("/routes", lambda: world.agent.request("GET", "/routes") == (200, [route]), 10)
    assert PEER_DZ_IP in world.agent.cli("routes").stdout


def test_sessions_of_both_services_live_apart(world: World) -> None:
    world.grant(UserType.IBRL)
    world.add(UserType.MULTICAST, "dev1", "--subscribe", "blocks")
    world.connected(UserType.MULTICAST)
    world.ledger.delete(UserType.MULTICAST)
    world.says("one service is left", lambda s: [x["name"] for x in s["services"]] == ["unicast"])
    world.connected(UserType.IBRL)
    assert learned(world.host)


def test_a_killed_engine_comes_back(world: World) -> None:
    world.grant(UserType.IBRL)
    world.agent.engine.send(signal.SIGKILL)
    world.agent.engine.start()
    world.says("it was lost", lambda s: condition(s, "SessionUp")[0] != "True")
    world.connected(UserType.IBRL)


def test_disable_takes_the_session_and_its_routes(world: World) -> None:
    world.grant(UserType.IBRL)
    world.agent.disable()
    world.becomes(NOTHING)
    assert learned(world.host) == frozenset()
