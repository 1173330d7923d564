"""What the loop is made of: every effect behind a type that tests replace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from dzagent.bgp.changes import Changes
from dzagent.bgp.joining import Learned
from dzagent.bgp.view import BgpView
from dzagent.config import Config
from dzagent.desired import DesiredStore
from dzagent.feed import LedgerView
from dzagent.foreign.firststart import TakenOver
from dzagent.foreign.turns import Hindrance
from dzagent.hostfacts import HostProbe
from dzagent.intent import IntentReader
from dzagent.journal import Journal
from dzagent.kernel.protocol import Kernel
from dzagent.kernel.watched import WatchedKernel
from dzagent.model import Route, ServiceName
from dzagent.neighbours import Around
from dzagent.notify import Pulse
from dzagent.policy import Policy
from dzagent.render import Templates
from dzagent.report import Reporter
from dzagent.wishes import Wishes


class Feed(Protocol):
    """What the loop needs of the ledger side."""

    def view(self) -> LedgerView:
        """Return the newest view without waiting."""

    def enable(self, enabled: bool) -> None:
        """Poll, or rest."""

    def poke(self) -> None:
        """Poll at once, if enabled."""


class Bgp(Protocol):
    """What the loop needs of BGP. Nothing here waits for the engine."""

    def want(self, wishes: Wishes, installed: Iterable[Route]) -> frozenset[ServiceName]:
        """Have a session for every service; return the services whose routes must stay as they are."""

    def learned(self) -> tuple[int, Learned]:
        """Return the routes that may be installed now, and the version that this is."""

    def changes(self, since: int) -> Changes | None:
        """Return what changed after a version, None if the whole has to be taken."""

    def installed(self, routes: Mapping[tuple[ServiceName, str], Route]) -> None:
        """Take in which learned routes the kernel holds."""

    def view(self) -> BgpView:
        """Return everything for people."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop is made of; every effect behind a type that tests replace.

    turn: entered for every pass, gives the reason why it may not write, None if it may. taken_over: what became of
    doublezerod's state at this start.
    watched: `kernel` again, if it is watched.
    """

    config: Config
    policy: Policy
    kernel: Kernel
    feed: Feed
    store: DesiredStore
    templates: Templates
    intent: IntentReader
    probe: HostProbe
    reporter: Reporter
    now: Callable[[], float]
    bgp: Bgp | None = None
    turn: Callable[[], AbstractContextManager[Hindrance | None]] = nullcontext
    taken_over: TakenOver = field(default_factory=TakenOver)
    watched: WatchedKernel | None = None
    pulse: Pulse = field(default_factory=Pulse)
    journal: Journal = field(default_factory=Journal)
    around: Around | None = None
    managers: Callable[[], tuple[str, ...]] = tuple
    unix: Callable[[], float] = time.time
    helper: Callable[[], None] | None = None
