"""A change with a way back, by the real agent on a real tunnel: it is killed before anybody confirms."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from dzagent.model import UserType
from e2e.lab.view import NOTHING
from e2e.lab.wait import SLOW, wait_for
from e2e.lab.world import World, condition

SECONDS = 12
"""Time to confirm, as every limit of the lab times SLOW: enough to see the change made, and to kill the agent."""
CONFIRM = int(SECONDS * SLOW)


@pytest.fixture
def manual(world: World) -> Iterator[World]:
    """The whole system, with an agent that applies what it is told to."""
    config, text = world.agent.config, world.agent.config.read_text()
    config.write_text(f"{text}apply: manual\n")
    world.agent.daemon.stop()
    world.agent.daemon.start()
    yield world
    config.write_text(text)
    world.agent.daemon.stop()
    world.agent.daemon.start()


def plan(world: World) -> dict[str, Any]:
    code, document = world.agent.request("GET", "/v3/plan")
    assert code == 200
    assert isinstance(document, dict)
    return document


def ask(world: World, path: str, body: dict[str, Any]) -> None:
    code, answer = world.agent.request("POST", path, body)
    assert code == 200, answer


def test_a_killed_agent_s_tunnel_goes_when_nobody_confirms_and_stays_when_somebody_does(
    manual: World,
) -> None:
    granted = manual.add(UserType.IBRL)
    wait_for("there is a plan", lambda: plan(manual)["mode"] == "manual" and bool(plan(manual)["steps"]), 30)
    ask(manual, "/v3/apply", {"plan_id": plan(manual)["id"], "confirm": CONFIRM})
    manual.becomes(granted.view)
    manual.agent.daemon.send(signal.SIGKILL)
    manual.becomes(NOTHING, SECONDS + 30)

    manual.agent.daemon.start()
    manual.says("it is held", lambda s: condition(s, "Held") == ("True", "RolledBack"), 30)
    assert manual.view() == NOTHING
    (name,) = {item["id"] for item in plan(manual)["held"] if item["id"]}
    ask(manual, "/v3/approve", {"id": name})
    wait_for("it is in the plan", lambda: bool(plan(manual)["steps"]), 30)
    plan_id = plan(manual)["id"]
    ask(manual, "/v3/apply", {"plan_id": plan_id, "confirm": 10 * CONFIRM})
    manual.becomes(granted.view)
    done = manual.agent.cli("confirm", plan_id, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] is True
    assert manual.host.pings(granted.far)
