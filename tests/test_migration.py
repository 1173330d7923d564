"""The move from doublezerod: what is taken over, what is not, crashes at every step, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from dzagent.errors import MigrationError, StateError
from dzagent.foreign.record import write_record
from dzagent.foreign.sight import ForeignWatch
from dzagent.foreign.turns import Turns, alone
from dzagent.journal import Journal, here, read
from dzagent.marks import ownership
from dzagent.migration.ending import PATIENCE, Ending
from dzagent.migration.scene import Scene, read_desired
from dzagent.migration.units import Unit
from dzagent.model import Address, Route, Rule, SeenLink
from dzagent.plan import interest, make_plan
from dzagent.state import Intent, write_intent
from tests.migration_fakes import ANY, DEFAULT, GROUP, LEARNED, LINK, PEER, PREFIX, RULES, USERS, Host
from tests.service_fakes import IBRL, USER


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def rest_of_plan(host: Host) -> list[str]:
    """Return what a pass of dzagentd would do now, learned routes apart (BGP wants those)."""
    owner = ownership(host.config, host.policy)
    desired = read_desired(host.config, owner)
    plan = make_plan(desired, host.kernel.observe(interest(desired, owner)), owner)
    learned = {replace(route, protocol=owner.protocol) for route in LEARNED}
    assert plan.conflicts == ()
    return [str(step) for step in plan.steps if step.target not in learned]


def test_everything_of_doublezerods_becomes_ours_and_nothing_else_changes(host: Host) -> None:
    indexes = {name: link.ifindex for name, link in host.kernel.links.items()}
    addresses = list(host.kernel.addresses)
    assert host.migrate() == ()
    assert {link.alias for link in host.kernel.links.values()} == {"dzagent:unicast", "dzagent:multicast"}
    assert set(host.kernel.routes) == {replace(r, protocol=210) for r in (DEFAULT, GROUP, *LEARNED)}
    assert set(host.kernel.rules) == {replace(rule, protocol=210) for rule in RULES}
    assert {name: link.ifindex for name, link in host.kernel.links.items()} == indexes
    assert host.kernel.addresses == addresses
    assert rest_of_plan(host) == [], "the next pass finds everything as it should be"
    assert host.phase == "migrated"


def test_it_is_masked_before_it_is_killed_and_killed_before_anything_is_taken_over(host: Host) -> None:
    host.units.refuses = "kill"
    before = host.state()
    with pytest.raises(MigrationError):
        host.migrate()
    assert host.units.done == ["hold doublezerod.service"]
    assert host.state() == before
    host.units.refuses = ""
    host.migrate()
    assert host.units.done == ["hold doublezerod.service", "kill doublezerod.service"]


def test_every_twin_is_there_before_the_old_one_goes(host: Host) -> None:
    host.migrate()
    lines = host.ip.lines
    for line in lines:
        kind, verb, rest = line.split(" ", 2)
        if verb == "del":
            twin = rest.replace("protocol 2", "protocol 210")
            for old in ("186", "3", "4"):
                twin = twin.replace(f"proto {old}", "proto 210") if twin.endswith(f"proto {old}") else twin
            made = f"{kind} {'add' if kind == 'rule' else 'append'} {twin}"
            assert made in lines[: lines.index(line)], line


# ---- what is left alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        Route(IPv4Network("10.0.0.0/8"), PEER, "doublezero0", 254, 3),
        Route(IPv4Network("10.0.0.0/8"), PEER, "doublezero0", 254, 4),
        replace(LEARNED[0], via=IPv4Address("169.254.0.9"), dst=IPv4Network("198.18.9.0/24")),
        replace(LEARNED[0], metric=20),
        replace(LEARNED[0], dst=IPv4Network("198.18.9.0/24"), extra=("mtu 1200",)),
        Route(IPv4Network("198.18.8.0/24"), PEER, "eth0", 254, 186),
        Route(IPv4Network("198.18.8.0/24"), PEER, "doublezero0", 254, 187),
        Rule(100, ANY, IPv4Network("10.0.0.0/8"), 100, 2),
        Rule(100, ANY, PREFIX, 100, 4),
        Rule(100, ANY, PREFIX, 7, 2),
        Rule(99, ANY, PREFIX, 100, 2),
        replace(RULES[0], extra=("iif eth0",)),
    ],
    ids=str,
)
def test_what_is_not_exactly_doublezerods_stays_as_it_is(host: Host, foreign: Route | Rule) -> None:
    held: list[object] = host.kernel.routes if isinstance(foreign, Route) else host.kernel.rules  # type: ignore[assignment]
    held.append(foreign)
    assert host.migrate() == ()
    left = host.kernel.routes if isinstance(foreign, Route) else host.kernel.rules
    assert foreign in left
    assert host.mover().undo(lambda: None) == ()
    left = host.kernel.routes if isinstance(foreign, Route) else host.kernel.rules
    assert foreign in left


def test_a_rule_that_is_not_wanted_any_more_is_told_with_the_command(host: Host) -> None:
    host.kernel.rules.append(Rule(101, IPv4Network("203.0.113.0/24"), ANY, 101, 2))
    (told,) = host.look().adoption.left
    assert "ip rule del priority 101 from 203.0.113.0/24 to 0.0.0.0/0 table 101 protocol 2" in told


def seen(host: Host, **changes: object) -> None:
    link = host.kernel.links["doublezero0"]
    host.kernel.links["doublezero0"] = replace(link, **changes)  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda host: seen(host, alias="mine"), "has the alias 'mine'"),
        (lambda host: seen(host, kind="dummy", tunnel=None), "kind dummy"),
        (lambda host: seen(host, tunnel=replace(LINK, extra=("key 7",))), "key 7"),
        (lambda host: host.render({USER: IBRL}), "doublezero1 is there, but the ledger grants no service"),
        (lambda host: host.process(79, "-env", "mainnet-beta"), "mainnet-beta"),
    ],
)
def test_a_host_that_is_not_as_it_should_be_is_not_touched(
    host: Host, edit: Callable[[Host], None], why: str
) -> None:
    if "mainnet" in why:
        host.end_all()
    edit(host)
    (blocker,) = host.look().blockers
    assert why in blocker


def test_an_alias_that_would_command_a_terminal_is_made_visible(host: Host) -> None:
    seen(host, alias="\x1b[2J")
    assert "\x1b" not in host.look().blockers[0]


def test_a_tunnel_that_has_moved_on_the_ledger_is_changed_in_place_afterwards(host: Host) -> None:
    link = host.kernel.links["doublezero0"]
    assert link.tunnel is not None
    moved = replace(link.tunnel, remote=IPv4Address("192.0.2.9"))
    host.kernel.links["doublezero0"] = replace(link, tunnel=moved)
    assert host.look().adoption.then == ("link doublezero0 differs: remote 192.0.2.9 -> 192.0.2.1",)


def test_an_address_that_is_not_as_it_should_be_is_told(host: Host) -> None:
    """Releases before 0.8.10 gave the /31 a global scope: changing it takes the routes along for a moment."""
    assert host.look().adoption.then == ()
    host.kernel.addresses[0] = replace(host.kernel.addresses[0], scope="global")
    (told,) = host.look().adoption.then
    assert "169.254.0.5/31" in told
    assert "for that moment" in told


def test_what_was_not_shown_is_not_taken_over(host: Host) -> None:
    scene = host.look()
    late = Rule(100, ANY, IPv4Network("148.51.0.0/24"), 100, 2)
    host.kernel.rules.remove(late)
    shown = host.look()
    host.kernel.rules.append(late)
    (failed,) = host.mover().migrate(shown, enabled=True)
    assert "was not there when the plan was shown" in failed
    assert late in host.kernel.rules
    assert scene.adoption.named != shown.adoption.named


def test_routes_learned_while_a_person_reads_are_taken_over_too(host: Host) -> None:
    scene = host.look()
    late = replace(LEARNED[0], dst=IPv4Network("198.18.0.77/32"))
    host.kernel.routes.append(late)
    assert host.mover().migrate(scene, enabled=True) == ()
    assert replace(late, protocol=210) in host.kernel.routes


def test_our_own_number_may_be_doublezerods(host: Host) -> None:
    host.policy = replace(host.policy, protocol=186)
    host.render(USERS)
    assert host.migrate() == ()
    assert set(LEARNED) <= set(host.kernel.routes)
    assert rest_of_plan(host) == [] or all("198.18." in step for step in rest_of_plan(host))


# ---- failures --------------------------------------------------------------------------------------------


def test_a_twin_that_cannot_be_made_keeps_the_old_one(host: Host) -> None:
    line = "rule add priority 100 from 0.0.0.0/0 to 148.51.0.0/24 table 100 protocol 210"
    host.ip.fails[line] = "RTNETLINK answers: No buffer space available"
    (failed,) = host.migrate()
    assert "No buffer space" in failed
    assert RULES[0] in host.kernel.rules
    host.ip.fails.clear()
    assert host.migrate() == ()
    assert RULES[0] not in host.kernel.rules


def test_a_unit_that_cannot_be_masked_stops_it_before_anything_is_done(host: Host) -> None:
    host.units.refuses = "hold"
    before = host.state()
    with pytest.raises(MigrationError):
        host.migrate()
    assert (host.state(), host.eyes.look() is not None) == (before, True)
    with pytest.raises(MigrationError, match="no migration to undo"):
        host.mover().undo(lambda: None)


def test_one_that_comes_back_is_told(host: Host) -> None:
    with pytest.raises(MigrationError, match="comes back"):
        host.mover(kill=lambda _eyes, _pid: None).migrate(host_without_unit(host), enabled=True)
    assert host.now >= PATIENCE
    assert host.phase == "migrating"
    assert RULES[0] in host.kernel.rules


def host_without_unit(host: Host) -> Scene:
    host.units.unit = None
    return host.look()


def test_without_systemd_the_process_is_killed(host: Host) -> None:
    host_without_unit(host)
    assert host.migrate() == ()
    assert (host.killed, host.units.done) == ([77], [])


def test_orphans_of_a_killed_doublezerod_are_taken_over(host: Host) -> None:
    host.end_all()
    host.units.unit = None
    assert host.migrate() == ()
    assert host.killed == []
    assert rest_of_plan(host) == []


def test_a_unit_that_is_stopped_is_masked_too(host: Host) -> None:
    host.end_all()
    host.kernel.links.clear()
    host.kernel.routes.clear()
    host.kernel.rules.clear()
    assert host.look().anything
    host.migrate()
    assert host.units.done == ["hold doublezerod.service"]
    assert not host.look().anything


@pytest.mark.parametrize("runs", [True, False])
def test_a_unit_that_somebody_has_unmasked_is_masked_again(host: Host, runs: bool) -> None:
    host.migrate()
    host.units.release("doublezerod.service", "mask")
    if runs:
        host.process(79)
    host.units.done.clear()
    assert host.look().anything
    assert host.migrate() == ()
    assert host.units.done[0] == "hold doublezerod.service"
    assert not host.look().anything
    host.mover().undo(lambda: None)
    assert "release doublezerod.service mask" in host.units.done


def test_a_drop_in_of_an_earlier_migration_is_no_work_until_doublezerod_runs(host: Host) -> None:
    host.migrate()
    write_record(host.config.paths.migration, replace(host.mover().last(), stopped="drop-in"))
    host.units.unit = Unit("doublezerod.service", "loaded")
    assert not host.look().anything
    host.process(79)
    assert host.look().holdable


def test_a_pass_of_dzagentd_is_waited_for(host: Host) -> None:
    with alone(host.config.paths.turn), pytest.raises(StateError, match="is locked"):
        host.migrate()
    assert host.phase == ""


# ---- crashes ---------------------------------------------------------------------------------------------


def turns(host: Host) -> Turns:
    return Turns(host.config.paths, ForeignWatch(host.eyes, lambda: host.now), "boot 1")


def test_broken_off_at_any_line_nobody_writes_and_the_same_command_goes_on(tmp_path: Path) -> None:
    done = Host(tmp_path / "whole")
    done.migrate()
    for count in range(len(done.ip.lines)):
        host = Host(tmp_path / str(count))
        write_intent(host.config.paths.intent, Intent(True))
        host.ip.breaks_after = count
        with pytest.raises(RuntimeError, match="killed here"):
            host.migrate()
        with turns(host).turn() as hindrance:
            assert hindrance is not None
            assert hindrance.code == "MigrationUnfinished"
        host.ip.breaks_after = None
        assert host.look().unfinished
        assert host.migrate() == ()
        assert host.state()[1:] == done.state()[1:]
        assert rest_of_plan(host) == []
        with turns(host).turn() as hindrance:
            assert hindrance is None


def test_broken_off_at_any_line_the_way_back_restores(tmp_path: Path) -> None:
    before = Host(tmp_path / "before").state()
    done = Host(tmp_path / "whole")
    done.migrate()
    for count in range(len(done.ip.lines)):
        host = Host(tmp_path / str(count))
        host.ip.breaks_after = count
        with pytest.raises(RuntimeError, match="killed here"):
            host.migrate()
        host.ip.breaks_after = None
        assert host.mover().undo(lambda: None) == ()
        assert host.state()[1:] == before[1:]
        assert host.units.done[-2:] == ["release doublezerod.service mask", "start doublezerod.service"]


def test_the_way_back_broken_off_goes_on(tmp_path: Path) -> None:
    before = Host(tmp_path / "before").state()
    for count in range(20):
        host = Host(tmp_path / str(count))
        host.migrate()
        host.ip.breaks_after = len(host.ip.lines) + count
        try:
            host.mover().undo(lambda: None)
        except RuntimeError:
            assert host.look().blockers, "there is no way forward from here"
            with turns(host).turn() as hindrance:
                assert hindrance is not None
            host.ip.breaks_after = None
            host.mover().undo(lambda: None)
        assert host.state()[1:] == before[1:]
        assert host.phase == "undone"


# ---- and back --------------------------------------------------------------------------------------------


def test_the_way_back_gives_everything_back_before_doublezerod_starts(host: Host) -> None:
    before = host.state()
    host.migrate()
    order: list[str] = []

    def disable() -> None:
        order.append("disabled")
        assert host.state()[1:] == before[1:]
        assert host.units.done[-1] == "kill doublezerod.service", "not started before we let go"
        with turns(host).turn() as hindrance:
            assert hindrance is not None, "dzagentd may not take it back meanwhile"

    assert host.mover().undo(disable) == ()
    assert order == ["disabled"]
    assert [link.alias for link in host.kernel.links.values()] == ["", ""]
    assert host.eyes.look() is not None
    with pytest.raises(MigrationError, match="no migration to undo"):
        host.mover().undo(disable)


def test_a_link_that_only_the_journal_knows_is_handed_back_and_forgotten(host: Host) -> None:
    before = host.state()
    host.migrate()
    owner = ownership(host.config, host.policy)
    Journal(host.config.paths.journal, here()).settle(owner, host.kernel.links.values())
    seen(host, alias="")
    assert host.mover().undo(lambda: None) == ()
    assert host.state()[1:] == before[1:]
    claims = read(host.config.paths.journal, here()).claims
    assert not any(replace(owner, claims=claims).owns(link) for link in host.kernel.links.values())


def test_a_unit_that_was_not_active_is_not_started(host: Host) -> None:
    host.end_all()
    host.units.unit = Unit("doublezerod.service", "loaded")
    host.migrate()
    host.mover().undo(lambda: None)
    assert host.units.done[-1] == "release doublezerod.service mask"


def test_after_the_way_back_it_can_be_migrated_again(host: Host) -> None:
    host.migrate()
    host.mover().undo(lambda: None)
    assert host.migrate() == ()
    assert rest_of_plan(host) == []


def test_an_address_of_ours_is_never_named_in_a_command(host: Host) -> None:
    host.kernel.addresses.append(Address("eth0", IPv4Interface("198.51.100.7/24"), "global"))
    host.kernel.links["eth0"] = SeenLink("eth0", 2, "", up=True, mtu=1500)
    host.migrate()
    assert not [line for line in host.ip.lines if line.startswith("addr") or "eth0" in line]


def test_the_lock_is_released_whatever_happens(host: Host) -> None:
    host.ip.breaks_after = 0
    with pytest.raises(RuntimeError):
        host.migrate()
    with alone(host.config.paths.turn, patience=0):
        pass


def test_ending_says_whether_there_was_one(host: Host) -> None:
    ending = Ending(host.eyes, host.units, host._kill, host.sleep, lambda: host.now)
    assert ending.end("doublezerod.service", has_unit=False)
    assert not ending.end("doublezerod.service", has_unit=False)
