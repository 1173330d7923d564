"""`dzagent enable` and `disable`: with --wait they say it is so only when it is so."""

from __future__ import annotations

import functools
import itertools
import json
import threading
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from dzagent.cli.client import NoApi
from dzagent.cli.waiting import (
    GRACE,
    PATIENCE,
    REPEAT,
    Outcome,
    Progress,
    Verdict,
    judge_applied,
    judge_disabled,
    judge_enabled,
    unless_beside_another,
    wait,
)
from dzagent.state import Intent, read_intent, write_intent
from tests.api_fakes import Done, World, at_once, changed, condition, config_file, obedient, run


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def dzagent(world: World, *words: str) -> Done:
    return run(*words, config=config_file(world.config.paths.state.parent))


def intent(world: World) -> Intent | None:
    return read_intent(world.config.paths.intent)


# ---- the whole way, with an agent in a thread ----------------------------------------------------------------


def test_enable_and_disable_wait_until_it_is_so(world: World) -> None:
    with world.serving(), obedient(world):
        assert dzagent(world, "enable", "--wait") == Done(0, "enabled and ready\n", "")
        assert intent(world) == Intent(True)
        done = dzagent(world, "disable", "--wait")
        assert done == Done(0, "disabled; nothing of dzagent is left in the kernel\n", "")
        assert intent(world) == Intent(False)


def test_json_is_one_document(world: World) -> None:
    with world.serving(), obedient(world):
        for words, enabled in (
            (["enable", "--wait"], True),
            (["disable", "--wait"], False),
            (["enable"], True),
        ):
            done = dzagent(world, *words, "--json")
            document = json.loads(done.out)
            assert done.code == 0
            assert document["enabled"] is enabled
            assert document["done"] is (True if "--wait" in words else None)
            assert set(document) == {"done", "enabled", "waited", "seconds", "message"}


def test_a_client_ip_is_pinned_and_waited_for(world: World) -> None:
    with world.serving(), obedient(world):
        assert dzagent(world, "enable", "--client-ip", "198.51.100.7", "--wait").code == 0
        assert intent(world) == Intent(True, IPv4Address("198.51.100.7"))
        done = dzagent(world, "enable", "--client-ip", "198.51.100.8", "--wait", "--timeout", "0.3")
        assert done.code == 1
        assert "dzagentd does not use client IP 198.51.100.8 yet" in done.err


def test_without_wait_it_says_what_happens_next(world: World) -> None:
    with world.serving():
        done = dzagent(world, "enable")
        assert done.code == 0
        assert done.out.startswith("enabled: dzagentd asks the ledger")
        assert done.err == (
            "warning: dzagentd does not run; start it with: systemctl start dzagentd; until then nothing changes\n"
        )
        with obedient(world):
            done = dzagent(world, "disable")
            assert (done.code, done.err) == (0, "")
            assert done.out.startswith("disabled: dzagentd takes everything down now")


def test_a_refused_address_is_bad_input(world: World) -> None:
    with world.serving():
        done = dzagent(world, "enable", "--client-ip", "127.0.0.1")
        assert done == Done(2, "", "dzagent: 127.0.0.1 cannot be a client IP: no other host can send to it\n")
        assert intent(world) is None


def test_no_api_is_said(world: World) -> None:
    for words in (["enable", "--wait"], ["disable", "--wait"], ["enable"], ["disable", "--json"]):
        done = dzagent(world, *words)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(
            f"dzagent: the API does not answer: {world.config.paths.socket} does not exist"
        )


def test_a_timeout_says_why(world: World) -> None:
    def never(world: World, enabled: bool) -> None:
        off = condition("Ready", "False", "NoService", "the ledger grants nothing.")
        world.publish(enabled=enabled, services=[], conditions=changed(off))

    with world.serving(), obedient(world, never):
        done = dzagent(world, "enable", "--wait", "--timeout", "0.3")
    assert done.code == 1
    assert done.err.startswith(
        "dzagent: enabled; not ready after 0 s: the ledger grants nothing; a user account for"
    )
    assert intent(world) == Intent(True), "it stays asked for"


