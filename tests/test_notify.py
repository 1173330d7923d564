"""What the service manager hears: ready when it is true, alive while the loop is, and one line."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dzagent.daemon import beating
from dzagent.errors import KernelError
from dzagent.kernel.run import Completed
from dzagent.marks import ownership
from dzagent.notify import MAX_STATUS, Pulse, _Sender, pulse_of
from dzagent.ownership import NO_CLAIMS
from dzagent.reconcile import Reconciler
from dzagent.wake import Wake
from tests.test_reconcile import World

NOBODY: frozenset[str] = frozenset()


@dataclass
class Manager:
    """Collects messages, and the times for which the loop waited; answers a wait with the next of `reasons`."""

    heard: list[bytes] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    reasons: list[frozenset[str]] = field(default_factory=list)

    def send(self, message: bytes) -> None:
        self.heard.append(message)

    def wait(self, seconds: float) -> frozenset[str]:
        self.waits.append(seconds)
        return self.reasons.pop(0) if self.reasons else NOBODY


def test_ready_is_said_once_and_not_before_the_kernel_was_read() -> None:
    manager = Manager()
    pulse = Pulse(manager.send)
    pulse.rest(manager.wait, 1, "Disabled: the agent is disabled")
    assert manager.heard == [b"STATUS=Disabled: the agent is disabled"]
    pulse.observed()
    assert len(manager.heard) == 1  # not in the middle of a pass
    for _ in range(3):
        pulse.rest(manager.wait, 1, "Disabled: the agent is disabled")
    assert manager.heard[1:] == [b"READY=1"]


def test_a_long_rest_is_cut_so_that_a_beat_comes_twice_in_the_time_of_the_watchdog() -> None:
    manager = Manager()
    pulse = Pulse(manager.send, watchdog=20)
    assert pulse.rest(manager.wait, 35) == NOBODY
    assert manager.waits == [10, 10, 10, 5]
    assert manager.heard == [b"WATCHDOG=1"] * 4


def test_a_reason_ends_the_rest() -> None:
    manager = Manager(reasons=[NOBODY, frozenset({"ledger"})])
    assert Pulse(manager.send, watchdog=2).rest(manager.wait, 60) == {"ledger"}
    assert manager.waits == [1, 1]


def test_without_a_watchdog_the_rest_is_one_and_nothing_is_sent() -> None:
    manager = Manager()
    Pulse(manager.send).rest(manager.wait, 60)
    Pulse(manager.send).beat()
    assert manager.waits == [60]
    assert manager.heard == []


def test_only_the_loop_is_the_sign_of_life() -> None:
    manager = Manager()
    pulse = Pulse(manager.send, watchdog=20)
    other = threading.Thread(target=pulse.beat)
    other.start()
    other.join()
    assert manager.heard == []
    pulse.beat()
    assert manager.heard == [b"WATCHDOG=1"]


def test_every_program_of_a_pass_is_a_beat_even_if_it_fails() -> None:
    manager = Manager()
    pulse = Pulse(manager.send, watchdog=20)

    def program(program: str, args: Sequence[str], stdin: str = "") -> Completed:  # noqa: ARG001 - a Runner
        if not args:
            raise KernelError("ip did not end within 10 s and was killed.")
        return Completed(0, b"", b"")

    runner = beating(program, pulse.beat)
    assert runner("ip", ("link",)).code == 0
    with pytest.raises(KernelError):
        runner("ip", ())
    assert manager.heard == [b"WATCHDOG=1"] * 2


@pytest.mark.parametrize("text", ["a\nREADY=1\nMAINPID=1", "\x1b[31mred\x00", "é" * 1000, "x\udcff"])
def test_the_status_is_one_bounded_line_whatever_it_says(text: str) -> None:
    manager = Manager()
    Pulse(manager.send).rest(manager.wait, 1, text)
    (message,) = manager.heard
    line = message.decode()
    assert line.startswith("STATUS=")
    assert line.isprintable()
    assert len(line) <= MAX_STATUS + len("STATUS=")


@contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize("abstract", [False, True])
def test_datagrams_reach_the_socket_of_the_environment(tmp_path: Path, abstract: bool) -> None:
    name = f"@dzagent-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "7", "PATH": "/bin"}
    with _listening("\0" + name[1:] if abstract else name) as sock:
        pulse = pulse_of(environ, 7)
        pulse.observed()
        pulse.rest(lambda _: NOBODY, 1.0)
        pulse.stopping()
        assert [sock.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("usec", "pid"), [("4000000", "8"), ("", "7"), ("soon", "7"), ("-5", "7"), ("0", "7"), ("4e6", "7")]
)
def test_a_watchdog_that_is_not_for_us_is_none(tmp_path: Path, usec: str, pid: str) -> None:
    name = str(tmp_path / "notify")
    with _listening(name) as sock:
        pulse = pulse_of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}, 7)
        pulse.rest(lambda _: NOBODY, 1.0, "x")
        assert sock.recv(100) == b"STATUS=x"
        sock.setblocking(False)
        with suppress(BlockingIOError):
            pytest.fail(f"unexpected message {sock.recv(100)!r}")


@pytest.mark.parametrize("name", ["", "@", "vsock:2:1234", "relative", "/gone/notify"])
def test_no_listener_costs_nothing(name: str) -> None:
    pulse = pulse_of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"}, 1)
    pulse.observed()
    assert pulse.rest(lambda _: frozenset({"wake"}), 1.0, "x") == {"wake"}
    pulse.stopping()


def test_a_manager_that_does_not_read_costs_a_message_and_not_the_loop(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with _listening(name) as sock:
        send = _Sender(name, timeout=0.001)
        for _ in range(1000):  # more than the queue of a socket holds
            send(b"WATCHDOG=1")
        assert sock.recv(100) == b"WATCHDOG=1"


# ---- in the loop -------------------------------------------------------------------------------------------


class Loop:
    """A loop with a ledger that never answers, stopped after some passes."""

    def __init__(self, tmp_path: Path, passes: int) -> None:
        self.world, self.manager, self._left = World(tmp_path), Manager(), passes
        parts = replace(self.world.loop._parts, pulse=Pulse(self.manager.send, watchdog=1000))
        self.loop = Reconciler(parts)

    def run(self) -> list[bytes]:
        wake = Wake()
        wake.wait = self._wait  # type: ignore[method-assign] # no time passes
        self.loop.run(wake, lambda: self._left <= 0)
        return [line for message in self.manager.heard for line in message.splitlines()]

    def _wait(self, timeout: float, ignoring: frozenset[str] = NOBODY) -> frozenset[str]:  # noqa: ARG002 - as Wake's
        self._left -= 1
        return NOBODY


def test_the_loop_is_ready_after_a_pass_without_waiting_for_a_ledger(tmp_path: Path) -> None:
    heard = Loop(tmp_path, 3).run()
    assert heard.count(b"READY=1") == 1
    assert heard.index(b"READY=1") < 2
    assert b"STATUS=Disabled: nobody has enabled or disabled the agent yet" in heard
    assert heard.count(b"WATCHDOG=1") >= 3


def test_a_loop_that_cannot_read_the_kernel_is_alive_and_not_ready(tmp_path: Path) -> None:
    loop = Loop(tmp_path, 2)
    loop.world.kernel.observe_error = KernelError("ip did not end within 10 s and was killed.")
    heard = loop.run()
    assert b"READY=1" not in heard
    assert heard.count(b"WATCHDOG=1") >= 2
    assert any(line.startswith(b"STATUS=KernelError: ip did not end") for line in heard)


def test_the_marks_of_a_teardown_are_those_of_the_loop(tmp_path: Path) -> None:
    world = World(tmp_path)
    owner = replace(world.loop._owner, claims=NO_CLAIMS)
    assert ownership(world.config, world.policy) == owner
