"""What a person wants, as the loop sees it: doubt is a value, and the last readable wish holds."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.intent import IntentReader, IntentView, intent_stamp
from dzagent.state import Intent, write_intent

PIN = IPv4Address("198.51.100.7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def test_silence_is_no_wish(path: Path) -> None:
    view = IntentReader(path).read()
    assert (view.enabled, view.silent, view.readable, view.stamp) == (False, True, True, 0)
    assert "nobody has enabled" in view.message


@pytest.mark.parametrize("intent", [Intent(True), Intent(False), Intent(True, PIN)])
def test_a_wish_is_read_as_it_was_written(path: Path, intent: Intent) -> None:
    write_intent(path, intent)
    view = IntentReader(path).read()
    assert view == IntentView(intent.enabled, intent.client_ip, stamp=intent_stamp(path))
    assert view.stamp > 0


def test_the_stamp_changes_with_every_write_even_of_the_same_wish(path: Path) -> None:
    reader = IntentReader(path)
    stamps = []
    for number in range(50):
        write_intent(path, Intent(number % 2 == 0))
        stamps.append(reader.read().stamp)
    assert len(set(stamps)) == 50
    assert reader.read().stamp == stamps[-1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "true",
        "[]",
        '{"reconciler_enabled": null}',
        '{"reconciler_enabled": "yes"}',
        '{"reconciler_enabled": 1}',
        '{"Reconciler_Enabled": true}',
        '{"reconciler_enabled": true, "client_ip": "::1"}',
        '{"reconciler_enabled": true, "client_ip": 3325256711}',
        '{"reconciler_enabled": true, "client_ip": ["198.51.100.7"]}',
        '{"reconciler_enabled": true, "client_ip": "198.51.100.007"}',
        '{"reconciler_enabled": true, "client_ip": "0.0.0.0"}',
        '{"reconciler_enabled": true, "client_ip": "127.0.0.1"}',
        '{"reconciler_enabled": true, "client_ip": "224.0.0.1"}',
        '{"reconciler_enabled": true, "client_ip": "255.255.255.255"}',
        '{"reconciler_enabled": true, "client_ip": "%s"}' % ("9" * 5000),
    ],
)
def test_a_file_that_says_nothing_sound_changes_nothing(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    fresh = IntentReader(path).read()
    assert (fresh.enabled, fresh.client_ip, fresh.readable, fresh.silent) == (None, None, False, False)
    assert str(path) in fresh.message
    assert "dzagent enable" in fresh.message
    assert len(fresh.message) < 500


def test_what_upstream_writes_is_read(path: Path) -> None:
    for text in ('{"reconciler_enabled":true}', '{"reconciler_enabled":true,"client_ip":"","x":[1]}'):
        path.write_text(text, encoding="utf-8")
        assert IntentReader(path).read() == IntentView(enabled=True, stamp=intent_stamp(path))


def test_a_broken_file_leaves_the_last_wish_in_force_until_the_next(path: Path) -> None:
    reader = IntentReader(path)
    write_intent(path, Intent(True, PIN))
    before = reader.read()
    path.write_text("{", encoding="utf-8")
    broken = reader.read()
    assert (broken.enabled, broken.client_ip, broken.readable) == (True, PIN, False)
    assert broken.stamp != before.stamp
    write_intent(path, Intent(False))
    after = reader.read()
    assert (after.enabled, after.client_ip, after.readable, after.message) == (False, None, True, "")


def test_a_pipe_or_a_folder_in_its_place_is_doubt_and_nobody_waits(path: Path) -> None:
    os.mkfifo(path)
    assert IntentReader(path).read().enabled is None
    path.unlink()
    path.mkdir()
    assert IntentReader(path).read().enabled is None
    write_intent(path, Intent(True))
    assert IntentReader(path).read().enabled is True


def test_a_lost_file_is_silence_again(path: Path) -> None:
    reader = IntentReader(path)
    write_intent(path, Intent(True))
    assert reader.read().enabled is True
    path.unlink()
    assert (reader.read().enabled, reader.read().silent) == (False, True)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_view(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    view = IntentReader(path).read()
    assert view.enabled in {None, True, False}
    assert view.readable == (view.enabled is not None)
