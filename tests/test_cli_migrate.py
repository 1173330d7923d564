"""`dzagent migrate`: what it shows, when it refuses, and that it says so only when it is so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from dzagent.cli.client import Client
from dzagent.cli.commands import BadInput, Failure
from dzagent.cli.migrate import Tool, go_back, take_over
from dzagent.errors import MigrationError
from dzagent.migration.ending import Ending
from dzagent.migration.flags import Findings, compare, parse_flags
from dzagent.migration.readiness import engine_answers, not_ready
from dzagent.state import Intent, read_intent, write_intent
from tests.api_fakes import World, changed, condition, run
from tests.migration_fakes import RULES, Host

RUNS = condition("Ready", "False", "DoublezerodRuns", "doublezerod runs here")
FOREIGN = condition("ForeignDaemon", "True", "DoublezerodRuns", "doublezerod runs here")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.config.paths.intent.parent.mkdir(parents=True, exist_ok=True)
    return host


@contextlib.contextmanager
def agent(host: Host, *conditions: dict[str, Any], **changes: Any) -> Iterator[World]:
    """Let an agent and its API run that say this."""
    world = World(host.config)
    write_intent(host.config.paths.intent, Intent(changes.get("enabled", True)))
    with world.serving(), world.agent():
        world.publish(conditions=changed(FOREIGN, *(conditions or (RUNS,))), **changes)
        yield world


def tool(host: Host, *, quiet: bool = False, engine: bool = True) -> Tool:
    ending = Ending(host.eyes, host.units, host._kill, host.sleep, lambda: host.now)
    client = Client(host.config.paths.socket)
    return Tool(
        host.config,
        host.policy,
        client,
        host.eyes,
        ending,
        host.units,
        host.kernel,
        host.ip,
        quiet,
        lambda _: engine,
    )


def go(
    host: Host, *, dry_run: bool = False, as_json: bool = False, yes: bool = True, engine: bool = True
) -> None:
    take_over(
        tool(host, quiet=as_json, engine=engine), dry_run=dry_run, yes=yes, timeout=0.5, as_json=as_json
    )


def test_a_dry_run_shows_everything_and_does_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.state()
    with agent(host):
        go(host, dry_run=True)
    out = capsys.readouterr().out
    for words in (
        "mask doublezerod.service",
        "SIGKILL",
        "link doublezero0 gre",
        "3 learned routes",
        "to 148.51.0.0/24",
    ):
        assert words in " ".join(out.split()), words
    assert max(map(len, out.splitlines())) <= 80
    assert (host.state(), host.units.done, host.phase) == (before, [], "")


def test_without_a_unit_it_says_what_is_left_to_a_person(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.units.unit = None
    with agent(host):
        go(host, dry_run=True)
    out = " ".join(capsys.readouterr().out.split())
    assert "unit: none; if anything else starts doublezerod" in out
    assert "mask" not in out


def test_the_plan_is_one_json_document(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with agent(host):
        go(host, dry_run=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["done"] is False
    assert len(document["plan"]["objects"]) == 6
    assert document["plan"]["learned_routes"] == 3
    assert document["plan"]["blockers"] == []
    assert document["plan"]["doublezerod"]["running"] is True


def test_it_is_done_when_the_agent_says_so(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with agent(host) as world:
        publish = host.units.kill

        def killed(name: str) -> None:
            publish(name)
            world.publish()

        host.units.kill = killed  # type: ignore[method-assign] # a hand at the moment of the kill
        go(host)
    out = capsys.readouterr().out
    assert "to go back: dzagent migrate --undo" in out
    assert host.phase == "migrated"
    assert RULES[0] not in host.kernel.rules


def test_a_session_that_does_not_come_up_is_told_with_the_way_back(host: Host) -> None:
    down = condition("Ready", "False", "SessionDown", "unicast: Pending BGP Session")
    with agent(host, down), pytest.raises(Failure, match=r"taken over, but: .*Pending.*--undo"):
        go(host)
    assert host.phase == "migrated"


def test_the_result_as_json_says_what_is_missing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    down = condition("Ready", "False", "SessionDown", "no session")
    with agent(host, down), pytest.raises(Failure):
        go(host, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["done"] is False
    assert "no session" in document["message"]


@pytest.mark.parametrize(
    ("conditions", "changes", "why"),
    [
        ([condition("Ready", "False", "NoLedgerAnswer", "no answer yet")], {}, "NoLedgerAnswer"),
        ([], {"mode": "observe"}, "apply: observe"),
        ([RUNS, condition("ConfirmPending", "True", "Unconfirmed", "plan 1")], {}, "dzagent confirm"),
    ],
)
def test_an_agent_that_does_not_know_enough_is_in_the_way(
    host: Host, conditions: list[dict[str, Any]], changes: dict[str, Any], why: str
) -> None:
    before = host.state()
    with agent(host, *conditions, **changes), pytest.raises(Failure, match=why) as refused:
        go(host)
    assert "nothing has been changed" in str(refused.value)
    assert (host.state(), host.units.done) == (before, [])


def test_without_an_engine_the_routes_would_be_lost(host: Host) -> None:
    with agent(host), pytest.raises(Failure, match="no BGP engine answers"):
        go(host, engine=False)


def test_without_an_agent_it_says_what_to_do(host: Host) -> None:
    with pytest.raises(Failure, match="systemctl start dzagentd"):
        go(host)
    world = World(host.config)
    with world.serving(), pytest.raises(Failure, match="systemctl start dzagentd"):
        go(host)


def test_a_host_without_doublezerod_has_nothing_to_migrate(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.end_all()
    host.units.unit = None
    for held in (host.kernel.links, host.kernel.routes, host.kernel.rules):
        held.clear()
    go(host)
    assert "nothing to migrate" in capsys.readouterr().out
    go(host, as_json=True)
    assert json.loads(capsys.readouterr().out)["done"] is True


def test_a_disabled_agent_is_enabled_first(host: Host) -> None:
    """Nothing is rendered while it is disabled; the hand that renders is dzagentd's."""
    host.render({})
    with agent(host, condition("Ready", "False", "Disabled", "off"), enabled=False, services=[]) as world:
        looked: list[int] = []

        def status() -> dict[str, Any]:
            looked.append(1)
            intent = read_intent(host.config.paths.intent)
            if intent is not None and intent.enabled and len(looked) > 2:
                host.render(Host.USERS)
                world.publish(conditions=changed(FOREIGN, RUNS))
            return Client(host.config.paths.socket).status()

        made = tool(host)
        made.client = Watched(host.config.paths.socket, status)
        with contextlib.suppress(Failure):
            take_over(made, dry_run=False, yes=True, timeout=0.3, as_json=False)
    assert read_intent(host.config.paths.intent) == Intent(True)
    assert host.phase == "migrated"


