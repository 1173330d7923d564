"""The server: whatever one client does or leaves undone, another is answered. Real sockets, a clock of our own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dzagent.api.connection import Answer, Connection, Limits, State
from dzagent.api.pool import Job, Pool
from dzagent.api.server import Server
from tests.api_fakes import ask, closed, connect, listening, read_answer, request_bytes, threaded

LIMITS = Limits(connections=20, discard=256 * 1024)
BIG = 4 * 1024 * 1024


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class App:
    """Answers with the request line; some paths are special. `gate` holds up what changes something."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.seen: list[bytes] = []

    def __call__(self, raw: bytes) -> Answer:
        line = raw.lstrip(b"\r\n").split(b"\r\n")[0]
        self.seen.append(line)
        if line.startswith(b"POST /slow"):
            self.started.release()
            self.gate.wait()
        if b"/broken" in line:
            raise RuntimeError("a defect")
        body = b"x" * BIG if b"/big" in line else line
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        return Answer(head + body, close=b"Connection: close" in raw)


class Running:
    """A server with its clock and its application."""

    def __init__(self, path: Path, server: Server, app: App, clock: Clock) -> None:
        self.path, self.server, self.app, self.clock = path, server, app, clock

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.server.wake()

    def works(self) -> bool:
        """Whether a new client is answered."""
        return ask(self.path, "GET", "/hello")[2] == b"GET /hello HTTP/1.1"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    app, clock = App(), Clock()
    path = tmp_path / "sock"
    with listening(path) as listener, threaded(listener, app, LIMITS, clock) as server:
        yield Running(path, server, app, clock)
        app.gate.set()


def test_a_request_is_answered_and_the_connection_goes_on(running: Running) -> None:
    with connect(running.path) as sock:
        for _ in range(3):
            sock.sendall(request_bytes("GET", "/a"))
            assert read_answer(sock)[2] == b"GET /a HTTP/1.1"
        sock.sendall(request_bytes("GET", "/b", b"", "Connection: close"))
        assert read_answer(sock)[2] == b"GET /b HTTP/1.1"
        assert closed(sock)


