"""The loop with its safeguards: what is withheld, what a person lets through, and changes with a way back."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dzagent.checkpoint import CheckpointFile
from dzagent.errors import StateError
from dzagent.files import write_json
from dzagent.model import Address, Result, Route, Rule
from dzagent.policy import GuardRules, Policy
from dzagent.state import ApprovalRequest, request_apply, request_approval, request_confirm
from tests.fake_kernel import Fault
from tests.service_fakes import DEVICE_IP, EDGE, IBRL
from tests.test_reconcile import FOREIGN_RULE, World

ANY = IPv4Network("0.0.0.0/0")
NO_RULES = "{# none #}\n"
POINTS_AT_OURS = Rule(50, ANY, ANY, 101, 4, ("fwmark 0x10/0xff",))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def manual(tmp_path: Path) -> World:
    made = World(tmp_path, apply="manual")
    made.say(enabled=True)
    made.ledger(IBRL)
    made.run()
    return made


def override(world: World, name: str, text: str) -> None:
    world.config.templates.mkdir(exist_ok=True)
    (world.config.templates / name).write_text(text)


def held(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.plan()["held"]
    return found


def approve(world: World, name: str, confirm: int | None = None) -> None:
    world.clock.now += 1
    request_approval(world.config.paths.approvals, ApprovalRequest(name, world.clock.now, confirm))


def message(world: World, kind: str) -> str:
    return next(str(c["message"]) for c in world.status()["conditions"] if c["type"] == kind)


# ---- volume --------------------------------------------------------------------------------------------------


def test_a_template_that_renders_no_rules_takes_none_away_until_a_person_says_so(world: World) -> None:
    world.grant(EDGE)
    rules = list(world.kernel.rules)
    override(world, "rule.j2", NO_RULES)
    assert world.run(2) == 0
    assert world.kernel.rules == rules
    assert world.condition("Held") == ("True", "TooMuch")
    assert world.condition("InSync") == ("False", "Held")
    ids = {item["id"] for item in held(world)}
    assert len(ids) == 1
    (name,) = ids
    assert "the templates have changed" in message(world, "Held")
    assert f"dzagent approve {name}" in message(world, "Held")
    approve(world, "0" * 12)
    assert world.run() == 0, "another id lets nothing through"
    approve(world, name)
    assert world.run() == len(rules) - 1
    assert world.kernel.rules == [FOREIGN_RULE]
    assert world.condition("Held") == ("False", "None")
    assert world.condition("Ready")[0] == "True"


def test_the_limits_hold_after_a_restart_and_while_the_ledger_is_silent(world: World) -> None:
    world.grant(EDGE)
    rules = list(world.kernel.rules)
    override(world, "rule.j2", NO_RULES)
    view, world.feed.seen = world.feed.seen, replace(world.feed.seen, snapshot=None)
    world.restart()
    assert world.run(2) == 0, "kept as it was: nothing is rendered"
    world.feed.seen = view
    assert world.run(2) == 0, "and that did not make the new template a trusted one"
    world.restart()
    assert world.run(2) == 0
    assert world.kernel.rules == rules


def test_what_has_a_cause_has_no_limit(world: World) -> None:
    world.grant(EDGE)
    world.policy = replace(world.policy, guard=GuardRules(removals=0, share=0, per_hour=0))
    world.restart()
    world.ledger(replace(EDGE, status=6))
    assert world.run() > 0
    assert (world.tunnels, world.kernel.rules) == (set(), [FOREIGN_RULE])
    world.grant(EDGE)
    world.say(enabled=False)
    world.run()
    assert world.tunnels == set()


def test_a_changed_template_and_a_ban_at_once_take_it_down(world: World) -> None:
    world.grant(EDGE)
    override(world, "rule.j2", NO_RULES)
    world.ledger(replace(EDGE, status=6))
    world.run()
    assert (world.tunnels, world.kernel.rules) == (set(), [FOREIGN_RULE])


def test_a_changed_template_and_a_disable_at_once_take_it_down(world: World) -> None:
    world.grant(EDGE)
    override(world, "rule.j2", NO_RULES)
    world.run()
    world.say(enabled=False)
    world.run()
    assert (world.tunnels, world.kernel.rules) == (set(), [FOREIGN_RULE])
    assert world.condition("Held") == ("False", "None")


def test_a_prefix_that_the_ledger_takes_back_goes_without_asking(world: World) -> None:
    world.policy = replace(world.policy, guard=GuardRules(removals=0, share=0, per_hour=0))
    world.restart()
    world.grant(EDGE)
    world.ledger(IBRL)
    assert world.run() > 0
    assert world.kernel.rules == [FOREIGN_RULE]
    assert world.condition("Held") == ("False", "None")


def test_a_policy_with_other_tables_adds_first_and_asks_before_it_removes(world: World) -> None:
    world.grant(EDGE)
    before = len(world.kernel.rules)
    world.policy = replace(Policy(), edge=replace(Policy().edge, table_to=110, table_from=111))
    world.restart()
    assert world.run() > 0
    assert len(world.kernel.rules) > before
    assert "the policy has changed" in message(world, "Held")


def test_another_client_ip_in_the_configuration_takes_nothing_down_by_itself(world: World) -> None:
    world.grant()
    world.config = replace(world.config, client_ip=IPv4Address("198.51.100.99"))
    world.feed.seen = replace(world.feed.seen, searched=frozenset({IPv4Address("198.51.100.99")}))
    world.restart()
    assert world.run(2) == 0
    assert world.tunnels == {"doublezero0"}
    assert "the configuration has changed" in message(world, "Held")


def test_removals_below_every_limit_pass_and_count_for_an_hour(world: World) -> None:
    world.policy = replace(world.policy, guard=GuardRules(removals=5, share=100, per_hour=3))
    world.restart()
    world.grant(EDGE)
    rules = len(world.kernel.rules) - 1
    override(world, "rule.j2", NO_RULES)
    assert world.run() == rules == 2
    (world.config.templates / "rule.j2").unlink()
    assert world.run() == rules
    override(world, "rule.j2", NO_RULES + "{# again #}\n")
    assert world.run() == 0
    assert "2 went within the last hour, guard.per_hour is 3" in message(world, "Held")
    world.clock.now += 3601
    assert world.run() == rules


# ---- capture -------------------------------------------------------------------------------------------------


def test_a_foreign_rule_at_our_table_withholds_the_route_and_the_rules_that_stand_on_it(world: World) -> None:
    world.kernel.rules.append(POINTS_AT_OURS)
    world.say(enabled=True)
    world.ledger(EDGE)
    world.run()
    assert [r for r in world.kernel.routes if r.table == 101] == []
    assert not any(r.table == 101 and r.protocol == 210 for r in world.kernel.rules)
    assert world.condition("Held") == ("True", "WouldCapture")
    (route,) = (item for item in held(world) if item["id"])
    assert {item["kind"] for item in held(world)} == {"capture", "dependent"}
    approve(world, route["id"])
    world.run()
    assert [r.dst for r in world.kernel.routes if r.table == 101] == [ANY]
    assert world.condition("Ready")[0] == "True"
    world.restart()
    assert world.run(2) == 0, "what was let in stays, also for the next process"
    world.kernel.routes = [r for r in world.kernel.routes if r.table != 101]
    world.run()
    assert [r for r in world.kernel.routes if r.table == 101] == [], "an approval counts once"


def test_what_the_prefix_guard_withholds_can_be_let_in_and_stays(world: World) -> None:
    world.grant()
    gateway_net = IPv4Network("198.51.100.0/24")
    override(
        world,
        "rule.j2",
        f"rule add priority 100 from 0.0.0.0/0 to {gateway_net} table 100 protocol 210\n",
    )
    assert world.run() == 0
    (item,) = held(world)
    approve(world, item["id"])
    assert world.run() == 1
    assert [r.dst for r in world.kernel.rules if r.protocol == 210] == [gateway_net]
    world.restart()
    assert world.run(3) == 0
    assert held(world) == []
    world.kernel.rules = [FOREIGN_RULE]
    assert world.run(2) == 0
    assert [again["id"] for again in held(world)] == [item["id"]]


def test_an_approval_expires_and_does_not_outlive_the_agent(world: World) -> None:
    world.grant(EDGE)
    override(world, "rule.j2", NO_RULES)
    world.run()
    name = held(world)[0]["id"]
    world.kernel.observe_error = None
    approve(world, name)
    world.restart()
    assert world.run() == 0, "asked of a process that is gone"
    world.kernel.faults = [Fault(lambda _: True, Result.TRANSIENT) for _ in range(2)]
    approve(world, name)
    world.run()
    assert len(world.kernel.rules) > 1
    world.clock.now += 3600
    assert world.run() == 0, "it was tried, and so used up"


def test_a_plan_s_id_covers_what_is_withheld(world: World) -> None:
    world.grant(EDGE)
    before = world.plan()["id"]
    world.run()
    assert world.plan()["id"] == before
    override(world, "rule.j2", NO_RULES)
    world.run()
    withheld = world.plan()["id"]
    world.policy = replace(world.policy, guard=GuardRules(removals=1))
    world.restart()
    world.run()
    assert len({before, withheld, world.plan()["id"]}) == 3


# ---- changes with a way back -----------------------------------------------------------------------------------


def change(world: World, confirm: int = 60) -> str:
    """Apply, with a way back, the plan that is there; return its id."""
    world.clock.now += 1
    plan_id = str(world.plan()["id"])
    request_apply(world.config.paths.approval, plan_id, confirm)
    world.run()
    return plan_id


def confirm(world: World, plan_id: str) -> None:
    world.clock.now += 1
    request_confirm(world.config.paths.confirmation, plan_id)
    world.run()


def remote(world: World) -> IPv4Address | None:
    link = world.kernel.links.get("doublezero0")
    return None if link is None or link.tunnel is None else link.tunnel.remote


def moved(world: World) -> str:
    """Apply the first plan for good, then one that moves the tunnel; return the latter's id."""
    request_apply(world.config.paths.approval, world.plan()["id"])
    world.run()
    world.ledger(replace(IBRL, endpoint="192.0.2.9"))
    world.run()
    return change(world)


