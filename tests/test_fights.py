"""The loop among others: what was half-made, what is edited, what is fought over, what hangs."""

from __future__ import annotations

import json
import os
import select
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from dzagent.errors import KernelTimeout
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import Completed, run
from dzagent.model import Action, Result, Route, Rule, Step
from dzagent.policy import Contested, Policy
from tests.fake_kernel import Fault, LineFault
from tests.owning import ours
from tests.service_fakes import CLIENT, EDGE, IBRL
from tests.test_reconcile import FOREIGN_RULE, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def bare(world: World, **changes: Any) -> None:
    """Edit our link in place."""
    tunnel = world.kernel.links["doublezero0"].tunnel
    assert tunnel is not None
    world.kernel.set_link(replace(tunnel, **changes))


def cut(world: World) -> None:
    """Delete our rule of priority 100."""
    mine = (rule for rule in world.kernel.rules if (rule.protocol, rule.priority) == (210, 100))
    world.kernel.rules.remove(next(mine))


# ---- the journal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("alias", ["", "theirs"])
def test_a_link_without_its_alias_is_repaired_in_place(world: World, alias: str, restart: bool) -> None:
    world.grant()
    index = world.kernel.links["doublezero0"].ifindex
    bare(world, alias=alias, mtu=1400)
    if restart:
        world.restart()
    assert world.run() == 1
    link = world.kernel.links["doublezero0"]
    assert (link.ifindex, link.alias, link.mtu) == (index, "dzagent:unicast", 1476)
    assert world.run() == 0


def test_a_link_without_its_alias_goes_when_it_is_not_wanted_any_more(world: World) -> None:
    world.grant()
    bare(world, alias="")
    world.say(enabled=False)
    world.run()
    assert world.tunnels == set()


def test_without_a_journal_a_link_with_another_alias_is_a_conflict(world: World) -> None:
    world.grant()
    bare(world, alias="theirs")
    world.config.paths.journal.unlink()
    world.restart()
    assert world.run(2) == 0
    assert world.condition("Conflict") == ("True", "ForeignObject")
    (service,) = world.status()["services"]
    assert service["provisioned"] is False


def test_a_link_of_ours_that_is_renamed_is_made_again(world: World) -> None:
    world.grant()
    seen = world.kernel.links.pop("doublezero0")
    assert seen.tunnel is not None
    world.kernel.links["gre7"] = replace(seen, name="gre7", tunnel=replace(seen.tunnel, name="gre7"))
    world.run()
    assert world.tunnels == {"doublezero0"}
    assert world.condition("Ready")[0] == "True"


def test_what_a_killed_process_had_half_made_is_swept(world: World) -> None:
    world.grant()
    (link,) = (seen.tunnel for name, seen in world.kernel.links.items() if name == "doublezero0")
    assert link is not None
    world.say(enabled=False)
    world.run()
    world.loop._parts.journal.begin([Step(Action.ADD, None, link, "missing")])
    world.kernel.add_link(replace(link, alias="", up=False))
    world.restart()
    world.run()
    assert world.tunnels == set()


def test_a_pass_without_work_does_not_write_the_journal(world: World) -> None:
    world.grant(EDGE)
    written = [world.config.paths.journal.stat().st_ino]
    world.run(3)
    written.append(world.config.paths.journal.stat().st_ino)
    world.restart()
    world.run()
    written.append(world.config.paths.journal.stat().st_ino)
    assert len(set(written)) == 1, "a file that is written is another one"


def test_a_journal_that_cannot_be_written_stops_no_repair(world: World) -> None:
    world.grant(EDGE)
    world.config.paths.journal.unlink()
    world.config.paths.journal.mkdir()
    cut(world)
    assert world.run() == 1
    assert world.condition("Journaled") == ("False", "Failed")
    assert world.condition("InSync")[0] == "True"
    world.config.paths.journal.rmdir()
    cut(world)
    world.run()
    assert world.condition("Journaled") == ("True", "Written")


# ---- fights --------------------------------------------------------------------------------------------------