def test_what_is_left_is_not_called_gone(world: World) -> None:
    def half(world: World, enabled: bool) -> None:
        left = condition("InSync", "False", "StepsLeft", "1 steps are left: Device or resource busy")
        world.publish(enabled=enabled, services=[], conditions=changed(left))

    with world.serving(), obedient(world, half):
        done = dzagent(world, "disable", "--wait", "--timeout", "0.3", "--json")
    assert done.code == 1
    assert json.loads(done.out)["done"] is False
    assert "1 steps are left: Device or resource busy" in done.err


def test_yesterday_s_status_is_not_an_answer(world: World) -> None:
    """The agent is slow: what it has published says that all is well, of an older wish."""
    write_intent(world.config.paths.intent, Intent(True))
    released = threading.Event()

    def slow(world: World, enabled: bool) -> None:
        released.wait()
        at_once(world, enabled)

    world.publish()
    with world.serving(), obedient(world, slow):
        done = dzagent(world, "enable", "--wait", "--timeout", "0.3")
        assert done.code == 1
        assert "dzagentd has not taken it up yet" in done.err
        released.set()


def test_somebody_else_changes_his_mind(world: World) -> None:
    def contrary(world: World, enabled: bool) -> None:
        write_intent(world.config.paths.intent, Intent(not enabled))
        world.publish(enabled=not enabled, services=[])

    with world.serving(), obedient(world, contrary):
        done = dzagent(world, "enable", "--wait")
        assert done.code == 1
        assert "somebody else has said `dzagent disable` in the meantime" in done.err


# ---- judgements ----------------------------------------------------------------------------------------------


def status(**changes: Any) -> dict[str, Any]:
    return {
        "agent": {"running": True, "message": ""},
        "intent": {"reconciler_enabled": True, "stamp": 7},
        "intent_stamp": 7,
        "enabled": True,
        "mode": "auto",
        "services": [{}],
        "conditions": changed(),
        **changes,
    }


def down(**changes: Any) -> dict[str, Any]:
    wish = {"reconciler_enabled": False, "stamp": 7}
    return status(**{"intent": wish, "enabled": False, "services": [], **changes})


def test_ready_counts_only_as_an_answer_to_this_wish() -> None:
    judge = judge_enabled(None)
    assert judge(status()).done
    assert not judge(status(intent_stamp=6)).done
    assert not judge(status(enabled=False)).done
    assert not judge(status(conditions=[])).done
    assert judge(status(agent={"running": False, "message": "gone"})) == Verdict(message="gone", away=True)
    assert judge(down()).failed
    assert not judge_enabled("198.51.100.7")(status(client_ip="198.51.100.8")).done
    assert judge_enabled("198.51.100.7")(status(client_ip="198.51.100.7")).done


def test_torn_down_means_nothing_is_left() -> None:
    assert judge_disabled(down()).done
    assert not judge_disabled(down(services=[{}])).done
    assert not judge_disabled(down(intent_stamp=6)).done
    assert not judge_disabled(down(enabled=None)).done
    assert not judge_disabled(down(conditions=changed(condition("InSync", "Unknown")))).done
    assert judge_disabled(down(agent={"running": False})).away
    assert judge_disabled(status()).failed
    broken = {"reconciler_enabled": None, "stamp": 7, "message": "corrupt"}
    assert judge_disabled(down(intent=broken)) == Verdict(message="corrupt")


def test_nobody_waits_for_an_agent_that_does_nothing_beside_another() -> None:
    runs = condition("ForeignDaemon", "True", "DoublezerodRuns", "doublezerod runs here")
    migrating = condition("ForeignDaemon", "True", "Migrating", "at work")
    enabled, disabled = unless_beside_another(judge_enabled(None)), unless_beside_another(judge_disabled)
    for judge, shown in ((enabled, status), (disabled, functools.partial(down, services=[{}]))):
        assert judge(shown(conditions=[runs])).failed
        assert "doublezerod runs here" in judge(shown(conditions=[runs])).message
        assert not judge(shown(conditions=[migrating])).failed
    assert disabled(down(conditions=[*changed(), runs])).done


def test_a_mode_that_never_writes_is_not_waited_for() -> None:
    waiting = changed(condition("InSync", "False", "Waiting", "3 steps wait (observe mode never writes)"))
    assert judge_disabled(down(mode="observe", conditions=waiting)).failed
    assert not judge_disabled(down(mode="manual", conditions=waiting)).failed
    waiting = changed(condition("Ready", "False", "Waiting", "3 steps wait (observe mode never writes)"))
    assert judge_enabled(None)(status(mode="observe", conditions=waiting)).failed
    assert not judge_enabled(None)(status(mode="manual", conditions=waiting)).failed


