"""Learned routes in the loop: joined, planned, guarded, installed; on a kernel and an engine in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dzagent import metrics
from dzagent.bgp.exclude import PolicyList
from dzagent.bgp.learnedfile import Lines, file_of, read_stale
from dzagent.bgp.service import Bgp
from dzagent.desired import DesiredStore
from dzagent.errors import EngineGone
from dzagent.foreign.turns import Hindrance
from dzagent.grammar import parse
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.model import Result, Route
from dzagent.parts import Parts
from dzagent.policy import Bgp as BgpPolicy
from dzagent.policy import Policy, load_policy
from dzagent.policyfiles import PolicyFiles
from dzagent.reconcile import Reconciler
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.share import find
from tests.bgp_fakes import FakeEngine, Time, rib
from tests.fake_kernel import Fault
from tests.service_fakes import ALLOCATED, CLIENT, EDGE, SSH_FROM, SUBSCRIBER, UserSpec
from tests.test_reconcile import World as PlainWorld

SPEC = UserSpec(net="169.254.0.4/31")


class World(PlainWorld):
    """A host with an agent and an engine."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.time = Time()
        self.engine = FakeEngine(self.time)
        self.bgp_policy = BgpPolicy(route_config=tmp_path / "route-config.json", max_routes=500)
        self.policy_file = tmp_path / "policy.yaml"
        self.policy_file.write_text("{}\n")
        self.policies = PolicyFiles(lambda trail: load_policy(self.policy_file, trail=trail))
        self.woken: list[str] = []
        self.policy_protocol = 210
        super().__init__(tmp_path, **settings)

    def restart(self) -> None:
        config, policy = self.config, Policy(bgp=self.bgp_policy, protocol=self.policy_protocol)
        templates = Templates((config.templates, find("templates")))
        self.bgp = Bgp(
            self.engine,
            policy,
            config.paths,
            policy_list=PolicyList(self.policies),
            clocks=self.time.clocks,
            on_change=self.woken.append,
            zebra=self.config.paths.run / "zserv.api",
        )
        self.loop = Reconciler(
            Parts(
                config=config,
                policy=policy,
                kernel=self.kernel,
                feed=self.feed,
                store=DesiredStore(config.paths),
                templates=templates,
                intent=IntentReader(config.paths.intent),
                probe=HostProbe(
                    config, policy, self.kernel, clock=self.clock, ssh_sessions=self._ssh_sessions
                ),
                reporter=Reporter(config, version="0", pid=1, clock=self.clock),
                now=lambda: self.time.mono,
                bgp=self.bgp,
            )
        )

    def grant(self, users: Mapping[str, UserSpec] | UserSpec = SPEC) -> None:
        """Make the tunnel; it is not ready before its session is up."""
        self.say(enabled=True)
        self.ledger(users)
        assert self.run() > 0
        assert self.condition("Ready") == ("False", "SessionDown")

    def grant_hindered(self) -> None:
        self.say(enabled=True)
        self.ledger(SPEC)
        self.run()

    def look(self, count: int = 1) -> None:
        for _ in range(count):
            self.time.pass_(0.2)
            self.bgp.look()

    def up(self, *hosts: int, users: UserSpec = SPEC) -> None:
        self.grant(users)
        self.engine.announce(rib(*hosts))
        self.look(10)
        self.run()
        assert self.learned == set(rib(*hosts))

    @property
    def learned(self) -> set[str]:
        return {str(r.dst) for r in self.kernel.routes if r.protocol == 210 and r.dst.subnet_of(TEST_NET)}

    def codes(self) -> set[str]:
        return {problem["code"] for problem in self.status()["problems"]}


TEST_NET = IPv4Network("198.18.0.0/15")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_announced_is_installed_with_everything_it_needs(world: World) -> None:
    world.up(1, 2)
    route = next(r for r in world.kernel.routes if str(r.dst) == "198.18.0.1/32")
    assert route == Route(route.dst, IPv4Address("169.254.0.4"), "doublezero0", 254, 210, CLIENT)
    assert world.condition("SessionUp") == ("True", "Established")
    assert world.condition("Ready") == ("True", "Provisioned")
    session = world.status()["services"][0]["session"]
    assert session["status"] == "BGP Session Up"
    assert session["last_update"] == int(world.time.wall - 1.8)
    assert world.run() == 0


