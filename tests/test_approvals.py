"""Approvals: once, for a while, of this process; and what they have let in."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from dzagent.approvals import Approvals
from dzagent.errors import StateError
from dzagent.held import Held, held_id, making, plan_id, step_key
from dzagent.model import Action, Observed, Origin, Outcome, Plan, Result, Rule, Step
from dzagent.state import MAX_APPROVALS, ApprovalRequest, read_approvals, request_approval

ANY = IPv4Network("0.0.0.0/0")
RULE = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
STEP = Step(Action.ADD, None, RULE, "missing", Origin("unicast", "x", 1))
HELD = Held(STEP, "it would capture")
HERE = "boot 1"


class Desk:
    """Where a person asks, and what the agent makes of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.requests, self.accepted = tmp_path / "intent" / "approve.json", tmp_path / "accepted.json"
        self.now = 1000.0
        self.agent = self.start()

    def start(self, place: str = HERE) -> Approvals:
        self.agent = Approvals(self.requests, self.accepted, place, 600.0, lambda: self.now)
        return self.agent

    def ask(self, name: str = HELD.id, confirm: int | None = None, at: float = 5.0) -> frozenset[str]:
        request_approval(self.requests, ApprovalRequest(name, at, confirm))
        return self.look()

    def look(self) -> frozenset[str]:
        self.agent.refresh()
        return self.agent.ids


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def outcomes(result: Result = Result.DONE) -> Iterable[Outcome]:
    return (Outcome(STEP, result),)


def test_an_approval_is_good_for_a_while(desk: Desk) -> None:
    assert desk.look() == frozenset()
    assert desk.ask() == {HELD.id}
    desk.now += 599
    assert desk.look() == {HELD.id}
    desk.now += 1
    assert desk.look() == frozenset()


def test_it_counts_once_however_it_ends(desk: Desk) -> None:
    for n, result in enumerate((Result.DONE, Result.TRANSIENT, Result.RACED)):
        assert desk.ask(at=float(n)) == {HELD.id}
        desk.agent.consume((), outcomes(result))
        assert desk.look() == {HELD.id}, "not if it was not tried"
        desk.agent.consume((HELD,), outcomes(result))
        assert desk.look() == frozenset()


def test_a_restart_ends_it(desk: Desk) -> None:
    desk.ask()
    desk.start()
    assert desk.look() == frozenset()
    assert desk.ask("abcd", at=7.0) == {"abcd"}, "and does not bring back the old ones"


def test_requests_that_come_at_once_are_all_seen(desk: Desk) -> None:
    for n in range(3):
        request_approval(desk.requests, ApprovalRequest(f"abc{n}", float(n)))
    assert desk.look() == {"abc0", "abc1", "abc2"}
    for n in range(3 * MAX_APPROVALS):
        request_approval(desk.requests, ApprovalRequest(f"{n:04x}", float(n)))
    assert len(read_approvals(desk.requests)) == MAX_APPROVALS


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"approvals": 7}', '{"approvals": [{"id": "../x", "at": 1}]}', '{"approvals": [{"id": "abcd"}]}',
     '{"approvals": [{"id": "abcd", "at": true}]}', '{"approvals": [{"id": "abcd", "at": 1, "confirm": "x"}]}',
     f'{{"approvals": [{{"id": "abcd", "at": 1{"0" * 400}}}]}}'],
)  # fmt: skip
def test_a_file_that_cannot_be_read_approves_nothing(desk: Desk, text: str) -> None:
    desk.requests.parent.mkdir()
    desk.requests.write_text(text)
    assert desk.look() == frozenset()
    with pytest.raises(StateError):
        read_approvals(desk.requests)
    assert desk.ask() == {HELD.id}, "the next one counts"


def test_a_name_that_is_no_id_is_refused(desk: Desk) -> None:
    with pytest.raises(StateError):
        request_approval(desk.requests, ApprovalRequest("../x", 1.0))


def test_the_shortest_time_to_confirm_counts(desk: Desk) -> None:
    desk.ask(confirm=60)
    desk.ask("abcd", confirm=None, at=6.0)
    assert desk.agent.confirm_within((HELD,)) == 60
    assert desk.agent.confirm_within(()) is None
    desk.agent.drop((HELD,))
    assert desk.look() == {"abcd"}


def test_what_was_let_in_is_known_while_it_is_there(desk: Desk) -> None:
    desk.ask()
    desk.agent.consume((HELD,), outcomes())
    assert desk.agent.accepted == {making(RULE)}
    assert desk.start().accepted == {making(RULE)}
    assert desk.start("boot 2").accepted == frozenset(), "another namespace"
    assert desk.start().accepted == {making(RULE)}
    desk.agent.forget_absent(Observed(rules=(RULE,)))
    assert desk.agent.accepted == {making(RULE)}
    desk.agent.forget_absent(Observed())
    assert desk.start().accepted == frozenset()


@pytest.mark.parametrize("text", ["{", "[]", '{"accepted": 7}'])
def test_a_torn_memory_of_what_was_let_in_is_none(desk: Desk, text: str) -> None:
    desk.accepted.write_text(text)
    assert desk.start().accepted == frozenset()


def test_what_failed_was_not_let_in(desk: Desk) -> None:
    desk.ask()
    desk.agent.consume((HELD,), outcomes(Result.PERMANENT))
    assert desk.agent.accepted == frozenset()


# ---- ids -------------------------------------------------------------------------------------------------------


def test_an_id_is_of_the_object_and_the_reason_and_not_of_the_line() -> None:
    other = Held(Step(Action.ADD, None, RULE, "wanted", Origin("unicast", "y", 9)), HELD.reason)
    assert other.id == HELD.id
    assert Held(STEP, "another reason").id != HELD.id
    assert Held(STEP, HELD.reason, "volume").id != HELD.id
    wider = Step(Action.ADD, None, Rule(100, ANY, ANY, 100, 210), "missing")
    assert Held(wider, HELD.reason).id != HELD.id
    assert Held(STEP, HELD.reason, "dependent").id == ""
    assert held_id("volume", "x", ["a", "b"]) == held_id("volume", "x", ["b", "a"])
    assert step_key(STEP) == making(RULE)


def test_a_plan_id_changes_with_what_is_withheld() -> None:
    plan = Plan("abcd")
    assert plan_id(plan, ()) == "abcd"
    assert len({"abcd", plan_id(plan, (HELD,)), plan_id(plan, (Held(STEP, "other"),))}) == 3
