"""The poll thread: the newest sound answer stays, failures are told, a disabled agent asks nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from dzagent.errors import LaggingNode, LedgerChanged, StateError, Unreachable, Unusable
from dzagent.feed import Extras, FetchStats, LedgerFeed, LedgerView, Timing, rpc_hosts
from dzagent.ledger.poller import Cost
from dzagent.ledger.schedule import HINTS_A_MINUTE, Hints
from dzagent.ledger.snapshot import Snapshot

IP = IPv4Address("198.51.100.7")


class FakeSnapshot:
    """Only what the feed reads of a snapshot."""

    def __init__(self, slot: int, *, complete: bool = True) -> None:
        self.slot = slot
        self.genesis_hash = "g"
        self.complete = complete


class ScriptedPoller:
    """Answers with the next item of a script; an exception is raised."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.cost = Cost("direct", 1, 700, 1600)
        self.refusal = ""
        self.forgotten = 0
        self.asked: list[tuple[IPv4Address, ...]] = []
        self.polled = threading.Event()

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        self.asked.append(tuple(client_ips))
        self.polled.set()
        answer = self.script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return cast("Snapshot", answer)

    def forget(self) -> None:
        self.forgotten += 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def make(
    poller: ScriptedPoller, news: Callable[[], None] = lambda: None, **more: Any
) -> tuple[LedgerFeed, list[Any]]:
    reports: list[Any] = []
    ticks = iter(range(1000, 100_000))
    feed = LedgerFeed(
        poller,
        candidates=lambda: [IP],
        on_news=news,
        publish=reports.append,
        resolve=lambda: frozenset({IPv4Address("192.0.2.9")}),
        endpoint=lambda: "rpc.example",
        interval=3600,
        timing=Timing(
            now=lambda: float(next(ticks)), monotonic=more.pop("clock", lambda: 0.0), jitter=lambda: 1.0
        ),
        **more,
    )
    return feed, reports


def test_a_failure_keeps_the_last_sound_snapshot_and_its_age() -> None:
    good: Any = FakeSnapshot(7)
    feed, reports = make(
        ScriptedPoller(good, Unreachable("rpc.example: refused"), Unusable("no GlobalConfig"))
    )
    feed.poll_once()
    first = feed.view()
    feed.poll_once()
    feed.poll_once()
    view = feed.view()
    assert (first.snapshot, first.searched, first.error) == (good, frozenset({IP}), None)
    assert view.snapshot is good
    assert view.fetched_at == first.fetched_at < view.attempted_at
    assert (view.error, view.error_code) == ("no GlobalConfig", "Unusable")
    assert view.rpc_addresses == {IPv4Address("192.0.2.9")}
    assert [report["error"] for report in reports] == [None, "rpc.example: refused", "no GlobalConfig"]
    assert reports[-1]["fetch"] == {"success": 1, "error_stale": 2, "error_no_cache": 0}
    assert reports[-1]["polls"] == {"success": 1, "error": 2, "lagging": 0}


def test_a_defect_in_a_poll_does_not_end_the_thread() -> None:
    feed, _ = make(ScriptedPoller(RuntimeError("boom"), FakeSnapshot(1)))
    feed.poll_once()
    assert feed.view().error_code == "InternalError"
    feed.poll_once()
    assert feed.view().error is None


def test_a_disabled_agent_asks_nothing_and_an_enabled_one_at_once() -> None:
    poller = ScriptedPoller(FakeSnapshot(1))
    news = threading.Event()
    feed, _ = make(poller, news.set)
    feed.start()
    try:
        feed.enable(False)
        assert poller.asked == []
        feed.enable(True)
        assert news.wait(30)
        assert poller.asked == [(IP,)]
    finally:
        feed.stop()


def test_an_answer_from_before_it_was_enabled_again_proves_nothing() -> None:
    feed, _ = make(ScriptedPoller(FakeSnapshot(1), FakeSnapshot(2)))
    feed.enable(True)
    feed.poll_once()
    assert feed.view().snapshot is not None
    feed.enable(False)
    feed.enable(True)
    assert (feed.view().snapshot, feed.view().searched) == (None, frozenset())
    feed.poll_once()
    assert feed.view().snapshot is not None


def test_a_poke_polls_before_the_interval_is_over() -> None:
    poller = ScriptedPoller(FakeSnapshot(1), FakeSnapshot(2))
    news = threading.Semaphore(0)
    feed, _ = make(poller, news.release)
    feed.start()
    try:
        feed.enable(True)
        assert news.acquire(timeout=30)
        feed.poke()
        assert news.acquire(timeout=30)
        snapshot = feed.view().snapshot
        assert snapshot is not None
        assert snapshot.slot == 2
    finally:
        feed.stop()