def test_edge_filtering_learns_into_its_own_table(world: World) -> None:
    world.up(1, users=replace(EDGE, net="169.254.0.4/31"))
    assert {r.table for r in world.kernel.routes if str(r.dst) == "198.18.0.1/32"} == {100}


def test_one_changed_route_reads_nothing(world: World) -> None:
    world.up(*range(1, 60))
    before = world.kernel.observations
    world.engine.announce(rib(*range(2, 61)))
    world.look()
    assert world.loop.run_changes()
    assert world.learned == set(rib(*range(2, 61)))
    assert world.kernel.observations == before
    assert [step.action.value for step in world.kernel.applied[-2:]] == ["add", "delete"]
    assert world.run() == 0


def test_nothing_changed_is_nothing_to_do(world: World) -> None:
    world.up(1)
    assert world.loop.run_changes()
    assert world.run() == 0


def test_a_withdraw_before_the_add_was_carried_out_wins(world: World) -> None:
    world.up(1)
    for n in range(1000):
        world.engine.announce(rib(1, 2))
        world.look(3)
        if n % 2:
            world.loop.run_changes()
        world.engine.announce(rib(1))
        world.look(3)
        if not world.loop.run_changes():
            world.loop.run_pass()
        assert world.learned == set(rib(1)), n
        if n % 7 == 0:
            world.loop.run_pass()
            assert world.learned == set(rib(1)), n


def test_a_lost_session_takes_its_routes(world: World) -> None:
    world.up(1, 2)
    world.engine.down()
    world.look()
    assert world.loop.run_changes()
    assert world.learned == set()
    world.run()
    assert world.condition("SessionUp") == ("False", "Refused")


def test_a_restart_of_the_agent_writes_nothing(world: World) -> None:
    world.up(1, 2, 3)
    world.restart()
    assert world.run() == 0
    world.look(20)
    assert world.run() == 0
    assert world.learned == set(rib(1, 2, 3))


def test_a_restart_without_a_ledger_keeps_session_and_routes(world: World) -> None:
    world.up(1, 2)
    world.restart()
    world.feed.seen = replace(world.feed.seen, snapshot=None)
    assert world.run() == 0
    world.look(20)
    assert world.run() == 0
    assert set(world.engine.configured[-1]) == {"unicast"}


def test_a_kept_service_whose_peer_nobody_knows_keeps_everything(world: World) -> None:
    world.up(1, 2)
    world.config.paths.peers.write_text("nonsense")
    world.restart()
    world.feed.seen = replace(world.feed.seen, snapshot=None)
    told = len(world.engine.configured)
    assert world.run() == 0
    world.look(20)
    assert world.run() == 0
    assert len(world.engine.configured) == told
    assert world.condition("SessionUp") == ("Unknown", "PeerUnknown")


def test_a_foreign_deletion_is_repaired(world: World) -> None:
    world.up(1, 2)
    world.kernel.routes = [r for r in world.kernel.routes if str(r.dst) != "198.18.0.2/32"]
    assert world.run() == 1
    assert world.learned == set(rib(1, 2))


def test_a_foreign_route_is_a_conflict_that_heals(world: World) -> None:
    world.up(1)
    foreign = Route(IPv4Network("198.18.0.2/32"), IPv4Address("198.51.100.1"), "eth0", 254, 4)
    world.kernel.routes.append(foreign)
    world.engine.announce(rib(1, 2))
    world.look()
    assert not world.loop.run_changes()
    world.run(2)
    assert foreign in world.kernel.routes
    assert world.condition("Conflict") == ("True", "ForeignObject")
    assert world.run() == 0
    world.kernel.routes.remove(foreign)
    assert world.run() == 1
    world.run()
    assert world.learned == set(rib(1, 2))
    assert world.condition("Conflict")[0] == "False"


