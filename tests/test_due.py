"""The wait for the time of an unconfirmed change: short of memory, and over as soon as it was confirmed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dzagent.due import STEP, wait_until_due

HEAVY = ("asyncio", "jinja2", "sh", "solders", "dzagent.grammar", "dzagent.policy", "dzagent.reconcile")


class Clock:
    """Seconds since boot, which pass by sleeping; `after` runs once, when so many have passed."""

    def __init__(self, confirmed_at: float | None = None, path: Path | None = None) -> None:
        self.now, self.confirmed_at, self.path = 100.0, confirmed_at, path

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= STEP
        self.now += seconds
        if self.path is not None and self.confirmed_at is not None and self.now >= self.confirmed_at:
            self.path.unlink(missing_ok=True)


def checkpoint(path: Path, deadline: Any) -> Path:
    path.write_text(json.dumps({"version": 1, "deadline": deadline}))
    return path


def test_it_waits_for_the_deadline_and_no_longer(tmp_path: Path) -> None:
    clock = Clock()
    assert wait_until_due(checkpoint(tmp_path / "rollback.json", 107.25), clock, clock.sleep)
    assert clock.now == 107.25


def test_a_deadline_that_has_passed_is_due_at_once(tmp_path: Path) -> None:
    clock = Clock()
    assert wait_until_due(checkpoint(tmp_path / "rollback.json", 99.0), clock, clock.sleep)
    assert clock.now == 100.0


def test_a_confirmation_ends_the_wait(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "rollback.json", 3700.0)
    clock = Clock(confirmed_at=103.0, path=path)
    assert not wait_until_due(path, clock, clock.sleep)
    assert clock.now == 103.0


def test_without_a_checkpoint_nothing_is_due(tmp_path: Path) -> None:
    clock = Clock()
    assert not wait_until_due(tmp_path / "rollback.json", clock, clock.sleep)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"deadline": "soon"}', '{"deadline": NaN}', '{"deadline": 1e999}']
)
def test_what_cannot_be_read_is_due_and_not_waited_for(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rollback.json"
    path.write_text(text)
    clock = Clock()
    assert wait_until_due(path, clock, clock.sleep)
    assert clock.now == 100.0


def test_the_command_that_waits_imports_little() -> None:
    lines = f"import sys, dzagent.dzagentd; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