APPLIED = {"plan_id": "ab12", "result": "applied", "message": "", "at": 5.0}


def test_an_applied_plan_is_that_plan_and_that_time() -> None:
    assert judge_applied("ab12", {})(status(last_apply=APPLIED)).done
    assert not judge_applied("ab12", APPLIED)(status(last_apply=APPLIED)).done, "that was yesterday"
    assert judge_applied("ab12", APPLIED)(status(last_apply={**APPLIED, "at": 6.0})).done
    assert not judge_applied("cd34", {})(status(last_apply=APPLIED)).done
    assert not judge_applied("ab12", {})(status(last_apply=None)).done
    stale = {**APPLIED, "result": "stale", "message": "the plan is cd34 now"}
    assert judge_applied("ab12", {})(status(last_apply=stale)) == Verdict(
        message="plan ab12 is stale: the plan is cd34 now", failed=True
    )
    assert judge_applied("ab12", {})(status(agent={"running": False})).away


# ---- waiting, with a clock of our own ------------------------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def waited(*verdicts: Verdict | Exception, timeout: float = 60.0, spins: bool = False) -> Outcome:
    """Run `wait` over one verdict after another; the last one for ever."""
    clock = Clock()
    script = itertools.chain(verdicts, itertools.repeat(verdicts[-1]))

    def look() -> dict[str, Any]:
        verdict = next(script)
        if isinstance(verdict, Exception):
            raise verdict
        return {"verdict": verdict}

    return wait(
        look, lambda seen: seen["verdict"], timeout, progress=Progress(spins), clock=clock, sleep=clock.sleep
    )


MISSING, DONE, AWAY = Verdict(message="not yet"), Verdict(done=True), Verdict(message="gone", away=True)


def test_it_waits_until_it_is_so() -> None:
    outcome = waited(MISSING, MISSING, DONE)
    assert outcome.done
    assert 0.1 < outcome.seconds < 0.5


def test_it_gives_up_in_time_with_the_last_reason() -> None:
    outcome = waited(MISSING, timeout=3)
    assert (outcome.done, outcome.message) == (False, "not yet")
    assert 3 <= outcome.seconds < 3.5


def test_what_will_never_be_so_is_given_up_at_once() -> None:
    assert waited(MISSING, Verdict(message="never", failed=True)).seconds < 0.5


def test_an_agent_or_an_api_that_restarts_is_waited_for() -> None:
    for away in (AWAY, NoApi("gone")):
        assert waited(*[away] * 30, MISSING, *[away] * 30, DONE).done


def test_an_agent_or_an_api_that_stays_away_is_not() -> None:
    for away in (AWAY, NoApi("gone")):
        outcome = waited(MISSING, away)
        assert (outcome.done, outcome.message) == (False, "gone")
        assert GRACE <= outcome.seconds < GRACE + 1


def test_short_waits_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    waited(*[MISSING] * int((PATIENCE - 0.5) / 0.1), DONE)
    assert capsys.readouterr() == ("", "")


def test_long_waits_say_what_is_missing_once(capsys: pytest.CaptureFixture[str]) -> None:
    other = Verdict(message="still\x1b[2J something")
    waited(*[MISSING] * 40, *[other] * 40, DONE)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "waiting: not yet (2 s)\nwaiting: still\\x1b[2J something (4 s)\n"
    waited(MISSING, timeout=REPEAT * 2.5 + PATIENCE)
    assert capsys.readouterr().err.count("waiting: not yet") == 3


def test_a_terminal_gets_a_wheel_and_is_left_clean(capsys: pytest.CaptureFixture[str]) -> None:
    waited(MISSING, timeout=3, spins=True)
    err = capsys.readouterr().err
    assert "\r\x1b[K| not yet (2 s)\r\x1b[K/ not yet (2 s)" in err
    assert err.endswith("\r\x1b[K")
    assert "\n" not in err


def test_the_wheel_fits_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    waited(Verdict(message="x" * 500), timeout=3, spins=True)
    assert max(map(len, capsys.readouterr().err.split("\r\x1b[K"))) < 80
