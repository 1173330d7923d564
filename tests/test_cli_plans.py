"""`dzagent plan`, `diff`, `apply` and `events`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.cli.events import event_lines
from dzagent.cli.output import Paper
from dzagent.cli.planview import diff_lines, difference, differs, plan_lines
from dzagent.files import write_json
from dzagent.state import ApplyRequest, read_apply_request
from tests.api_fakes import NOW, Done, World, config_file, obedient, run

LINK = "link doublezero0 gre local 198.51.100.7 remote 192.0.2.1 ttl 64 mtu 1476 alias dzagent:unicast up"
STEPS = [
    {
        "phase": 0,
        "action": "add",
        "object": LINK,
        "before": None,
        "after": LINK,
        "reason": "missing",
        "cause": "unicast/tunnel.ip:12",
    },
    {
        "phase": 1,
        "action": "change",
        "object": "address dev doublezero0 169.254.0.1/31 scope link",
        "before": "address dev doublezero0 169.254.0.1/31 scope global",
        "after": "address dev doublezero0 169.254.0.1/31 scope link",
        "reason": "scope differs",
        "cause": "",
    },
    {
        "phase": 2,
        "action": "delete",
        "object": "rule priority 100",
        "before": "rule priority 100",
        "after": None,
        "reason": "nothing wants it",
        "cause": "",
    },
]
HELD = {
    **STEPS[0],
    "object": "route 192.0.2.0/24",
    "after": "route 192.0.2.0/24",
    "why": "it would capture the gateway",
}
CONFLICT = {"object": "route 203.0.113.0/24", "owner": "proto bird", "advice": "remove it", "origin": "x:1"}
PLAN: Mapping[str, Any] = {
    "id": "ab12cd34",
    "mode": "manual",
    "made_at": NOW,
    "steps": STEPS,
    "conflicts": [CONFLICT],
    "held": [HELD],
    "commands": [
        "link add doublezero0 mtu 1476 type gre local 198.51.100.7 remote 192.0.2.1 ttl 64 nopmtudisc",
        "\x1b[2J",
    ],
}
EQUAL: Mapping[str, Any] = {
    "id": "ab12cd34",
    "mode": "auto",
    "steps": [],
    "conflicts": [],
    "held": [],
    "commands": [],
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path, apply="manual")


def dzagent(world: World, *words: str) -> Done:
    return run(*words, config=config_file(world.config.paths.state.parent, "apply: manual\n"))


def publish(world: World, plan: Mapping[str, Any]) -> None:
    write_json(world.config.paths.plan, dict(plan))


def test_the_plan_with_reasons_and_commands(world: World) -> None:
    publish(world, PLAN)
    with world.serving():
        done = dzagent(world, "plan")
    assert (done.code, done.err) == (0, "")
    assert done.out == (Path(__file__).parent / "golden" / "cli" / "plan.txt").read_text()


def test_plan_as_json_is_the_answer_of_the_api(world: World) -> None:
    publish(world, PLAN)
    with world.serving():
        assert json.loads(dzagent(world, "plan", "--json").out) == {**PLAN, "message": ""}


def test_no_plan_says_why(world: World) -> None:
    with world.serving():
        for verb in ("plan", "diff"):
            done = dzagent(world, verb)
            assert done.code == 0
            flat = " ".join(done.out.split())
            assert flat.startswith("no plan: ")
            assert "plan.json does not exist" in flat
        assert dzagent(world, "diff", "--exit-code").code == 1


def test_what_the_kernel_lacks_or_has_too_much(world: World) -> None:
    publish(world, PLAN)
    with world.serving():
        done = dzagent(world, "diff")
        assert dzagent(world, "diff", "--exit-code").code == 1
        document = json.loads(dzagent(world, "diff", "--json").out)
    assert done.code == 0
    assert done.out.splitlines() == [
        "+ link doublezero0 gre local 198.51.100.7 remote 192.0.2.1 ttl 64 mtu 1476 alias",
        "    dzagent:unicast up",
        "~ address dev doublezero0 169.254.0.1/31 scope link",
        "    now address dev doublezero0 169.254.0.1/31 scope global",
        "- rule priority 100",
        "! withheld: add route 192.0.2.0/24: it would capture the gateway",
        "! route 203.0.113.0/24 is held by proto bird: remove it",
    ]
    assert document == {
        "id": "ab12cd34",
        "add": [LINK],
        "delete": ["rule priority 100"],
        "change": [{"before": STEPS[1]["before"], "after": STEPS[1]["after"]}],
        "held": [HELD],
        "conflicts": [CONFLICT],
        "message": "",
    }


def test_no_difference(world: World) -> None:
    publish(world, EQUAL)
    with world.serving():
        assert dzagent(world, "diff", "--exit-code") == Done(
            0, "no difference: the kernel holds what the files say\n", ""
        )
        assert dzagent(world, "plan") == Done(0, "plan ab12cd34: nothing to do\n", "")


def test_what_happens_to_the_steps_depends_on_the_mode() -> None:
    heads = {mode: plan_lines({**PLAN, "mode": mode}, Paper())[0] for mode in ("auto", "manual", "observe")}
    assert heads == {
        "auto": "plan ab12cd34: 3 steps left; dzagentd goes on trying",
        "manual": "plan ab12cd34: 3 steps left; apply it with `dzagent apply ab12cd34`",
        "observe": "plan ab12cd34: 3 steps left; apply: observe never writes",
    }


odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, "x", "\x1b[2J", "y " * 99, [], [7], ["\0"], [{}], [{"action": 7}], {}]
)


@given(
    st.dictionaries(st.sampled_from([*PLAN, "message", "events"]), odd),
    st.dictionaries(st.sampled_from(sorted(HELD)), odd),
)
def test_a_document_of_any_shape_is_shown(document: dict[str, Any], step: dict[str, Any]) -> None:
    full = {
        "id": "a",
        "steps": [step],
        "held": [step],
        "conflicts": [step],
        "events": [step, {"at": 1e300, **step}],
    }
    for plan in (document, {**full, **document}):
        shown = [*diff_lines(plan, Paper()), *event_lines(plan, 9, Paper()), *plan_lines(plan, Paper())]
        assert all(line.isprintable() for line in shown)
        assert all(len(line) <= 80 for line in shown if not line.startswith("  "))
        json.dumps(difference(plan))
        assert isinstance(differs(plan), bool)


# ---- apply ---------------------------------------------------------------------------------------------------


def result(kind: str, message: str = "") -> Any:
    def answer(world: World, _enabled: bool) -> None:
        wanted = read_apply_request(world.config.paths.approval)
        assert wanted is not None
        world.publish(last_apply={"plan_id": wanted.plan_id, "result": kind, "message": message, "at": NOW})

    return answer


def test_apply_waits_until_it_is_applied(world: World) -> None:
    publish(world, PLAN)
    with world.serving(), obedient(world, result("applied")):
        assert dzagent(world, "apply", "ab12cd34") == Done(0, "plan ab12cd34 is applied\n", "")
        # a second time: the first result is not an answer to it
        done = dzagent(world, "apply", "ab12cd34", "--timeout", "0.3")
        assert done.code == 1
        assert "dzagentd has not taken up plan ab12cd34 yet" in done.err


@pytest.mark.parametrize("kind", ["failed", "stale"])
def test_apply_says_why_it_was_not_applied(world: World, kind: str) -> None:
    publish(world, PLAN)
    with world.serving(), obedient(world, result(kind, "that is why")):
        done = dzagent(world, "apply", "ab12cd34", "--json")
        assert done.code == 1
        assert done.err == f"dzagent: plan ab12cd34 was not applied: plan ab12cd34 is {kind}: that is why\n"
        assert json.loads(done.out)["done"] is False


def test_apply_without_wait(world: World) -> None:
    publish(world, PLAN)
    with world.serving():
        assert dzagent(world, "apply", "ab12cd34", "--no-wait").code == 0
        assert json.loads(dzagent(world, "apply", "ab12cd34", "--no-wait", "--json").out)["done"] is None
    assert read_apply_request(world.config.paths.approval) == ApplyRequest("ab12cd34")


def test_another_plan_or_mode_is_refused(world: World) -> None:
    publish(world, PLAN)
    with world.serving():
        done = dzagent(world, "apply", "ffff0000")
        assert done.code == 1
        assert "plan ffff0000 is not the current one; that is ab12cd34" in done.err
        assert dzagent(world, "apply", "no such id").code == 2
        publish(world, EQUAL)
        assert "apply: auto" in dzagent(world, "apply", "ab12cd34").err


# ---- events --------------------------------------------------------------------------------------------------


def test_events_newest_last(world: World) -> None:
    events = [
        {
            "at": NOW + n,
            "action": "add",
            "object": f"{LINK} {n}",
            "reason": "missing",
            "cause": "unicast/tunnel.ip:12",
            "result": "done" if n else "transient",
            "message": "" if n else "Device or resource busy",
        }
        for n in range(3)
    ]
    with world.serving():
        write_json(world.config.paths.events, {"events": events})
        done = dzagent(world, "events")
        assert done.code == 0
        assert done.out == (Path(__file__).parent / "golden" / "cli" / "events.txt").read_text()
        last = dzagent(world, "events", "-n", "1").out
        assert last == "".join(done.out.splitlines(keepends=True)[-3:])
        assert json.loads(dzagent(world, "events", "--json").out)["events"] == events
        write_json(world.config.paths.events, {"events": []})
        assert dzagent(world, "events").out == "nothing has changed since dzagentd was started\n"
