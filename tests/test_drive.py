"""What each reason leads to: the quick way, a pass, a look at everything, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dzagent.drive import FILES_SECONDS, KERNEL, Drive, cpu_seconds
from dzagent.rhythm import AT_ONCE, TOLD, Passed, Rhythm
from dzagent.wake import Wake
from tests.test_watched import World as Kernel


@dataclass
class Loop:
    """Notes what it is told to do."""

    tried: int = 0
    urgent: bool = False
    outdated: bool = False
    quick: bool = True
    how: Passed = field(default_factory=lambda: Passed(watched=True))
    did: list[str] = field(default_factory=list)
    slow: float = 0.0
    works: Callable[[float], None] = lambda _: None

    def run_pass(self) -> Passed:
        self.did.append("pass")
        self.works(self.slow)
        return self.how

    def run_changes(self) -> bool:
        self.did.append("quick")
        return self.quick

    def resync_asked(self, token: str) -> None:
        self.did.append(f"resync {token}")


class World:
    """A drive with a clock that stands still; its kernel has been looked at."""

    def __init__(self, tmp_path: Path) -> None:
        self.now, self.loop, self.kernel = 100.0, Loop(), Kernel()
        self.loop.works = self.passes_time
        self.file = tmp_path / "state.json"
        self.rhythm = Rhythm(60.0, lambda: self.now, lambda: 0.5)
        self.rhythm.passed(Passed(watched=True))
        self.drive = Drive(
            self.loop, self.rhythm, lambda: self.now, watched=self.kernel.kernel, files=[self.file]
        )

    def passes_time(self, seconds: float) -> None:
        self.now += seconds

    def turn(self, *reasons: str) -> list[str]:
        self.loop.did.clear()
        self.drive.turn(frozenset(reasons))
        return list(self.loop.did)

    def reads_everything(self) -> bool:
        return self.kernel.looks()[0] > 0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nothing_to_do_is_nothing_done(world: World) -> None:
    assert world.turn() == []


@pytest.mark.parametrize("reasons", [(KERNEL,), ("routes",), (KERNEL, "routes")])
def test_the_quick_way_first(world: World, reasons: tuple[str, ...]) -> None:
    assert world.turn(*reasons) == ["quick"]
    world.loop.quick = False
    assert world.turn(*reasons) == ["quick", "pass"]
    assert not world.reads_everything()


@pytest.mark.parametrize("reason", ["ledger", "intent", "session", "anything"])
def test_other_reasons_are_a_pass(world: World, reason: str) -> None:
    assert world.turn(reason, KERNEL) == ["pass"]


def test_time_is_a_pass_that_reads_everything(world: World) -> None:
    world.now += 60
    assert world.turn() == ["pass"]
    assert world.reads_everything()
    assert world.turn() == []


def test_a_wish_for_a_look_reads_everything(world: World) -> None:
    assert world.turn("resync:00ff") == ["resync 00ff", "pass"]
    assert world.reads_everything()
    assert world.turn("resync") == ["resync ", "pass"]
    assert world.turn("resync:" + "f" * 33) == ["pass"]
    assert world.turn("resync:no-token") == ["pass"]


def test_a_file_that_somebody_edits_is_a_pass(world: World) -> None:
    world.file.write_text("{}")
    assert world.turn() == ["pass"]
    assert world.turn() == []
    world.file.unlink()
    assert world.turn() == ["pass"]


def test_what_people_are_told_is_brought_up_to_date_without_a_look_at_everything(world: World) -> None:
    world.loop.outdated = True
    assert world.turn() == []  # the last pass has just told it
    world.now += TOLD
    assert world.turn("routes") == ["quick", "pass"]
    assert world.turn() == []
    world.loop.outdated = False
    world.now += TOLD
    assert world.turn("routes") == ["quick"]
    assert not world.reads_everything()


def test_a_storm_has_to_wait(world: World) -> None:
    world.loop.quick = False
    world.loop.how = Passed(watched=True)
    seen = [world.turn(KERNEL) for _ in range(3)]
    assert all("pass" in did for did in seen)
    world.rhythm.spent(5.0, useful=False)
    assert world.turn(KERNEL) == ["quick"]
    assert world.turn("ledger") == ["pass"]  # whoever else asks does not wait


def test_a_pass_that_no_event_has_asked_for_makes_no_event_wait(world: World) -> None:
    world.loop.quick = False
    world.loop.slow = 5.0
    assert world.turn("resync") == ["resync ", "pass"]
    world.now += AT_ONCE
    assert "pass" in world.turn(KERNEL)
    assert world.turn(KERNEL) == ["quick"]  # that one was dear, and was for an event


def test_it_runs_until_it_is_told_to_stop(world: World) -> None:
    wake, stopped = Wake(), threading.Event()
    thread = threading.Thread(target=world.drive.run, args=(wake, stopped.is_set))
    thread.start()
    wake.set(KERNEL)
    while "quick" not in world.loop.did:
        assert thread.is_alive()
    stopped.set()
    wake.set("stop")
    thread.join(30)
    assert world.loop.did[:2] == ["pass", "quick"]
    assert FILES_SECONDS > 0


def test_the_cost_is_of_this_thread() -> None:
    before = cpu_seconds()
    sum(range(100_000))
    assert cpu_seconds() > before
