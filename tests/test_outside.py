"""The outside look-up: one public IPv4 address or nothing, never waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from dzagent import outside
from dzagent.errors import Unreachable, Unusable
from dzagent.outside import REFRESH, RETRY, Outside, fetch, read_address
from tests.test_rpc import Handler, Reply, Server, free_port, hang, raw

PUBLIC = IPv4Address("8.9.10.11")


@pytest.mark.parametrize("answer", [b"8.9.10.11", b"8.9.10.11\n", b" 8.9.10.11 \r\n"])
def test_an_address_is_read(answer: bytes) -> None:
    assert read_address(answer) == PUBLIC


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"2001:db8::1",
        b"8.9.10",
        b"8.9.10.11 8.9.10.12",
        b"08.9.10.11",
        b"\xff",
        b"10.0.0.1",
        b"127.0.0.1",
        b"100.64.0.1",
        b"169.254.1.1",
        b"192.168.1.1",
        b"224.0.0.1",
        b"255.255.255.255",
        b"0.0.0.0",
        b"203.0.113.1",
    ],
)
def test_anything_but_one_public_address_is_refused(answer: bytes) -> None:
    with pytest.raises(Unusable):
        read_address(answer)


class Web(Handler):
    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        self.server.reply(self, {})


def got(reply: Reply) -> bytes:
    server = Server(("127.0.0.1", 0), Web)
    server.reply = reply
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        return fetch(f"http://127.0.0.1:{server.server_address[1]}/ip")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_answer_is_fetched() -> None:
    assert got(raw(b"8.9.10.11\n")) == b"8.9.10.11\n"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (raw(b"8.9.10.11", 500), "HTTP 500"),
        (raw(b"", 302, location="/x"), "HTTP 302"),
        (raw(b"1" * 257), "more than an address"),
    ],
)
def test_bad_answers_are_unreachable(reply: Reply, said: str) -> None:
    with pytest.raises(Unreachable, match=said):
        got(reply)


def test_slow_and_missing_servers_are_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "SECONDS", 0.2)
    with pytest.raises(Unreachable, match="within"):
        got(hang)
    with pytest.raises(Unreachable, match="failed"):
        fetch(f"http://127.0.0.1:{free_port()}/")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(*answers: Any) -> tuple[Outside, Clock, list[str], Callable[[], int]]:
    clock, script, news = Clock(), list(answers), [0]

    def tell() -> None:
        news[0] += 1

    asked: list[str] = []

    def answer(url: str) -> bytes:
        asked.append(url)
        found = script.pop(0)
        if isinstance(found, Exception):
            raise found
        return bytes(found)

    return Outside("https://h/ip", clock=clock, on_news=tell, fetch=answer), clock, asked, lambda: news[0]


def test_a_failure_keeps_the_address_that_was_known() -> None:
    asker, _, _, news = make(b"8.9.10.11", Unreachable("down"), RuntimeError("x"), b"8.9.10.12")
    assert (asker.known(), asker.server) == (None, "h")
    asker.look_up()
    assert (asker.known(), asker.error, news()) == (PUBLIC, "", 1)
    asker.look_up()
    assert (asker.known(), asker.error, news()) == (PUBLIC, "down", 1)
    asker.look_up()
    assert (asker.known(), news()) == (PUBLIC, 1)
    assert "RuntimeError" in asker.error
    asker.look_up()
    assert (str(asker.known()), news()) == ("8.9.10.12", 2)


def test_it_is_asked_no_more_often_than_needed() -> None:
    asker, clock, asked, _ = make(Unreachable("down"), b"8.9.10.11", b"8.9.10.11", b"8.9.10.11")

    def ask(at: float, expected: int) -> None:
        clock.now = at
        asker.ask()
        for thread in threading.enumerate():
            if thread.name == "outside":
                thread.join()
        assert len(asked) == expected

    ask(0.0, 1)
    ask(RETRY - 1, 1)
    ask(RETRY, 2)
    ask(RETRY + REFRESH - 1, 2)
    ask(RETRY + REFRESH, 3)
    asker.again()
    ask(RETRY + REFRESH + 1, 4)
