"""The loop on a kernel in memory: what is granted is made, what is doubtful stays, what is withdrawn goes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dzagent.config import Config, Paths
from dzagent.desired import DesiredStore
from dzagent.errors import KernelError, ObservationError
from dzagent.feed import LedgerView
from dzagent.foreign.firststart import TakenOver
from dzagent.foreign.turns import HANDED_BACK, Hindrance
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.journal import Journal
from dzagent.ledger.snapshot import Snapshot
from dzagent.model import Address, Link, Result, Route, Rule, SeenLink
from dzagent.parts import Parts
from dzagent.policy import Policy
from dzagent.reconcile import Reconciler
from dzagent.remembered import RememberedIp
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import find
from dzagent.state import Intent, request_apply, write_intent
from tests.fake_kernel import FakeKernel, Fault
from tests.service_fakes import (
    CLIENT,
    DEVICE_IP,
    EDGE,
    GATEWAY,
    IBRL,
    SUBSCRIBER,
    USER,
    USER2,
    UserSpec,
    snapshot,
)

UPLINK = SeenLink("eth0", 2, "", up=True, mtu=1500)
FOREIGN_RULE = Rule(100, IPv4Network("0.0.0.0/0"), IPv4Network("10.98.0.0/16"), 100, 4)


@dataclass
class FakeFeed:
    """A ledger side that says what a test says."""

    seen: LedgerView = field(default_factory=LedgerView)
    enabled: bool = False
    pokes: int = 0

    def view(self) -> LedgerView:
        return self.seen

    def enable(self, enabled: bool) -> None:
        self.enabled = enabled

    def poke(self) -> None:
        self.pokes += 1


@dataclass
class Clock:
    """Seconds that pass when told."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A host with an agent; `restart` is a new process on the same files and kernel."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        usual = {
            "client_ip": CLIENT,
            "templates": tmp_path / "templates.d",
            "paths": Paths(state=tmp_path / "state", run=tmp_path / "run"),
        }
        self.config = Config(**{**usual, **settings})
        self.kernel = FakeKernel(links={"eth0": UPLINK}, sources={IPv4Address(DEVICE_IP): CLIENT})
        self.kernel.addresses.append(Address("eth0", IPv4Interface((CLIENT, 24)), "global"))
        self.kernel.routes.append(Route(IPv4Network("0.0.0.0/0"), GATEWAY, "eth0", 254, 4))
        self.kernel.rules.append(FOREIGN_RULE)
        self.kernel.sources[IPv4Address("192.0.2.2")] = CLIENT
        self.feed, self.clock, self.policy = FakeFeed(), Clock(), Policy()
        self.config.paths.agent.mkdir(parents=True)
        self.ssh: frozenset[tuple[IPv4Address, IPv4Address]] = frozenset()
        self.looks = 0
        self.restart()

    def restart(self) -> None:
        config = self.config
        self.loop = Reconciler(
            Parts(
                config=config,
                policy=self.policy,
                kernel=self.kernel,
                feed=self.feed,
                store=DesiredStore(config.paths),
                templates=Templates((config.templates, find("templates"))),
                intent=IntentReader(config.paths.intent),
                probe=HostProbe(
                    config,
                    Policy(),
                    self.kernel,
                    clock=self.clock,
                    ssh_sessions=self._ssh_sessions,
                    remembered=RememberedIp(config.paths.client_ip),
                ),
                reporter=Reporter(config, version="0", pid=1, clock=self.clock),
                now=self.clock,
                journal=Journal(config.paths.journal, "here"),
                managers=self._managers,
            )
        )

    def _managers(self) -> tuple[str, ...]:
        self.looks += 1
        return ("zebra runs",)

    def _ssh_sessions(self, _: Collection[int]) -> frozenset[tuple[IPv4Address, IPv4Address]]:
        return self.ssh

    def say(self, *, enabled: bool) -> None:
        write_intent(self.config.paths.intent, Intent(enabled))

    def ledger(self, users: Mapping[str, UserSpec] | UserSpec | None, **others: Any) -> None:
        found: Snapshot = snapshot(users, **others)
        self.feed.seen = LedgerView(found, frozenset({CLIENT}), self.clock.now, self.clock.now)

    def run(self, passes: int = 1) -> int:
        """Run passes; return how many steps were tried."""
        before = len(self.kernel.applied)
        for _ in range(passes):
            self.loop.run_pass()
        return len(self.kernel.applied) - before

    def grant(self, users: Mapping[str, UserSpec] | UserSpec = IBRL) -> None:
        self.say(enabled=True)
        self.ledger(users)
        assert self.run() > 0
        assert self.condition("Ready") == ("True", "Provisioned")

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.config.paths.status.read_text())
        return document

    def plan(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.config.paths.plan.read_text())
        return document

    def condition(self, kind: str) -> tuple[str, str]:
        return next((c["status"], c["reason"]) for c in self.status()["conditions"] if c["type"] == kind)

    @property
    def tunnels(self) -> set[str]:
        return set(self.kernel.links) - {"eth0"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# ---- the life of a service ---------------------------------------------------------------------------------


def test_a_granted_service_is_made_and_the_next_pass_does_nothing(world: World) -> None:
    world.grant(EDGE)
    assert world.tunnels == {"doublezero0"}
    observations = world.kernel.observations
    status = world.config.paths.status.stat().st_mtime_ns
    generations = list((world.config.paths.state / "generations").iterdir())
    assert world.run(5) == 0
    assert world.kernel.observations == observations + 5
    assert world.config.paths.status.stat().st_mtime_ns == status
    assert list((world.config.paths.state / "generations").iterdir()) == generations


def test_a_later_slot_alone_writes_nothing(world: World) -> None:
    world.grant()
    status = world.config.paths.status.stat().st_mtime_ns
    world.feed.seen = replace(world.feed.seen, snapshot=replace(snapshot(IBRL), slot=99))
    assert world.run(2) == 0
    assert world.config.paths.status.stat().st_mtime_ns == status


@pytest.mark.parametrize("status", [0, 2, 3, 4, 5, 6, 7, 8])
def test_a_user_that_is_not_activated_any_more_loses_its_service_at_once(world: World, status: int) -> None:
    world.grant()
    world.ledger(replace(IBRL, status=status))
    world.run()
    assert world.tunnels == set()
    assert world.kernel.rules == [FOREIGN_RULE]


def test_disable_takes_everything_down_whatever_the_ledger_does(world: World) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    assert world.tunnels == {"doublezero0", "doublezero1"}
    world.feed.seen = LedgerView(error="no answer", error_code="Unreachable")
    world.say(enabled=False)
    world.run()
    assert (world.tunnels, world.kernel.rules) == (set(), [FOREIGN_RULE])
    assert not world.feed.enabled
    status = world.status()
    assert (status["enabled"], status["services"]) == (False, [])


def test_a_restart_makes_no_step(world: World) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    indexes = {name: link.ifindex for name, link in world.kernel.links.items()}
    world.restart()
    assert world.run(3) == 0
    world.feed.seen = LedgerView()  # and not while the ledger has not answered yet
    world.restart()
    assert world.run(3) == 0
    assert {name: link.ifindex for name, link in world.kernel.links.items()} == indexes


@pytest.mark.parametrize("what", ["link", "address", "route", "rule"])
def test_what_somebody_deletes_comes_back_without_the_ledger(world: World, what: str) -> None:
    world.grant(EDGE)
    world.feed.seen = LedgerView(error="no answer", error_code="Unreachable")
    kernel = world.kernel
    before = (set(kernel.addresses), set(kernel.routes), set(kernel.rules))
    if what == "link":
        kernel.delete_link("doublezero0")
    elif what == "address":
        kernel.remove_address(next(a for a in kernel.addresses if a.dev == "doublezero0"))
    elif what == "route":
        kernel.routes = [r for r in kernel.routes if r.dev != "doublezero0"]
    else:
        kernel.rules.pop()
    world.run()
    assert (set(kernel.addresses), set(kernel.routes), set(kernel.rules)) == before


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("end", [None, *(replace(IBRL, status=status) for status in (0, 4, 6))])
def test_the_end_of_the_user_that_named_the_host_ends_its_service(
    tmp_path: Path, end: UserSpec | None, *, restarted: bool
) -> None:
    world = World(tmp_path, client_ip=None)
    world.grant()
    world.ledger(end)
    if restarted:
        world.restart()
    world.run()
    assert world.tunnels == set()
    world.ledger(IBRL)
    world.run()
    assert world.tunnels == {"doublezero0"}


def test_keys_that_take_too_long_to_read_hold_up_no_repair(world: World) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    keys = {(254, IPv4Network((0x0B000000 + number, 32))): None for number in range(100)}
    world.loop._joiner.contested = dict(keys)
    world.kernel.most_exact = 12
    world.kernel.delete_link("doublezero1")
    for _ in range(3):
        world.loop._joiner.contested = dict(keys)
        world.run()
    assert "doublezero1" in world.tunnels
    assert world.condition("Ready")[0] == "True"


# ---- doubt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        LedgerView(),
        LedgerView(error="no answer", error_code="Unreachable"),
        LedgerView(snapshot(None), frozenset()),
        LedgerView(snapshot(None, complete=False), frozenset({CLIENT})),
        LedgerView(snapshot(replace(IBRL, status=77)), frozenset({CLIENT})),
        LedgerView(snapshot(replace(IBRL, net="169.254.0.4/30")), frozenset({CLIENT})),
        LedgerView(snapshot(replace(IBRL, endpoint="127.0.0.1")), frozenset({CLIENT})),
    ],
)
def test_no_doubtful_answer_takes_a_tunnel_down(world: World, view: LedgerView) -> None:
    world.grant()
    world.feed.seen = view
    assert world.run(3) == 0
    world.restart()
    assert world.run(3) == 0
    assert world.tunnels == {"doublezero0"}


