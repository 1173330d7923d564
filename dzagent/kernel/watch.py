"""The watch over the kernel: `ip monitor` as a long-lived child, whose lines say what has to be read again.

A thread reads it, judges what it says, and wakes the loop. Whatever may have been missed (a child that ended, events
that the kernel dropped) touches everything. While no child listens, `healthy` is False and nothing that the watch
does not say means anything: then the loop reads everything, often.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tenacity
from tenacity.wait import wait_base

from dzagent.errors import KernelError
from dzagent.kernel.children import Child, Starter
from dzagent.kernel.children import start as start_child
from dzagent.kernel.watchlines import EVERYTHING, NOTHING, OBJECTS, OPTIONS, Lines, Touched

log = logging.getLogger(__name__)

CALM, BUSY = 0.004, 0.02
"""Seconds between two reads, after a little and after much: a storm is read in large pieces."""

MUCH: Final = 8192
"""Bytes in one read that mean a storm: about 80 events."""

MAX_LINE: Final = 65_536
"""Bytes of a line that does not end: no line of `ip` is that long, and what was lost is not known."""

READY_SECONDS: Final = 5.0
"""How long a child may take until it listens."""

STEADY_SECONDS: Final = 60.0
"""A child that lived this long was not a failure: the next one starts at once."""

RETRY: Final = tenacity.wait_exponential(multiplier=0.25, max=30) + tenacity.wait_random(0, 0.25)


@dataclass(frozen=True, slots=True)
class WatchView:
    """The watch for people. healthy: whether a child listens; `message` says why not. Counters are of this process."""

    healthy: bool
    message: str = ""
    restarts: int = 0
    overruns: int = 0


class Watch:
    """One watch over one network namespace. `take`, `attend` and `view` are for the loop's thread."""

    def __init__(
        self,
        on_news: Callable[[], None],
        *,
        clock: Callable[[], float],
        starter: Starter = start_child,
        options: Sequence[str] = (),
        listens: Callable[[int], bool] | None = None,
        retry: wait_base = RETRY,
    ) -> None:
        """Prepare it; `start` starts it.

        on_news: called whenever something was touched. clock: monotonic seconds. options: arguments of `ip` before
        all others. listens: tells of a process id whether it listens to the kernel's events by now.
        """
        self._on_news = on_news
        self._clock = clock
        self._starter = starter
        self._args = (*options, *OPTIONS, *OBJECTS)
        self._listens = listens or is_listening
        self._retry = retry
        self._lock = threading.Lock()
        self._lines: Lines | None = None
        self._touched = NOTHING
        self._view = WatchView(healthy=False, message="it has not started yet")
        self._child: Child | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    # ---- for the loop --------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether every change of the kernel since the last `take` is known."""
        return self._view.healthy

    def view(self) -> WatchView:
        """Return how the watch is, for people."""
        return self._view

    def attend(self, lines: Lines) -> None:
        """Say what matters from now on; until then nothing does."""
        self._lines = lines

    def take(self) -> Touched:
        """Return what was touched since the last time."""
        with self._lock:
            touched, self._touched = self._touched, NOTHING
            return touched

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the child and the thread."""
        self._stopping.set()
        with self._lock:
            if self._child is not None:
                self._child.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = self._clock()
            why = self._life()
            if self._stopping.is_set():
                break
            failures = 0 if self._clock() - began >= STEADY_SECONDS else failures + 1
            self._say(healthy=False, message=why, restarts=self._view.restarts + 1)
            log.warning("the watch over the kernel ended: %s", why)
            if failures > 1:
                self._on_news()  # the loop must not rely on it meanwhile
                self._stopping.wait(self._delay(failures - 1))

    def _life(self) -> str:
        """Run one child from its start to its end; return why it ended."""
        try:
            child = self._starter("ip", self._args)
        except KernelError as error:
            return str(error)
        with self._lock:
            self._child = child
        why = "it was stopped"
        try:
            why = self._follow(child)
        except Exception:  # the thread's boundary: a defect must not end the watch for good
            log.exception("unexpected failure of the watch over the kernel")
            why = "an internal error"
        finally:
            with self._lock:
                self._child = None
            code = child.end()
        return f"{why} (`ip monitor` ended with {code})"

    def _follow(self, child: Child) -> str:
        """Read until the end, or until told to stop."""
        ready_by, rest = self._clock() + READY_SECONDS, b""
        while not self._stopping.is_set():
            if not self._view.healthy and self._is_ready(child, ready_by):
                self._say(healthy=True)
                self.note(EVERYTHING)
            said = child.read(None if self._view.healthy else 0.01)
            if said is None:
                return rest.decode(errors="replace").strip()[-200:] or "it ended by itself"
            if not said:
                continue
            whole, _, rest = (rest + said).rpartition(b"\n")
            self._judge(whole)
            if len(rest) > MAX_LINE:
                rest = b""
                self.note(EVERYTHING)
            self._stopping.wait(BUSY if len(said) >= MUCH else CALM)
        return "it was stopped"

    def _is_ready(self, child: Child, ready_by: float) -> bool:
        """Tell whether the child listens: before that, events are lost unseen."""
        return bool(self._listens(child.pid)) or self._clock() >= ready_by

    def _judge(self, lines: bytes) -> None:
        judge = self._lines
        if judge is None or not lines:
            return
        touched = judge.judge(lines)
        if touched == EVERYTHING:
            self._say(healthy=self._view.healthy, overruns=self._view.overruns + 1)
        if touched:
            self.note(touched)

    def note(self, touched: Touched) -> None:
        """Take in that something was touched; for other watches, too."""
        with self._lock:
            self._touched |= touched
        self._on_news()

    def _say(
        self, *, healthy: bool, message: str = "", restarts: int | None = None, overruns: int | None = None
    ) -> None:
        before = self._view
        self._view = WatchView(
            healthy,
            message,
            before.restarts if restarts is None else restarts,
            before.overruns if overruns is None else overruns,
        )

    def _delay(self, attempt: int) -> float:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = attempt
        return self._retry(state)


def is_listening(pid: int, proc: Path = Path("/proc")) -> bool:
    """Tell whether a process is certainly subscribed to routing events of its namespace.

    /proc/PID/net/netlink: one socket a line, with protocol, port (its owner's process id) and groups.
    """
    try:
        text = (proc / str(pid) / "net" / "netlink").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[1] == "0" and words[2] == str(pid):
            return words[3].strip("0") != ""
    return False