def test_requests_sent_in_one_go_are_answered_in_order(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(b"".join(request_bytes("GET", f"/{n}") for n in range(50)))
        data = b""
        while data.count(b"200 OK") < 50 or not data.endswith(b"GET /49 HTTP/1.1"):
            data += sock.recv(65536)
    assert [data.find(b"GET /%d " % n) for n in range(50)] == sorted(
        data.find(b"GET /%d " % n) for n in range(50)
    )


def test_a_request_may_come_byte_by_byte(running: Running) -> None:
    with connect(running.path) as sock:
        for byte in request_bytes("POST", "/enable", b"{}"):
            sock.send(bytes([byte]))
        assert read_answer(sock)[0] == 200


def test_a_client_that_stops_sending_is_told_and_closed(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(b"GET /status HTTP/1.1\r\n")
        assert running.works()
        running.later(LIMITS.request + 1)
        assert read_answer(sock)[0] == 408
        assert closed(sock)


def test_a_dripping_client_has_no_more_time_than_others(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(b"GET /")
        assert running.works()
        for _ in range(int(LIMITS.request) - 1):
            running.later(1)
            sock.send(b"x")
            assert running.works()
        running.later(2)
        assert read_answer(sock)[0] == 408


def test_a_client_that_says_nothing_is_closed(running: Running) -> None:
    with connect(running.path) as silent:
        assert running.works()
        running.later(LIMITS.request + 1)
        assert closed(silent)


def test_an_idle_connection_is_closed_after_a_while(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(request_bytes("GET", "/a"))
        read_answer(sock)
        assert running.works(), "the server has turned to other things, and its time has begun"
        running.later(LIMITS.idle - 1)
        assert running.works()
        sock.sendall(request_bytes("GET", "/a"))
        assert read_answer(sock)[0] == 200, "it was not closed too early"
        assert running.works()
        running.later(LIMITS.idle + 1)
        assert closed(sock)


def test_a_client_that_does_not_read_holds_up_nobody_and_is_dropped(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(request_bytes("GET", "/big"))
        sock.recv(1, socket.MSG_PEEK)  # it has begun to arrive
        assert running.works()
        running.later(LIMITS.answer + 1)
        assert running.works()
        with pytest.raises(ConnectionError, match="within the body"):
            read_answer(sock)


def test_a_slow_reader_gets_everything(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(request_bytes("GET", "/big"))
        assert len(read_answer(sock)[2]) == BIG


def test_when_there_are_too_many_the_oldest_goes(running: Running) -> None:
    early = [connect(running.path) for _ in range(LIMITS.connections)]
    early[5].sendall(b"GET / HT")
    assert running.works()
    assert closed(early[0])
    others = [connect(running.path) for _ in range(LIMITS.connections)]
    for sock in others:
        sock.sendall(request_bytes("GET", "/a"))
        assert read_answer(sock)[0] == 200
    assert running.works()
    for sock in early + others:
        sock.close()


def test_a_slow_change_delays_no_reader(running: Running) -> None:
    running.app.gate.clear()
    changing = [connect(running.path) for _ in range(5)]
    for sock in changing:
        sock.sendall(request_bytes("POST", "/slow"))
    running.app.started.acquire()
    for _ in range(20):
        assert running.works()
    assert not running.app.started.acquire(blocking=False), "one change at a time"
    running.app.gate.set()
    for sock in changing:
        assert read_answer(sock)[0] == 200
        sock.close()


def test_changes_that_wait_for_their_turn_make_room_for_readers(running: Running) -> None:
    running.app.gate.clear()
    changing = [connect(running.path) for _ in range(LIMITS.connections + 5)]
    for sock in changing:
        with contextlib.suppress(BrokenPipeError):  # the first ones have had to go already
            sock.sendall(request_bytes("POST", "/slow"))
    running.app.started.acquire()
    for _ in range(5):
        assert running.works()
        assert len(running.server._connections) <= LIMITS.connections
    running.app.gate.set()
    for sock in changing:
        sock.close()


def test_first_requests_and_later_ones_take_turns() -> None:
    pool = Pool("test", 1)
    mine, other = socket.socketpair()
    connections = [Connection(mine, state=State.QUEUED, served=n < 3) for n in range(6)]
    jobs = [Job(connection, b"") for connection in connections]
    for job in jobs:
        pool.put(job)
    connections[4].state = State.CLOSED
    assert [pool.next() for _ in range(6)] == [jobs[3], jobs[0], jobs[5], jobs[1], jobs[2], None]
    pool.put(jobs[0])
    assert pool.run(lambda: Answer(b"", close=True)).result() == Answer(b"", close=True)
    assert pool.next() is None, "no thread is free"
    pool.release()
    assert pool.next() == jobs[0]
    pool.close()
    mine.close()
    other.close()


def test_one_client_with_many_requests_waits_for_itself(running: Running) -> None:
    with connect(running.path) as greedy:
        greedy.sendall(b"".join(request_bytes("GET", "/greedy") for _ in range(1000)))
        assert running.works()
        before = running.app.seen.index(b"GET /hello HTTP/1.1")
        assert before < 900, "the other client did not wait for all of them"


def test_a_client_that_waits_for_the_word_gets_it_once(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(b"POST /enable HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert read_answer(sock)[0] == 200


def test_the_refusal_reaches_a_client_that_is_still_sending(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(b"POST /enable HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.recv(1, socket.MSG_PEEK)
        assert running.works(), "the answer has been sent, and the server has turned to others"
        sock.sendall(b"x" * 200_000)
        assert read_answer(sock)[0] == 200, "the application answers by the head alone"
        assert closed(sock)
    with connect(running.path) as sock:
        sock.sendall(b"GET /" + b"x" * 40_000)
        assert read_answer(sock)[0] == 431
        assert closed(sock)


def test_a_client_that_never_stops_sending_is_cut_off(running: Running) -> None:
    with connect(running.path) as sock:
        sock.sendall(b"POST /enable HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sock.sendall(b"x" * 64 * 1024 * 1024)
    assert running.works()


def test_a_defect_is_a_500_and_the_end_of_that_connection_only(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(running.path) as sock:
        sock.sendall(request_bytes("GET", "/broken"))
        assert read_answer(sock)[0] == 500
        assert closed(sock)
    assert running.works()
    assert "a defect" in caplog.text


def test_clients_that_leave_at_any_moment_are_forgotten(running: Running) -> None:
    for start in (b"", b"GET", request_bytes("GET", "/big"), request_bytes("GET", "/a") * 20):
        for how in (socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR):
            with connect(running.path) as sock:
                sock.sendall(start)
                sock.shutdown(how)
    assert running.works()


def test_stopping_finishes_what_is_being_answered(tmp_path: Path) -> None:
    app, path = App(), tmp_path / "sock"
    app.gate.clear()
    with contextlib.ExitStack() as clients:
        server = contextlib.ExitStack()
        server.enter_context(threaded(server.enter_context(listening(path)), app, LIMITS))
        busy, idle = (clients.enter_context(connect(path)) for _ in range(2))
        busy.sendall(request_bytes("POST", "/slow"))
        app.started.acquire()
        stopping = threading.Thread(target=server.close)
        stopping.start()
        assert closed(idle), "it has begun to stop"
        app.gate.set()
        assert read_answer(busy)[0] == 200
        stopping.join()
