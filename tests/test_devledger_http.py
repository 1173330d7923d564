"""The server over real sockets: HTTP/1.1 as clients speak it, and as hostile ones do."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import re
import select
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.devledger import world
from dzagent.devledger.http1 import MAX_BODY, BadRequest, parse_head
from dzagent.devledger.records import State
from dzagent.devledger.server import Limits, Listen, RpcServer, parse_listen
from dzagent.errors import InputError
from tests.devledger_fakes import PROGRAM, Fixed, ip, populated, post, serving, with_user

STATE, USER = with_user(populated())
SLOT = b'{"jsonrpc":"2.0","id":1,"method":"getSlot"}'
SAID = {"jsonrpc": "2.0", "result": 100, "id": 1}


@pytest.fixture(scope="module")
def where() -> Iterator[Listen]:
    with serving(Fixed.of(STATE)) as listening:
        yield listening


def raw(where: Listen, data: bytes, *, shut: bool = True) -> bytes:
    """Send bytes and return everything that comes until the server closes."""
    with socket.create_connection((where.host, where.port), timeout=20) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            if shut:
                connection.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def request(body: bytes, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """Write a POST."""
    lines = [f"POST / {version}", "Host: ledger", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def statuses(data: bytes) -> list[int]:
    """Return the status of every answer in these bytes."""
    return [int(number) for number in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


def alive(where: Listen) -> bool:
    """Tell whether the server still answers."""
    status, _, body = post(where, SLOT)
    return (status, json.loads(body)) == (200, SAID)


# ---- what clients do -------------------------------------------------------------------------------------


def test_an_answer(where: Listen) -> None:
    status, headers, body = post(where, SLOT, {"Content-Type": "application/json"})
    assert (status, json.loads(body)) == (200, SAID)
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["content-length"] == str(len(body))
    assert "content-encoding" not in headers


@pytest.mark.parametrize("accept", ["gzip", "gzip, deflate", "br;q=1, GZIP;q=0.5", "*", "*;q=0, gzip"])
def test_gzip_when_asked(where: Listen, accept: str) -> None:
    _, headers, body = post(where, SLOT, {"Accept-Encoding": accept})
    assert headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(body)) == SAID


@pytest.mark.parametrize(
    "accept", ["identity", "deflate", "gzip;q=0", "gzip; q=0.0", "gzipped", "*, gzip;q=0"]
)
def test_no_gzip_when_not_asked(where: Listen, accept: str) -> None:
    _, headers, body = post(where, SLOT, {"Accept-Encoding": accept})
    assert "content-encoding" not in headers
    assert json.loads(body) == SAID


def test_one_connection_serves_many_requests(where: Listen) -> None:
    connection = http.client.HTTPConnection(where.host, where.port, timeout=20)
    sockets = set()
    for _ in range(5):
        connection.request("POST", "/any/path?x=1", SLOT)
        assert json.loads(connection.getresponse().read()) == SAID
        sockets.add(id(connection.sock))
    connection.close()
    assert len(sockets) == 1


def test_requests_may_follow_each_other_without_waiting(where: Listen) -> None:
    found = raw(where, request(SLOT) * 3 + b"\r\n" + request(SLOT, "Connection: close"))
    assert statuses(found) == [200] * 4


def test_connections_end_when_asked(where: Listen) -> None:
    assert raw(where, request(SLOT, "Connection: close"), shut=False).count(b"connection: close") == 1
    assert raw(where, request(SLOT, version="HTTP/1.0"), shut=False).count(b"connection: close") == 1
    kept = raw(where, request(SLOT, "Connection: Keep-Alive", version="HTTP/1.0") * 2)
    assert kept.count(b"connection: keep-alive") == 2


def test_chunks(where: Listen) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"5;name=x\r\n" + SLOT[:5] + b"\r\n" + f"{len(SLOT) - 5:X}".encode() + b"\r\n" + SLOT[5:]
    found = raw(where, head + chunks + b"\r\n0\r\nTrailer: x\r\n\r\n")
    assert (statuses(found), found.endswith(b'"id":1}')) == ([200], True)


def test_who_waits_for_leave_gets_it(where: Listen) -> None:
    found = raw(where, request(SLOT, "Expect: 100-continue", "Connection: close"))
    assert statuses(found) == [100, 200]
    head = f"POST / HTTP/1.1\r\nContent-Length: {MAX_BODY + 1}\r\nExpect: 100-continue\r\n\r\n"
    assert statuses(raw(where, head.encode())) == [413]


def test_notifications_have_an_empty_answer(where: Listen) -> None:
    status, headers, body = post(where, b'{"jsonrpc":"2.0","method":"getSlot"}', {"Accept-Encoding": "gzip"})
    assert (status, headers["content-length"], body) == (200, "0", b"")


def test_health_and_other_methods(where: Listen) -> None:
    assert post(where, b"", method="GET", path="/health")[::2] == (200, b"ok")
    status, headers, body = post(where, b"", method="GET")
    assert (status, headers["allow"]) == (405, "POST, OPTIONS")
    assert b"POST or OPTIONS is required" in body
    assert post(where, b"", method="OPTIONS")[0] == 200
    assert post(where, b"", method="DELETE")[0] == 405
    assert post(where, b"", method="HEAD")[::2] == (405, b"")


@pytest.mark.parametrize(("behind", "says"), [(None, b"unknown"), (3, b"behind")])
def test_an_unhealthy_node_says_so_at_health(behind: int | None, says: bytes) -> None:
    state, _ = world.set_node(STATE, healthy=False, slots_behind=behind)
    with serving(Fixed.of(state)) as listening:
        assert post(listening, b"", method="GET", path="/health")[::2] == (200, says)


# ---- what hostile ones do --------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, int]] = {
    "garbage": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    "one word": (b"POST\r\n\r\n", 400),
    "another protocol": (b"POST / HTTP/2.0\r\n\r\n", 505),
    "no version": (b"POST / x\r\n\r\n", 505),
    "a header without colon": (b"POST / HTTP/1.1\r\nnonsense\r\n\r\n", 400),
    "a blank before the colon": (b"POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n", 400),
    "a folded header": (b"POST / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
    "a zero byte": (b"POST / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
    "a negative length": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "a length of text": (b"POST / HTTP/1.1\r\nContent-Length: ten\r\n\r\n", 400),
    "a length in other digits": (b"POST / HTTP/1.1\r\nContent-Length: \xd9\xa5\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    "length and chunks": (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "another coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
    "a compressed body": (
        b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
        415,
    ),
    "a body of 1 GB": (b"POST / HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n" + b"x" * 100_000, 413),
    "an endless length": (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "a cut body": (b"POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\n{", 400),
    "a cut head": (b"POST / HTTP/1.1\r\nContent-Le", 400),
    "an endless head": (b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, 431),
    "an endless line": (b"GET /" + b"a" * 100_000, 431),
    "a bad chunk size": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "a huge chunk": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n", 413),
    "chunks without end": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3E8\r\n" + b"x" * 1000 + b"\r\n",
        400,
    ),
    "many chunks": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"3E8\r\n" + b"x" * 1000 + b"\r\n") * 100,
        413,
    ),
    "a chunk that lies": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
        400,
    ),
    "an endless chunk line": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 40_000,
        400,
    ),
    "an endless trailer": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 500,
        400,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_cannot_be_read_is_refused_and_ends_its_connection_only(
    where: Listen, name: str
) -> None:
    data, status = BAD[name]
    found = raw(where, data)
    assert statuses(found) == [status]
    assert b"connection: close" in found
    assert alive(where)


def test_bodies_that_are_no_json_rpc_are_answered(where: Listen) -> None:
    for body in (b"", b"[" * 50_000, b"\xff" * 1000, b"{" * MAX_BODY):
        status, _, found = post(where, body)
        assert (status, json.loads(found)["error"]["code"]) == (200, -32700)


def test_a_client_that_says_nothing_is_left(where: Listen) -> None:
    with (
        serving(Fixed.of(STATE), Limits(idle=0.05, request=0.05)) as impatient,
        socket.create_connection((impatient.host, impatient.port), timeout=20) as silent,
        socket.create_connection((impatient.host, impatient.port), timeout=20) as slow,
    ):
        slow.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n{")
        for connection in (silent, slow):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        assert alive(impatient)
    assert alive(where)


def test_a_client_that_takes_no_answer_is_left() -> None:
    many = json.dumps(
        [{**json.loads(SLOT), "method": "getProgramAccounts", "params": [PROGRAM, {"encoding": "base64"}]}]
        * 100
    )
    with serving(Fixed.of(_crowd()), Limits(answer=0.05)) as listening:
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy.connect((listening.host, listening.port))
            greedy.sendall(request(many.encode()))
            _wait_for_close(greedy)
        assert alive(listening)


def _crowd() -> State:
    state = populated()
    for number in range(1, 120):
        state, _ = with_user(state, client_ip=ip(f"198.51.100.{number}"))
    return state


def _wait_for_close(connection: socket.socket) -> None:
    """Wait until the other side has reset the connection, without taking what it sent."""
    poller = select.poll()
    poller.register(connection, select.POLLERR | select.POLLHUP | select.POLLRDHUP)
    assert poller.poll(20_000), "the server still waits for a client that takes nothing"


def test_more_connections_than_there_is_room_for(where: Listen) -> None:
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection((where.host, where.port), timeout=20))
            for _ in range(Limits().connections + 20)
        ]
        assert alive(where), "those that have waited longest make room"
        with contextlib.suppress(ConnectionResetError):
            assert opened[0].recv(100) == b""
        opened[-1].sendall(request(SLOT))
        assert opened[-1].recv(15) == b"HTTP/1.1 200 OK"
    assert alive(where)


def test_connections_that_are_busy_make_no_room() -> None:
    with (
        serving(Fixed.of(STATE), Limits(connections=1)) as listening,
        socket.create_connection((listening.host, listening.port), timeout=20) as busy,
    ):
        busy.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert busy.recv(100).startswith(b"HTTP/1.1 100 Continue")
        assert statuses(raw(listening, b"")) == [503]
        busy.sendall(b"     ")
        assert busy.recv(15) == b"HTTP/1.1 200 OK"
        assert alive(listening), "a connection that waits makes room"


def test_answers_that_nobody_takes_have_a_limit() -> None:
    with serving(Fixed.of(STATE), Limits(unsent=150)) as listening:
        status, _, body = post(listening, SLOT)
        assert (status, body) == (503, b"Too many answers wait for their clients.\n")


def test_many_clients_at_once(where: Listen) -> None:
    failed: list[BaseException] = []

    def client() -> None:
        try:
            for _ in range(20):
                assert alive(where)
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
            failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_head_is_read_or_refused(data: bytes) -> None:
    for block in (data + b"\r\n\r\n", b"POST / HTTP/1.1\r\n" + data + b"\r\n\r\n"):
        with contextlib.suppress(BadRequest):
            head = parse_head(block)
            assert {head.keep_alive, head.wants_gzip, head.expects_continue} <= {True, False}


# ---- where it listens ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8899", Listen("127.0.0.1", 8899)),
        ("0.0.0.0:1", Listen("0.0.0.0", 1)),  # noqa: S104 - only read here
        (":0", Listen("127.0.0.1", 0)),
        ("[::1]:8899", Listen("::1", 8899)),
    ],
)
def test_where_to_listen(text: str, listen: Listen) -> None:
    assert parse_listen(text) == listen
    assert parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    "text", ["", "8899", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "host:1", "127.0.0.1:-1", "1.2.3:5"]
)
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(InputError, match="--listen"):
        parse_listen(text)


def test_a_port_that_is_taken(where: Listen) -> None:
    with pytest.raises(InputError, match=f"cannot listen on {where}: something listens there already"):
        asyncio.run(RpcServer(Fixed.of(STATE), where).start())
    with pytest.raises(InputError, match="does not have that address"):
        asyncio.run(RpcServer(Fixed.of(STATE), Listen("192.0.2.1", 0)).start())
