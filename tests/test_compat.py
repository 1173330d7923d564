"""Answers in doublezerod's shapes, byte for byte.

The files in golden/api are written by hand from doublezerod's own tests and types (client/doublezerod/internal:
runtime/run_test.go, manager/http.go, api/models.go); nothing regenerates them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.api.compat import compact, status_v1, status_v2
from tests.api_fakes import UNICAST, multicast

GOLDEN = Path(__file__).parent / "golden" / "api"

CASES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "none": [],
    "ibrl": [UNICAST],
    "publisher": [multicast(publish=(1,))],
    "subscriber": [multicast(subscribe=(1, 2))],
    "both": [multicast(publish=(1,), subscribe=(1, 2))],
    "ibrl-and-subscriber": [multicast(subscribe=(2,)), UNICAST],
    "no-labels": [
        {**UNICAST, "current_device": "", "metro": "", "tenant": "", "user_type": "EdgeFiltering"},
    ],
    "session-up": [{**UNICAST, "session": {"status": "BGP Session Up", "last_update": 1792000000}}],
}


@pytest.mark.parametrize("name", CASES)
def test_status_v1(name: str) -> None:
    assert status_v1({"services": CASES[name]}) == (GOLDEN / f"v1-{name}.json").read_text()


@pytest.mark.parametrize("name", CASES)
def test_status_v2(name: str) -> None:
    document = {"services": CASES[name], "client_ip": "198.51.100.7"}
    answer = compact(status_v2(document, enabled=True, network="mainnet-beta"))
    assert answer == (GOLDEN / f"v2-{name}.json").read_text()


def test_a_service_without_its_link_is_not_shown() -> None:
    document = {"services": [{**UNICAST, "provisioned": False}]}
    assert status_v1(document) == (GOLDEN / "v1-none.json").read_text()
    assert status_v2(document, enabled=False, network="testnet")["services"] == []


def test_nothing_is_known_yet() -> None:
    answer = compact(status_v2({}, enabled=False, network="testnet"))
    assert answer == '{"reconciler_enabled":false,"client_ip":"","network":"testnet","services":[]}\n'


def test_text_is_escaped_as_go_does() -> None:
    given_ = {"metro": '<b>&"\u2028\u2029\x00\x1b\x7fé\ud800'}
    assert compact(given_) == '{"metro":"\\u003cb\\u003e\\u0026\\"\\u2028\\u2029\\u0000\\u001b\x7fé\ufffd"}\n'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, 0.5, "x", [], [1], ["x"], [{}], [{"code": 7}], {}, {"status": 1}, {"publisher": 1}]
)
services = st.fixed_dictionaries(
    {"provisioned": st.just(True)}, optional=dict.fromkeys(sorted(set(UNICAST) - {"provisioned"}), odd)
)


@given(json_values)
def test_compact_is_json(value: Any) -> None:
    assert json.loads(compact(value)) == value


@given(
    st.dictionaries(
        st.sampled_from(["services", "client_ip", "enabled"]),
        odd | st.lists(services, max_size=3),
    )
)
def test_a_document_of_any_shape_gives_an_answer_of_the_right_shape(document: dict[str, Any]) -> None:
    first = json.loads(status_v1(document))
    assert first
    for service in first:
        assert isinstance(service["doublezero_status"]["session_status"], str)
    second = status_v2(document, enabled=True, network="testnet")
    assert list(second) == ["reconciler_enabled", "client_ip", "network", "services"]
    for service in second["services"]:
        assert isinstance(service["subscriptions"], list)
        assert type(service["doublezero_status"]["last_session_update"]) is int
