"""The nftables table in the loop: it comes and goes with the services, and nothing waits for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dzagent import metrics
from dzagent.cli.output import Paper
from dzagent.cli.planview import diff_lines, plan_lines
from dzagent.cli.statusview import status_lines
from dzagent.feed import LedgerView
from dzagent.firewall import COUNT_SECONDS
from dzagent.model import Result
from dzagent.nftmodel import MARK, NftChain, NftSeen, NftTable
from dzagent.policy import Policy
from dzagent.policynft import Nftables
from dzagent.share import find
from tests.nft_fakes import TableKernel, with_table
from tests.service_fakes import EDGE, IBRL, SUBSCRIBER, USER, USER2
from tests.test_reconcile import World

MISSING = NftSeen(reason="NftMissing", message="The program nft was not found: install the package nftables.")


class Walled(World):
    """A host with nftables."""

    kernel: TableKernel

    def __init__(self, tmp_path: Path, **settings: object) -> None:
        super().__init__(tmp_path, **settings)
        self.kernel = with_table(self.kernel)
        self.restart()

    @property
    def chains(self) -> set[str]:
        table = self.kernel.table
        return set() if table is None else {chain.name for chain in table.chains}


@pytest.fixture
def world(tmp_path: Path) -> Walled:
    return Walled(tmp_path)


def test_it_comes_with_the_service_and_then_rests(world: Walled) -> None:
    world.grant(EDGE)
    assert {MARK, "unicast_input", "unicast_leak"} <= world.chains
    assert world.condition("Firewall") == ("True", "Loaded")
    assert world.run(5) == 0
    world.restart()
    assert world.run(2) == 0
    text = (world.config.paths.desired / "unicast" / "nftables.nft").read_text()
    assert 'add rule inet dzagent unicast_input iifname != "doublezero0" accept\n' in text


def test_each_service_has_its_part(world: Walled) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    assert {"unicast_input", "multicast_input"} <= world.chains
    world.ledger({USER2: SUBSCRIBER})
    world.run()
    assert {name.partition("_")[0] for name in world.chains} == {"dzagent", "multicast"}
    world.say(enabled=False)
    world.run()
    assert world.kernel.table is None
    assert world.condition("Firewall") == ("True", "NotNeeded")


@pytest.mark.parametrize("edit", ["gone", "flushed", "unmarked", "mark alone"])
def test_what_somebody_does_to_it_is_put_right_without_the_ledger(world: Walled, edit: str) -> None:
    world.grant(EDGE)
    good = world.kernel.table
    assert good is not None
    world.feed.seen = LedgerView(error="no answer", error_code="Unreachable")
    bare = tuple(replace(chain, rules=()) for chain in good.chains)
    world.kernel.table = {
        "gone": None,
        "flushed": replace(good, chains=bare),
        "unmarked": replace(good, chains=bare[1:], counters=good.counters[1:]),
        "mark alone": NftTable((NftChain(MARK),)),
    }[edit]
    world.restart()
    world.run()
    assert world.kernel.table == good


def test_another_s_table_of_our_name_stays(world: Walled) -> None:
    theirs = NftTable((NftChain("unicast_input"),))
    world.kernel.table = theirs
    world.say(enabled=True)
    world.ledger(EDGE)
    world.run(2)
    assert (world.kernel.table, world.kernel.loaded) == (theirs, [])
    assert world.condition("Firewall") == ("False", "Conflict")
    assert world.condition("Conflict")[0] == "True"
    assert world.tunnels == {"doublezero0"}
    world.kernel.table = None
    world.run()
    assert world.condition("Firewall") == ("True", "Loaded")


@pytest.mark.parametrize(
    "seen", [MISSING, NftSeen(reason="NoJson", message="x"), NftSeen(reason="NftUnreadable", message="x")]
)
def test_without_nft_the_tunnels_work(world: Walled, seen: NftSeen) -> None:
    world.kernel.broken = seen
    world.grant(EDGE)
    assert world.tunnels == {"doublezero0"}
    assert world.condition("Firewall") == ("False", seen.reason)
    assert seen.reason in [p["code"] for p in world.status()["problems"]]
    assert world.kernel.loaded == []
    assert world.run(3) == 0


def test_a_table_that_the_kernel_refuses_stops_nothing(world: Walled) -> None:
    world.kernel.refuses = Result.PERMANENT
    world.grant(EDGE)
    assert world.condition("Firewall") == ("False", "NotLoaded")
    assert world.condition("InSync")[0] == "True"
    assert len(world.kernel.rules) == 3
    tried = len(world.kernel.loaded)
    world.run(5)
    assert len(world.kernel.loaded) == tried, "it is refused until something changes"


def test_an_answer_that_is_missing_once_takes_nothing_down(world: Walled) -> None:
    world.grant(EDGE)
    good = world.kernel.table
    world.kernel.broken = NftSeen(reason="NftFailed", message="nft did not end")
    world.run(2)
    world.kernel.broken = None
    assert world.run(2) == 0
    assert world.kernel.table == good


def test_the_policy_switches_it_off(world: Walled) -> None:
    world.grant(EDGE)
    world.policy = Policy(nftables=Nftables(enabled=False))
    world.restart()
    world.run()
    assert world.kernel.table is None
    assert world.condition("Ready")[0] == "True"


def test_lost_files_and_a_silent_ledger_leave_it_in_place(world: Walled) -> None:
    world.grant({USER: EDGE, USER2: SUBSCRIBER})
    good = world.kernel.table
    world.config.paths.desired.unlink()
    world.feed.seen = LedgerView()
    world.restart()
    assert world.run(3) == 0
    assert world.kernel.table == good


def test_a_template_of_the_operator_cannot_cut_off_the_uplink(world: Walled) -> None:
    source = (find("templates") / "nftables.j2").read_text()
    line = "{% for prefix in leak_prefixes %}"
    assert line in source
    world.config.templates.mkdir()
    hostile = source.replace(
        line, f"add element inet dzagent {{{{ name }}}}_prefixes {{ 192.0.2.128/25 }}\n{line}"
    )
    (world.config.templates / "nftables.j2").write_text(hostile)
    world.grant(EDGE)
    assert world.kernel.table is not None
    (prefixes,) = (one for one in world.kernel.table.sets if one.name == "unicast_prefixes")
    assert len(prefixes.elements) == 1
    assert "LeakGuardLimited" in [p["code"] for p in world.status()["problems"]]


def test_a_template_outside_the_grammar_keeps_the_old_table(world: Walled) -> None:
    world.grant(EDGE)
    good = world.kernel.table
    world.config.templates.mkdir()
    (world.config.templates / "nftables.j2").write_text("flush ruleset\n")
    assert world.run(2) == 0
    assert world.kernel.table == good
    message = next(c["message"] for c in world.status()["conditions"] if c["type"] == "Rendered")
    assert "unicast/nftables.nft:" in message


def test_a_plan_shows_the_exact_text(tmp_path: Path) -> None:
    world = Walled(tmp_path, apply="manual")
    world.say(enabled=True)
    world.ledger(EDGE)
    world.run()
    plan = world.plan()
    assert plan["nft_commands"][0] == "create table inet dzagent"
    assert not any("inet dzagent" in line for line in plan["commands"])
    shown = "\n".join(plan_lines(plan, Paper(80, colour=False)))
    assert "Lines for nft -f\n  create table inet dzagent\n" in shown
    assert world.kernel.table is None
    status = "\n".join(status_lines({**world.status(), "agent": {}}, Paper(80, colour=False), 0.0))
    assert "Firewall is False, Waiting" in status


def test_counters_are_shown_and_do_not_write_with_every_packet(world: Walled) -> None:
    world.grant(EDGE)
    world.clock.now += COUNT_SECONDS
    world.kernel.counts = {"unicast_bgp": (3, 180), "dzagent_mark_v1": (0, 0)}
    world.run()
    assert world.status()["firewall"] == {"unicast": {"bgp": {"packets": 3, "bytes": 180}}}
    written = world.config.paths.status.stat().st_mtime_ns
    world.clock.now += 1
    world.kernel.counts = {"unicast_bgp": (4, 240)}
    world.run()
    assert world.config.paths.status.stat().st_mtime_ns == written
    shown = "\n".join(status_lines({**world.status(), "agent": {}}, Paper(80, colour=False), 0.0))
    assert "3 bgp packets (nftables)" in shown
    text = metrics.render(world.status(), {}, enabled=True, now=0.0)
    assert 'dzagent_nft_dropped_packets_total{service="unicast",reason="bgp"} 3' in text
    assert 'dzagent_nft_dropped_bytes_total{service="unicast",reason="bgp"} 180' in text


def test_a_diff_says_what_differs(tmp_path: Path) -> None:
    world = Walled(tmp_path)
    world.grant(EDGE)
    table = world.kernel.table
    assert table is not None
    world.config = replace(world.config, apply="observe")
    odd = replace(table.chains[1], rules=table.chains[1].rules[1:] + table.chains[1].rules[:1])
    world.kernel.table = replace(table, chains=(table.chains[0], odd, *table.chains[2:]))
    world.restart()
    world.run()
    shown = "\n".join(diff_lines(world.plan(), Paper(80, colour=False)))
    assert "differs: rules of chain unicast_input" in shown


def test_ibrl_has_it_too(world: Walled) -> None:
    world.grant(IBRL)
    assert "unicast_input" in world.chains
    assert "unicast_leak" not in world.chains


def test_a_fight_over_the_table_slows_down_and_is_named(world: Walled) -> None:
    world.grant(EDGE)
    good = world.kernel.table
    for _ in range(12):
        world.kernel.table = NftTable((NftChain(MARK),))
        world.run()
    assert world.condition("Contested")[0] == "True"
    assert len(world.kernel.loaded) < 12
    assert "nft table inet dzagent" in world.status()["contested"][0]["object"]
    world.clock.now += 3600
    world.run()
    assert world.kernel.table == good
