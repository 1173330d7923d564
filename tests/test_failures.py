"""What a failed command means: the table, and the lines that failed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.kernel.failures import TABLE, advised, classify, worst
from dzagent.kernel.iproute import failures
from dzagent.kernel.run import Completed
from dzagent.model import Action, Result

EXISTS = "RTNETLINK answers: File exists"


@pytest.mark.parametrize(
    ("message", "add", "change", "delete"),
    [
        # the object, or what it stands on, is not there
        ("RTNETLINK answers: No such process", Result.TRANSIENT, Result.RACED, Result.GONE),
        ("RTNETLINK answers: No such file or directory", Result.TRANSIENT, Result.RACED, Result.GONE),
        ("RTNETLINK answers: No such device", Result.TRANSIENT, Result.RACED, Result.GONE),
        ('Cannot find device "if7"', Result.TRANSIENT, Result.RACED, Result.GONE),
        ('Device "doublezero0" does not exist.', Result.TRANSIENT, Result.RACED, Result.GONE),
        ("Error: ipv4: FIB table does not exist.", Result.TRANSIENT, Result.RACED, Result.GONE),
        ("Error: ipv4: Address not found.", Result.TRANSIENT, Result.RACED, Result.GONE),
        ("RTNETLINK answers: Cannot assign requested address", Result.TRANSIENT, Result.RACED, Result.GONE),
        # somebody was faster
        (EXISTS, Result.RACED, Result.RACED, Result.PERMANENT),
        ("Error: ipv4: Address already assigned.", Result.RACED, Result.RACED, Result.PERMANENT),
        # it cannot work yet
        ("Error: Nexthop has invalid gateway.", Result.TRANSIENT, Result.TRANSIENT, Result.PERMANENT),
        ("Error: Invalid prefsrc address.", Result.TRANSIENT, Result.TRANSIENT, Result.PERMANENT),
        ("Error: Nexthop device is not up.", Result.TRANSIENT, Result.TRANSIENT, Result.TRANSIENT),
        ("RTNETLINK answers: Network is down", Result.TRANSIENT, Result.TRANSIENT, Result.TRANSIENT),
        ("RTNETLINK answers: Network is unreachable", Result.TRANSIENT, Result.TRANSIENT, Result.TRANSIENT),
        (
            "RTNETLINK answers: No buffer space available",
            Result.TRANSIENT,
            Result.TRANSIENT,
            Result.TRANSIENT,
        ),
        ("RTNETLINK answers: Cannot allocate memory", Result.TRANSIENT, Result.TRANSIENT, Result.TRANSIENT),
        ("RTNETLINK answers: Device or resource busy", Result.TRANSIENT, Result.TRANSIENT, Result.TRANSIENT),
        (
            "RTNETLINK answers: Resource temporarily unavailable",
            Result.TRANSIENT,
            Result.TRANSIENT,
            Result.TRANSIENT,
        ),
        ("Cannot open netlink socket: Too many open files", *[Result.TRANSIENT] * 3),
        ("Error: ipv4: Invalid scope value.", Result.RACED, Result.RACED, Result.PERMANENT),
        # it will not work until something changes
        ("RTNETLINK answers: Operation not permitted", *[Result.PERMANENT] * 3),
        ("Cannot open netlink socket: Operation not permitted", *[Result.PERMANENT] * 3),
        ("RTNETLINK answers: Permission denied", *[Result.PERMANENT] * 3),
        (
            "Error: Gateway can not be a local address.",
            Result.TRANSIENT,
            Result.TRANSIENT,
            Result.PERMANENT,
        ),
        ("Error: Device for nexthop is not up.", *[Result.TRANSIENT] * 3),
        ("Error: ipv4: Device not found.", Result.TRANSIENT, Result.RACED, Result.GONE),
        ("RTNETLINK answers: Too many open files in system", *[Result.TRANSIENT] * 3),
        ("Dump terminated", *[Result.TRANSIENT] * 3),
        ("RTNETLINK answers: Operation not supported", *[Result.PERMANENT] * 3),
        ("Error: Unknown device type.", *[Result.PERMANENT] * 3),
        ('Error: argument "zz" is wrong: fwmark value is invalid', *[Result.PERMANENT] * 3),
        ("", *[Result.PERMANENT] * 3),
    ],
)
def test_one_message_means_something_else_to_each_action(
    message: str, add: Result, change: Result, delete: Result
) -> None:
    actions = (Action.ADD, Action.CHANGE, Action.DELETE)
    assert tuple(classify("ip", 2, action, message) for action in actions) == (add, change, delete)


def test_each_line_of_the_table_is_of_use() -> None:
    for line, earlier in ((TABLE[n], TABLE[:n]) for n in range(len(TABLE))):
        same = (e for e in earlier if (e.pattern, e.tool) == (line.pattern, line.tool))
        assert not any(e.actions >= line.actions for e in same), line


NFT = "/dev/stdin:1:1-36: Error: "
RULE = NFT + "Could not process rule: "


@pytest.mark.parametrize(
    ("message", "add", "change", "delete"),
    [
        (f"{RULE}No such file or directory", Result.RACED, Result.RACED, Result.GONE),
        (
            f"{NFT}No such file or directory; did you mean table 'x'?",
            Result.RACED,
            Result.RACED,
            Result.GONE,
        ),
        (f"{RULE}File exists", Result.RACED, Result.RACED, Result.PERMANENT),
        (f"{RULE}Device or resource busy", *[Result.TRANSIENT] * 3),
        (f"{RULE}Resource temporarily unavailable", *[Result.TRANSIENT] * 3),
        (f"{RULE}Cannot allocate memory", *[Result.TRANSIENT] * 3),
        (f"{RULE}Too many open files in system", *[Result.TRANSIENT] * 3),
        ("netlink: Error: Could not receive: No buffer space available", *[Result.TRANSIENT] * 3),
        ("Error: cache initialization failed: Interrupted system call", *[Result.TRANSIENT] * 3),
        ("Error: cache initialization failed: Device or resource busy", *[Result.TRANSIENT] * 3),
        ("Error: cache initialization failed: Invalid argument", *[Result.TRANSIENT] * 3),
        ("Error: cache initialization failed: No such file or directory", *[Result.TRANSIENT] * 3),
        ("Error: cache initialization failed: Operation not permitted", *[Result.PERMANENT] * 3),
        (f"{RULE}Operation not permitted", *[Result.PERMANENT] * 3),
        ("Unable to initialize Netlink socket: Protocol not supported", *[Result.PERMANENT] * 3),
        (f"{NFT}syntax error, unexpected newline, expecting string", *[Result.PERMANENT] * 3),
        (f"{RULE}Invalid argument", *[Result.PERMANENT] * 3),
        (f"{RULE}Operation not supported", *[Result.PERMANENT] * 3),
        ("", *[Result.PERMANENT] * 3),
    ],
)
def test_nft_s_messages_have_their_own_meaning(
    message: str, add: Result, change: Result, delete: Result
) -> None:
    actions = (Action.ADD, Action.CHANGE, Action.DELETE)
    assert tuple(classify("nft", 1, action, message) for action in actions) == (add, change, delete)


def test_a_table_is_one_tool_s() -> None:
    assert classify("tc", 1, Action.ADD, EXISTS) is Result.PERMANENT
    assert classify("nft", 1, Action.ADD, "Nexthop has invalid gateway") is Result.PERMANENT
    assert classify("nft", -9, Action.ADD, "nft ended with exit code -9") is Result.TRANSIENT


@pytest.mark.parametrize("code", [0, 1, 2, 255])
def test_a_tool_that_ended_by_itself_with_an_unknown_message_is_not_tried_for_ever(code: int) -> None:
    assert classify("ip", code, Action.ADD, "something that nobody has seen yet") is Result.PERMANENT
    assert classify("ip", -1, Action.ADD, "something that nobody has seen yet") is Result.TRANSIENT


def test_a_killed_tool_may_be_tried_again_unless_the_message_says_more() -> None:
    assert classify("ip", -9, Action.ADD, "ip ended with exit code -9") is Result.TRANSIENT
    assert classify("ip", -9, Action.ADD, EXISTS) is Result.RACED


@pytest.mark.parametrize("action", Action)
def test_only_a_delete_is_gone(action: Action) -> None:
    for line in TABLE:
        if line.result is Result.GONE:
            assert action in line.actions or action is not Action.DELETE
            assert line.actions == {Action.DELETE}


def test_the_worst_of_several_lines_counts() -> None:
    order = (Result.GONE, Result.RACED, Result.TRANSIENT, Result.PERMANENT)
    for better, worse in itertools.combinations(order, 2):
        assert worst([better, worse, better]) is worse
        assert worst([worse, better]) is worse


def said(stderr: str, code: int) -> Completed:
    return Completed(code, b"", stderr.encode())


@pytest.mark.parametrize(
    ("stderr", "code", "expected"),
    [
        ("", 0, {}),
        ("Warning: route NAT is deprecated\n", 0, {}),
        (f"{EXISTS}\nCommand failed -:2\n", 1, {2: EXISTS}),
        ("Command failed -:2\n", 1, {2: "failed without a message"}),
        ("", 1, dict.fromkeys((1, 2, 3), "ip ended with exit code 1")),
        ("no line is named\n", 2, dict.fromkeys((1, 2, 3), "no line is named")),
        (f"{EXISTS}\nCommand failed -:1\nusage\n\n", 255, {1: EXISTS, 2: "usage", 3: "usage"}),
        (f"{EXISTS}\nCommand failed -:3\nusage\n", 255, {3: EXISTS}),
        (
            f"{EXISTS}\nCommand failed -:2\n",
            -15,
            {1: "ip ended with exit code -15", 2: EXISTS, 3: "ip ended with exit code -15"},
        ),
        ("Command failed -:x\n", 1, dict.fromkeys((1, 2, 3), "Command failed -:x")),
        ("Command failed other:2\n", 1, dict.fromkeys((1, 2, 3), "Command failed other:2")),
    ],
)
def test_failed_lines_are_found_by_their_number(stderr: str, code: int, expected: dict[int, str]) -> None:
    assert failures(said(stderr, code), 3) == expected


@given(st.binary(), st.integers(-20, 255).filter(bool), st.integers(1, 9))
def test_a_failed_process_never_looks_like_a_good_one(stderr: bytes, code: int, total: int) -> None:
    assert failures(Completed(code, b"", stderr), total)


def test_a_person_is_told_what_to_do_where_that_is_known() -> None:
    assert "modprobe ip_gre" in advised("Error: Unknown device type.")
    for old in ('Option "-j" is unknown, try "ip -help".', "ip: unrecognized option: N\nBusyBox v1.36.1"):
        assert "needs iproute2 5.15" in advised(old)
    assert "modprobe nf_tables" in advised("Unable to initialize Netlink socket: Protocol not supported")
    assert "CAP_NET_ADMIN" in advised("RTNETLINK answers: Operation not permitted")
    assert advised("RTNETLINK answers: File exists") == "RTNETLINK answers: File exists"