def delays(*script: Any, interval: float = 3600) -> list[float]:
    """Return the seconds from each poll of a script to the next."""
    clock = Clock()
    feed, _ = make(ScriptedPoller(*script), clock=clock)
    found = []
    for _ in script:
        feed.poll_once()
        found.append(feed._due - clock.now)
    return [round(seconds / interval * 10, 3) if seconds > 10 else seconds for seconds in found]


def test_unproven_absence_is_asked_again_soon_but_not_for_ever() -> None:
    unproven = FakeSnapshot(1, complete=False)
    assert delays(FakeSnapshot(1)) == [10]
    assert delays(*[unproven] * 5, FakeSnapshot(1), unproven) == [2, 2, 2, 10, 10, 10, 2]


def test_failures_make_polls_rarer_and_a_late_answer_soon_follows() -> None:
    down, late = Unreachable("x"), LaggingNode("late")
    assert delays(*[down] * 5, FakeSnapshot(1)) == [10, 15, 20, 30, 30, 10]
    assert delays(*[late] * 4) == [2, 2, 2, 10]


def test_a_lagging_node_is_no_error_and_changes_nothing() -> None:
    good: Any = FakeSnapshot(7)
    feed, reports = make(ScriptedPoller(good, Unreachable("down"), LaggingNode("node is behind")))
    for _ in range(3):
        feed.poll_once()
    view = feed.view()
    assert (view.snapshot, view.error, view.error_code, view.lagging) == (good, None, "", "node is behind")
    assert reports[-1]["polls"] == {"success": 1, "error": 1, "lagging": 1}
    assert reports[-1]["errors"] == {"Unreachable": 1}
    assert reports[-1]["poll"] == {
        "requests": 1,
        "bytes_sent": 700,
        "bytes_received": 1600,
        "milliseconds": 0.0,
        "searched": False,
    }


def test_age_is_measured_on_the_monotonic_clock() -> None:
    clock = Clock()
    feed, _ = make(ScriptedPoller(FakeSnapshot(1), Unreachable("x")), clock=clock)
    assert feed.view().age(500.0) is None
    feed.enable(True)
    assert feed.view().age(130.0) == 30.0
    clock.now = 140.0
    feed.poll_once()
    clock.now = 150.0
    feed.poll_once()
    assert feed.view().age(200.0) == 60.0


# ---- hints ---------------------------------------------------------------------------------------------------


def test_a_hint_wakes_the_thread() -> None:
    poller = ScriptedPoller(FakeSnapshot(1), FakeSnapshot(2))
    news = threading.Semaphore(0)
    feed, _ = make(poller, news.release, clock=time.monotonic)
    feed.start()
    try:
        feed.enable(True)
        assert news.acquire(timeout=30)
        feed.hint(2)
        assert news.acquire(timeout=30)
    finally:
        feed.stop()


def test_hints_keep_a_gap_are_spread_and_bounded() -> None:
    clock, chance = Clock(), Clock()
    chance.now = 0.5
    hints = Hints(clock, chance)
    hints.hint(5, last_poll=50.0)
    assert hints.due() == 100.1
    hints.hint(9, last_poll=50.0)
    assert hints.taken == 1
    assert hints.polled() == 9
    assert hints.due() is None
    hints.hint(0, last_poll=99.9)
    assert hints.due() == 100.4
    for _ in range(1000):
        hints.polled()
        hints.hint(0, last_poll=99.9)
    assert (hints.taken, hints.ignored) == (HINTS_A_MINUTE, 982)
    assert not hints.due()
    clock.now = 104.0
    hints.hint(0, last_poll=99.9)
    assert hints.due()


def test_an_answer_older_than_its_hint_is_asked_again_soon() -> None:
    clock = Clock()
    feed, _ = make(ScriptedPoller(FakeSnapshot(8), FakeSnapshot(9)), clock=clock)
    feed.hint(9)
    feed.poll_once()
    assert feed._due - clock.now == 2
    feed.poll_once()
    assert feed._due - clock.now == 3600


# ---- what outlives a process -----------------------------------------------------------------------------------


def restored() -> LedgerView:
    return LedgerView(cast("Snapshot", FakeSnapshot(5)), frozenset({IP}), 900.0, read_at=1.0, restored=True)


def test_what_was_stored_counts_until_the_first_answer() -> None:
    feed, reports = make(ScriptedPoller(Unreachable("down"), FakeSnapshot(6)), view=restored())
    feed.enable(True)
    feed.poll_once()
    view = feed.view()
    assert (view.restored, view.fetched_at, view.error) == (True, 900.0, "down")
    assert reports[-1]["restored"]
    feed.poll_once()
    assert (feed.view().restored, feed.view().error) == (False, None)


