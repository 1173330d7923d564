"""The transport against a loopback server that misbehaves in every way a node has been seen or feared to."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.errors import (
    InputError,
    LaggingNode,
    LedgerError,
    MethodRefused,
    NameUnresolved,
    NotAnRpc,
    OverBudget,
    RateLimited,
    TlsFailed,
    Unreachable,
    Unusable,
)
from dzagent.ledger.endpoints import Endpoint, endpoints
from dzagent.ledger.jsonrpc import BYTES_PER_VALUE, printable, read_answer
from dzagent.ledger.loopthread import GRACE
from dzagent.ledger.rpc import Rpc

TOKEN = "s3cret-token-0123456789"  # noqa: S105 - a made-up token, to see that it is never shown
Reply = Callable[["Handler", dict[str, Any]], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    reply: Reply
    requests: list[dict[str, Any]]
    headers: list[dict[str, str]]
    paths: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{TOKEN}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave early are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        self.server.paths.append(self.path)
        self.server.reply(self, body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet."""

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def serving(reply: Reply) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.reply, server.requests, server.headers, server.paths = reply, [], [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def calling(*urls: str, timeout: float = 5.0, **options: Any) -> Iterator[Rpc]:
    with contextlib.closing(Rpc(urls, timeout, retry_delay=0.0, **options)) as rpc:
        yield rpc


def good(handler: Handler, request: dict[str, Any]) -> None:
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": {"asked": request["method"]}}
    handler.send(json.dumps(answer).encode())


def raw(body: bytes, status: int = 200, **headers: str) -> Reply:
    return lambda handler, _: handler.send(body, status, **headers)


def answering(**fields: Any) -> Reply:
    return lambda handler, request: handler.send(json.dumps({"id": request["id"], **fields}).encode())


def failure(reply: Reply, **options: Any) -> LedgerError:
    with serving(reply) as server, calling(server.url, **options) as rpc:
        with pytest.raises(LedgerError) as caught:
            rpc.call("getSlot")
        assert TOKEN not in str(caught.value)
        assert str(caught.value).startswith("RPC endpoint 127.0.0.1 ")
        assert caught.value.__cause__ is None
        return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reset(handler: Handler, _: dict[str, Any]) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def cut(handler: Handler, request: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(json.dumps({"id": request["id"]}).encode())
    handler.close_connection = True


def test_a_call_sends_json_rpc_and_returns_the_result() -> None:
    with serving(good) as server, calling(server.url) as rpc:
        assert rpc.call("getSlot", [{"commitment": "finalized"}]) == {"asked": "getSlot"}
        assert rpc.call("getHealth") == {"asked": "getHealth"}
        assert rpc.endpoint == "127.0.0.1"
    first, second = server.requests
    assert first == {
        "jsonrpc": "2.0",
        "id": first["id"],
        "method": "getSlot",
        "params": [{"commitment": "finalized"}],
    }
    assert first["id"] != second["id"]
    assert server.paths == [f"/{TOKEN}"] * 2
    assert server.headers[0]["accept-encoding"] == "gzip"


def test_a_gzip_answer_is_read() -> None:
    def reply(handler: Handler, request: dict[str, Any]) -> None:
        body = gzip.compress(json.dumps({"id": request["id"], "result": [1]}).encode())
        handler.send(body, content_encoding="gzip")

    with serving(reply) as server, calling(server.url) as rpc:
        assert rpc.call("x") == [1]


def test_a_client_can_be_used_again_after_close() -> None:
    with serving(good) as server, calling(server.url) as rpc:
        rpc.call("a")
        rpc.close()
        rpc.close()
        assert rpc.call("b") == {"asked": "b"}


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (raw(b"<html>bad gateway</html>"), NotAnRpc, "HTML"),
        (raw(b""), Unusable, "0 bytes"),
        (raw(b"\xff\xfe\x00"), Unusable, "cannot be read"),
        (raw(b'{"id":1,"result":'), Unusable, "cannot be read"),
        (raw(b'{"id":1,"result":NaN}'), Unusable, "cannot be read"),
        (raw(b'{"id":1,"result":' + b"9" * 5000 + b"}"), Unusable, "cannot be read"),
        (raw(b'{"id":1,"result":' + b"9" * 100 + b"}"), Unusable, "cannot be read"),
        (raw(b'{"id":1,"result":{"a":1},"result":{"a":2}}'), Unusable, "cannot be read"),
        (raw(b"[" * 200_000), Unusable, "nested too deep"),
        (raw(b"[" * 1_000_000), Unusable, "far more JSON values"),
        (raw(b'{"a":' * 100_000), Unusable, "nested too deep"),
        (raw(b"not gzip", content_encoding="gzip"), Unusable, "gzip"),
        (raw(gzip.compress(gzip.compress(b"{}")), content_encoding="gzip, gzip"), Unusable, "encoding"),
        (raw(b"{}", content_encoding="br"), Unusable, "encoding"),
        (raw(b"[]"), NotAnRpc, "JSON list"),
        (raw(b"3"), NotAnRpc, "JSON number"),
        (answering(result=None), Unusable, "without a result"),
        (answering(), NotAnRpc, "without a result"),
        (answering(error={"code": -32602, "message": "Too many filters"}), MethodRefused, "Too many"),
        (answering(error={"code": -32010, "message": "excluded"}), MethodRefused, "excluded"),
        (answering(id=999_999, result={}), Unusable, "id of another request"),
        (answering(id=None, result={}), Unusable, "id of another request"),
        (answering(id=None, error={"code": -32700, "message": "Parse error"}), Unusable, "-32700"),
        (answering(error={"code": -32601, "message": "Method not found"}), MethodRefused, "Method not found"),
        (answering(error={"code": -32099}), Unusable, "-32099"),
        (answering(error="odd"), Unusable, "not an object"),
        (answering(error={"code": [], "message": {}}), Unusable, "error"),
        (answering(error={"code": -32016, "message": "Min slot"}), LaggingNode, "wanted slot"),
        (answering(error={"code": -32016, "message": "m", "data": {"contextSlot": 1}}), LaggingNode, "slot"),
        (answering(error={"code": -32005, "message": "behind"}), Unreachable, "not healthy"),
        (answering(error={"code": 429, "message": "slow down"}), RateLimited, "fewer requests"),
        (answering(error={"code": 1015}), RateLimited, "fewer requests"),
        (raw(b"", 301, location="http://127.0.0.1:1/"), Unreachable, "redirect"),
        (raw(b"", 307, location="/elsewhere"), Unreachable, "redirect"),
        (raw(b"{}", 204), Unreachable, "HTTP 204"),
        (raw(b"no", 403), Unreachable, "HTTP 403"),
        (raw(b"no", 500), Unreachable, "HTTP 500"),
        (raw(b"<html>", 503), Unreachable, "HTTP 503"),
        (raw(b"", 429), RateLimited, "HTTP 429"),
        (reset, Unreachable, "broke the connection"),
        (cut, Unreachable, "broke the connection"),
        (raw(b"{}", content_length="7, 8"), Unreachable, "connection"),
    ],
)
def test_each_bad_answer_is_one_typed_error(reply: Reply, kind: type[LedgerError], text: str) -> None:
    error = failure(reply)
    assert type(error) is kind
    assert text in str(error)


