"""Where a request ends: the server's threads must never get half of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.api.framing import MAX_HEAD, Hopeless, More, Whole, find_request

GET = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /enable HTTP/1.1\r\nContent-Length: 4\r\n\r\n"


def find(data: bytes) -> More | Whole | Hopeless:
    return find_request(data, max_body=1000)


def test_a_request_without_body_ends_with_its_head() -> None:
    assert find(GET) == Whole(len(GET))
    assert find(GET + b"GET /next") == Whole(len(GET))


def test_a_body_is_waited_for() -> None:
    assert find(POST + b"123") == More()
    assert find(POST + b"1234") == Whole(len(POST) + 4)
    assert find(POST + b"12345") == Whole(len(POST) + 4)


def test_one_empty_line_before_a_request_is_ignored() -> None:
    assert find(b"\r\n" + GET) == Whole(len(GET) + 2)
    assert find(b"\r\n") == More()


def test_a_client_that_waits_for_the_word_is_known() -> None:
    asking = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert find(asking) == More(expects=True)
    assert find(asking + b"1") == More()


@pytest.mark.parametrize(
    "header",
    [
        b"Transfer-Encoding: chunked",
        b"transfer-encoding : chunked",
        b"Content-Length: 1001",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: -1",
        b"Content-Length: 4\r\nContent-Length: 4",
        b"Content-Length: 0x4",
        b"Content-Length:",
        "Content-Length: ²".encode(),
    ],
)
def test_a_body_that_must_not_be_read_is_not_waited_for(header: bytes) -> None:
    head = b"POST /enable HTTP/1.1\r\n" + header + b"\r\n\r\n"
    assert find(head) == Whole(len(head), last=True)
    assert find(head + b"more") == Whole(len(head), last=True)


def test_a_head_without_end_is_given_up() -> None:
    assert find(b"GET /" + b"x" * MAX_HEAD) == Hopeless(
        431, f"the head of the request is larger than {MAX_HEAD} bytes"
    )
    found = find(b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n")
    assert isinstance(found, Hopeless)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\r\nHost: x\n", b"\n"])
def test_bare_line_feeds_are_refused_at_once(data: bytes) -> None:
    assert find(data) == Hopeless(400, "lines of a request end with CR LF")


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_start_of_any_bytes_is_more_or_final(data: bytes, cut: int) -> None:
    for prefix in (b"", GET[:-4], POST):
        whole = prefix + data
        found = find(whole[:cut])
        if isinstance(found, Whole):
            assert 0 < found.size <= cut
            assert find(whole) == found, "more bytes do not change where a request ends"