def test_an_agent_that_was_enabled_in_vain_is_disabled_again(host: Host) -> None:
    with agent(host, condition("Ready", "False", "Disabled", "off"), enabled=False, services=[]) as world:
        host.render({})

        def status() -> dict[str, Any]:
            intent = read_intent(host.config.paths.intent)
            if intent is not None and intent.enabled:
                world.publish(conditions=changed(FOREIGN, RUNS))
            return Client(host.config.paths.socket).status()

        made = tool(host)
        made.client = Watched(host.config.paths.socket, status)
        with pytest.raises(Failure, match="the ledger grants no service"):
            take_over(made, dry_run=False, yes=True, timeout=0.3, as_json=False)
    assert read_intent(host.config.paths.intent) == Intent(False)
    assert host.phase == ""


class Watched(Client):
    """A client at whose every look something happens."""

    def __init__(self, socket: Path, look: Any) -> None:
        super().__init__(socket)
        object.__setattr__(self, "_look", look)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._look()  # type: ignore[attr-defined] # set above, past the frozen dataclass
        return found


def test_nobody_to_ask_is_unusable_input(host: Host) -> None:
    before = host.state()
    with agent(host), pytest.raises(BadInput, match="--yes"):
        go(host, yes=False)
    assert host.state() == before


# ---- and back --------------------------------------------------------------------------------------------