def test_redirects_are_not_followed() -> None:
    with serving(good) as other, serving(raw(b"", 307, location=other.url)) as server:
        with calling(server.url) as rpc, pytest.raises(Unreachable):
            rpc.call("x")
        assert not other.requests


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("999999", 3600.0),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("1" * 500, None),
    ],
)
def test_retry_after_is_passed_on(header: str, seconds: float | None) -> None:
    error = failure(raw(b"", 429, retry_after=header))
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


def test_a_dropped_connection_is_tried_once_more_and_a_refusal_is_not() -> None:
    def first_drops(handler: Handler, request: dict[str, Any]) -> None:
        (good if len(handler.server.requests) > 1 else reset)(handler, request)

    with serving(first_drops) as server, calling(server.url) as rpc:
        assert rpc.call("x") == {"asked": "x"}
    for reply, tries in ((raw(b"", 502), 2), (raw(b"", 500), 1), (raw(b"", 429), 1), (raw(b"<p>"), 1)):
        with serving(reply) as server, calling(server.url) as rpc:
            with pytest.raises(LedgerError):
                rpc.call("x")
            assert len(server.requests) == tries


def test_a_body_above_the_limit_is_left_unread() -> None:
    sent = []

    def endless(handler: Handler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        for _unused in range(1 << 14):
            handler.wfile.write(b" " * (1 << 16))
            sent.append(1 << 16)

    assert "larger than 1000000 bytes" in str(failure(endless, max_body=1_000_000))
    assert sum(sent) < 50_000_000  # socket buffers, not the gigabyte


def test_a_gzip_bomb_ends_at_the_limit() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)
    tracemalloc.start()
    try:
        error = failure(raw(bomb, content_encoding="gzip"), max_body=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "larger than" in str(error)
    assert peak < 20_000_000


def test_a_json_bomb_is_not_parsed() -> None:
    body = b"[" + b"[]," * 400_000 + b"[]]"
    tracemalloc.start()
    try:
        with pytest.raises(Unusable, match="far more JSON values"):
            read_answer(body, 1, len(body))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def hang(handler: Handler, _: dict[str, Any]) -> None:
    handler.rfile.read(1)


def trickle_body(handler: Handler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.02)


def trickle_head(handler: Handler, _: dict[str, Any]) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"a")
        time.sleep(0.02)


