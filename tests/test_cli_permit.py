"""`dzagent apply --confirm`, `confirm` and `approve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dzagent.cli.output import Paper
from dzagent.cli.planview import plan_lines
from dzagent.cli.waiting import Verdict, judge_confirmed, judge_let_through
from dzagent.files import write_json
from dzagent.state import ApplyRequest, read_apply_request, read_approvals
from tests.api_fakes import NOW, Done, World, obedient
from tests.test_cli_plans import HELD, PLAN, dzagent, publish, result

ID = "0123456789ab"
TOO_MUCH = {**HELD, "action": "delete", "why": "2 of 6 objects of the unicast service would go.", "kind": "volume",
            "id": ID, "approve": f"dzagent approve {ID}"}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path, apply="manual")


def status(**changes: Any) -> dict[str, Any]:
    return {"agent": {"running": True}, **changes}


# ---- apply --confirm and confirm -------------------------------------------------------------------------------


def test_apply_with_a_way_back_says_how_to_keep_it(world: World) -> None:
    publish(world, PLAN)
    with world.serving(), obedient(world, result("applied")):
        done = dzagent(world, "apply", "ab12cd34", "--confirm", "60")
    said = "plan ab12cd34 is applied\nit is rolled back in 60 s unless you say: dzagent confirm ab12cd34\n"
    assert done == Done(0, said, "")
    assert read_apply_request(world.config.paths.approval) == ApplyRequest("ab12cd34", 60)


@pytest.mark.parametrize("seconds", ["0", "4", "3601", "x", "1.5"])
def test_a_time_that_makes_no_sense_is_refused(world: World, seconds: str) -> None:
    assert dzagent(world, "apply", "ab12cd34", "--confirm", seconds).code == 2


def confirmed(kind: str) -> Any:
    def answer(world: World, _enabled: bool) -> None:
        wanted = read_apply_request(world.config.paths.confirmation)
        assert wanted is not None
        world.publish(last_apply={"plan_id": wanted.plan_id, "result": kind, "message": "why", "at": NOW})

    return answer


@pytest.mark.parametrize(("kind", "code"), [("confirmed", 0), ("rolled back", 1)])
def test_confirm_waits_until_it_is_so(world: World, kind: str, code: int) -> None:
    write_json(world.config.paths.checkpoint, {"plan_id": "ab12cd34"})
    with world.serving(), obedient(world, confirmed(kind)):
        done = dzagent(world, "confirm", "ab12cd34")
    assert done.code == code
    if code == 0:
        assert done.out == "plan ab12cd34 is confirmed: it stays\n"
    else:
        assert done.err == "dzagent: plan ab12cd34 was not confirmed: plan ab12cd34 is rolled back: why\n"


def test_what_does_not_wait_cannot_be_confirmed(world: World) -> None:
    with world.serving():
        done = dzagent(world, "confirm", "ab12cd34")
        assert (done.code, "does not wait for a confirmation" in done.err) == (1, True)
        write_json(world.config.paths.checkpoint, {"plan_id": "ab12cd34"})
        done = dzagent(world, "confirm", "ab12cd34", "--no-wait", "--json")
        assert json.loads(done.out)["done"] is None


def test_a_verdict_needs_a_new_answer() -> None:
    old = {"plan_id": "ab12", "result": "confirmed", "message": "", "at": 5.0}
    assert judge_confirmed("ab12", {})(status(last_apply=old)).done
    assert not judge_confirmed("ab12", old)(status(last_apply=old)).done
    assert not judge_confirmed("cd34", {})(status(last_apply=old)).done
    assert judge_confirmed("ab12", {})({"agent": {"running": False}}).away


# ---- approve ---------------------------------------------------------------------------------------------------


def let_through(mode: str) -> Any:
    def answer(world: World, _enabled: bool) -> None:
        assert [item.id for item in read_approvals(world.config.paths.approvals)] == [ID]
        publish(world, {**PLAN, "id": "ffff0000", "mode": mode, "held": []})

    return answer


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("auto", f"{ID} is let through, once; see `dzagent events`\n"),
        ("manual", f"{ID} is let through; apply it with: dzagent apply ffff0000\n"),
    ],
)
def test_approve_waits_until_it_is_let_through(world: World, mode: str, said: str) -> None:
    publish(world, {**PLAN, "mode": mode, "held": [TOO_MUCH]})
    with world.serving(), obedient(world, let_through(mode)):
        assert dzagent(world, "approve", ID) == Done(0, said, "")


def test_approve_refuses_what_is_not_withheld(world: World) -> None:
    publish(world, {**PLAN, "held": [TOO_MUCH]})
    with world.serving():
        done = dzagent(world, "approve", "ffff")
        assert (done.code, "nothing that is withheld has the id ffff" in done.err) == (1, True)
        assert dzagent(world, "approve", "../x").code == 2
        done = dzagent(world, "approve", ID, "--timeout", "0.3", "--json")
        assert done.code == 1
        assert "has not taken up the approval yet" in done.err
        assert json.loads(done.out)["done"] is False


def test_a_plan_that_is_not_there_lets_nothing_through() -> None:
    assert judge_let_through(ID)({"id": None, "message": "gone"}) == Verdict(message="gone", away=True)
    assert not judge_let_through(ID)({"id": "a", "held": [TOO_MUCH]}).done
    assert judge_let_through(ID)({"id": "a", "held": [HELD]}).done


# ---- what the plan shows ---------------------------------------------------------------------------------------


def test_a_withheld_thing_is_shown_once_with_its_command() -> None:
    many = [{**TOO_MUCH, "object": f"rule {n}"} for n in range(9)]
    lines = plan_lines({**PLAN, "held": [*many, {**HELD, "id": "", "approve": ""}]}, Paper())
    flat = " ".join(" ".join(lines).split())
    assert flat.count("2 of 6 objects") == 1
    assert "delete rule 4, and 4 more: 2 of 6 objects" in flat
    assert f"    to let it through, once: dzagent approve {ID}" in lines
    assert max(len(line) for line in lines if not line.startswith("  link")) <= 80