def test_what_would_capture_is_withheld_and_the_rest_goes_on(world: World) -> None:
    world.up(1)
    hostile = dict.fromkeys(
        ["192.0.2.1/32", "198.51.100.1/32", "198.51.100.0/24"], "169.254.0.4 on doublezero0"
    )
    world.engine.announce({**rib(1, 2), **hostile})
    world.look()
    world.loop.run_changes()
    assert world.learned == set(rib(1, 2))
    assert not any(str(r.dst) in hostile and r.protocol == 210 for r in world.kernel.routes)
    world.run()
    assert world.condition("Held") == ("True", "WouldCapture")
    assert len(world.plan()["held"]) == 3
    assert world.condition("Ready") == ("True", "Provisioned")  # a peer cannot make us unready


@pytest.mark.parametrize(("policy", "installed"), [("warn", True), ("withhold", False)])
def test_an_ssh_peer_is_installed_or_not_as_the_policy_says(
    tmp_path: Path, policy: str, installed: bool
) -> None:
    world = World(tmp_path)
    world.bgp_policy = replace(world.bgp_policy, ssh_peer=policy)
    world.restart()
    world.ssh = frozenset({(CLIENT, SSH_FROM)})
    world.grant(SPEC)
    via = "169.254.0.4 on doublezero0"
    world.engine.announce({f"{SSH_FROM}/32": via, "192.0.2.64/26": via})
    world.look(10)
    world.run(2)
    there = {str(r.dst) for r in world.kernel.routes if r.protocol == 210}
    assert (f"{SSH_FROM}/32" in there) is installed
    assert "192.0.2.64/26" not in there  # shorter, and holds it
    assert ("SshPeerRouted" in world.codes()) is installed


def test_a_new_ssh_session_never_removes_a_route(world: World) -> None:
    world.up(1)
    world.ssh = frozenset({(CLIENT, IPv4Address("198.18.0.1"))})
    assert world.run(2) == 0
    assert world.learned == set(rib(1))


def test_a_route_that_leads_to_what_has_become_protected_goes(world: World) -> None:
    world.up(1, 2)
    world.feed.seen = replace(world.feed.seen, rpc_addresses=frozenset({IPv4Address("198.18.0.1")}))
    world.run()
    assert world.learned == set(rib(2))
    world.run()
    assert world.condition("Held") == ("True", "WouldCapture")
    assert world.run() == 0


def test_a_lost_address_holds_the_routes_back_until_it_returns(world: World) -> None:
    world.up(1, 2)
    mine = next(a for a in world.kernel.addresses if a.interface.ip == CLIENT)
    world.kernel.remove_address(mine)
    tried = world.run(2)
    assert tried == 0
    assert "DzIpMissing" in world.codes()
    world.kernel.addresses.append(mine)
    world.run()
    assert world.learned == set(rib(1, 2))
    world.run()
    assert "DzIpMissing" not in world.codes()


def test_a_link_that_was_deleted_comes_back_with_its_routes(world: World) -> None:
    world.up(1, 2)
    world.kernel.delete_link("doublezero0")
    world.run()
    assert world.learned == set(rib(1, 2))


def test_a_failed_add_is_left_to_a_whole_pass(world: World) -> None:
    world.up(1)
    world.kernel.faults.append(Fault(lambda s: "198.18.0.2/32" in str(s.target), Result.TRANSIENT))
    world.engine.announce(rib(1, 2))
    world.look()
    assert not world.loop.run_changes()
    world.time.pass_(5)
    world.run(2)
    assert not world.kernel.faults
    assert world.learned == set(rib(1, 2))


def test_disable_takes_session_and_routes(world: World) -> None:
    world.up(1, 2)
    world.say(enabled=False)
    world.run()
    world.look()
    assert world.learned == set()
    assert world.engine.configured[-1] == {}


def test_a_subscriber_has_a_session_and_announces_nothing(world: World) -> None:
    world.say(enabled=True)
    world.ledger(SUBSCRIBER)
    world.run()
    world.look()
    peer = world.engine.configured[-1]["multicast"]
    assert (peer.advertise, peer.install) == (None, False)