def informational_for_ever(handler: Handler, _: dict[str, Any]) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.001)


@pytest.mark.parametrize("reply", [hang, trickle_body, trickle_head, informational_for_ever])
def test_the_total_time_is_bounded(reply: Reply) -> None:
    start = time.monotonic()
    assert "no complete answer within 0.2 s" in str(failure(reply, timeout=0.2))
    assert time.monotonic() - start < 20 * GRACE  # without a bound it would never end


def test_refused_unresolvable_and_tls_failures_say_so() -> None:
    with calling(f"http://127.0.0.1:{free_port()}") as rpc, pytest.raises(Unreachable, match="refused"):
        rpc.call("x")
    with (
        calling("http://no-such-host.invalid/") as rpc,
        pytest.raises(NameUnresolved, match=r"no-such-host\.invalid"),
    ):
        rpc.call("x")
    with (
        serving(good) as server,
        calling(server.url.replace("http:", "https:")) as rpc,
        pytest.raises(TlsFailed, match="TLS"),
    ):
        rpc.call("x")


def test_the_next_endpoint_is_asked_and_remembered_and_the_first_comes_back() -> None:
    now = [0.0]
    with (
        serving(raw(b"", 500)) as bad,
        serving(good) as fine,
        calling(bad.url, fine.url, return_after=300.0, clock=lambda: now[0]) as rpc,
    ):
        assert rpc.endpoint == "127.0.0.1"
        rpc.call("a")
        assert rpc.endpoint == "127.0.0.1#2"
        rpc.call("b")
        assert (len(bad.requests), len(fine.requests)) == (1, 2)
        now[0] = 299.0
        rpc.call("c")
        assert len(bad.requests) == 1
        bad.reply, now[0] = good, 301.0
        rpc.call("d")
        assert (len(bad.requests), len(fine.requests)) == (2, 3)
        assert rpc.endpoint == "127.0.0.1"


