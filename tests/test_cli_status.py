"""`dzagent status`: says what is wrong and what to do, in 80 columns, with an exit status for scripts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.cli import document as doc
from dzagent.cli.output import Paper
from dzagent.cli.statusview import status_lines
from dzagent.files import write_json
from dzagent.state import Intent, write_intent
from tests.api_fakes import NOW, UNICAST, World, changed, condition, config_file, multicast, run


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


class Shown:
    """What one command printed about one world."""

    def __init__(self, world: World, *words: str, running: bool = True) -> None:
        file = config_file(world.config.paths.state.parent)
        with world.serving():
            if running:
                with world.agent():
                    done = run("status", *words, config=file)
            else:
                done = run("status", *words, config=file)
        self.code, self.out, self.err = done.code, done.out, done.err
        self.flat = " ".join(self.out.split())


def enable(world: World, enabled: bool = True) -> None:
    write_intent(world.config.paths.intent, Intent(enabled))


def test_a_ready_agent(world: World) -> None:
    enable(world)
    world.publish(services=[UNICAST, multicast(publish=(1,), subscribe=(1, 2))])
    world.publish_ledger()
    shown = Shown(world)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == (Path(__file__).parent / "golden" / "cli" / "status-ready.txt").read_text()


def test_a_disabled_agent_is_healthy_once_everything_is_down(world: World) -> None:
    enable(world, False)
    off = condition("Ready", "False", "Disabled", "the agent is disabled")
    world.publish(enabled=False, services=[], conditions=changed(off))
    shown = Shown(world)
    assert shown.code == 0
    assert shown.flat.startswith(
        "Disabled: the agent is disabled; `dzagent enable` sets up what the ledger grants"
    )
    left = condition("InSync", "False", "StepsLeft", "2 steps are left: Device or resource busy")
    world.publish(enabled=False, services=[], conditions=changed(off, left))
    shown = Shown(world)
    assert shown.code == 1
    assert shown.flat.startswith("Disabled, but not torn down: 2 steps are left: Device or resource busy")


def test_an_agent_that_nobody_enabled_is_no_trouble(world: World) -> None:
    off = condition("Ready", "False", "Disabled", "nobody has enabled or disabled the agent yet")
    world.publish(enabled=False, services=[], conditions=changed(off))
    shown = Shown(world)
    assert shown.code == 0
    assert "nobody has enabled" in shown.flat
    assert "Needs attention" not in shown.flat, "an agent that asks nothing has no ledger.json"


def test_an_agent_that_does_not_run(world: World) -> None:
    enable(world)
    world.publish(pid=0)
    shown = Shown(world, running=False)
    assert shown.code == 1
    assert shown.flat.startswith(
        "Not running: dzagentd does not run; start it with: systemctl start dzagentd"
    )
    assert "doublezero0" in shown.out, "what it set up is still there"
    assert "AgentNotRunning" not in shown.out
    world.publish(pid=0, enabled=False)
    enable(world, False)
    assert Shown(world, running=False).code == 1, "nobody would notice a tunnel that is left"


def test_a_wish_that_has_not_been_taken_up(world: World) -> None:
    enable(world, False)
    world.publish(enabled=False)
    enable(world)
    shown = Shown(world)
    assert shown.code == 1
    assert shown.flat.startswith("Changing: dzagentd has not taken up the last enable yet")


def test_nothing_is_published(world: World) -> None:
    enable(world)
    shown = Shown(world)
    assert shown.code == 1
    assert "status.json does not exist" in shown.flat


def test_a_corrupt_intent(world: World) -> None:
    enable(world)
    world.publish(
        conditions=changed(condition("IntentReadable", "False", "Corrupt", "state.json is not valid JSON"))
    )
    world.config.paths.intent.write_text("{")
    shown = Shown(world)
    assert shown.code == 1
    assert "say what you want again: `dzagent enable` or `dzagent disable`" in shown.flat


def test_a_lost_intent_beside_a_tunnel_is_a_question(world: World) -> None:
    asks = "the intent file is gone but a tunnel of ours is up: say `dzagent enable` or `dzagent disable`"
    world.publish(
        enabled=None, intent_stamp=0, conditions=changed(condition("Ready", "False", "Disabled", asks))
    )
    shown = Shown(world)
    assert shown.code == 1
    assert shown.flat.startswith(f"Not ready: {asks}")


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "ledger": (
        {"conditions": changed(condition("LedgerReachable", "False", "Unreachable", "no answer: refused"))},
        "LedgerReachable is False, Unreachable: no answer: refused; what works stays; look at rpc in the configuration",
    ),
    "rendered": (
        {"conditions": changed(condition("Rendered", "False", "Failed", "tunnel.ip:3: unknown word"))},
        "Rendered is False, Failed: tunnel.ip:3: unknown word; what works stays; correct the file that is named",
    ),
    "sync": (
        {"conditions": changed(condition("InSync", "False", "StepsLeft", "1 steps are left: busy"))},
        "InSync is False, StepsLeft: 1 steps are left: busy; `dzagent plan` shows the steps that are left",
    ),
    "waiting": (
        {"conditions": changed(condition("InSync", "False", "Waiting", "1 steps wait (dzagent apply ab12)"))},
        "InSync is False, Waiting: 1 steps wait (dzagent apply ab12)",
    ),
    "identity": (
        {"conditions": changed(condition("IdentityKnown", "False", "NoClientIp", "no public address"))},
        "set client_ip in the configuration, or `dzagent enable --client-ip IP`",
    ),
    "held": (
        {"conditions": changed(condition("Held", "True", "WouldCapture", "route 192.0.2.0/24: the gateway"))},
        "Held is True, WouldCapture: route 192.0.2.0/24: the gateway; `dzagent plan` shows what is withheld",
    ),
    "conflict": (
        {"conflicts": [{"object": "link doublezero0", "owner": "somebody", "advice": "rename it"}]},
        "link doublezero0 is held by somebody: rename it",
    ),
    "contested": (
        {"conditions": changed(condition("Contested", "True", "Undone", "rule 100, repairs of late: 5"))},
        "Contested is True, Undone: rule 100, repairs of late: 5; find out what else changes these objects",
    ),
    "journal": (
        {"conditions": changed(condition("Journaled", "False", "Failed", "no room"))},
        "Journaled is False, Failed: no room; repairs go on; make room in /run",
    ),
    "problem": (
        {"problems": [{"code": "PrefixRefused", "message": "0.0.0.0/0 is refused", "account": "GxGb"}]},
        "PrefixRefused: 0.0.0.0/0 is refused (account GxGb)",
    ),
    "service": (
        {
            "services": [
                {**UNICAST, "last_error": {"code": "InvalidOverlay", "message": "/30", "since": NOW - 7200}}
            ]
        },
        "error InvalidOverlay: /30 (for",
    ),
    "apply": (
        {"last_apply": {"plan_id": "ab12", "result": "stale", "message": "the plan is cd34 now", "at": NOW}},
        "the last `dzagent apply` (ab12) is stale: the plan is cd34 now",
    ),
    "withdrawn": ({"withdrawn": {"multicast": "no user account"}}, "no multicast no user account"),
    "new condition": (
        {"conditions": changed(condition("Brandnew", "False", "Why", "unknown to this version"))},
        "Brandnew is False, Why: unknown to this version",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_once_with_what_to_do(world: World, name: str) -> None:
    enable(world)
    changes, said = WRONG[name]
    world.publish(**changes)
    shown = Shown(world)
    assert said in shown.flat, shown.out
    assert shown.flat.count(said) == 1


def test_not_ready_says_why_and_what_to_do(world: World) -> None:
    enable(world)
    none = condition("Ready", "False", "NoService", "the ledger grants nothing: no user account")
    world.publish(services=[], conditions=changed(none))
    shown = Shown(world)
    assert shown.code == 1
    assert shown.flat.startswith(
        "Not ready: the ledger grants nothing: no user account; a user account for client IP 198.51.100.7 must be "
        "activated on localnet"
    )


def test_json_is_the_whole_answer_and_nothing_else(world: World) -> None:
    enable(world)
    world.publish(services=[{**UNICAST, "metro": "München \x9b31m"}])
    shown = Shown(world, "--json")
    assert shown.code == 0
    assert shown.out.isascii()
    assert json.loads(shown.out)["services"][0]["metro"] == "München \x9b31m"
    assert Shown(world, "--json", running=False).code == 1


def test_json_and_watch_do_not_go_together() -> None:
    assert run("status", "--json", "--watch").code == 2
    assert run("status", "--watch", "0").code == 2


# ---- text ----------------------------------------------------------------------------------------------------


def lines(changes: Mapping[str, Any], sheet: Paper | None = None) -> list[str]:
    base = {
        "agent": {"running": True, "message": "dzagentd runs"},
        "intent": {"reconciler_enabled": True, "stamp": 7},
        "intent_stamp": 7,
        "enabled": True,
        "conditions": changed(),
        "services": [UNICAST],
    }
    return status_lines({**base, **changes}, sheet or Paper(), NOW)


def test_colours_only_where_they_are_wanted() -> None:
    plain, coloured = lines({}), lines({}, Paper(colour=True))
    assert "\x1b" not in "\n".join(plain)
    assert coloured[0].startswith("\x1b[32m\x1b[1mReady")
    assert re.sub("\x1b\\[[0-9;]*m", "", "\n".join(coloured)) == "\n".join(plain)


def test_labels_of_the_ledger_cannot_command_the_terminal() -> None:
    nasty = {**UNICAST, "metro": "x\x1b]0;title\x07\x1b[2J\r\n\u202e\x9b1m", "current_device": "\x1b[31m"}
    text = "\n".join(lines({"services": [nasty]}))
    assert text.replace("\n", "").isprintable()
    assert "\\x1b]0;title\\x07\\x1b[2J" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_every_line_fits(width: int) -> None:
    long = {
        "services": [
            {**UNICAST, "metro": "m" * 300, "last_error": {"code": "C", "message": "word " * 100, "since": 1}}
        ],
        "problems": [{"code": "P", "message": "w" * 200, "account": "a" * 44}],
        "conditions": changed(condition("Rendered", "False", "Failed", "reason " * 60)),
        "client_ip": "198.51.100.7",
        "client_ip_source": "s " * 60,
        "notes": ["/very/long/path" * 20],
    }
    assert max(map(len, lines(long, Paper(width=width)))) <= width


odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        7,
        -1.5,
        1e30,
        "x",
        "\x1b[2J",
        "y " * 99,
        [],
        [7],
        ["x"],
        [{}],
        {},
        {"status": 7},
        {"publisher": ["\0"]},
        {"\x1b[2J" * 20: "x"},
    ]
) | st.lists(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("type", "status", "reason", "message", "name"), st.just("x"))
    )
)
KEYS = (
    "agent", "intent", "intent_stamp", "enabled", "conditions", "services", "problems", "conflicts", "notes",
    "last_apply", "withdrawn", "ledger", "client_ip", "generation", "started_at", "pid", "data_age_seconds", "mode",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), odd), st.dictionaries(st.sampled_from(sorted(UNICAST)), odd))
def test_a_document_of_any_shape_is_shown(document: dict[str, Any], service: dict[str, Any]) -> None:
    for services in ([], [service]):
        shown = status_lines({"services": services, **document}, Paper(), NOW)
        assert all(line.isprintable() and len(line) <= 80 for line in shown)
        assert isinstance(doc.healthy(document), bool)


# ---- the judgement -------------------------------------------------------------------------------------------


HEALTHY: dict[str, Any] = {
    "agent": {"running": True},
    "intent": {"reconciler_enabled": True, "stamp": 7},
    "intent_stamp": 7,
    "enabled": True,
    "conditions": changed(),
}
SICK: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "not running": lambda d: d.update(agent={"running": False}),
    "unreadable intent": lambda d: d["intent"].update(reconciler_enabled=None),
    "older wish": lambda d: d.update(intent_stamp=6),
    "another wish": lambda d: d.update(enabled=False),
    "not ready": lambda d: d.update(conditions=changed(condition("Ready", "False"))),
    "unknown": lambda d: d.update(conditions=changed(condition("Ready", "Unknown"))),
    "nothing said": lambda d: d.update(conditions=[]),
}


def test_healthy() -> None:
    assert doc.healthy(HEALTHY)


@pytest.mark.parametrize("name", SICK)
def test_sick(name: str) -> None:
    document = json.loads(json.dumps(HEALTHY))
    SICK[name](document)
    assert not doc.healthy(document)


# ---- watch ---------------------------------------------------------------------------------------------------


def test_watch_goes_on_when_the_api_comes_and_goes(world: World) -> None:
    enable(world)
    world.publish()
    write_json(world.config.paths.ledger, {})
    command = [sys.executable, "-m", "dzagent.cli.main", "--socket", str(world.config.paths.socket)]
    process = subprocess.Popen([*command, "status", "--watch", "0.2"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None

    def until(words: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if words in line:
                return
        raise AssertionError(f"it ended before it said {words}")

    try:
        until("the API does not answer")
        with world.serving(), world.agent():
            until("Ready: 1 of 1 services")
        until("the API does not answer")
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_pinned_address_that_is_not_in_use_yet_is_shown(world: World) -> None:
    write_intent(world.config.paths.intent, Intent(True, IPv4Address("198.51.100.9")))
    world.publish(client_ip=None)
    assert "not known yet, 198.51.100.9 is pinned" in Shown(world).flat


def test_what_a_poll_costs_and_who_is_asked() -> None:
    ledger = {
        "slot": 7,
        "endpoint": "rpc-b",
        "mode": "full",
        "mode_reason": "rpc-a refused filters",
        "poll": {"bytes_received": 1600, "bytes_sent": 500, "milliseconds": 3.2},
        "push": {"connected": True},
        "endpoints": [
            {
                "endpoint": "rpc-a",
                "state": "failing",
                "requests": 9,
                "errors": {"TlsFailed": 2, "Unreachable": 1},
            },
            {"endpoint": "rpc-b", "state": "in use", "requests": 4, "errors": {}},
        ],
    }
    lines = "\n".join(status_lines({"ledger": ledger, "data_age_seconds": 4.0}, Paper(width=200), 0.0))
    assert (
        "everything (rpc-a refused filters), the last one 2100 bytes and 3 ms, changes are announced" in lines
    )
    assert "rpc-a, failing, 9 requests, 3 failed" in lines
    assert "rpc-b, in use, 4 requests, 0 failed" in lines
    odd = {
        "ledger": {"mode": 7, "poll": [], "push": 1, "endpoints": [{"errors": {"x": "y"}, "last_error": "z"}]}
    }
    assert status_lines(odd, Paper(), 0.0)


def test_another_agent_is_named_once_and_with_what_to_do(world: World) -> None:
    says = "doublezerod runs here (process 7): `dzagent migrate` takes over from it"
    foreign = condition("ForeignDaemon", "True", "DoublezerodRuns", says)
    enable(world)
    world.publish(conditions=changed(foreign, condition("Ready", "False", "DoublezerodRuns", says)))
    assert Shown(world).flat.count("takes over from it") == 1
    enable(world, False)
    off = condition("Ready", "False", "Disabled", "the agent is disabled")
    world.publish(enabled=False, services=[], conditions=changed(foreign, off))
    assert Shown(world).flat.count("takes over from it") == 1
