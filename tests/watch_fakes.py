"""A watch, a child and a kernel in memory, for tests of what is read again and when."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from dzagent.kernel.watch import WatchView
from dzagent.kernel.watchlines import NOTHING, Lines, Touched
from dzagent.model import Interest, Observed, Route
from tests.fake_kernel import FakeKernel


@dataclass
class RereadKernel(FakeKernel):
    """A fake kernel that is read in parts; `reread_touched` records what was asked for."""

    reread_touched: list[Touched] = field(default_factory=list)

    def reread(self, interest: Interest, touched: Touched, before: Observed) -> Observed:
        """Answer through the real reader: what was not touched stays as it was `before`, right or wrong."""
        self.reread_touched.append(touched)
        if self.observe_error is not None:
            raise self.observe_error
        return self._ip.reread(interest, touched, before)


@dataclass
class FakeWatch:
    """Says what a test says."""

    healthy: bool = True
    pending: Touched = NOTHING
    lines: Lines | None = None

    def attend(self, lines: Lines) -> None:
        """Remember how to judge."""
        self.lines = lines

    def take(self) -> Touched:
        """Hand over what was touched."""
        touched, self.pending = self.pending, NOTHING
        return touched

    def view(self) -> WatchView:
        """Return how it is."""
        return WatchView(self.healthy, "" if self.healthy else "a test says so")

    def hear(self, *lines: str) -> None:
        """Judge lines as the real watch does."""
        assert self.lines is not None, "nobody attends"
        self.pending |= self.lines.judge("\n".join(lines).encode())


@dataclass
class ScriptedChild:
    """A child that says what a test says, then ends or waits."""

    script: deque[bytes | None]
    pid: int = 1
    ended: bool = False
    _nudge: threading.Event = field(default_factory=threading.Event)

    def read(self, seconds: float | None) -> bytes | None:
        """Return the next piece; at the end of the script wait for an interrupt."""
        if self.script:
            return self.script.popleft()
        self._nudge.wait(30 if seconds is None else seconds)
        return b""

    def interrupt(self) -> None:
        """Wake a reader."""
        self._nudge.set()

    def end(self) -> int:
        """Note that it was ended."""
        self.ended = True
        return -9


def route_line(route: Route, *, deleted: bool = False) -> str:
    """Return what `ip monitor` prints for a route."""
    dst = str(route.dst.network_address) if route.dst.prefixlen == 32 else str(route.dst)
    src = f" src {route.src}" if route.src is not None else ""
    gone = "Deleted " if deleted else ""
    return (
        f"[ROUTE]{gone}1 {'default' if route.dst.prefixlen == 0 else dst} via {route.via} dev {route.dev} "
        f"table {route.table} proto {route.protocol} scope 0{src} "
    )


def pieces(*said: bytes | None) -> deque[bytes | None]:
    """Return a script."""
    return deque(said)


def children(*scripts: Sequence[bytes | None]) -> list[ScriptedChild]:
    """Return children for these scripts."""
    return [ScriptedChild(deque(script), pid=number) for number, script in enumerate(scripts, 1)]