def test_lost_files_and_a_silent_ledger_take_nothing_down(world: World) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    world.config.paths.desired.unlink()
    world.feed.seen = LedgerView()
    world.restart()
    assert world.run(3) == 0
    assert world.tunnels == {"doublezero0", "doublezero1"}
    world.ledger({USER: EDGE, USER2: SUBSCRIBER})
    assert world.run(2) == 0
    assert (world.config.paths.desired / "unicast" / "tunnel.ip").exists()


def test_files_that_cannot_be_read_are_neither_believed_nor_overwritten(world: World) -> None:
    world.grant()
    file = world.config.paths.desired / "unicast" / "tunnel.ip"
    text = file.read_text()
    file.unlink()
    file.mkdir()
    world.feed.seen = LedgerView()
    world.restart()
    assert world.run(2) == 0
    assert world.condition("Rendered")[0] == "False"
    file.rmdir()
    file.write_text(text)
    assert world.run(2) == 0
    assert world.condition("Rendered")[0] == "True"


def test_text_that_was_edited_out_of_the_grammar_is_not_believed(world: World) -> None:
    world.grant()
    file = world.config.paths.desired / "unicast" / "tunnel.ip"
    file.write_text("link delete eth0\n")
    world.feed.seen = LedgerView()
    world.restart()
    assert world.run(2) == 0
    assert world.tunnels == {"doublezero0"}
    assert world.condition("Rendered") == ("False", "Failed")


