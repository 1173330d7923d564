"""The closed grammar: what is written is read back, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dzagent.errors import GrammarError
from dzagent.grammar import MAX_BYTES, format_object, parse
from dzagent.ipvalues import mark
from dzagent.model import Address, KernelObject, Link, Origin, Route, Rule, Wanted
from dzagent.renderedlines import MAX_LINE, MAX_LINES

MAX_U32 = 2**32 - 1
NOWHERE = str(IPv4Address(0))
ANY = IPv4Network("0.0.0.0/0")
LOCAL, REMOTE = IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1")
PEER = IPv4Address("169.254.0.0")
LINK = Link("doublezero0", LOCAL, REMOTE, 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ROUTE = Route(ANY, PEER, "doublezero0", 101, 210, IPv4Address("203.0.113.9"))
RULE = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)

TUNNEL_LINES = (
    "link add name doublezero0 mtu 1476 type gre local 198.51.100.7 remote 192.0.2.1 ttl 64 nopmtudisc",
    "link set dev doublezero0 alias dzagent:unicast",
    "link set dev doublezero0 up",
)
ADDRESS_LINE = "addr add 169.254.0.1/31 dev doublezero0 scope link"
ROUTE_LINE = (
    "route add 0.0.0.0/0 via 169.254.0.0 dev doublezero0 src 203.0.113.9 table 101 proto 210 metric 7"
)
RULE_LINE = "rule add priority 100 from 0.0.0.0/0 to 203.0.113.0/24 table 100 protocol 210"
TUNNEL = "".join(f"{line}\n" for line in TUNNEL_LINES)


def read(text: str) -> tuple[Wanted, ...]:
    return parse(text, "unicast/x.ip", "unicast")


def read_one(obj: KernelObject) -> KernelObject:
    (item,) = read("".join(f"{line}\n" for line in format_object(obj)))
    return item.obj


def refused(text: str) -> GrammarError:
    with pytest.raises(GrammarError) as caught:
        read(text)
    assert str(caught.value).startswith("unicast/x.ip:")
    check_message(caught.value)
    return caught.value


def check_message(error: GrammarError) -> None:
    """Check that a message is one line that no terminal takes for something else."""
    assert str(error).isascii()
    assert str(error).isprintable()


# ---- the forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "lines"),
    [
        (LINK, TUNNEL_LINES),
        (ADDRESS, (ADDRESS_LINE,)),
        (replace(ROUTE, metric=7), (ROUTE_LINE,)),
        (
            replace(ROUTE, src=None),
            ("route add 0.0.0.0/0 via 169.254.0.0 dev doublezero0 table 101 proto 210",),
        ),
        (RULE, (RULE_LINE,)),
    ],
)
def test_one_fixed_form_an_object(obj: KernelObject, lines: tuple[str, ...]) -> None:
    assert format_object(obj) == lines
    assert read_one(obj) == obj


def test_objects_keep_their_order_and_know_their_line() -> None:
    text = f"# a comment\n\n{TUNNEL}# another\n{ADDRESS_LINE}\n{RULE_LINE}\n"
    assert [(item.obj, item.origin) for item in read(text)] == [
        (LINK, Origin("unicast", "unicast/x.ip", 3)),
        (ADDRESS, Origin("unicast", "unicast/x.ip", 7)),
        (RULE, Origin("unicast", "unicast/x.ip", 8)),
    ]


def test_comments_and_empty_lines_may_stand_between_the_lines_of_a_link() -> None:
    assert read("\n# about the link\n".join(TUNNEL_LINES) + "\n")[0].obj == LINK


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "#\n" * 3])
def test_a_file_may_want_nothing(text: str) -> None:
    assert read(text) == ()


def test_each_service_has_a_mark_of_its_own() -> None:
    assert (mark("unicast"), mark("multicast")) == ("dzagent:unicast", "dzagent:multicast")


# ---- parse(format(x)) == x -----------------------------------------------------------------------------------

addresses = st.integers(0, MAX_U32).map(IPv4Address) | st.sampled_from(
    [IPv4Address(n) for n in (0, 1, 0x7F000001, 0xE0000001, 0xEFFFFFFF, MAX_U32)]
)
networks = st.builds(
    lambda n, length: IPv4Network((n, length), strict=False), st.integers(0, MAX_U32), st.integers(0, 32)
)
interfaces = st.builds(lambda a, length: IPv4Interface((int(a), length)), addresses, st.integers(0, 32))
words = st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9_.:-]{0,20}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", fullmatch=True)
aliases = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}", fullmatch=True)
numbers = st.integers(-1, 70_000) | st.sampled_from([MAX_U32, MAX_U32 + 1])

good_objects: st.SearchStrategy[KernelObject] = st.one_of(
    st.builds(
        Link,
        names,
        st.integers(1, 0xDFFFFFFF).map(IPv4Address),
        st.integers(0xF0000000, MAX_U32 - 1).map(IPv4Address),
        st.integers(1, 255),
        st.integers(68, 65511),
        aliases,
        st.booleans(),
    ),
    st.builds(
        Address,
        names,
        interfaces.filter(lambda i: int(i.ip) > 0),
        st.sampled_from(["global", "link", "host"]),
    ),
    st.builds(
        Route,
        networks,
        st.integers(1, MAX_U32).map(IPv4Address),
        names,
        st.integers(1, MAX_U32),
        st.integers(1, 255),
        st.none() | st.integers(1, MAX_U32).map(IPv4Address),
        st.integers(0, MAX_U32),
    ),
    st.builds(
        Rule, st.integers(1, MAX_U32), networks, networks, st.integers(1, MAX_U32), st.integers(1, 255)
    ),
)
extras = st.just(()) | st.tuples(st.text(max_size=20))
odd_objects: st.SearchStrategy[KernelObject] = st.one_of(
    st.builds(
        Link,
        names | words,
        addresses,
        addresses,
        numbers,
        numbers,
        aliases | words,
        st.booleans(),
        st.booleans(),
        extras,
    ),
    st.builds(Address, names | words, interfaces, st.sampled_from(["global", "site", "link\n"]), extras),
    st.builds(
        Route,
        networks,
        st.none() | addresses,
        st.none() | names | words,
        numbers,
        numbers,
        st.none() | addresses,
        numbers,
        extras,
    ),
    st.builds(Rule, numbers, networks, networks, numbers, numbers, extras),
)


@given(good_objects)
def test_what_is_written_is_read_back(obj: KernelObject) -> None:
    assert read_one(obj) == obj


@given(odd_objects)
@example(replace(LINK, name="a\nlink delete dev eth0"))
@example(replace(LINK, alias="a\nlink delete dev eth0"))
@example(replace(ADDRESS, dev="doublezero0 \n"))
@example(replace(ROUTE, table=0))
@example(replace(RULE, priority=0))
def test_an_object_is_written_so_that_it_is_read_back_or_not_at_all(obj: KernelObject) -> None:
    try:
        lines = format_object(obj)
    except GrammarError as error:
        check_message(error)
        return
    assert read("".join(f"{line}\n" for line in lines))[0].obj == obj


@pytest.mark.parametrize(
    "obj",
    [
        replace(LINK, up=False),
        replace(LINK, extra=("ikey 0.0.0.1",)),
        replace(LINK, name="sixteen-letters-"),
        replace(LINK, name=""),
        replace(LINK, alias=""),
        replace(LINK, ttl=0),
        replace(LINK, mtu=65512),
        replace(LINK, remote=LOCAL),
        replace(LINK, remote=IPv4Address("224.0.0.1")),
        replace(LINK, local=IPv4Address(0)),
        replace(ADDRESS, scope="site"),
        replace(ADDRESS, interface=IPv4Interface("0.0.0.0/0")),
        replace(ADDRESS, extra=("peer 10.0.0.1/32",)),
        replace(ROUTE, via=None),
        replace(ROUTE, dev=None),
        replace(ROUTE, via=IPv4Address(0)),
        replace(ROUTE, src=IPv4Address(0)),
        replace(ROUTE, metric=-1),
        replace(ROUTE, extra=("type blackhole",)),
        replace(RULE, protocol=256),
        replace(RULE, extra=("iif eth0",)),
    ],
)
def test_an_object_that_no_desired_state_has_is_not_written(obj: KernelObject) -> None:
    with pytest.raises(GrammarError, match="cannot be written"):
        format_object(obj)


# ---- what is refused -----------------------------------------------------------------------------------------


def link_line(**changes: str) -> str:
    words = TUNNEL_LINES[0].split(" ")
    for name, value in changes.items():
        words[words.index(name) + 1] = value
    return " ".join(words) + "\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # other commands, other spellings
        ("link delete dev eth0", "none of"),
        ("link set dev eth0 down", "not of the form"),
        ("link set dev eth0 mtu 1400", "not of the form"),
        ("link set dev eth0 netns 1", "not of the form"),
        ("link add name a type dummy", "not of the form"),
        ("route replace 0.0.0.0/0 via 169.254.0.0 dev doublezero0 table 101 proto 210", "none of"),
        ("route del 0.0.0.0/0", "none of"),
        ("route flush table main", "none of"),
        ("rule flush", "none of"),
        ("netns exec x sh", "none of"),
        ("-batch /etc/passwd", "none of"),
        ("ip " + RULE_LINE, "none of"),
        (RULE_LINE.upper(), "none of"),
        (" " + RULE_LINE, "none of"),
        (RULE_LINE + " ", "not of the form"),
        (RULE_LINE.replace(" to ", "  to "), "not of the form"),
        (RULE_LINE + " # why", "not of the form"),
        (RULE_LINE + "; link delete dev eth0", "not of the form"),
        (RULE_LINE + " iif eth0", "not of the form"),
        (RULE_LINE.replace("rule add", "rule add not"), "not of the form"),
        (RULE_LINE.removesuffix(" protocol 210"), "not of the form"),
        (RULE_LINE.replace("table", "lookup"), "not of the form"),
        (ADDRESS_LINE.removesuffix(" scope link"), "not of the form"),
        (ADDRESS_LINE + " label doublezero0:x", "not of the form"),
        (ROUTE_LINE.replace("route add", "route add blackhole"), "not of the form"),
        (ROUTE_LINE.replace(" via 169.254.0.0", ""), "not of the form"),
        (ROUTE_LINE.replace("metric 7", "onlink"), "not of the form"),
        (ROUTE_LINE.replace("metric 7", "metric 7 metric 8"), "not of the form"),
        (ROUTE_LINE.replace("src 203.0.113.9 table 101", "table 101 src 203.0.113.9"), "not of the form"),
        ("x", "none of"),
        ("   ", "none of"),
        # values
        (ROUTE_LINE.replace("0.0.0.0/0", "default"), "no prefix length"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.1"), "no prefix length"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.1/24"), "host bits set: the network is 192.0.2.0/24"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.0/33"), "from 0 to 32"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.0/-1"), "from 0 to 32"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.0/024"), "from 0 to 32"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.0/255.255.255.0"), "from 0 to 32"),
        (ROUTE_LINE.replace("0.0.0.0/0", "192.0.2.0/"), "from 0 to 32"),
        (ROUTE_LINE.replace("0.0.0.0/0", "::/0"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "169.254.0"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "169.254.0.0.1"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "169.254.0.256"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "169.254.0.00"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "0xa9.254.0.0"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "2852061184"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", "peer.example.net"), "not an IPv4 address"),
        (ROUTE_LINE.replace("169.254.0.0", NOWHERE), "means no address"),
        (ROUTE_LINE.replace("203.0.113.9", NOWHERE), "means no address"),
        (ROUTE_LINE.replace("table 101", "table main"), "a table is a number"),
        (ROUTE_LINE.replace("table 101", "table 0"), "from 1 to 4294967295"),
        (ROUTE_LINE.replace("table 101", "table 4294967296"), "from 1 to 4294967295"),
        (ROUTE_LINE.replace("table 101", "table 0x65"), "a table is a number"),
        (ROUTE_LINE.replace("table 101", "table +101"), "a table is a number"),
        (ROUTE_LINE.replace("table 101", "table 1_01"), "a table is a number"),
        (ROUTE_LINE.replace("table 101", "table 1e2"), "a table is a number"),
        (ROUTE_LINE.replace("table 101", "table 0101"), "a table is a number"),
        (ROUTE_LINE.replace("proto 210", "proto bgp"), "a protocol is a number"),
        (ROUTE_LINE.replace("proto 210", "proto 0"), "from 1 to 255"),
        (ROUTE_LINE.replace("proto 210", "proto 256"), "from 1 to 255"),
        (ROUTE_LINE.replace("metric 7", "metric 0"), "from 1 to 4294967295"),
        (ROUTE_LINE.replace("doublezero0", "sixteen-letters-"), "not a link name"),
        (ROUTE_LINE.replace("doublezero0", "-x"), "not a link name"),
        (ROUTE_LINE.replace("doublezero0", ".."), "not a link name"),
        (ROUTE_LINE.replace("doublezero0", "a/b"), "not a link name"),
        (ROUTE_LINE.replace("doublezero0", "a'b"), "not a link name"),
        (RULE_LINE.replace("priority 100", "priority 0"), "from 1 to 4294967295"),
        (RULE_LINE.replace("from 0.0.0.0/0", "from all"), "no prefix length"),
        (ADDRESS_LINE.replace("169.254.0.1/31", "0.0.0.0/31"), "means no address"),
        (ADDRESS_LINE.replace("169.254.0.1/31", "169.254.0.1"), "no prefix length"),
        (ADDRESS_LINE.replace("scope link", "scope site"), "not one of global, host, link"),
        (ADDRESS_LINE.replace("scope link", "scope 253"), "not one of global, host, link"),
        (link_line(mtu="67").strip(), "from 68 to 65511"),
        (link_line(mtu="65512").strip(), "from 68 to 65511"),
        (link_line(ttl="0").strip(), "from 1 to 255"),
        (link_line(ttl="inherit").strip(), "a TTL is a number"),
        (link_line(type="gretap").strip(), "not of the form"),
        (link_line(local=NOWHERE).strip(), "means no address"),
        (link_line(local="any").strip(), "not an IPv4 address"),
        (link_line(remote="224.0.0.1").strip(), "unicast address is needed"),
        (link_line(remote="255.255.255.255").strip(), "unicast address is needed"),
        (link_line(remote="198.51.100.7").strip(), "both ends of the tunnel"),
        (link_line().strip() + " key 5", "not of the form"),
        (link_line().replace("nopmtudisc", "pmtu").strip(), "neither pmtudisc nor nopmtudisc"),
        (link_line().removesuffix(" nopmtudisc\n"), "not of the form"),
        # characters
        (RULE_LINE + "\r", "'\\r' is not allowed"),
        (RULE_LINE.replace(" to ", "\tto "), "'\\t' is not allowed"),
        (RULE_LINE.replace("100", "\uff11\uff10\uff10", 1), "is not allowed: only printable ASCII is"),
        (RULE_LINE + "\0", "'\\x00' is not allowed"),
        (RULE_LINE + "\x7f", "'\\x7f' is not allowed"),
        ("# caf\u00e9", "is not allowed: only printable ASCII is"),
        ("# \u202e", "'\\u202e' is not allowed"),
        ("# \ud800", "'\\ud800' is not allowed"),
        (RULE_LINE + "\x0b", "'\\x0b' is not allowed"),
        (RULE_LINE + "\u2028link delete dev eth0", "'\\u2028' is not allowed"),
        # sizes
        ("#" * (MAX_LINE + 1), "a comment of 513 characters"),
        (RULE_LINE + " " * MAX_LINE, "at most 512 are allowed"),
    ],
)
def test_what_is_outside_the_grammar_is_refused_with_its_line(line: str, said: str) -> None:
    error = refused(f"# first\n{line}\n{ADDRESS_LINE}\n")
    assert said in str(error)
    assert error.line == 2
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (TUNNEL_LINES[0] + "\n", 1, "alias dzagent:unicast` must be its next line"),
        ("\n".join(TUNNEL_LINES[:2]) + "\n", 1, "up` must be its next line"),
        (TUNNEL_LINES[1] + "\n", 1, "follow each other"),
        (TUNNEL_LINES[2] + "\n", 1, "follow each other"),
        (TUNNEL + TUNNEL_LINES[2] + "\n", 4, "follow each other"),
        (TUNNEL_LINES[0] + "\n" + TUNNEL_LINES[2] + "\n", 2, "alias dzagent:unicast` must be its next line"),
        ("\n".join([*TUNNEL_LINES[:2], TUNNEL_LINES[1]]) + "\n", 3, "up` must be its next line"),
        (f"{TUNNEL_LINES[0]}\n{ADDRESS_LINE}\n", 2, "must be its next line"),
        (f"{TUNNEL_LINES[0]}\n{TUNNEL_LINES[0]}\n", 2, "must be its next line"),
        (TUNNEL.replace("dev doublezero0 alias", "dev doublezero1 alias"), 2, "must be its next line"),
        (TUNNEL.replace("dev doublezero0 up", "dev eth0 up"), 3, "must be its next line"),
        (TUNNEL + TUNNEL, 4, "line 1 has made this link already"),
        (f"{RULE_LINE}\n\n{RULE_LINE}\n", 3, "line 1 has made this rule already"),
        (f"{ADDRESS_LINE}\n{ADDRESS_LINE}\n", 2, "line 1 has made this address already"),
        (
            f"{ROUTE_LINE}\n{ROUTE_LINE.replace('via 169.254.0.0', 'via 169.254.0.2')}\n",
            2,
            "line 1 has made this route already",
        ),
        (RULE_LINE, 1, "may be cut off"),
        (f"{ADDRESS_LINE}\n# the end", 2, "may be cut off"),
        ("\n" * (MAX_LINES + 1), None, "at most 65536 are allowed"),
        ("#\n" * (MAX_BYTES // 2 + 1), None, "at most 4194304 are allowed"),
    ],
)
def test_what_does_not_fit_together_is_refused(text: str, line: int | None, said: str) -> None:
    error = refused(text)
    assert said in str(error)
    assert error.line == line


def test_the_same_route_with_another_metric_or_table_is_another_route() -> None:
    others = [ROUTE_LINE, ROUTE_LINE.replace("metric 7", "metric 8"), ROUTE_LINE.replace("101", "102")]
    assert len(read("".join(f"{line}\n" for line in others))) == 3


@given(st.text() | st.text("linkadrouesyp 0123456789./\n#", max_size=200))
def test_any_text_gives_objects_or_a_grammar_error(text: str) -> None:
    try:
        items = read(text)
    except GrammarError as error:
        check_message(error)
        return
    for item in items:
        assert read_one(item.obj) == item.obj


@given(st.sampled_from([*TUNNEL_LINES, ADDRESS_LINE, ROUTE_LINE, RULE_LINE]), st.data())
def test_no_damaged_line_is_taken_for_something_that_it_does_not_say(line: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line)))
    damaged = line[:at] + data.draw(st.text(max_size=3)) + line[at + data.draw(st.integers(0, 3)) :]
    whole = TUNNEL.replace(line, damaged) if line in TUNNEL else damaged + "\n"
    try:
        items = read(whole)
    except GrammarError:
        return
    written = [written for item in items for written in format_object(item.obj)]
    assert written == [kept for kept in whole.split("\n") if kept and kept[0] != "#"]


@pytest.mark.parametrize(
    "evil",
    [
        lambda n: "link add name " + "a " * n,
        lambda n: "route add " + "src 1.1.1.1 " * n,
        lambda n: "addr add " + "1." * n,
        lambda n: "addr add " + "1" * n + "/" + "1" * n + " dev x scope link",
        lambda n: "rule add priority " + "9" * n,
        lambda n: "link set dev " + "x" * n + " up",
    ],
)
def test_no_line_takes_long_to_refuse(evil: Callable[[int], str]) -> None:
    line = evil(MAX_LINE)[:MAX_LINE]
    for _ in range(100):  # exponential reading would not end
        refused(line + "\n")
