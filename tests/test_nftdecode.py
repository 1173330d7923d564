"""The reader of nft's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.errors import ObservationError
from dzagent.kernel.nftdecode import Known, counts, decode
from dzagent.nftgrammar import parse
from dzagent.nftmodel import NftTable, NftUnknown

FIXTURES = Path(__file__).with_name("fixtures") / "nft"
TABLE = parse((FIXTURES / "table.nft").read_text(), "table.nft")
ANSWERS = sorted(FIXTURES.glob("*.json"))
ANSWER = (FIXTURES / "nft-1.0.6.json").read_bytes()


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_every_release_s_answer_is_the_table_that_was_loaded(path: Path) -> None:
    seen = decode(path.read_bytes())
    assert (seen.state, seen.table, seen.handle) == ("there", TABLE, 1)
    assert seen.table.marked


def edited(change: Callable[[list[dict[str, Any]]], object]) -> NftTable:
    document = json.loads(ANSWER)
    change(document["nftables"])
    return decode(json.dumps(document).encode()).table


def record(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    return next(
        o[kind] for o in objects if kind in o and name in {"", o[kind].get("name"), o[kind].get("chain")}
    )


SAME = [
    lambda o: record(o, "rule").update(handle=99, comment="hello"),
    lambda o: record(o, "chain", "unicast_input").update(comment="x", handle=77),
    lambda o: record(o, "set").update(flags="interval", count=3),
    lambda o: record(o, "table").update(comment="x", flags=[], use=7),
    lambda o: o.append(o.pop(3)),
]


@pytest.mark.parametrize("change", SAME)
def test_handles_comments_and_order_of_kinds_do_not_matter(
    change: Callable[[list[dict[str, Any]]], object],
) -> None:
    assert edited(change) == TABLE


OTHER = [
    lambda o: record(o, "rule")["expr"].insert(0, {"log": None}),
    lambda o: record(o, "rule")["expr"].insert(0, {"counter": {"packets": 1, "bytes": 2}}),
    lambda o: record(o, "rule")["expr"][0]["match"].update(op="=="),
    lambda o: record(o, "rule")["expr"][0]["match"].update(right="doublezero*"),
    lambda o: record(o, "rule")["expr"][0]["match"].update(right=3),
    lambda o: record(o, "rule")["expr"][0]["match"].update(extra=3),
    lambda o: record(o, "rule")["expr"].append({"jump": {"target": "x"}}),
    lambda o: record(o, "rule").update(expr=[{"xt": {"type": "match", "name": "comment"}}]),
    lambda o: record(o, "rule").update(expr=[None]),
    lambda o: record(o, "chain", "unicast_input").update(policy="drop"),
    lambda o: record(o, "chain", "unicast_input").update(prio=0),
    lambda o: record(o, "chain", "unicast_input").update(type="nat"),
    lambda o: record(o, "chain", "unicast_input").update(dev="eth0"),
    lambda o: record(o, "table").update(flags="0.0.0.0"),  # noqa: S104 how nft 1.0.6 prints flags
    lambda o: record(o, "table").update(flags=["dormant"]),
    lambda o: record(o, "set").update(timeout=3),
    lambda o: record(o, "set").update(flags=["interval", "timeout"]),
    lambda o: record(o, "set").update(type=["ipv4_addr", "inet_service"]),
    lambda o: record(o, "set")["elem"].append("203.0.113.255"),
    lambda o: record(o, "set").update(elem=[{"elem": {"val": "192.0.2.1", "timeout": 3}}]),
    lambda o: o.append({"map": {"family": "inet", "table": "dzagent", "name": "m"}}),
    lambda o: o.append({"ct helper": {"family": "inet", "table": "dzagent", "name": "m"}}),
    lambda o: o.remove(next(x for x in o if "rule" in x)),
]


@pytest.mark.parametrize("change", OTHER)
def test_whatever_is_otherwise_is_seen(change: Callable[[list[dict[str, Any]]], object]) -> None:
    assert edited(change) != TABLE


@pytest.mark.parametrize(
    "expression",
    [
        {"match": {"op": "==", "left": {"ct": {"key": "state", "dir": "original"}}, "right": "new"}},
        {"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr"]}}, "right": "x"}},
        {"match": {"op": "in", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}},
        {"match": {"op": "<", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}},
        {"match": {"op": "==", "left": {"payload": {"base": "th", "offset": 0, "len": 16}}, "right": 22}},
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "saddr"}}, "right": "::1"}},
        {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}},
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}},
        {"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": "x"}},
        {"accept": None, "drop": None},
        {"counter": None},
        "accept",
        17,
    ],
)
def test_an_expression_outside_the_grammar_is_unknown(expression: object) -> None:
    table = edited(lambda o: record(o, "rule", "unicast_leak").update(expr=[expression]))
    (chain,) = (chain for chain in table.chains if chain.name == "unicast_leak")
    assert isinstance(chain.rules[0].expressions[0], NftUnknown)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"nftables": 3}',
        b'{"nftables": []}',
        b'{"nftables": [3]}',
        b'{"nftables": [{"metainfo": {}}]}',
        b'{"nftables": [{"table": {"family": "ip", "name": "dzagent"}}]}',
        ANSWER[: len(ANSWER) // 2],
        ANSWER.replace(b'"dzagent", "type"', b'"other", "type"', 1),
        ANSWER.replace(b'"prio": -10', b'"prio": "x"', 1),
        ANSWER.replace(b'"chain": "unicast_input"', b'"chain": "gone"', 1),
        b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_never_empty(text: bytes) -> None:
    with pytest.raises(ObservationError):
        decode(text)


@given(st.data())
def test_no_mangled_answer_is_more_than_an_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ANSWER) - 1))
    text = ANSWER[:at] + data.draw(st.binary(max_size=3)) + ANSWER[at + data.draw(st.integers(0, 9)) :]
    try:
        decode(text)
    except ObservationError:
        return


def test_where_only_counters_move_nothing_is_decoded_again() -> None:
    known = Known()
    first = known.read(ANSWER)
    moved = ANSWER.replace(b'"packets": 0, "bytes": 0', b'"packets": 7, "bytes": 512')
    assert moved != ANSWER
    assert known.read(moved).table is first.table
    other = ANSWER.replace(b"doublezero0", b"doublezero9")
    assert known.read(other).table != first.table
    assert counts(moved)["unicast_bgp"] == (7, 512)
    assert set(counts(ANSWER)) == set(TABLE.counters)