def test_an_endpoint_that_asks_for_rest_gets_it() -> None:
    now = [0.0]
    limited = raw(b"", 429, retry_after="60")
    with serving(limited) as busy, serving(raw(b"", 500)) as broken:  # noqa: SIM117 - the servers outlive the client
        with calling(busy.url, broken.url, clock=lambda: now[0]) as rpc:
            for _ in range(2):
                with pytest.raises(Unreachable):
                    rpc.call("x")
            assert [len(server.requests) for server in (busy, broken)] == [1, 2]
            assert rpc.health()[0]["state"] == "resting"
            now[0], busy.reply = 73.0, good  # 60 s and at most a fifth more
            assert rpc.call("x") == {"asked": "x"}
            assert rpc.endpoint == "127.0.0.1"


def test_while_every_endpoint_rests_nothing_is_sent() -> None:
    now = [0.0]
    with serving(raw(b"", 429)) as busy, calling(busy.url, clock=lambda: now[0], chance=lambda: 0.0) as rpc:
        for at, sent in ((0.0, 1), (14.0, 1), (15.0, 2), (44.0, 2), (45.0, 3)):
            now[0] = at
            with pytest.raises(RateLimited):
                rpc.call("x")
            assert len(busy.requests) == sent
        busy.reply, now[0] = good, 106.0
        assert rpc.call("x") == {"asked": "x"}


def test_the_budget_of_requests_holds_and_refills() -> None:
    now = [0.0]
    with serving(good) as server, calling(server.url, budget=6, clock=lambda: now[0]) as rpc:
        for _ in range(6):
            rpc.call("x")
        with pytest.raises(OverBudget, match="6 RPC requests a minute"):
            rpc.call("x")
        now[0] = 10.0
        rpc.call("x")
        with pytest.raises(OverBudget):
            rpc.call("x")
        assert len(server.requests) == 7
        assert rpc.health()[0]["state"] == "in use"


def test_an_endpoint_that_is_blamed_is_asked_last_for_a_while() -> None:
    now = [0.0]
    with (
        serving(good) as one,
        serving(good) as two,
        calling(one.url, two.url, clock=lambda: now[0], return_after=300.0) as rpc,
    ):
        rpc.call("x")
        rpc.blame(LaggingNode("behind"))
        rpc.call("x")
        assert rpc.endpoint == "127.0.0.1#2"
        assert [entry["state"] for entry in rpc.health()] == ["failing", "in use"]
        assert rpc.health()[0]["errors"] == {"LaggingNode": 1}
        now[0] = 301.0
        rpc.call("x")
        assert (len(one.requests), len(two.requests)) == (2, 1)


def test_traffic_and_the_servers_clock_are_told() -> None:
    body = gzip.compress(json.dumps({"id": 1, "result": "x" * 5000}).encode())
    with (
        serving(raw(body, content_encoding="gzip")) as server,
        calling(server.url, now=lambda: time.time() + 365 * 86400) as rpc,
    ):
        assert not rpc.clock_offset
        rpc.call("x")
        assert (rpc.traffic.requests, rpc.traffic.received) == (1, len(body))
        assert rpc.traffic.sent > 20
        offset = rpc.clock_offset
        assert offset is not None
        assert abs(offset - 365 * 86400) < 3600


def test_a_call_may_have_a_size_limit_of_its_own() -> None:
    with serving(answering(result="x" * 3000)) as server, calling(server.url, max_body=1000) as rpc:
        with pytest.raises(Unreachable, match="larger"):
            rpc.call("x")
        assert rpc.call("x", max_body=10_000) == "x" * 3000


def test_one_that_refuses_the_method_decides_the_class() -> None:
    refusing = answering(error={"code": -32601, "message": "no"})
    with (
        serving(refusing) as one,
        serving(raw(b"", 500)) as two,
        calling(one.url, two.url) as rpc,
        pytest.raises(MethodRefused),
    ):
        rpc.call("x")