def test_what_is_confirmed_stays(manual: World) -> None:
    plan_id = moved(manual)
    assert remote(manual) == IPv4Address("192.0.2.9")
    assert manual.config.paths.checkpoint.exists()
    assert manual.condition("ConfirmPending") == ("True", "Unconfirmed")
    confirm(manual, plan_id)
    assert not manual.config.paths.checkpoint.exists()
    assert manual.status()["last_apply"]["result"] == "confirmed"
    manual.clock.now += 1000
    assert manual.run(2) == 0
    assert remote(manual) == IPv4Address("192.0.2.9")


@pytest.mark.parametrize("restarts", [False, True])
def test_what_nobody_confirms_is_undone_and_stays_undone(manual: World, restarts: bool) -> None:
    plan_id = moved(manual)
    manual.clock.now += 30
    if restarts:
        manual.restart()
    assert manual.run() == 0
    manual.clock.now += 40
    if restarts:
        manual.restart()
    manual.run()
    assert remote(manual) == IPv4Address(DEVICE_IP)
    assert not manual.config.paths.checkpoint.exists()
    assert manual.status()["last_apply"]["result"] == "rolled back"
    manual.restart()
    manual.run()
    (item,) = held(manual)
    assert item["kind"] == "rollback"
    assert f"Plan {plan_id} was rolled back" in item["why"]
    request_apply(manual.config.paths.approval, manual.plan()["id"])
    assert manual.run() == 0, "an apply does not do it again"
    approve(manual, item["id"])
    manual.run()
    manual.clock.now += 1
    request_apply(manual.config.paths.approval, manual.plan()["id"])
    assert manual.run() == 1
    assert remote(manual) == IPv4Address("192.0.2.9")
    manual.restart()
    assert manual.run() == 0
    assert held(manual) == []


