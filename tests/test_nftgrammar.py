"""The closed grammar of the nftables text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.errors import GrammarError
from dzagent.nftgrammar import format_table, parse
from dzagent.nftmodel import NftChain, NftHook, NftMatch, NftRule, NftTable, NftUnknown, NftVerdict
from dzagent.renderedlines import MAX_LINE, MAX_LINES
from tests.nft_strategies import tables

HEAD = "add table inet dzagent\n"
CHAIN = HEAD + "add chain inet dzagent c { type filter hook forward priority 0; policy accept; }\n"
SET = HEAD + "add set inet dzagent s { type ipv4_addr; flags interval; }\n"


@settings(deadline=None, max_examples=50)
@given(tables())
def test_what_is_written_is_read_back(table: NftTable) -> None:
    text = "".join(f"{line}\n" for line in format_table(table))
    assert parse(text, "x.nft") == table


def test_a_text_without_commands_is_nothing() -> None:
    assert parse("", "x") == parse("# a comment\n\n", "x") == NftTable()


def rule(text: str) -> str:
    return f"{CHAIN}add rule inet dzagent c {text}\n"


BAD = [
    ("add table ip dzagent\n", 1, "not of the form"),
    ("add table inet other\n", 1, "not of the form"),
    ("flush ruleset\n", 1, "is none of"),
    ("delete table inet dzagent\n", 1, "is none of"),
    ('include "/etc/passwd"\n', 1, "is none of"),
    ("define x = 1\n", 1, "is none of"),
    (HEAD + HEAD, 2, "already"),
    ("add chain inet dzagent c\n", 1, "must come first"),
    (HEAD + 'add chain inet dzagent c"\n', 2, "is not a name"),
    (HEAD + "add chain inet dzagent C\n", 2, "is not a name"),
    (HEAD + f"add chain inet dzagent {'c' * 65}\n", 2, "is not a name"),
    (HEAD + "add chain inet dzagent c; flush ruleset\n", 2, "not of the form"),
    (HEAD + "add chain inet dzagent c { type nat hook input priority 0; policy accept; }\n", 2, "not of the form"),
    (HEAD + "add chain inet dzagent c { type filter hook input priority 0; policy drop; }\n", 2, "not of the form"),
    (HEAD + "add chain inet dzagent c { type filter hook ingress priority 0; policy accept; }\n", 2, "hooks"),
    (HEAD + "add chain inet dzagent c { type filter hook input priority 401; policy accept; }\n", 2, "401"),
    (HEAD + "add chain inet dzagent c { type filter hook input priority -0; policy accept; }\n", 2, "written 0"),
    (HEAD + "add chain inet dzagent c { type filter hook input priority raw; policy accept; }\n", 2, "raw"),
    (CHAIN + "add chain inet dzagent c\n", 3, "already"),
    (HEAD + "add set inet dzagent s { type ether_addr; flags interval; }\n", 2, "types"),
    (HEAD + "add set inet dzagent s { type ipv4_addr; flags timeout; }\n", 2, "not of the form"),
    (HEAD + "add element inet dzagent s { 192.0.2.1 }\n", 2, "no set"),
    (SET + "add element inet dzagent s { 192.0.2.1, 192.0.2.2 }\n", 3, "not of the form"),
    (SET + "add element inet dzagent s { 192.0.2.1/32 }\n", 3, "is written 192.0.2.1"),
    (SET + "add element inet dzagent s { 192.0.2.1/24 }\n", 3, "host bits"),
    (SET + "add element inet dzagent s { 192.0.2.0/33 }\n", 3, "prefix length"),
    (SET + "add element inet dzagent s { 192.0.2.010 }\n", 3, "not an IPv4 address"),
    (SET + "add element inet dzagent s { 80 }\n", 3, "not an IPv4 address"),
    (SET + "add element inet dzagent s { 192.0.2.9-192.0.2.1 }\n", 3, "ends before"),
    (SET + "add element inet dzagent s { 192.0.2.1 }\n" * 2, 4, "already"),
    (SET + "add element inet dzagent s { 10.0.0.0/8 }\nadd element inet dzagent s { 10.1.0.0/16 }\n", None, "overlap"),
    ("add counter inet dzagent x\n", 1, "must come first"),
    (rule('iifname != "doublezero0'), 3, "double quotes"),
    (rule("iifname != doublezero0 accept"), 3, "double quotes"),
    (rule('iifname "double*" accept'), 3, "not a link name"),
    (rule('iifname "" accept'), 3, "not a link name"),
    (rule("jump other"), 3, "known here"),
    (rule("log accept"), 3, "known here"),
    (rule('log prefix "x" accept'), 3, "known here"),
    (rule("queue"), 3, "known here"),
    (rule("masquerade"), 3, "known here"),
    (rule("ip saddr 192.0.2.1 snat to 192.0.2.2"), 3, "known here"),
    (rule("counter drop"), 3, "known here"),
    (rule('counter name "nobody" drop'), 3, "no counter"),
    (rule("ip saddr @nobody drop"), 3, "no set"),
    (rule("iifname @nobody drop"), 3, "no set by name"),
    (rule("accept drop"), 3, "after the end"),
    (rule("accept "), 3, "ends with"),
    (rule("ip saddr 192.0.2.1"), 3, "ends with"),
    (rule("tcp sport { 11179, 179 } drop"), 3, "is written { 179, 11179 }"),
    (rule("tcp sport { 179 } drop"), 3, "is written 179"),
    (rule("tcp sport 70000 drop"), 3, "not a port"),
    (rule("tcp sport 0 drop"), 3, "not a port"),
    (rule("tcp sport ssh drop"), 3, "not a port"),
    (rule("ip saddr { 224.0.0.0/4, 240.0.0.0/4 } drop"), 3, "is written 224.0.0.0/3"),
    (rule("ip saddr {10.0.0.0/8} drop"), 3, "known here"),
    (rule("ct state != established accept"), 3, "has no !="),
    (rule("ct state related,established accept"), 3, "is written established,related"),
    (rule("ct mark 1 accept"), 3, "known here"),
    (rule("fib saddr type blackhole drop"), 3, "none of"),
    (rule("meta l4proto sctp drop"), 3, "none of"),
    (rule("tcp option maxseg size set rt mtu"), 3, "only a SYN has one"),
    (rule("tcp flags syn tcp option maxseg size set 63"), 3, "64"),
    (rule("tcp flags syn tcp option maxseg size set 0900"), 3, "0900"),
    (rule(" ".join(["ip saddr 192.0.2.1"] * 9) + " drop"), 3, "at most 8"),
    (rule("drop").rstrip("\n"), 3, "cut off"),
    (rule("drop") + "\t\n", 4, "character"),
    (rule("drop") + "é\n", 4, "character"),
    (rule("drop") + "#" * (MAX_LINE + 1) + "\n", 4, "at most"),
    ("\n" * (MAX_LINES + 1), None, "at most"),
    (CHAIN.replace("forward", "input") + "add rule inet dzagent c tcp flags syn tcp option maxseg size set rt mtu\n", 3, "no route"),
    (HEAD + "add chain inet dzagent m\nadd rule inet dzagent m drop\n", 3, "no hook"),
    (SET + "add chain inet dzagent c { type filter hook input priority 0; policy accept; }\nadd rule inet dzagent c tcp dport @s drop\n", 4, "looked up"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "why"), BAD)
def test_what_is_outside_is_refused_with_its_line(text: str, line: int | None, why: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse(text, "unicast/nftables.nft")
    assert (caught.value.file, caught.value.line) == ("unicast/nftables.nft", line)
    assert why in str(caught.value)


WORDS = (
    *["add", "table", "inet", "dzagent", "chain", "set", "counter", "rule", "element", "c", "s", "{", "}", "type", "filter", "hook", "input", "priority", "0;", "policy", "accept;"],
    *["ipv4_addr;", "flags", "interval;", "ip", "saddr", "!=", "192.0.2.1", "tcp", "dport", "22", "@s", "iifname", '"lo"', "drop", "accept", "-1", "ct", "state", "new", ",", "-", "/", '"'],
)  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=12).map(" ".join), max_size=6)
)
def test_whatever_it_says_a_text_is_read_or_refused(lines: list[str]) -> None:
    try:
        parse("".join(f"{line}\n" for line in [HEAD.strip(), *lines]), "x")
    except GrammarError:
        return


def test_every_form_is_read() -> None:
    text = Path(__file__).with_name("fixtures").joinpath("nft/table.nft").read_text()
    table = parse(text, "table.nft")
    assert tuple(text.splitlines()) == format_table(table)


@pytest.mark.parametrize(
    "table",
    [
        NftTable(odd=("map x",)),
        NftTable(chains=(NftChain("c", NftHook("input", 0), (NftRule((NftUnknown("{}"),)),)),)),
    ],
)
def test_what_no_desired_table_has_is_not_written(table: NftTable) -> None:
    with pytest.raises(GrammarError):
        format_table(table)


def test_an_unknown_expression_equals_nothing() -> None:
    one, other = (NftRule((NftUnknown("x"), NftVerdict("drop"))) for _ in range(2))
    assert one != other
    assert one != NftRule((NftMatch("ip saddr", "==", "192.0.2.1"), NftVerdict("drop")))