def test_a_hanging_endpoint_leaves_time_for_the_next() -> None:
    with serving(hang) as dead, serving(good) as fine, calling(dead.url, fine.url, timeout=2.0) as rpc:
        assert rpc.call("x") == {"asked": "x"}


def test_when_all_fail_the_error_names_all_and_a_lagging_node_decides_the_class() -> None:
    behind = answering(error={"code": -32016, "message": "m"})
    with serving(behind) as one, serving(raw(b"", 500)) as two:
        with calling(two.url, one.url) as rpc, pytest.raises(LaggingNode) as caught:
            rpc.call("x")
        assert "HTTP 500" in str(caught.value)
        assert "wanted slot" in str(caught.value)
    with serving(raw(b"<p>")) as one, serving(raw(b"", 500)) as two:
        with calling(one.url, two.url) as rpc, pytest.raises(Unreachable):
            rpc.call("x")
        two.reply = raw(b"<p>")
        with calling(one.url, two.url) as rpc, pytest.raises(Unusable):
            rpc.call("x")


def test_no_url_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(good) as server, calling(server.url) as rpc:
        rpc.call("x")
    assert TOKEN not in caplog.text


def test_a_token_that_the_node_quotes_is_taken_out() -> None:
    error = failure(answering(error={"code": -32000, "message": f"bad token {TOKEN}\n\x1b[31m"}))
    assert "bad token ***" in str(error)
    assert "\x1b" not in str(error)


def test_cookies_are_not_kept() -> None:
    def cookie(handler: Handler, request: dict[str, Any]) -> None:
        handler.send(json.dumps({"id": request["id"], "result": 1}).encode(), set_cookie="a=b")

    with serving(cookie) as server, calling(server.url) as rpc:
        rpc.call("x")
        rpc.call("x")
    assert "cookie" not in server.headers[1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "rpc.example",
        "ftp://rpc.example",
        "http://",
        "http:///path",
        "http://[::1",
        "http://h:99999",
        "http://h:0",
        "file:///etc/passwd",
        "http://a b/",
        "http://h/\n",
        "https://:443",
        "ws://h",
    ],
)
def test_unusable_urls_are_input_errors_that_hide_the_url(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Rpc(["http://fine.example/", url])
    assert "endpoint 2" in str(caught.value)
    assert len(url) < 8 or url not in str(caught.value)


def test_limits_must_make_sense() -> None:
    for urls, timeout, size in (([], 1.0, 1), (["http://h"], 0.0, 1), (["http://h"], float("nan"), 1)):
        with pytest.raises(InputError):
            Rpc(urls, timeout, size)
    with pytest.raises(InputError):
        Rpc(["http://h"], 1.0, 0)


def test_labels_are_hosts() -> None:
    urls = (
        f"https://user:pw@rpc.example:1234/{TOKEN}?api-key=abcdef123",
        "http://[::1]:8899",
        "http://[::1]:8898",
    )
    labels = [endpoint.label for endpoint in endpoints(urls)]
    assert labels == ["rpc.example", "::1", "::1#2"]
    assert Endpoint(urls[0], "x").redact(f"{TOKEN} abcdef123 ok") == "*** *** ok"


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_reading_any_bytes_gives_a_result_or_a_typed_error(body: bytes, request_id: int) -> None:
    with contextlib.suppress(LedgerError):
        read_answer(body, request_id, 1000)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_reading_any_json_gives_a_result_or_a_typed_error(value: Any) -> None:
    for body in (value, {"id": 1, "result": value}, {"id": 1, "error": value}, {"id": value, "result": 1}):
        with contextlib.suppress(LedgerError):
            read_answer(json.dumps(body).encode(), 1, 1 << 20)


@settings(deadline=None)
@given(st.text())
def test_printable_is_short_ascii(text: str) -> None:
    assert len(printable(text)) <= 163
    assert printable(text).isascii()
    assert printable(text).isprintable()
    assert BYTES_PER_VALUE > 1