def test_other_inputs_end_the_hold(manual: World) -> None:
    moved(manual)
    manual.clock.now += 100
    manual.run()
    assert remote(manual) == IPv4Address(DEVICE_IP)
    manual.ledger(replace(IBRL, endpoint="192.0.2.17"))
    manual.run()
    assert held(manual) == []
    assert len(manual.plan()["steps"]) == 1
    assert not manual.config.paths.undone.exists()


def test_a_first_apply_is_undone_whole(manual: World) -> None:
    change(manual)
    assert manual.tunnels == {"doublezero0"}
    manual.clock.now += 100
    manual.run()
    assert manual.tunnels == set()
    assert not any(a.dev == "doublezero0" for a in manual.kernel.addresses)


def test_a_ban_and_a_disable_outrank_what_was_rolled_back(manual: World) -> None:
    moved(manual)
    manual.clock.now += 100
    manual.run()
    manual.ledger(replace(IBRL, status=6))
    manual.run()
    assert held(manual) == []
    assert {step["action"] for step in manual.plan()["steps"]} == {"delete"}


def test_a_disable_before_the_deadline_is_not_undone(manual: World) -> None:
    moved(manual)
    manual.say(enabled=False)
    manual.run()
    assert manual.status()["last_apply"]["result"] == "superseded"
    manual.clock.now += 100
    assert manual.run() == 0
    assert remote(manual) == IPv4Address("192.0.2.9")


def test_a_second_apply_waits_for_the_confirmation_of_the_first(manual: World) -> None:
    first = moved(manual)
    manual.ledger(replace(IBRL, endpoint="192.0.2.17"))
    manual.run()
    change(manual)
    assert remote(manual) == IPv4Address("192.0.2.9")
    last = manual.status()["last_apply"]
    assert (last["result"], first in last["message"]) == ("refused", True)