def test_a_lost_intent_beside_a_tunnel_is_doubt(world: World) -> None:
    world.grant()
    world.config.paths.intent.unlink()
    world.restart()
    assert world.run(2) == 0
    assert world.tunnels == {"doublezero0"}
    assert world.status()["enabled"] is None


def test_a_corrupt_intent_leaves_the_last_one_in_force(world: World) -> None:
    world.grant()
    world.config.paths.intent.write_text("{")
    assert world.run(2) == 0
    assert world.condition("IntentReadable") == ("False", "Corrupt")


def test_a_kernel_that_cannot_be_read_is_not_empty(world: World) -> None:
    world.grant()
    world.kernel.observe_error = ObservationError("ip printed half an answer")
    assert world.run(2) == 0
    assert world.condition("InSync") == ("Unknown", "ObservationFailed")
    world.kernel.observe_error = None
    assert world.run() == 0
    assert world.condition("Ready")[0] == "True"


# ---- failures ----------------------------------------------------------------------------------------------


def test_a_step_that_fails_is_tried_again_after_its_backoff_and_then_heals(world: World) -> None:
    world.say(enabled=True)
    world.ledger(IBRL)
    world.kernel.faults = [Fault(lambda step: isinstance(step.target, Address), Result.TRANSIENT)]
    world.run()
    (service,) = world.status()["services"]
    assert service["last_error"]["code"] == "Transient"
    assert world.run() == 0
    world.clock.now += 120
    assert world.run() == 1
    assert world.condition("Ready")[0] == "True"
    assert world.status()["services"][0]["last_error"] is None