def test_what_was_stored_does_not_bring_back_what_was_disabled() -> None:
    feed, _ = make(ScriptedPoller(), view=restored())
    feed.enable(False)
    feed.enable(True)
    assert (feed.view().snapshot, feed.view().restored) == (None, False)


class FakeStore:
    def __init__(self) -> None:
        self.saved: list[Any] = []
        self.cleared = 0

    def save(self, snapshot: Snapshot, searched: frozenset[IPv4Address]) -> None:
        self.saved.append((snapshot.slot, searched))

    def clear(self) -> None:
        self.cleared += 1


def test_sound_answers_are_stored_and_followed() -> None:
    store, seen = FakeStore(), []
    extras = Extras(store=store, followed=lambda snapshot, ips: seen.append((snapshot.slot, ips)))
    feed, _ = make(ScriptedPoller(FakeSnapshot(1), Unreachable("x"), LaggingNode("x")), extras=extras)
    feed.enable(True)
    for _ in range(3):
        feed.poll_once()
    assert store.saved == [(1, {IP})]
    assert seen == [(1, (IP,))]


def test_a_disabled_agent_is_told_to_rest_and_follows_nothing() -> None:
    rests, seen = [], []
    extras = Extras(followed=lambda snapshot, _: seen.append(snapshot.slot), rest=lambda: rests.append(1))
    feed, _ = make(ScriptedPoller(FakeSnapshot(1), FakeSnapshot(2)), extras=extras)
    feed.enable(False)
    feed.enable(True)
    feed.poll_once()
    feed.enable(False)
    feed.enable(False)
    feed.poll_once()
    assert (rests, seen) == ([1], [1])


def test_a_defect_after_a_poll_costs_neither_the_thread_nor_the_answer() -> None:
    def broken(_snapshot: Any, _ips: Any) -> None:
        raise RuntimeError("boom")

    feed, _ = make(ScriptedPoller(FakeSnapshot(1)), extras=Extras(followed=broken))
    feed.enable(True)
    feed.poll_once()
    assert feed.view().snapshot is not None


def test_another_ledger_changes_nothing_until_a_person_forgets_the_old_one() -> None:
    store, asked = FakeStore(), [False, False, True, False]
    poller = ScriptedPoller(FakeSnapshot(1), LedgerChanged("another"), FakeSnapshot(2), FakeSnapshot(3))
    extras = Extras(store=store, forget_asked=lambda: asked.pop(0))
    feed, _ = make(poller, extras=extras)
    feed.poll_once()
    feed.poll_once()
    assert (feed.view().error_code, feed.view().snapshot is not None) == ("LedgerChanged", True)
    assert (poller.forgotten, store.cleared) == (0, 0)
    feed.poll_once()
    assert (poller.forgotten, store.cleared) == (1, 1)
    assert feed.view().error is None


def test_a_policy_may_accept_another_ledger() -> None:
    store = FakeStore()
    poller = ScriptedPoller(FakeSnapshot(1), LedgerChanged("another"), FakeSnapshot(2))
    feed, _ = make(poller, extras=Extras(store=store, accept_change=True))
    feed.poll_once()
    feed.poll_once()
    assert (poller.forgotten, store.cleared, feed.view().snapshot) == (1, 1, None)
    assert feed._due == 2.0


def test_a_report_that_cannot_be_written_does_not_end_the_thread() -> None:
    def full(_: Any) -> None:
        raise StateError("no space")

    feed, _ = make(ScriptedPoller(FakeSnapshot(1)))
    feed._publish = full
    feed.poll_once()
    assert feed.view().snapshot is not None


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (None, ""),
        (299.0, ""),
        (-301.0, "5 minutes behind"),
        (365 * 86400.0, "365 days ahead of"),
        (-7300.0, "2 hours behind"),
    ],
)
def test_a_wrong_clock_is_told_roughly(offset: float | None, said: str) -> None:
    doubt = LedgerView(clock_offset=offset).clock_doubt
    assert (said in doubt) if said else not doubt


@pytest.mark.parametrize(("seconds", "slot"), [(0.05, 0), (0.1, 0), (0.11, 1), (121, 9)])
def test_durations_fall_into_cumulative_buckets(seconds: float, slot: int) -> None:
    stats = FetchStats().count(ok=True, had_data=False, seconds=seconds)
    assert stats.buckets == tuple(int(i >= slot) for i in range(10))
    assert stats.as_json()["fetch_buckets"]["+Inf"] == 1


def test_only_the_host_of_an_url_is_shown() -> None:
    assert rpc_hosts(["https://rpc.example:8899/secret-token"]) == ("rpc.example",)
