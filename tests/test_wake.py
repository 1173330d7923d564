"""Reasons reach the loop, from threads and from datagrams."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dzagent.errors import StateError
from dzagent.state import send_wake
from dzagent.wake import MAX_REASONS, Wake, WakeSocket


def test_reasons_are_collected_and_taken_once() -> None:
    wake = Wake()
    wake.set("ledger")
    wake.set("intent")
    assert wake.wait(0) == {"ledger", "intent"}
    assert wake.wait(0) == frozenset()


def test_a_reason_ends_the_wait() -> None:
    wake = Wake()
    thread = threading.Thread(target=wake.set, args=("intent",))
    thread.start()
    assert wake.wait(30) == {"intent"}
    thread.join()


def test_a_datagram_is_a_reason(tmp_path: Path) -> None:
    wake = Wake()
    sock = WakeSocket(tmp_path / "wake", wake)
    sock.start()
    try:
        assert send_wake(tmp_path / "wake", "intent")
        assert wake.wait(30) == {"intent"}
    finally:
        sock.stop()
    assert not (tmp_path / "wake").exists()


def test_an_empty_or_odd_datagram_is_a_reason_and_not_the_end(tmp_path: Path) -> None:
    wake = Wake()
    sock = WakeSocket(tmp_path / "wake", wake)
    sock.start()
    try:
        for sent, said in ((b"", "wake"), (b"\xff", "\ufffd"), (b"x" * 999, "x" * 64)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(sent, str(tmp_path / "wake"))
            assert wake.wait(30) == {said}
    finally:
        sock.stop()


def test_reasons_without_end_do_not_fill_the_memory() -> None:
    wake = Wake()
    for number in range(10 * MAX_REASONS):
        wake.set(str(number))
    assert len(wake.wait(0)) == MAX_REASONS


def test_what_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    WakeSocket(tmp_path / "wake", Wake()).stop()
    assert not (tmp_path / "wake").exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    first = WakeSocket(tmp_path / "wake", Wake())
    second = WakeSocket(tmp_path / "wake", Wake())
    first._socket.close()
    second._socket.close()


def test_a_path_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="wake"):
        WakeSocket(tmp_path / "missing" / "wake", Wake())