def test_a_tool_that_cannot_be_started_ends_the_pass_not_the_loop(world: World) -> None:
    world.say(enabled=True)
    world.ledger(IBRL)
    world.kernel.faults = [Fault(lambda _: True, error=KernelError("ip was not found: install iproute2"))]
    world.run()
    assert world.condition("Ready") == ("False", "KernelError")
    world.run()
    assert world.condition("Ready")[0] == "True"


def test_a_defect_is_reported_and_the_loop_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("oops")

    world.grant()
    with monkeypatch.context() as patch:
        patch.setattr(world.kernel, "observe", broken)
        world.run()
    assert world.condition("Ready") == ("False", "InternalError")
    world.run()
    assert world.condition("Ready")[0] == "True"


def test_a_full_disk_is_a_condition_and_repairs_go_on(world: World) -> None:
    world.grant()
    generations = world.config.paths.state / "generations"
    generations.rename(world.config.paths.state / "moved")
    generations.write_text("in the way")
    world.ledger(replace(IBRL, endpoint="192.0.2.9"))
    world.run()
    assert world.condition("Rendered") == ("False", "Failed")
    link = world.kernel.links["doublezero0"].tunnel
    assert link is not None
    assert link.remote == IPv4Address("192.0.2.9")
    world.kernel.delete_link("doublezero0")
    world.run()
    assert world.tunnels == {"doublezero0"}


def test_a_template_of_the_operator_that_fails_keeps_the_old_text(world: World) -> None:
    world.grant()
    world.config.templates.mkdir()
    override = world.config.templates / "address.j2"
    for source, code in (("{{ nothing }}\n", "NotRendered"), ("addr flush dev eth0\n", "OutsideGrammar")):
        override.write_text(source)
        assert world.run(2) == 0
        (service,) = world.status()["services"]
        assert service["last_error"]["code"] == code
        assert "address" in service["last_error"]["message"]
    assert world.tunnels == {"doublezero0"}


def test_a_link_of_our_name_that_is_not_ours_is_a_conflict_until_it_leaves(world: World) -> None:
    world.kernel.add_link(Link("doublezero0", CLIENT, IPv4Address("192.0.2.99"), 64, 1476, "theirs"))
    world.say(enabled=True)
    world.ledger(IBRL)
    assert world.run(2) == 0
    assert world.condition("Conflict") == ("True", "ForeignObject")
    world.kernel.delete_link("doublezero0")
    world.run()
    assert world.condition("Ready")[0] == "True"


# ---- what must stay reachable ------------------------------------------------------------------------------


