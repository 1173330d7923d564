"""`dzagentd --rollback`: undoes what nobody confirmed if no agent does it, and exits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from dzagent.checkpoint import CheckpointFile, Pending, UndoneFile
from dzagent.dzagentd import main
from dzagent.errors import KernelError, StateError
from dzagent.journal import Journal
from dzagent.kernel.detached import detach, reap
from dzagent.lock import take_lock
from dzagent.model import Result
from dzagent.rollback import Rollback, finish
from dzagent.undone import Undone
from tests.fake_kernel import FakeKernel, Fault
from tests.test_undo import LINK, MOVED, OVERLAY, OWNER, changed, converge, state, world

HERE = "boot 1"


class Stage:
    """A host whose agent is gone, with a change that waits for its confirmation until 100 s after boot."""

    def __init__(self, tmp_path: Path) -> None:
        self.kernel: FakeKernel = world()
        converge(self.kernel, (LINK, OVERLAY))
        self.before = state(self.kernel)
        self.undo = changed(self.kernel, MOVED, OVERLAY)
        self.after = state(self.kernel)
        self.file = CheckpointFile(tmp_path / "rollback.json", OWNER, HERE)
        self.undone = UndoneFile(tmp_path / "undone.json", OWNER)
        self.pending = Pending("ab12", 100.0, 1000.0, self.undo)
        self.file.write(self.pending)
        self.now = 50.0
        self.busy = 0
        self.given = 0
        self.then: Callable[[], None] = lambda: None

    def lock(self) -> int:
        if self.busy:
            self.busy -= 1
            raise StateError("another dzagentd runs already")
        return 7

    def give(self, _: int) -> None:
        self.given += 1

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 1
        self.now += seconds
        self.then()

    def run(self, *, wait: bool = False) -> int:
        return Rollback(
            file=self.file,
            undone=self.undone,
            kernel=self.kernel,
            owner=OWNER,
            journal=Journal(),
            links={"unicast": "doublezero0", "multicast": "doublezero1"},
            take_lock=self.lock,
            give_back=self.give,
            now=lambda: self.now,
            unix=lambda: 1234.0,
            sleep=self.sleep,
        ).run(wait=wait)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_nothing_is_undone_before_its_time(stage: Stage) -> None:
    assert stage.run() == 0
    assert state(stage.kernel) == stage.after
    assert stage.file.read() == stage.pending


@pytest.mark.parametrize("wait", [False, True])
def test_at_its_time_it_is_undone_and_remembered(stage: Stage, *, wait: bool) -> None:
    stage.now = 50.0 if wait else 100.0
    assert stage.run(wait=wait) == 0
    assert state(stage.kernel) == stage.before
    assert stage.file.read() is None
    undone = stage.undone.read()
    assert undone is not None
    assert (undone.plan_id, undone.made, undone.removed) == ("ab12", (MOVED,), (LINK,))
    assert stage.given == 1
    assert stage.run(wait=wait) == 0


def test_a_confirmation_ends_the_wait(stage: Stage) -> None:
    stage.then = stage.file.clear
    assert stage.run(wait=True) == 0
    assert state(stage.kernel) == stage.after
    assert stage.now < 52


def test_a_file_that_cannot_be_read_is_left_to_a_living_agent_and_moved_away_without_one(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.file.path.write_text("{")
    stage.busy = 30
    assert stage.run(wait=True) == 1
    assert stage.now >= 79  # one process waited, and was not started again and again
    assert caplog.text.count("left to the dzagentd that runs") == 1
    assert not stage.file.path.exists()
    assert state(stage.kernel) == stage.after


def test_a_living_agent_does_it_by_itself(stage: Stage) -> None:
    stage.busy = 1000
    stage.then = lambda: stage.file.clear() if stage.now > 103 else None
    assert stage.run(wait=True) == 0
    assert stage.kernel.links["doublezero0"].tunnel == MOVED


def test_an_agent_that_hangs_is_waited_for_and_then_told(stage: Stage) -> None:
    stage.busy = 10_000
    assert stage.run(wait=True) == 1
    assert 200 < stage.now < 300
    stage.busy, stage.now = 10_000, 100.0
    assert stage.run() == 1


def test_an_agent_that_dies_after_the_deadline_leaves_it_to_us(stage: Stage) -> None:
    stage.busy = 3
    assert stage.run(wait=True) == 0
    assert state(stage.kernel) == stage.before


def test_a_step_that_fails_is_tried_again(stage: Stage) -> None:
    stage.now = 100.0
    stage.kernel.faults = [Fault(lambda _: True, Result.TRANSIENT) for _ in range(4)]
    assert stage.run() == 0
    assert state(stage.kernel) == stage.before


def test_what_cannot_be_done_is_given_up_and_told(stage: Stage) -> None:
    stage.now = 100.0
    stage.kernel.faults = [Fault(lambda _: True, Result.PERMANENT) for _ in range(100)]
    assert stage.run() == 1
    assert stage.file.read() is None
    assert stage.undone.read() is not None


def test_a_kernel_that_cannot_be_read_leaves_the_file_for_the_next_run(stage: Stage) -> None:
    stage.now = 100.0
    stage.kernel.observe_error = KernelError("ip was not found")
    with pytest.raises(KernelError):
        stage.run()
    assert stage.file.read() == stage.pending


def test_a_full_disk_does_not_stop_it(stage: Stage) -> None:
    stage.now = 100.0
    stage.undone.path.mkdir()
    assert stage.run() == 0
    assert state(stage.kernel) == stage.before
    assert stage.file.read() is None


def test_a_checkpoint_that_cannot_be_read_is_moved_away_once(stage: Stage) -> None:
    stage.file.path.write_text("{")
    stage.busy = 1
    assert stage.run() == 1
    assert stage.file.path.exists(), "an agent runs"
    assert stage.run(wait=True) == 1
    assert not stage.file.path.exists()
    assert stage.run(wait=True) == 0
    assert state(stage.kernel) == stage.after


def test_a_confirmation_at_the_last_moment_counts(stage: Stage) -> None:
    def lock() -> int:
        stage.file.clear()
        return 7

    stage.now = 100.0
    stage.lock = lock  # type: ignore[method-assign]
    assert stage.run() == 0
    assert (state(stage.kernel), stage.given) == (stage.after, 1)


def test_it_is_remembered_before_the_checkpoint_is_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: CheckpointFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointFile, "clear", cut_off)
    with pytest.raises(KeyboardInterrupt):
        finish(stage.file, stage.undone, Undone("ab12", 1.0, (MOVED,), (LINK,)))
    assert stage.undone.read() is not None


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command_has_nothing_to_do_without_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"directories:\n  run: {tmp_path}/run\n  state: {tmp_path}/state\n")
    for options in (["--rollback"], ["--rollback", "--wait"]):
        done = CliRunner().invoke(main, ["--config", str(file), *options])
        assert (done.exit_code, done.output) == (0, "")
    lock = take_lock(tmp_path / "run" / "agent" / "lock")
    assert CliRunner().invoke(main, ["--config", str(file), "--rollback"]).exit_code == 0
    os.close(lock)
    assert CliRunner().invoke(main, ["--wait"]).exit_code == 2


# ---- the process that outlives the agent -------------------------------------------------------------------------


def test_a_detached_process_has_a_session_of_its_own_and_finds_our_modules(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import os, dzagent; print(os.getsid(0) == os.getpid(), dzagent.__name__)"
    pid = detach(("-c", code), log=str(out))
    for _ in range(1000):
        if reap(pid):
            break
        time.sleep(0.01)
    assert out.read_text() == "True dzagent\n"
    assert reap(pid), "it is nobody's child any more"
    assert sys.executable


def test_a_program_that_is_not_there_is_a_kernel_error(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="could not be started"):
        detach((), program=str(tmp_path / "none"))
