"""The watch over nftables hears of every generation, survives lost ones, and is quiet where it cannot listen."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable

import pytest

from dzagent.kernel.generations import GenerationWatch
from tests.api_fakes import eventually


class Ear:
    """A watch on one end of a pair of sockets; what it was told is counted."""

    def __init__(self) -> None:
        self.kernel, here = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told = 0
        self._lock = threading.Lock()
        self.watch = GenerationWatch(self._tell, lambda: here)

    def _tell(self) -> None:
        with self._lock:
            self.told += 1

    def hears(self, what: str, look: Callable[[], object]) -> None:
        eventually(what, look)


def test_each_generation_is_news() -> None:
    ear = Ear()
    ear.watch.start()
    ear.hears("the start", lambda: ear.told == 1)
    ear.hears("it listens", lambda: ear.watch.healthy)
    ear.kernel.send(b"\0" * 44)
    ear.hears("a generation", lambda: ear.told == 2)
    for _ in range(50):
        ear.kernel.send(b"\0" * 44)
    ear.hears("more of them", lambda: ear.told > 2)
    ear.watch.stop()
    assert ear.told < 50  # many in a row are one piece of news
    assert not ear.watch.healthy
    ear.kernel.close()


@pytest.mark.parametrize(("number", "survives"), [(errno.ENOBUFS, True), (errno.EBADF, False)])
def test_lost_messages_are_news_and_a_broken_socket_is_the_end(number: int, survives: bool) -> None:
    class Failing(socket.socket):
        failed = False

        def recv(self, *_: int) -> bytes:
            if not Failing.failed:
                Failing.failed = True
                raise OSError(number, "no")
            raise BlockingIOError

    kernel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    failing = Failing(fileno=other.detach())
    told = [0]
    watch = GenerationWatch(lambda: told.__setitem__(0, told[0] + 1), lambda: failing)
    kernel.send(b"x")
    watch.start()
    eventually("news", lambda: told[0] >= 2)
    eventually("its health", lambda: watch.healthy is survives)
    watch.stop()
    kernel.close()


def test_where_it_may_not_listen_it_is_quiet() -> None:
    def refused() -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    watch = GenerationWatch(lambda: None, refused)
    watch.start()
    assert not watch.healthy
    watch.stop()
