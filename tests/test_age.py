"""What the age of ledger data does: conditions, teardown by policy, and what a reboot brings back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dzagent.age import DataAge, ledger_conditions
from dzagent.bootclock import boot_seconds
from dzagent.config import Config
from dzagent.feed import LedgerView
from dzagent.policy import LedgerRules, Policy
from dzagent.state import ForgetRequests, request_forget
from tests.service_fakes import CLIENT, IBRL, snapshot
from tests.test_reconcile import World

DAY = 86400.0


def ages(view: LedgerView, *, stale: bool = False, enabled: bool | None = True) -> dict[str, tuple[str, str]]:
    found = ledger_conditions(view, DataAge(stale), enabled=enabled)
    return {kind: (status, reason) for kind, status, reason, _ in found}


def good(**more: Any) -> LedgerView:
    return LedgerView(snapshot(IBRL), frozenset({CLIENT}), 1.8e9, 1.8e9, read_at=1000.0, **more)


@pytest.mark.parametrize(
    ("view", "stale", "expected"),
    [
        (good(), False, {"LedgerReachable": "True", "LedgerStale": "False", "LedgerChanged": "False"}),
        (
            good(error="down", error_code="Unreachable"),
            True,
            {"LedgerReachable": "False", "LedgerStale": "True", "LedgerChanged": "False"},
        ),
        (
            good(error="other", error_code="LedgerChanged"),
            False,
            {"LedgerReachable": "False", "LedgerStale": "False", "LedgerChanged": "True"},
        ),
        (good(lagging="late"), False, {"LedgerReachable": "True", "LedgerStale": "False"}),
        (
            LedgerView(),
            False,
            {"LedgerReachable": "Unknown", "LedgerStale": "Unknown", "LedgerChanged": "Unknown"},
        ),
        (LedgerView(), True, {"LedgerStale": "True"}),
        (good(restored=True), False, {"LedgerReachable": "Unknown", "LedgerStale": "False"}),
        (good(clock_offset=-4000.0), False, {"ClockRight": "False"}),
        (good(clock_offset=2.0), False, {"ClockRight": "True"}),
        (good(), False, {"ClockRight": "Unknown"}),
    ],
)
def test_conditions(view: LedgerView, stale: bool, expected: dict[str, str]) -> None:
    found = {kind: status for kind, (status, _) in ages(view, stale=stale).items()}
    assert {**found, **expected} == found


def test_reasons_name_what_it_is() -> None:
    assert ages(good(lagging="late"))["LedgerReachable"] == ("True", "NodeLagging")
    assert ages(good(restored=True))["LedgerStale"] == ("False", "Restored")
    assert ages(LedgerView(), stale=True)["LedgerStale"] == ("True", "NeverAnswered")
    wrong = LedgerView(error="no GlobalConfig", error_code="WrongProgram")
    assert ages(wrong)["LedgerReachable"] == ("False", "WrongProgram")
    assert ages(good(), enabled=False)["LedgerStale"] == ("Unknown", "Disabled")


def test_messages_do_not_change_from_pass_to_pass() -> None:
    view = good(error="down", error_code="Unreachable", restored=True)
    assert ledger_conditions(view, DataAge(True), enabled=True) == ledger_conditions(
        replace(view, attempted_at=1.9e9), DataAge(True), enabled=True
    )


def test_boot_seconds_go_on() -> None:
    assert boot_seconds() <= boot_seconds()


class OldWorld(World):
    """A world whose data was read just now, on the loop's own clock."""

    def grant_read(self) -> None:
        self.grant()
        self.feed.seen = replace(self.feed.seen, read_at=self.clock.now)


def rules(world: World, **settings: Any) -> None:
    """Start the agent anew with other rules."""
    world.policy = Policy(ledger=LedgerRules(**settings))
    world.restart()


def test_stale_data_keeps_services_by_default_and_says_so(tmp_path: Path) -> None:
    world = OldWorld(tmp_path)
    world.grant_read()
    world.clock.now += 900.0
    world.run()
    assert world.condition("LedgerStale") == ("False", "Fresh")
    world.clock.now += 1.0
    assert world.run() == 0
    assert world.condition("LedgerStale") == ("True", "TooOld")
    assert "doublezero0" in world.kernel.links


def test_a_site_that_must_takes_services_down_and_gets_them_back(tmp_path: Path) -> None:
    world = OldWorld(tmp_path)
    world.grant_read()
    rules(world, stale="teardown", stale_after=60.0)
    world.clock.now += 60.0
    assert world.run() == 0
    world.clock.now += 1.0
    world.run()
    assert "doublezero0" not in world.kernel.links
    world.feed.seen = replace(world.feed.seen, read_at=world.clock.now)
    world.run()
    assert "doublezero0" in world.kernel.links


def test_teardown_counts_from_the_start_where_no_answer_came_at_all(tmp_path: Path) -> None:
    world = OldWorld(tmp_path)
    world.grant_read()
    rules(world, stale="teardown", stale_after=60.0)
    world.feed.seen = LedgerView(error="down", since=world.clock.now)
    assert world.run() == 0
    world.clock.now += 61.0
    world.run()
    assert "doublezero0" not in world.kernel.links


def reboot(world: World) -> None:
    world.kernel.links.pop("doublezero0")
    world.kernel.addresses[:] = [a for a in world.kernel.addresses if a.dev != "doublezero0"]
    world.kernel.routes[:] = [r for r in world.kernel.routes if r.dev != "doublezero0"]
    world.restart()


def test_a_reboot_with_a_dead_rpc_restores_from_young_data_and_says_so(tmp_path: Path) -> None:
    world = OldWorld(tmp_path)
    world.grant_read()
    reboot(world)
    world.feed.seen = replace(world.feed.seen, restored=True, error="down", error_code="Unreachable")
    world.run()
    assert "doublezero0" in world.kernel.links
    codes = {problem["code"]: problem["message"] for problem in world.status()["problems"]}
    assert "stored 2027-01-15 08:00:00 UTC" in codes["RestoredFromDisk"]


def test_data_that_is_too_old_restores_nothing_but_takes_nothing_down(tmp_path: Path) -> None:
    world = OldWorld(tmp_path)
    world.grant_read()
    world.restart()
    world.feed.seen = LedgerView(error="down", not_restored="the stored ledger data is 30.0 h old")
    assert world.run() == 0
    reboot(world)
    assert world.run() == 0
    problems = {problem["code"]: problem["message"] for problem in world.status()["problems"]}
    assert "unicast does not come back" in problems["NotRestored"]
    assert "30.0 h old" in problems["NotRestored"]
    world.ledger(IBRL)
    world.run()
    assert "doublezero0" in world.kernel.links


def test_a_wish_to_forget_counts_once_and_not_for_long(tmp_path: Path) -> None:
    path, now = tmp_path / "intent" / "forget.json", [1000.0]
    requests = ForgetRequests(path, lambda: now[0])
    assert not requests.asked()
    request_forget(path, 1000.0)
    assert requests.asked()
    assert not requests.asked()
    request_forget(path, 1001.0)
    assert requests.asked()
    now[0] = 1700.0
    assert not ForgetRequests(path, lambda: now[0]).asked()
    for junk in ("{", "[]", '{"asked_at": true}', '{"asked_at": "x"}', "{}"):
        path.write_text(junk)
        assert not requests.asked()


def test_the_files_are_where_they_belong() -> None:
    paths = Config().paths
    assert str(paths.snapshot) == "/var/lib/dzagent/ledger/last.json"
    assert paths.forget.parent == paths.intent.parent
