"""The watch: what its child says is passed on, what may be lost touches everything, and an end is not the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tenacity.wait import wait_none

from dzagent.errors import KernelError
from dzagent.kernel.children import Child, start
from dzagent.kernel.watch import MAX_LINE, Watch, is_listening
from dzagent.kernel.watchlines import EVERYTHING, NOTHING, Lines
from dzagent.model import Interest
from tests.watch_fakes import ScriptedChild, children

DELETED = b"[ROUTE]Deleted 1 198.18.0.1 via 169.254.0.4 dev doublezero0 table 254 proto 210 scope 0 src 198.51.100.7 \n"
SLOT = (254, IPv4Network("198.18.0.1/32"))


@dataclass
class Nursery:
    """Hands out children, then fails; counts what it was asked for."""

    children: Sequence[ScriptedChild | KernelError]
    asked: list[Sequence[str]] = field(default_factory=list)

    def __call__(self, program: str, args: Sequence[str]) -> Child:
        self.asked.append((program, *args))
        if len(self.asked) > len(self.children):
            raise KernelError("The program ip was not found: install the package iproute2.")
        child = self.children[len(self.asked) - 1]
        if isinstance(child, KernelError):
            raise child
        return child


@contextmanager
def watching(
    nursery: Nursery, listens: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[Watch, Callable[[Callable[[], object]], None]]]:
    """Run a watch, and give a way to wait for what it comes to."""
    news = threading.Condition()

    def tell() -> None:
        with news:
            news.notify_all()

    watch = Watch(tell, clock=lambda: 0.0, starter=nursery, listens=listens, retry=wait_none())
    watch.attend(Lines(Interest(210, ("doublezero0",))))

    def until(look: Callable[[], object]) -> None:
        with news:
            assert news.wait_for(lambda: bool(look()), 30)

    watch.start()
    try:
        yield watch, until
    finally:
        watch.stop()


def test_what_it_hears_is_passed_on() -> None:
    found = []
    nursery = Nursery(children([b"", DELETED[:20], DELETED[20:] + b"[RU", b"LE]7:\tfrom all lookup 7\n"]))
    with watching(nursery) as (watch, until):

        def heard() -> bool:
            found.append(watch.take())
            return any(touched.rules and not touched.everything for touched in found)

        until(heard)
        assert watch.healthy
    assert found[0].everything or any(touched.everything for touched in found)
    assert any(SLOT in touched.slots for touched in found)
    assert nursery.asked[0][:3] == ("ip", "-4", "-N")
    assert nursery.children[0].ended  # type: ignore[union-attr] # it is a child


def test_nothing_counts_before_it_listens() -> None:
    asked: list[int] = []

    def listens(pid: int) -> bool:
        asked.append(pid)
        return len(asked) > 3

    nursery = Nursery(children([b"", b"", DELETED]))
    with watching(nursery, listens) as (watch, until):
        until(lambda: watch.healthy)
        assert asked == [1] * 4


def test_an_end_touches_everything_and_starts_another() -> None:
    nursery = Nursery(children([b"", None], [b"bad luck\n", None], [b""]))
    with watching(nursery) as (watch, until):
        until(lambda: watch.healthy and watch.view().restarts == 2)
        assert watch.take().everything
    assert [child.ended for child in nursery.children] == [True] * 3  # type: ignore[union-attr] # children


def test_why_it_ended_is_told() -> None:
    nursery = Nursery(children([b"Cannot open netlink socket: Permission denied", None]))
    with watching(nursery) as (watch, until):
        until(lambda: watch.view().restarts >= 2)
        assert not watch.healthy
        assert "install the package iproute2" in watch.view().message


def test_lost_events_and_lines_without_end_touch_everything() -> None:
    lost = b"netlink receive error No buffer space available (105)\n"
    nursery = Nursery(children([b"", lost, b"x" * (MAX_LINE + 1), DELETED]))
    with watching(nursery) as (watch, until):
        until(lambda: SLOT in watch._touched.slots or watch.view().overruns)
        until(lambda: SLOT in watch._touched.slots)
        assert watch.view().overruns == 1
        assert watch.take().everything
        assert watch.take() == NOTHING


def test_a_defect_is_not_the_end() -> None:
    class Broken(ScriptedChild):
        def read(self, seconds: float | None) -> bytes | None:  # noqa: ARG002 - the protocol's
            raise ZeroDivisionError

    good = children([b""])
    nursery = Nursery([Broken(good[0].script), *children([b""])])
    with watching(nursery) as (watch, until):
        until(lambda: watch.healthy and watch.view().restarts == 1)


def test_what_was_never_started_can_be_stopped() -> None:
    Watch(lambda: None, clock=lambda: 0.0).stop()


@pytest.mark.parametrize(
    ("line", "listens"),
    [
        ("00000000c0c14a3f 0 77 000000d1 0 0 0 2 0 1", True),
        ("00000000c0c14a3f 0 77 00000000 0 0 0 2 0 1", False),
        ("00000000c0c14a3f 0 78 000000d1 0 0 0 2 0 1", False),
        ("00000000c0c14a3f 9 77 000000d1 0 0 0 2 0 1", False),
        ("odd", False),
    ],
)
def test_the_kernel_says_who_listens(tmp_path: Path, line: str, listens: bool) -> None:
    file = tmp_path / "77" / "net" / "netlink"
    file.parent.mkdir(parents=True)
    file.write_text(f"sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n{line}\n")
    assert is_listening(77, tmp_path) is listens
    assert is_listening(1, tmp_path) is False


def test_everything_is_everything() -> None:
    assert EVERYTHING.everything
    assert callable(start)