def test_the_learned_file_is_what_is_installed(world: World) -> None:
    world.up(1, 2)
    world.look(20)
    text = (world.config.paths.desired / file_of("unicast")).read_text()
    wanted = {item.obj for item in parse(text, "x", "unicast")}
    assert wanted == {r for r in world.kernel.routes if r.dst.subnet_of(TEST_NET) and r.protocol == 210}
    world.engine.down()
    world.look(20)
    assert not (world.config.paths.desired / file_of("unicast")).exists()


def test_stale_routes_are_as_old_after_a_restart(world: World) -> None:
    world.up(1, 2, users=replace(ALLOCATED, net="169.254.0.4/31"))
    world.engine.announce(rib(2))
    world.look(20)
    world.run()
    assert world.learned == set(rib(1, 2))
    assert "RoutesStale" in world.codes()
    since = world.bgp.view().peers["unicast"].stale["198.18.0.1/32"]
    world.restart()
    assert world.run() == 0
    assert world.bgp.view().peers["unicast"].stale == {"198.18.0.1/32": float(int(since))}


def test_refusals_are_told(world: World) -> None:
    world.up(1)
    world.run()

    def outdated() -> bool:
        return world.loop.outdated

    assert not outdated()
    world.engine.announce({**rib(1), "0.0.0.0/0": "169.254.0.4 on doublezero0"})
    world.look(10)
    assert outdated()
    world.run()
    assert not outdated()
    assert "RoutesRefused" in world.codes()
    peer = json.loads(world.config.paths.bgp.read_text())["peers"]["unicast"]
    assert peer["refused"] == {"Default": 1}
    assert peer["refused_routes"][0]["prefix"] == "0.0.0.0/0"


def test_exclude_lists_are_read_live(world: World) -> None:
    world.up(1, 2, 3)
    world.policy_file.write_text("bgp:\n  exclude: [198.18.0.1]\n")
    (world.bgp_policy.route_config).write_text('{"exclude": ["198.18.0.2"]}')
    world.look(10)
    assert world.loop.run_changes()
    assert world.learned == set(rib(3))
    world.bgp_policy.route_config.write_text('{"exclude": "198.18.0.2"}')
    world.look(10)
    world.run()
    assert "ExcludeList" in world.codes()
    assert world.learned == set(rib(3))
    world.bgp_policy.route_config.unlink()
    world.policy_file.write_text("{}\n")
    world.look(10)
    world.run()
    assert world.learned == set(rib(1, 2, 3))


def test_the_metrics_of_sessions_and_routes(world: World) -> None:
    world.up(1, 2)
    world.look(20)
    bgp = json.loads(world.config.paths.bgp.read_text())
    text = metrics.render({}, {}, None, 0.0, bgp)
    for line in (
        "doublezero_session_is_up 1",
        f'doublezero_bgp_routes_installed{{src="{CLIENT}",next_hop="169.254.0.4"}} 2',
        'doublezero_session_established_duration_seconds_count{peer_ip="169.254.0.4"} 1',
        'dzagent_session_up{service="unicast",peer_ip="169.254.0.4"} 1',
        'dzagent_bgp_updates_total{service="unicast",peer_ip="169.254.0.4"} 1',
    ):
        assert line in text.splitlines()
    assert 'doublezero_bgp_handle_update_duration_seconds_bucket{le="+Inf"} 1' in text


def test_thousands_of_routes_are_one_batch_and_a_bounded_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.bgp_policy = replace(world.bgp_policy, max_routes=3000)
    world.restart()
    world.up(1)
    many = {f"198.19.{n // 250}.{n % 250}/32": "169.254.0.4 on doublezero0" for n in range(2500)}
    world.engine.announce({**rib(1), **many})
    world.look()
    with caplog.at_level("INFO", "dzagent.audit"):
        assert world.loop.run_changes()
    assert len(world.learned) == 2501
    assert len([r for r in caplog.records if r.name == "dzagent.audit"]) == 201


def test_a_learned_text_can_be_read_again() -> None:
    routes = {
        p: Route(IPv4Network(p), IPv4Address("169.254.0.4"), "doublezero0", 254, 210, CLIENT)
        for p in rib(1, 2, 3)
    }
    text = Lines().text(routes, {"198.18.0.2/32": 77.9})
    assert {item.obj for item in parse(text, "x", "unicast")} == set(routes.values())
    assert read_stale(text, "unicast") == {"198.18.0.2/32": 77.0}
    assert read_stale(text + "garbage\n", "unicast") == {}