def test_a_rule_that_somebody_keeps_deleting_is_contested_and_then_not(world: World) -> None:
    world.grant(EDGE)
    after = world.policy.contested.after
    for _ in range(after):
        cut(world)
        assert world.run() == 1
    assert world.condition("Contested") == ("True", "Undone")
    assert world.condition("InSync")[0] == "True"
    cut(world)
    assert world.run(5) == 0
    assert world.condition("InSync") == ("False", "StepsLeft")
    (shown,) = world.status()["contested"]
    assert shown["object"].startswith("rule priority 100")
    assert (shown["repairs"], shown["suspects"]) == (after, ["zebra runs"])
    (service,) = world.status()["services"]
    assert service["last_error"]["code"] == "Contested"
    assert world.looks == 1, "processes are looked at once for each new fight"
    world.clock.now += 2
    assert world.run() == 1
    assert world.looks == 1
    world.clock.now += world.policy.contested.calm - 1
    world.run()
    assert world.condition("Contested")[0] == "True"
    world.clock.now += 2
    world.run()
    assert world.condition("Contested") == ("False", "None")
    assert world.status()["contested"] == []
    cut(world)
    assert world.run() == 1


def test_the_others_are_repaired_while_one_is_fought_over(world: World) -> None:
    world.grant(EDGE)
    for _ in range(world.policy.contested.after):
        cut(world)
        world.run()
    mine = [rule for rule in world.kernel.rules if rule.protocol == 210]
    world.kernel.rules = [FOREIGN_RULE]
    bare(world, mtu=1300)
    assert world.run() == len(mine) - 1 + 1


def test_a_foreigner_who_is_always_faster_is_contested(world: World) -> None:
    world.grant(EDGE)

    def races(step: Step) -> bool:
        raced = isinstance(step.target, Rule) and step.action is Action.ADD
        if raced:
            world.kernel.faults.append(Fault(races, Result.RACED))
        return raced

    world.kernel.faults = [Fault(races, Result.RACED)]
    cut(world)
    assert world.run(20) < 10
    assert world.condition("Contested") == ("True", "Undone")
    world.kernel.faults = []
    world.clock.now += 120
    world.run()
    assert world.condition("InSync")[0] == "True"


def test_a_grant_that_comes_and_goes_is_no_fight(world: World) -> None:
    for _ in range(10):
        world.grant(EDGE)
        world.say(enabled=False)
        world.run()
    assert world.condition("Contested") == ("False", "None")


def test_a_fight_over_a_link_that_is_there_does_not_stop_what_stands_on_it(world: World) -> None:
    world.policy = Policy(contested=Contested(after=1))
    world.restart()
    world.grant(EDGE)
    bare(world, mtu=1400)
    world.run()
    bare(world, mtu=1400)
    world.kernel.remove_address(next(a for a in world.kernel.addresses if a.dev == "doublezero0"))
    assert world.run() > 0
    assert world.condition("Contested")[0] == "True"
    assert world.kernel.links["doublezero0"].mtu == 1400
    assert [a for a in world.kernel.addresses if a.dev == "doublezero0"]


def test_a_link_that_is_fought_over_is_not_taken_down_to_rebuild_it_later(world: World) -> None:
    world.policy = Policy(contested=Contested(after=1))
    world.restart()
    world.grant(EDGE)
    bare(world, extra=("ikey 0.0.0.1",))
    assert world.run() > 1
    bare(world, extra=("ikey 0.0.0.1",))
    assert world.run(3) == 0
    assert world.tunnels == {"doublezero0"}
    world.clock.now += 2
    world.run()
    assert world.condition("InSync")[0] == "True"


def test_a_fight_is_an_event_and_a_line_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.grant(EDGE)
    caplog.set_level("INFO")
    for _ in range(world.policy.contested.after):
        cut(world)
        world.run()
    world.run(3)
    said = [r.getMessage() for r in caplog.records if "undoing" in r.getMessage()]
    assert len(said) == 2, "one for the audit log, one complaint"
    events = json.loads(world.config.paths.events.read_text())["events"]
    assert [event["result"] for event in events].count("contested") == 1
    world.clock.now += 100
    world.run()
    assert "no longer: Contested: " in caplog.text


