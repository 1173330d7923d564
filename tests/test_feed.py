"""The poll thread: the newest sound answer stays, failures are told, a disabled agent asks nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from dzagent.errors import Unreachable, Unusable
from dzagent.feed import FetchStats, LedgerFeed, Timing, rpc_hosts
from dzagent.ledger.accounts import GlobalConfig
from dzagent.ledger.snapshot import Snapshot

IP = IPv4Address("198.51.100.7")


def picture(slot: int, *, complete: bool = True) -> Snapshot:
    """Make a snapshot that says nothing."""
    return Snapshot(slot, "g", GlobalConfig(), complete=complete)


class ScriptedPoller:
    """Answers with the next item of a script; an exception is raised."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[tuple[IPv4Address, ...]] = []
        self.polled = threading.Event()

    def poll(self, client_ips: Sequence[IPv4Address]) -> Snapshot:
        self.asked.append(tuple(client_ips))
        self.polled.set()
        answer = self.script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return cast("Snapshot", answer)


def make(poller: ScriptedPoller, news: Callable[[], None] = lambda: None) -> tuple[LedgerFeed, list[Any]]:
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
        timing=Timing(now=lambda: float(next(ticks)), monotonic=lambda: 0.0, jitter=lambda: 1.0),
    )
    return feed, reports


def test_a_failure_keeps_the_last_sound_snapshot_and_its_age() -> None:
    good = picture(7)
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
    assert reports[-1]["polls"] == {"success": 1, "error": 2}


def test_a_defect_in_a_poll_does_not_end_the_thread() -> None:
    feed, _ = make(ScriptedPoller(RuntimeError("boom"), picture(1)))
    feed.poll_once()
    assert feed.view().error_code == "InternalError"
    feed.poll_once()
    assert feed.view().error is None


def test_a_disabled_agent_asks_nothing_and_an_enabled_one_at_once() -> None:
    poller = ScriptedPoller(picture(1))
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
    feed, _ = make(ScriptedPoller(picture(1), picture(2)))
    feed.enable(True)
    feed.poll_once()
    assert feed.view().snapshot is not None
    feed.enable(False)
    feed.enable(True)
    assert (feed.view().snapshot, feed.view().searched) == (None, frozenset())
    feed.poll_once()
    assert feed.view().snapshot is not None


def test_a_poke_polls_before_the_interval_is_over() -> None:
    poller = ScriptedPoller(picture(1), picture(2))
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


def test_unproven_absence_is_asked_again_soon() -> None:
    feed, _ = make(ScriptedPoller(picture(1, complete=False)))
    assert feed._delay() == 0
    feed.poll_once()
    assert feed._delay() == 2
    feed, _ = make(ScriptedPoller(picture(1)))
    feed.poll_once()
    assert feed._delay() == 3600


@pytest.mark.parametrize(("seconds", "slot"), [(0.05, 0), (0.1, 0), (0.11, 1), (121, 9)])
def test_durations_fall_into_cumulative_buckets(seconds: float, slot: int) -> None:
    stats = FetchStats().count(ok=True, had_data=False, seconds=seconds)
    assert stats.buckets == tuple(int(i >= slot) for i in range(10))
    assert stats.as_json()["fetch_buckets"]["+Inf"] == 1


def test_only_the_host_of_an_url_is_shown() -> None:
    assert rpc_hosts(["https://rpc.example:8899/secret-token"]) == ("rpc.example",)