def test_what_has_no_way_back_is_not_applied(manual: World) -> None:
    request_apply(manual.config.paths.approval, manual.plan()["id"])
    manual.run()
    odd = Address("doublezero0", manual.kernel.addresses[0].interface, "global", ("label doublezero0:x",))
    manual.kernel.addresses.append(odd)
    manual.run()
    change(manual)
    assert odd in manual.kernel.addresses
    last = manual.status()["last_apply"]
    assert (last["result"], "no way back" in last["message"]) == ("refused", True)
    assert not manual.config.paths.checkpoint.exists()


def test_a_full_disk_under_run_applies_nothing(manual: World) -> None:
    manual.config.paths.checkpoint.mkdir()
    (manual.config.paths.checkpoint / "x").write_text("")
    change(manual)
    assert manual.tunnels == set()


def test_what_somebody_else_changed_meanwhile_is_left_alone_and_named(manual: World) -> None:
    moved(manual)
    link = manual.kernel.links["doublezero0"].tunnel
    assert link is not None
    manual.kernel.set_link(replace(link, mtu=1400))
    manual.clock.now += 100
    manual.run()
    assert remote(manual) == IPv4Address("192.0.2.9")
    last = manual.status()["last_apply"]
    assert last["result"] == "rolled back"
    assert "is not restored: it is link doublezero0" in last["message"]


def test_a_rollback_that_fails_is_tried_again_and_then_told(manual: World) -> None:
    moved(manual)
    manual.clock.now += 100
    manual.kernel.faults = [Fault(lambda _: True, Result.TRANSIENT) for _ in range(3)]
    manual.run()
    assert remote(manual) == IPv4Address("192.0.2.9")
    manual.clock.now += 2
    manual.run()
    assert remote(manual) == IPv4Address(DEVICE_IP)


def test_a_checkpoint_that_cannot_be_read_is_reported_and_set_aside(manual: World) -> None:
    moved(manual)
    path = manual.config.paths.checkpoint
    document = json.loads(path.read_text())
    document["restore"][0][0] = (
        "link add name eth0 mtu 1400 type gre local 198.51.100.7 remote 192.0.2.9 ttl 64 nopmtudisc"
    )
    write_json(path, document)
    manual.restart()
    manual.clock.now += 100
    assert manual.run() == 0
    assert "CheckpointUnreadable" in {p["code"] for p in manual.status()["problems"]}
    assert path.with_name("rollback.json.bad").exists()
    assert not path.exists()


def test_an_approval_with_a_way_back_in_automatic_mode(world: World) -> None:
    world.grant(EDGE)
    rules = list(world.kernel.rules)
    override(world, "rule.j2", NO_RULES)
    world.run()
    approve(world, held(world)[0]["id"], 60)
    world.run()
    assert world.kernel.rules == [FOREIGN_RULE]
    assert world.condition("ConfirmPending")[0] == "True"
    world.clock.now += 61
    world.run()
    assert sorted(map(str, world.kernel.rules)) == sorted(map(str, rules))
    world.restart()
    world.run(3)
    assert sorted(map(str, world.kernel.rules)) == sorted(map(str, rules))
    assert {item["kind"] for item in held(world)} == {"rollback"}


def test_foreign_objects_are_never_touched_by_a_rollback(manual: World) -> None:
    moved(manual)
    foreign = Route(IPv4Network("10.0.0.0/8"), None, "doublezero0", 7, 4)
    manual.kernel.routes.append(foreign)
    before = [r for r in manual.kernel.routes if r.protocol != 210]
    manual.clock.now += 100
    manual.run()
    assert [r for r in manual.kernel.routes if r.protocol != 210] == before
    assert manual.kernel.rules == [FOREIGN_RULE]


def test_files_that_cannot_be_removed_stop_no_repair(manual: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(self: CheckpointFile) -> None:
        raise StateError(f"{self.path} cannot be removed (Read-only file system)")

    monkeypatch.setattr(CheckpointFile, "clear", stuck)
    monkeypatch.setattr(CheckpointFile, "set_aside", stuck)
    confirm(manual, moved(manual))
    assert manual.status()["last_apply"]["result"] == "confirmed"
    assert "CheckpointStuck" in {p["code"] for p in manual.status()["problems"]}
    manual.clock.now += 1000
    assert manual.run(2) == 0
    assert remote(manual) == IPv4Address("192.0.2.9")
    manual.config.paths.checkpoint.write_text("{")
    manual.restart()
    manual.run(2)
    assert manual.condition("InSync")[0] == "True"


def test_an_undone_change_whose_file_stays_is_undone_once(
    manual: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(self: CheckpointFile) -> None:
        raise StateError(f"{self.path} cannot be removed (Read-only file system)")

    monkeypatch.setattr(CheckpointFile, "clear", stuck)
    moved(manual)
    manual.clock.now += 100
    assert manual.run(3) == 1
    assert manual.status()["last_apply"]["result"] == "rolled back"
    assert manual.condition("Held") == ("True", "RolledBack")
