"""The process: one reconciler at a time, and a start that needs neither RPC nor root."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from dzagent.config import Config, Doublezerod, Paths
from dzagent.daemon import Daemon
from dzagent.dzagentd import main
from dzagent.errors import StateError
from dzagent.lock import LOCK_SECONDS, _advice, take_lock
from dzagent.marks import ownership, read_marks
from dzagent.notify import Pulse
from dzagent.policy import Policy
from dzagent.state import Intent, read_intent


def test_a_second_reconciler_is_refused_after_a_moment(tmp_path: Path) -> None:
    waited: list[float] = []
    held = take_lock(tmp_path / "agent" / "lock")
    with pytest.raises(StateError, match="another dzagentd runs"):
        take_lock(tmp_path / "agent" / "lock", wait=waited.append)
    assert 0.5 * LOCK_SECONDS < sum(waited) <= LOCK_SECONDS
    os.close(held)
    os.close(take_lock(tmp_path / "agent" / "lock", wait=waited.append))


def test_whoever_only_looks_at_the_lock_does_not_stop_a_start(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    os.close(take_lock(path, wait=lambda _: os.close(looking) if _open(looking) else None))


def test_a_lock_of_others_says_what_to_do() -> None:
    assert "use sudo, or start the service" in _advice(PermissionError(13, "Permission denied"))
    assert _advice(OSError(28, "No space left on device")) == ""


def _open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_without_an_rpc_endpoint_the_agent_runs_and_says_what_to_configure(tmp_path: Path) -> None:
    config = Config(paths=Paths(tmp_path / "state", tmp_path / "run"))
    config.paths.agent.mkdir(parents=True)
    daemon = Daemon(config)
    daemon._ledger.feed.poll_once()
    view = daemon._ledger.feed.view()
    daemon._socket.stop()
    assert view.error is not None
    assert "rpc is not set" in view.error


def started(tmp_path: Path, state: str) -> Config:
    """Start where doublezerod has left this state."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "state.json").write_text(state)
    places = Doublezerod(tmp_path / "old", tmp_path / "old.sock")
    config = Config(paths=Paths(tmp_path / "state", tmp_path / "run"), doublezerod=places)
    config.paths.agent.mkdir(parents=True)
    Daemon(config)._socket.stop()
    return config


def test_the_first_start_takes_over_what_doublezerod_was_told(tmp_path: Path) -> None:
    config = started(tmp_path, '{"reconciler_enabled":true}')
    assert read_intent(config.paths.intent) == Intent(True)
    assert config.paths.taken_over.exists()


def test_a_corrupt_state_of_doublezerods_ends_no_start(tmp_path: Path) -> None:
    config = started(tmp_path, '{"reconciler_enabled":tr')
    assert read_intent(config.paths.intent) is None


def test_a_run_leaves_its_marks_and_says_that_it_stops(tmp_path: Path) -> None:
    config = Config(paths=Paths(tmp_path / "state", tmp_path / "run"))
    config.paths.agent.mkdir(parents=True)
    heard: list[bytes] = []
    daemon = Daemon(config, Pulse(heard.append))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    daemon._stopping.set()
    try:
        daemon.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert read_marks(config) == ownership(config, Policy())
    assert heard == [b"STOPPING=1"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("network: [", "config.yaml:"),
        ("netwrok: testnet\n", "netwrok"),
        ("network: moon\n", "moon"),
        ("policy: nothing-like-this\n", "nothing-like-this"),
        ("intervals: {poll: 0}\n", "poll"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_2(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config.yaml"
    directories = f"directories: {{state: {tmp_path}/state, run: {tmp_path}/run}}\n"
    path.write_text(directories + text)
    done = CliRunner().invoke(main, ["--config", str(path)])
    assert done.exit_code == 2
    assert done.stderr.startswith("dzagentd: ")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
