"""`dzagent resync`: asked for, waited for, refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.api_fakes import NOW, Done, World, config_file, run


@pytest.fixture
def world(tmp_path: Path) -> World:
    config_file(tmp_path)
    return World.at(tmp_path)


def dzagent(world: World, *words: str) -> Done:
    return run("--config", str(world.config.paths.state.parent / "config.yaml"), *words)


def answering(world: World, result: str, message: str = "") -> threading.Thread:
    """Answer one request as dzagentd does."""

    def answer() -> None:
        with world.agent() as wake:
            token = wake.recv(64).decode().removeprefix("resync:")
            last = {"token": token, "result": result, "message": message, "at": NOW}
            world.publish(last_resync=last)
            wake.settimeout(2)
            while True:
                try:
                    wake.recv(64)
                except OSError:
                    return

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def listening(world: World) -> None:
    while not world.config.paths.wake.exists():
        pass


def test_waiting_ends_when_it_is_done(world: World) -> None:
    world.publish()
    with world.serving():
        thread = answering(world, "done")
        listening(world)
        done = dzagent(world, "resync", "--wait")
        thread.join()
    assert done == Done(0, "the whole kernel was looked at; see `dzagent status`\n", "")


def test_why_it_was_not_done(world: World) -> None:
    world.publish()
    with world.serving():
        thread = answering(world, "failed", "ip could not read the kernel's state")
        listening(world)
        done = dzagent(world, "resync", "--wait", "--json")
        thread.join()
    assert done.code == 1
    assert done.err == "dzagent: the kernel was not looked at: ip could not read the kernel's state\n"
    assert json.loads(done.out)["done"] is False


def test_without_an_agent_it_is_refused(world: World) -> None:
    with world.serving():
        done = dzagent(world, "resync")
    assert done.code == 1
    assert "systemctl start dzagentd" in done.err


def test_without_wait(world: World) -> None:
    with world.serving(), world.agent():
        assert dzagent(world, "resync").out == "asked for a look at the whole kernel; see `dzagent status`\n"
        assert json.loads(dzagent(world, "resync", "--json").out)["done"] is None
        late = dzagent(world, "resync", "--wait", "--timeout", "0.2")
        assert late.code == 1
        assert "dzagentd has not looked yet" in late.err
