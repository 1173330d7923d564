"""Intent on disk: what was written is read back, what is broken is refused and never lost."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dzagent.errors import StateError
from dzagent.intent import IntentReader
from dzagent.state import (
    ApplyRequest,
    Intent,
    read_apply_request,
    read_intent,
    request_apply,
    send_wake,
    write_first_intent,
    write_intent,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "intent" / "state.json"


@pytest.mark.parametrize("intent", [Intent(True), Intent(False), Intent(True, IPv4Address("198.51.100.7"))])
def test_what_was_written_is_read_back(path: Path, intent: Intent) -> None:
    write_intent(path, intent)
    assert read_intent(path) == intent


def test_nobody_said_anything(path: Path) -> None:
    assert read_intent(path) is None


def test_the_keys_are_those_of_doublezerod(path: Path) -> None:
    write_intent(path, Intent(True))
    assert '"reconciler_enabled": true' in path.read_text()


BROKEN = (
    "",
    "{",
    "[]",
    "{}",
    '{"reconciler_enabled": 1}',
    '{"reconciler_enabled": "true"}',
    "[" * 200_000,
    "\0",
    '{"reconciler_enabled": true, "client_ip": 7}',
    '{"reconciler_enabled": true, "client_ip": "1.2.3"}',
)


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_refused_and_set_aside_by_the_next_write(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StateError, match=r"state\.json"):
        read_intent(path)
    write_intent(path, Intent(True))
    assert read_intent(path) == Intent(True)
    assert path.with_name("state.json.corrupt").read_text() == text


def test_a_failed_write_leaves_the_old_intent(path: Path) -> None:
    write_intent(path, Intent(True))
    path.parent.joinpath("lock").unlink()
    path.parent.joinpath("lock").mkdir()  # root may write anywhere, but nobody can open a folder for writing
    with pytest.raises(StateError):
        write_intent(path, Intent(False))
    assert read_intent(path) == Intent(True)


def test_a_broken_file_stays_in_place_until_the_new_one_is_there(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")
    for nth in range(2):  # an older copy does not stand in the way
        path.write_text("{" * (nth + 1))
        write_intent(path, Intent(True))
        assert path.with_name("state.json.corrupt").read_text() == "{" * (nth + 1)
    path.write_text("{")
    path.parent.chmod(0o755)
    path.with_name("state.json.corrupt").unlink()
    path.with_name("state.json.corrupt").mkdir()  # now it cannot be kept aside
    write_intent(path, Intent(False))
    assert read_intent(path) == Intent(False)


def test_no_temporary_files_are_left(path: Path) -> None:
    write_intent(path, Intent(True))
    assert sorted(p.name for p in path.parent.iterdir()) == ["lock", "state.json"]


def test_a_request_names_a_plan(path: Path) -> None:
    request = path.with_name("apply.json")
    assert read_apply_request(request) is None
    request_apply(request, "0123abcd")
    assert read_apply_request(request) == ApplyRequest("0123abcd")
    with pytest.raises(StateError, match="plan id"):
        request_apply(request, "../../etc")
    request.write_text('{"plan_id": 3}')
    with pytest.raises(StateError, match="plan_id"):
        read_apply_request(request)


def test_wake_reaches_a_listener_and_tolerates_none(tmp_path: Path) -> None:
    assert not send_wake(tmp_path / "nobody", "intent")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "wake"))
        assert send_wake(tmp_path / "wake", "intent")
        assert listener.recv(64) == b"intent"


def test_a_reader_keeps_the_last_readable_intent(path: Path) -> None:
    reader = IntentReader(path)
    assert (reader.read().enabled, reader.read().silent) == (False, True)
    write_intent(path, Intent(True))
    first = reader.read()
    path.write_text("{")
    broken = reader.read()
    assert (first.enabled, broken.enabled, broken.readable) == (True, True, False)
    assert "dzagent enable" in broken.message
    assert broken.stamp != first.stamp


def test_a_reader_that_never_read_anything_does_not_guess(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")
    assert IntentReader(path).read().enabled is None


def test_a_first_intent_never_replaces_one(path: Path) -> None:
    assert write_first_intent(path, Intent(True))
    assert not write_first_intent(path, Intent(False))
    assert read_intent(path) == Intent(True)
    path.write_text("{")
    assert not write_first_intent(path, Intent(False))
    assert path.read_text() == "{"