def test_where_no_engine_has_ever_run_nobody_waits_for_its_sessions(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.engine.error = EngineGone("nothing listens")
    world.say(enabled=True)
    world.ledger(SPEC)
    world.run()
    world.look()
    world.run()
    assert world.condition("SessionUp") == ("Unknown", "EngineAbsent")
    assert world.condition("Ready") == ("True", "Provisioned")


def test_an_engine_that_ran_here_once_is_waited_for_also_by_the_next_process(world: World) -> None:
    world.grant()
    world.look(5)
    world.engine.error = EngineGone("nothing listens")
    world.restart()
    world.run()
    world.look()
    world.run()
    assert world.condition("SessionUp") == ("Unknown", "EngineGone")
    assert world.condition("Ready") == ("False", "SessionDown")


@pytest.mark.parametrize(("protocol", "told"), [(186, True), (210, False)])
def test_a_zebra_that_would_take_our_routes_for_its_own_is_named(
    world: World, protocol: int, told: bool
) -> None:
    world.policy_protocol = protocol
    (world.config.paths.run / "zserv.api").touch()
    world.restart()
    world.say(enabled=True)
    world.ledger(SPEC)
    world.run()
    world.engine.announce(rib(1))
    world.look(10)
    world.run()
    assert ("ZebraAdopts" in world.codes()) is told
    assert world.condition("SessionUp") == ("True", "Established")


# ---- beside doublezerod ------------------------------------------------------------------------------------


def hinder(world: World, hindrance: Hindrance | None) -> None:
    world.loop._parts = replace(world.loop._parts, turn=lambda: nullcontext(hindrance))


RUNS = Hindrance("DoublezerodRuns", "doublezerod runs here")


def test_no_session_is_begun_while_doublezerod_has_its_own(world: World) -> None:
    hinder(world, RUNS)
    world.say(enabled=True)
    world.ledger(SPEC)
    world.run()
    world.look(3)
    assert not any(world.engine.configured)
    hinder(world, None)
    world.run()
    world.look(3)
    assert "unicast" in world.engine.configured[-1]


def test_a_session_that_is_there_stays_and_routes_wait_for_our_turn(world: World) -> None:
    world.up(1, 2)
    hinder(world, RUNS)
    world.engine.announce(rib(2, 3))
    world.look()
    assert not world.loop.run_changes()
    assert world.run() == 0
    assert world.learned == set(rib(1, 2))
    assert "unicast" in world.engine.configured[-1]
    hinder(world, None)
    world.run()
    assert world.learned == set(rib(2, 3))


def test_what_was_seen_while_somebody_else_wrote_is_not_built_upon(world: World) -> None:
    world.up(1, 2)
    hinder(world, RUNS)
    world.run()
    hinder(world, None)
    world.engine.announce(rib(2))
    world.look()
    assert not world.loop.run_changes(), "the kernel has to be read first"


def test_a_disabled_agent_ends_its_session_even_so(world: World) -> None:
    world.up(1)
    hinder(world, RUNS)
    world.say(enabled=False)
    assert world.run() == 0
    world.look(2)
    assert world.engine.configured[-1] == {}
    assert world.learned == set(rib(1)), "the kernel is not ours to change"


def test_routes_that_became_ours_wait_for_the_first_session(world: World) -> None:
    world.time.pass_(100)
    hinder(world, RUNS)
    world.grant_hindered()
    hinder(world, None)
    world.run()
    route = Route(IPv4Network("198.18.0.1/32"), IPv4Address("169.254.0.4"), "doublezero0", 254, 210, CLIENT)
    world.kernel.routes.append(route)
    world.restart()
    world.look()
    world.run()
    world.look(10)
    world.run()
    assert world.learned == set(rib(1)), "2 s without a session are nothing"
    world.engine.announce(rib(1))
    world.look(10)
    assert world.run() == 0
    assert world.learned == set(rib(1))