# ---- what hangs ----------------------------------------------------------------------------------------------


def test_a_tool_that_hangs_after_its_work_is_done_is_asked_again_and_nothing_is_done_twice(
    world: World,
) -> None:
    world.say(enabled=True)
    world.ledger(IBRL)
    fault = LineFault(lambda line: line.startswith("link add "), "times out")
    world.kernel.troubles = [fault]
    assert world.run() == 1
    assert world.condition("InSync")[0] == "False"
    world.clock.now += 2
    assert world.run() == 1, "the address alone is left"
    assert world.condition("Ready")[0] == "True"


HANGING = """#!/bin/sh
if [ -e {flag} ]; then sleep 600 & echo $! > {flag}.child; sleep 600; fi
echo done
"""


def has_ended(pid: int) -> bool:
    """Wait until a process that is not our child has ended; gives up after ten seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    watch = select.poll()
    watch.register(process, select.POLLIN)
    ended = bool(watch.poll(10_000))
    os.close(process)
    return ended


def test_an_ip_that_hangs_is_killed_with_its_children_and_tried_again(tmp_path: Path) -> None:
    flag, script = tmp_path / "hang", tmp_path / "ip"
    flag.touch()
    script.write_text(HANGING.format(flag=flag))
    script.chmod(0o755)

    def runner(program: str, args: Any, stdin: str = "") -> Completed:
        return run(program, args, stdin, timeout=1.0 if flag.exists() else 60.0, search=[str(tmp_path)])

    kernel = IpRoute(runner)
    step = Step(Action.DELETE, ours(FOREIGN_RULE), None, "test")
    with pytest.raises(KernelTimeout, match=r"ip did not end within 1 s and was killed"):
        kernel.apply([step])
    child = flag.with_name("hang.child")
    if child.exists() and child.read_text():  # else it was killed before it came to that
        assert has_ended(int(child.read_text()))
    flag.unlink(missing_ok=True)
    (outcome,) = kernel.apply([step])
    assert outcome.result is Result.DONE


def test_an_observation_that_hangs_changes_nothing_and_says_so(world: World) -> None:
    world.grant()
    world.kernel.observe_error = KernelTimeout("ip did not end within 10 s and was killed.")
    assert world.run() == 0
    assert world.condition("InSync") == ("Unknown", "KernelTimeout")
    world.kernel.observe_error = None
    world.run()
    assert world.condition("Ready")[0] == "True"


# ---- conflicts -----------------------------------------------------------------------------------------------


def test_a_foreign_route_is_named_with_its_protocol_and_table_until_it_leaves(world: World) -> None:
    world.grant(EDGE)
    mine = next(r for r in world.kernel.routes if r.protocol == 210)
    theirs = replace(mine, protocol=186, dev="eth0", via=IPv4Address(int(CLIENT) + 1))
    world.kernel.routes[world.kernel.routes.index(mine)] = theirs
    world.run(2)
    assert world.condition("Conflict")[0] == "True"
    (conflict,) = world.status()["conflicts"]
    assert f"table {mine.table} of protocol 186 (bgp)" in conflict["owner"]
    assert theirs in world.kernel.routes
    world.kernel.routes.remove(theirs)
    world.run()
    assert world.condition("Conflict") == ("True", "ForeignNeighbour"), "a foreign rule has our priority"
    assert world.condition("Ready")[0] == "True"
    world.kernel.rules.remove(FOREIGN_RULE)
    world.run()
    assert world.condition("Conflict")[0] == "False"
    assert any(isinstance(r, Route) and r == mine for r in world.kernel.routes)


def test_the_next_pass_comes_when_a_fight_may_be_over(world: World) -> None:
    world.grant(EDGE)
    for _ in range(world.policy.contested.after):
        cut(world)
        passed = world.loop.run_pass()
    assert passed.retry_in == pytest.approx(world.policy.contested.calm)
    cut(world)
    passed = world.loop.run_pass()
    assert passed.retry_in is not None
    assert passed.retry_in < 2