def test_the_way_back_disables_and_starts_doublezerod(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.state()
    host.migrate()
    with agent(host) as world:
        made = tool(host)
        made.client = Watched(
            host.config.paths.socket,
            lambda: (
                world.publish(
                    enabled=False, conditions=changed(condition("SessionUp", "Unknown", "Disabled"))
                ),
                Client(host.config.paths.socket).status(),
            )[1],
        )
        go_back(made, dry_run=False, yes=True, as_json=False)
    assert "handed back; dzagent is disabled" in capsys.readouterr().out
    assert read_intent(host.config.paths.intent) == Intent(False)
    assert host.state()[1:] == before[1:]
    assert host.units.done[-1] == "start doublezerod.service"


def test_the_way_back_needs_no_api(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.migrate()
    write_intent(host.config.paths.intent, Intent(True))
    go_back(tool(host), dry_run=False, yes=True, as_json=False)
    assert read_intent(host.config.paths.intent) == Intent(False)
    assert "systemctl stop dzagent-bird" in capsys.readouterr().out


def test_the_way_back_of_nothing_is_refused(host: Host) -> None:
    with pytest.raises(MigrationError, match="no migration to undo"):
        go_back(tool(host), dry_run=False, yes=True, as_json=False)


def test_a_dry_way_back_only_says_what_it_means(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.migrate()
    go_back(tool(host), dry_run=True, yes=False, as_json=False)
    assert "Routes that the device no longer announces" in " ".join(capsys.readouterr().out.split())
    go_back(tool(host, quiet=True), dry_run=True, yes=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["done"] is False
    assert host.phase == "migrated"


def test_json_cannot_ask() -> None:
    done = run("migrate", "--json")
    assert done.code == 2
    assert "--yes" in done.err


def test_help_says_what_it_does() -> None:
    out = run("migrate", "--help").out
    assert "--undo" in out
    assert "SIGKILL" not in out
    assert max(map(len, out.splitlines())) <= 100


# ---- what doublezerod was started with -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["d"], {}),
        (["d", "-env", "testnet"], {"env": "testnet"}),
        (
            ["d", "--env=testnet", "-v", "-client-ip", "1.2.3.4"],
            {"env": "testnet", "v": "", "client-ip": "1.2.3.4"},
        ),
        (["d", "-metrics-enable", "-metrics-addr", ":1"], {"metrics-enable": "", "metrics-addr": ":1"}),
        (["d", "-env"], {"env": ""}),
        (["d", "--", "-env", "x"], {}),
        (["d", "x", "-env", "y"], {}),
        ([], {}),
    ],
)
def test_flags_are_read_as_go_reads_them(words: list[str], expected: dict[str, str]) -> None:
    assert parse_flags(words) == expected


def test_what_differs_is_told_without_secrets(host: Host) -> None:
    flags = {"env": "testnet", "client-ip": "192.0.2.9", "state-dir": "/x", "route-config": "/y"}
    found = compare(flags, {"DZ_LEDGER_RPC_URL": "https://rpc.example.net/SECRET"}, host.config, host.policy)
    assert found.blockers == ()
    assert len(found.notes) == 4
    assert "SECRET" not in str(found.notes)
    assert "rpc.example.net" in found.notes[-1]


def test_the_same_is_not_told(host: Host) -> None:
    config = replace(host.config, rpc=("http://a/b",))
    flags = {"env": "testnet", "client-ip": str(config.client_ip), "solana-rpc-endpoint": "http://a/b"}
    assert compare(flags, {}, config, host.policy) == Findings()


def test_a_network_that_is_only_guessed_is_a_note(host: Host) -> None:
    config = replace(
        host.config, network="localnet", program_id="7CTniUa88iJKUHTrCkB4TjAoG6TD7AMivhQeuqN2LPtX"
    )
    found = compare({}, {}, config, host.policy)
    assert (found.blockers, len(found.notes)) == ((), 1)


@pytest.mark.parametrize(
    ("flags", "blocked"),
    [
        ({}, False),
        ({"env": "mainnet"}, True),
        ({"env": "mainnet-beta"}, True),
        ({"env": "", "program-id": "ser2VaTMAcYTaauMrTSfSrxBaUDq7BLNs2xfUugTAGv"}, True),
        ({"env": "nonsense"}, False),
        ({"solana-rpc-endpoint": "http://[::1"}, False),
    ],
)
def test_another_ledger_is_in_the_way(host: Host, flags: dict[str, str], blocked: bool) -> None:
    assert bool(compare(flags, {}, host.config, host.policy).blockers) is blocked


# ---- readiness -------------------------------------------------------------------------------------------


def test_readiness_without_a_status_is_no() -> None:
    assert not_ready({}, running=True, enabled=True)
    assert (
        not_ready(
            {"conditions": [7, {"type": "Ready", "reason": "DoublezerodRuns"}]}, running=True, enabled=True
        )
        == ()
    )


def test_an_engine_that_is_not_there_does_not_answer(tmp_path: Path) -> None:
    assert not engine_answers(tmp_path / "bird.ctl")


def test_an_answer_of_no_is_no(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", lambda *_a, **_k: (_ for _ in ()).throw(click.Abort()))
    before = host.state()
    with agent(host), pytest.raises(click.Abort):
        go(host, yes=False)
    assert (host.state(), host.units.done) == (before, [])
