"""The words for a session: doublezerod's, at its times, and steady."""

from __future__ import annotations

import pytest

from dzagent.bgp.engine import PeerState
from dzagent.bgp.session import DOWN, FAILED, INITIALIZING, PENDING, UNREACHABLE, UP, Session

REFUSED = "Socket: Connection refused"
BAD_AS = "BGP Error: Bad peer AS"
CLOSED = "Socket: Connection closed"
NEW = PeerState("Idle", "s")
ESTABLISHED = PeerState("Established", "up")


def attempts(session: Session, errors: list[str], start: float, until: float) -> list[str]:
    """Fail about once a second with these errors in turn; return the words of each look."""
    words, now, turn = [], start, 0
    while now < until:
        error = errors[turn % len(errors)]
        for retry in (0.9, 0.4):
            words.append(session.see(PeerState("Active", "s", error, retry), now).status)
            now += 0.5
        turn += 1
    return words


def test_pending_then_up() -> None:
    session = Session(100.0)
    assert session.view.status == PENDING
    assert session.view.last_update == 100.0
    assert session.see(NEW, 100.2).status == PENDING
    assert session.see(PeerState("OpenConfirm", "s"), 100.4).status == INITIALIZING
    view = session.see(ESTABLISHED, 101.0)
    assert (view.status, view.last_update, view.up_since, view.waited) == (UP, 101.0, 101.0, 1.0)


def test_the_network_is_unreachable_after_thirty_seconds() -> None:
    session = Session(0.0)
    words = attempts(session, ["Socket: No route to host"], 0.0, 60.0)
    assert set(words[:59]) == {PENDING}
    assert set(words[61:]) == {UNREACHABLE}
    assert session.view.reason == "Unreachable"


def test_a_wrong_as_is_failed_for_as_long_as_it_is_wrong() -> None:
    session = Session(0.0)
    words = attempts(session, [BAD_AS, CLOSED, CLOSED], 0.0, 600.0)
    assert FAILED in words[:20]
    first = words.index(FAILED)
    assert set(words[first:]) == {FAILED}
    assert session.view.reason == "BadPeerAS"
    assert session.view.failures > 100
    assert session.view.failed_at > 590


def test_a_refusal_is_counted_once_an_attempt() -> None:
    session = Session(0.0)
    attempts(session, [REFUSED], 0.0, 10.0)
    assert 9 <= session.view.failures <= 11
    assert session.view.reason == "Refused"


def test_a_loss_is_down_then_pending_and_says_why() -> None:
    session = Session(0.0)
    session.see(ESTABLISHED, 1.0)
    view = session.see(PeerState("Idle", "s2", "BGP Error: Hold timer expired", 0.9), 10.0)
    assert (view.status, view.reason, view.failures) == (DOWN, "HoldTimer", 1)
    assert session.see(PeerState("Idle", "s2", "BGP Error: Hold timer expired", 0.5), 14.0).status == DOWN
    assert (
        session.see(PeerState("Active", "s2", "BGP Error: Hold timer expired", 0.3), 15.1).status == PENDING
    )
    view = session.see(ESTABLISHED, 16.0)
    assert (view.status, view.failures, view.reason, view.waited) == (UP, 0, "", 1.0)


def test_a_path_that_dies_later_is_unreachable() -> None:
    session = Session(0.0)
    session.see(ESTABLISHED, 1.0)
    words = attempts(session, ["Socket: No route to host"], 100.0, 140.0)
    assert words[-1] == UNREACHABLE


def test_an_open_connection_that_fails_is_failed_after_thirty_seconds() -> None:
    session = Session(0.0)
    words = attempts(session, ["Socket: Connection reset by peer"], 0.0, 40.0)
    assert (words[50], words[-1]) == (PENDING, FAILED)


def test_another_session_that_is_up_at_the_next_look() -> None:
    session = Session(0.0)
    session.see(ESTABLISHED, 1.0)
    view = session.see(PeerState("Established", "later"), 9.0)
    assert (view.status, view.last_update) == (UP, 9.0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("Error: No listening socket", "ListenerPort"),
        ("Received: Maximum number of prefixes reached", "PrefixLimit"),
        ("Received: Administrative shutdown", "ShutByPeer"),
        ("Received: Connection rejected", "RefusedByPeer"),
        ("Error: Link down", "LinkDown"),
        ("BGP Error: Unacceptable hold time", "ProtocolError"),
        ("Socket: Connection timed out", "Unreachable"),
        ("Something new", "Failed"),
    ],
)
def test_reasons(error: str, code: str) -> None:
    session = Session(0.0)
    assert session.see(PeerState("Idle", "s", error), 1.0).reason == code
    assert error in session.view.message


def test_a_hostile_shutdown_message_stays_one_short_line() -> None:
    session = Session(0.0)
    message = session.see(PeerState("Idle", "s", "Received: Administrative\x1b[2J" + "x" * 500), 1.0).message
    assert message.isprintable()
    assert len(message) < 200