def test_a_prefix_that_becomes_an_ssh_peer_s_stays_and_a_new_one_is_refused(world: World) -> None:
    peer = IPv4Address("148.51.0.200")
    world.grant(EDGE)
    rules = list(world.kernel.rules)
    world.ssh = frozenset({(CLIENT, peer)})
    assert world.run(2) == 0
    assert world.kernel.rules == rules
    world.say(enabled=False)
    world.run(2)
    world.say(enabled=True)
    world.run()
    assert world.kernel.rules == [FOREIGN_RULE]
    assert "PrefixRefused" in {p["code"] for p in world.status()["problems"]}


# ---- modes -------------------------------------------------------------------------------------------------


def test_observe_mode_never_writes(tmp_path: Path) -> None:
    world = World(tmp_path, apply="observe")
    world.say(enabled=True)
    world.ledger(IBRL)
    assert world.run(3) == 0
    assert len(world.plan()["steps"]) == 2
    assert world.condition("InSync") == ("False", "Waiting")


def test_manual_mode_applies_exactly_the_plan_that_was_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, apply="manual")
    world.say(enabled=True)
    world.ledger(IBRL)
    assert world.run(2) == 0
    plan_id = world.plan()["id"]
    request_apply(world.config.paths.approval, "0123abcd")
    assert world.run() == 0
    assert world.status()["last_apply"]["result"] == "stale"
    world.clock.now += 1
    request_apply(world.config.paths.approval, plan_id)
    assert world.run() == 2
    assert world.status()["last_apply"]["result"] == "applied"
    world.kernel.delete_link("doublezero0")
    assert world.run() == 0, "a request counts once"


# ---- who we are --------------------------------------------------------------------------------------------


def test_the_ledger_is_asked_about_us_before_the_first_poll(world: World) -> None:
    world.say(enabled=True)
    world.run()
    assert (world.feed.enabled, world.feed.pokes) == (True, 1)
    world.run(3)
    assert world.feed.pokes == 1


def test_a_disabled_agent_asks_the_ledger_nothing(world: World) -> None:
    world.run()
    assert not world.feed.enabled
    assert world.condition("Ready") == ("False", "Disabled")


# ---- what is logged ----------------------------------------------------------------------------------------


def test_every_change_has_a_line_that_says_why(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dzagent.audit")
    world.grant()
    lines = [record.getMessage() for record in caplog.records if record.name == "dzagent.audit"]
    assert len(lines) == 2
    for part in (
        "unicast/tunnel.ip:",
        f"user {USER} at slot 7",
        "[ip link add name doublezero0",
        "missing",
        "] done",
    ):
        assert part in lines[0]
    caplog.clear()
    world.ledger(replace(IBRL, status=6))
    world.run()
    assert all(f"user {USER} is banned" in record.getMessage() for record in caplog.records)


def test_what_is_wrong_is_logged_once_and_so_is_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.grant()
    caplog.set_level("INFO", "dzagent.report")
    world.ledger(replace(IBRL, endpoint="127.0.0.1"))
    world.run(3)
    world.ledger(IBRL)
    world.run(3)
    said = [record.getMessage() for record in caplog.records if record.name == "dzagent.report"]
    assert [text.partition("InvalidEndpoint")[0] for text in said] == ["", "no longer: "]


# ---- rules and sessions that come and go -------------------------------------------------------------------


def test_a_pair_of_rules_is_repaired_while_somebody_logs_in_through_it(world: World) -> None:
    world.grant(EDGE)
    rules = set(world.kernel.rules)
    world.run()
    world.ssh = frozenset({(CLIENT, IPv4Address("148.51.0.200"))})
    world.kernel.rules = [FOREIGN_RULE]
    world.run()
    assert set(world.kernel.rules) == rules


def test_a_rule_that_has_become_dangerous_goes_although_the_ledger_is_silent(world: World) -> None:
    world.grant(EDGE)
    world.feed.seen = LedgerView(error="no answer", error_code="Unreachable")
    world.kernel.routes[0] = replace(world.kernel.routes[0], via=IPv4Address("148.51.0.1"))
    world.run()
    assert world.kernel.rules == [FOREIGN_RULE]
    assert world.condition("Held") == ("True", "WouldCapture")
    assert world.tunnels == {"doublezero0"}


# ---- what rests ---------------------------------------------------------------------------------------------


def test_what_stands_on_a_resting_failure_is_not_tried_and_the_error_stays_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dzagent.audit")
    world.say(enabled=True)
    world.ledger(EDGE)
    world.kernel.faults = [Fault(lambda step: isinstance(step.target, Link), Result.PERMANENT)]
    assert world.run() == 1
    lines, observations = len(caplog.records), world.kernel.observations
    assert world.run(3) == 0
    assert len(caplog.records) == lines
    assert world.kernel.observations == observations + 3, "a pass that tries nothing looks once"
    (service,) = world.status()["services"]
    assert service["last_error"]["code"] == "Permanent"
    assert world.condition("InSync") == ("False", "StepsLeft")
    assert world.kernel.rules == [FOREIGN_RULE], "no rule without its link"
    world.clock.now += 120
    world.run()
    assert world.condition("Ready")[0] == "True"


# ---- somebody else's turn ----------------------------------------------------------------------------------


def hinder(world: World, hindrance: Hindrance | None) -> None:
    """Let doublezerod run beside the agent, or end."""
    world.loop._parts = replace(world.loop._parts, turn=lambda: nullcontext(hindrance))


RUNS = Hindrance("DoublezerodRuns", "doublezerod runs here (process 7): nothing is changed")


def test_while_doublezerod_runs_plans_are_made_and_shown_and_nothing_is_written(tmp_path: Path) -> None:
    world = World(tmp_path)
    hinder(world, RUNS)
    world.say(enabled=True)
    world.ledger(EDGE)
    assert world.run(3) == 0
    assert world.condition("ForeignDaemon") == ("True", "DoublezerodRuns")
    assert world.condition("InSync") == ("False", "DoublezerodRuns")
    assert world.condition("Ready") == ("False", "DoublezerodRuns")
    assert world.plan()["steps"]
    assert (world.config.paths.desired / "unicast" / "tunnel.ip").exists()
    hinder(world, None)
    assert world.run() > 0
    assert world.condition("ForeignDaemon")[0] == "False"
    assert world.condition("Ready") == ("True", "Provisioned")


def test_what_stands_is_not_torn_down_while_doublezerod_runs(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.grant(EDGE)
    hinder(world, RUNS)
    world.say(enabled=False)
    assert world.run(3) == 0
    assert world.condition("InSync") == ("False", "DoublezerodRuns")
    hinder(world, None)
    assert world.run() > 0


def test_an_approved_plan_waits_for_our_turn(tmp_path: Path) -> None:
    world = World(tmp_path, apply="manual")
    hinder(world, RUNS)
    world.say(enabled=True)
    world.ledger(IBRL)
    world.run()
    request_apply(world.config.paths.approval, world.plan()["id"])
    assert world.run(2) == 0
    hinder(world, None)
    assert world.run() > 0


def test_an_unreadable_state_of_doublezerod_matters_until_a_person_speaks(tmp_path: Path) -> None:
    world = World(tmp_path)
    taken = TakenOver("False", "Unreadable", "state.json is not valid JSON")
    world.loop._parts = replace(world.loop._parts, taken_over=taken)
    world.run()
    assert world.condition("StateMigrated") == ("False", "Unreadable")
    world.say(enabled=False)
    world.run()
    assert world.condition("StateMigrated") == ("Unknown", "NotNeeded")


def test_a_link_that_was_handed_back_is_not_ours_by_the_journal(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.grant(IBRL)
    link = world.kernel.links["doublezero0"]
    assert link.tunnel is not None
    bare = replace(link, alias="", tunnel=replace(link.tunnel, alias=""))
    world.kernel.links["doublezero0"] = bare
    world.say(enabled=False)
    hinder(world, Hindrance(HANDED_BACK, "handed back"))
    assert world.run(2) == 0
    hinder(world, None)
    assert world.run(2) == 0
    assert world.kernel.links["doublezero0"] == bare
