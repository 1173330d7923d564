"""JSON-RPC as Agave speaks it: results, every error code, envelopes and batches."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.devledger import base58, world
from dzagent.devledger.dispatch import answer
from dzagent.model import UserType
from tests.devledger_fakes import IP, OTHER_IP, PROGRAM, Fixed, ask, error, populated, result, with_user

STATE, USER = with_user(populated())
STATE, OTHER = with_user(STATE, UserType.EDGE_FILTERING, OTHER_IP)
SOURCE = Fixed.of(STATE, slot=100)
DATA = SOURCE.view_.accounts[USER]
NOBODY = base58.encode(b"\x05" * 32)
BASE64 = {"encoding": "base64"}


def said(request: Any) -> Any:
    """Return what is answered to a request document, None for nothing."""
    text = answer(SOURCE, json.dumps(request).encode())
    return json.loads(text) if text else None


# ---- results ---------------------------------------------------------------------------------------------


def test_an_account_is_written_as_agave_does() -> None:
    body = b'{"jsonrpc":"2.0","id":7,"method":"getAccountInfo","params":["%s",{"encoding":"base64"}]}'
    text = answer(SOURCE, body % USER.encode()).decode()
    data = base64.b64encode(DATA).decode()
    assert text == (
        '{"jsonrpc":"2.0","result":{"context":{"apiVersion":"2.3.6","slot":100},"value":{"data":["'
        + data
        + '","base64"],"executable":false,"lamports":2324640,"owner":"'
        + PROGRAM
        + '","rentEpoch":18446744073709551615,"space":206}},"id":7}'
    )


def test_many_accounts_come_in_order_and_null_for_absent_ones() -> None:
    value = result(SOURCE, "getMultipleAccounts", [NOBODY, USER, OTHER, USER])["value"]
    assert [item and item["space"] for item in value] == [None, 206, 206, 206]
    assert value[1]["data"][1] == "base64", "the default of this method"
    assert result(SOURCE, "getMultipleAccounts", [])["value"] == []
    assert result(SOURCE, "getAccountInfo", NOBODY)["value"] is None


def listed(*filters: Any, **config: Any) -> list[str]:
    """Return the addresses that getProgramAccounts lists."""
    found = result(SOURCE, "getProgramAccounts", PROGRAM, {**BASE64, "filters": list(filters), **config})
    return [item["pubkey"] for item in found]


def memcmp(offset: int, value: Any, encoding: str | None = "base58") -> dict[str, Any]:
    """Return a memcmp filter."""
    body = {"offset": offset, "bytes": value}
    return {"memcmp": body if encoding is None else {**body, "encoding": encoding}}


def test_all_accounts_of_the_program_sorted() -> None:
    assert listed() == sorted(SOURCE.view_.accounts)
    assert listed(sortResults=False) == listed()
    assert result(SOURCE, "getProgramAccounts", NOBODY, BASE64) == []


def test_users_of_a_client_ip_are_found() -> None:
    user = memcmp(0, base58.encode(b"\x07"))
    assert listed(user) == sorted([USER, OTHER])
    for value, encoding in (
        (base58.encode(IP.packed), "base58"),
        (base58.encode(IP.packed), None),
        (base58.encode(IP.packed), "binary"),
        (base64.b64encode(IP.packed).decode(), "base64"),
        (list(IP.packed), "bytes"),
        (list(IP.packed), None),
    ):
        assert listed(user, memcmp(116, value, encoding)) == [USER]


def test_filters_are_all_needed() -> None:
    assert listed({"dataSize": 206}) == sorted([USER, OTHER])
    assert listed({"dataSize": 206}, memcmp(0, base58.encode(b"\x05"))) == []
    assert listed({"dataSize": 205}) == []
    assert listed("tokenAccountState") == []


def test_bytes_behind_the_end_of_an_account_do_not_match() -> None:
    assert listed(memcmp(206, [0], None), {"dataSize": 206}) == []
    assert listed(memcmp(206, [], None), {"dataSize": 206}) == sorted([USER, OTHER])
    assert listed(memcmp(2**64 - 1, "", None)) == []


def test_context_and_slices() -> None:
    config = {**BASE64, "withContext": True, "dataSlice": {"offset": 116, "length": 4}}
    found = result(SOURCE, "getProgramAccounts", PROGRAM, {**config, "filters": [{"dataSize": 206}]})
    assert found["context"] == {"apiVersion": "2.3.6", "slot": 100}
    parts = {item["pubkey"]: base64.b64decode(item["account"]["data"][0]) for item in found["value"]}
    assert parts == {USER: IP.packed, OTHER: OTHER_IP.packed}
    assert {item["account"]["space"] for item in found["value"]} == {206}
    far = {**BASE64, "dataSlice": {"offset": 10**9, "length": 2**64 - 1}}
    assert result(SOURCE, "getAccountInfo", USER, far)["value"]["data"] == ["", "base64"]


def test_encodings() -> None:
    def data(encoding: str | None, address: str = STATE.config.account) -> Any:
        return result(SOURCE, "getAccountInfo", address, {"encoding": encoding})["value"]["data"]

    raw = SOURCE.view_.accounts[STATE.config.account]
    assert data("base58") == [base58.encode(raw), "base58"]
    assert data("binary") == base58.encode(raw), "the old form has no name of its encoding"
    assert data(None) == base58.encode(raw)
    assert data("jsonParsed", USER) == [base64.b64encode(DATA).decode(), "base64"], "no node can parse it"
    text, encoding = data("base64+zstd", USER)
    assert (base64.b64decode(text)[:4], encoding) == (b"\x28\xb5\x2f\xfd", "base64+zstd")


def test_base58_is_for_small_accounts() -> None:
    says = (
        -32600,
        "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.",
    )
    for config in ({}, {"encoding": "base58"}, {"encoding": "binary"}):
        assert error(SOURCE, "getProgramAccounts", PROGRAM, config) == says
        assert error(SOURCE, "getAccountInfo", USER, config) == says
    part = {"encoding": "base58", "dataSlice": {"offset": 0, "length": 128}}
    assert result(SOURCE, "getAccountInfo", USER, part)["value"]["data"][0] == base58.encode(DATA[:128])


def test_what_else_a_node_says() -> None:
    assert result(SOURCE, "getSlot") == result(SOURCE, "getBlockHeight") == 100
    assert result(SOURCE, "getSlot", {"commitment": "processed"}) == 100
    assert result(SOURCE, "getHealth") == "ok"
    assert result(SOURCE, "getGenesisHash") == STATE.genesis_hash
    assert result(SOURCE, "getVersion") == {"feature-set": 3294202862, "solana-core": "2.3.6"}
    assert result(SOURCE, "getMinimumBalanceForRentExemption", 206) == 2324640
    epoch = result(Fixed.of(STATE, 432_007), "getEpochInfo")
    assert (epoch["epoch"], epoch["slotIndex"], epoch["absoluteSlot"]) == (1, 7, 432_007)


# ---- error codes -----------------------------------------------------------------------------------------


def test_a_slot_that_is_not_reached() -> None:
    for method, subject in (
        ("getAccountInfo", [USER]),
        ("getMultipleAccounts", [[USER]]),
        ("getProgramAccounts", [PROGRAM]),
        ("getSlot", []),
    ):
        found = ask(SOURCE, method, *subject, {**BASE64, "minContextSlot": 101})["error"]
        assert found == {
            "code": -32016,
            "message": "Minimum context slot has not been reached",
            "data": {"contextSlot": 100},
        }
        assert "result" in ask(SOURCE, method, *subject, {**BASE64, "minContextSlot": 100})


def test_an_unhealthy_node() -> None:
    state, _ = world.set_node(STATE, healthy=False, slots_behind=42)
    found = ask(Fixed.of(state), "getHealth")["error"]
    assert found == {
        "code": -32005,
        "message": "Node is behind by 42 slots",
        "data": {"numSlotsBehind": 42},
    }
    state, _ = world.set_node(STATE, healthy=False)
    found = ask(Fixed.of(state), "getHealth")["error"]
    assert found == {"code": -32005, "message": "Node is unhealthy", "data": {"numSlotsBehind": None}}
    assert result(Fixed.of(state), "getSlot") == 100, "as with Agave, it answers all the same"


def test_an_excluded_program() -> None:
    state, _ = world.set_node(STATE, excluded=(PROGRAM,))
    assert error(Fixed.of(state), "getProgramAccounts", PROGRAM, BASE64) == (
        -32010,
        f"{PROGRAM} excluded from account secondary indexes; this RPC method unavailable for key",
    )
    assert result(Fixed.of(state), "getAccountInfo", USER, BASE64)["value"] is not None


def test_too_many_keys() -> None:
    assert error(SOURCE, "getMultipleAccounts", [USER] * 101) == (-32602, "Too many inputs provided; max 100")
    assert len(result(SOURCE, "getMultipleAccounts", [USER] * 100)["value"]) == 100


def test_too_many_filters() -> None:
    config = {**BASE64, "filters": [{"dataSize": 1}] * 5}
    assert error(SOURCE, "getProgramAccounts", PROGRAM, config) == (
        -32602,
        "Too many filters provided; max 4",
    )
    assert listed(*[{"dataSize": 206}] * 4) == sorted([USER, OTHER])


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("not a key", "Invalid"),
        ("0OIl", "Invalid"),
        ("0" * 44, "Invalid"),
        ("", "WrongSize"),
        ("abc", "WrongSize"),
        (USER + "1", "WrongSize"),
        ("1" * 100_000, "WrongSize"),
    ],
)
def test_a_bad_key(key: str, says: str) -> None:
    says = f"Invalid param: {says}"
    assert error(SOURCE, "getAccountInfo", key) == (-32602, says)
    assert error(SOURCE, "getMultipleAccounts", [USER, key]) == (-32602, says)
    assert error(SOURCE, "getProgramAccounts", key) == (-32602, says)


@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        ("getAccountInfo", [], "`params` should have at least 1 argument(s)"),
        ("getAccountInfo", [USER, {}, {}], "Expected from 1 to 2 parameters. Got: 3"),
        ("getHealth", [1], "Expected no parameters. Got: 1"),
        ("getAccountInfo", [5], "invalid type: integer `5`, expected a string."),
        ("getAccountInfo", [True], "invalid type: boolean `true`, expected a string."),
        ("getAccountInfo", [None], "invalid type: null, expected a string."),
        ("getMultipleAccounts", [USER], "expected a sequence"),
        ("getMultipleAccounts", [[[]]], "invalid type: sequence, expected a string."),
        ("getAccountInfo", [USER, "base64"], 'invalid type: string "base64"'),
        ("getAccountInfo", [USER, {"encoding": "hex"}], "unknown variant `hex`, expected one of `binary`"),
        ("getAccountInfo", [USER, {"encoding": 5}], "expected a string"),
        ("getAccountInfo", [USER, {"commitment": "maybe"}], "unknown variant `maybe`"),
        ("getSlot", [{"minContextSlot": -1}], "integer `-1`, expected u64"),
        ("getSlot", [{"minContextSlot": 2**64}], "expected u64"),
        ("getSlot", [{"minContextSlot": 1.5}], "floating point `1.5`, expected u64"),
        ("getSlot", [{"minContextSlot": True}], "boolean `true`, expected u64"),
        ("getAccountInfo", [USER, {"dataSlice": 5}], "struct UiDataSliceConfig"),
        ("getAccountInfo", [USER, {"dataSlice": {"offset": 0}}], "missing field `length`"),
        ("getProgramAccounts", [PROGRAM, {"filters": {}}], "invalid type: map, expected a sequence"),
        ("getProgramAccounts", [PROGRAM, {"filters": [5]}], "enum RpcFilterType"),
        ("getProgramAccounts", [PROGRAM, {"filters": [{}]}], "single key"),
        ("getProgramAccounts", [PROGRAM, {"filters": [{"size": 1}]}], "unknown variant `size`"),
        ("getProgramAccounts", [PROGRAM, {"filters": [{"dataSize": "1"}]}], "expected u64"),
        ("getProgramAccounts", [PROGRAM, {"filters": [{"memcmp": 1}]}], "struct Memcmp"),
        ("getProgramAccounts", [PROGRAM, {"filters": [{"memcmp": {"offset": 0}}]}], "missing field `bytes`"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "0OIl")]}], "Base58DecodeError"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "!", "base64")]}], "Base64DecodeError"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "ü", "base64")]}], "Base64DecodeError"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "1" * 176)]}], "DataTooLarge"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "1" * 129)]}], "DataTooLarge"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "A" * 176, "base64")]}], "DataTooLarge"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, [0] * 129, "bytes")]}], "DataTooLarge"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, [256], "bytes")]}], "expected u8"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, [True], "bytes")]}], "expected u64"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, [1], "base58")]}], "expected a string"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "1", "bytes")]}], "expected a sequence"),
        ("getProgramAccounts", [PROGRAM, {"filters": [memcmp(0, "1", "hex")]}], "unknown variant `hex`"),
        ("getProgramAccounts", [PROGRAM, {"withContext": 1}], "expected a boolean"),
        ("getMinimumBalanceForRentExemption", ["x"], "expected u64"),
    ],
)
def test_parameters_that_do_not_fit(method: str, params: list[Any], says: str) -> None:
    code, message = error(SOURCE, method, *params)
    assert code == -32602
    assert says in message


def test_null_stands_for_not_given_and_unknown_keys_mean_nothing() -> None:
    config = {
        "encoding": "base64", "filters": None, "dataSlice": None, "commitment": None, "minContextSlot": None,
        "withContext": None, "sortResults": None, "somethingNew": [1],
    }  # fmt: skip
    assert len(result(SOURCE, "getProgramAccounts", PROGRAM, config)) == len(SOURCE.view_.accounts)
    assert result(SOURCE, "getSlot", None) == 100


def test_an_unknown_method() -> None:
    assert error(SOURCE, "getBlock", 5) == (-32601, "Method not found")
    assert error(SOURCE, "__init__") == (-32601, "Method not found")


# ---- envelopes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"nonsense",
        b"[" * 50_000,
        b'{"a":' * 9_000,
        b'{"jsonrpc":"2.0","id":NaN,"method":"getSlot"}',
        b'{"jsonrpc":"2.0","id":1e999,"method":"getSlot"}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 45_000 + b',"method":"getSlot"}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"getSlot"}',
    ],
)
def test_what_is_no_json_is_a_parse_error(body: bytes) -> None:
    assert json.loads(answer(SOURCE, body)) == {
        "jsonrpc": "2.0",
        "error": {"code": -32700, "message": "Parse error"},
        "id": None,
    }


INVALID = {"code": -32600, "message": "Invalid request"}
GOOD = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}


@pytest.mark.parametrize(
    "request_",
    [1, "x", None, True, {}, {"jsonrpc": "2.0", "id": 1}, {**GOOD, "method": 5}, {**GOOD, "params": "x"}],
)
def test_what_is_no_request_is_invalid(request_: Any) -> None:
    found = said(request_)
    assert found["error"] == INVALID
    assert found["id"] == (request_.get("id") if isinstance(request_, dict) else None)


@pytest.mark.parametrize("request_id", [1, 0, -5, 1.5, "x", "", None, 2**64, "\ud800", "\u2028"])
def test_the_id_comes_back(request_id: Any) -> None:
    assert said({**GOOD, "id": request_id}) == {"jsonrpc": "2.0", "result": 100, "id": request_id}
    assert said({**GOOD, "id": request_id, "method": "x"})["id"] == request_id


@pytest.mark.parametrize("request_id", [True, [], {}, [1]])
def test_other_ids_are_invalid(request_id: Any) -> None:
    assert said({**GOOD, "id": request_id}) == {"jsonrpc": "2.0", "error": INVALID, "id": None}


@pytest.mark.parametrize("version", ["1.0", 2, None, 2.0])
def test_another_version_is_refused(version: Any) -> None:
    found = said({**GOOD, "jsonrpc": version})
    assert found["error"] == {"code": -32600, "message": "Unsupported JSON-RPC protocol version"}
    assert found["id"] == 1


def test_a_notification_has_no_answer() -> None:
    assert said({"jsonrpc": "2.0", "method": "getSlot"}) is None
    assert said([{"jsonrpc": "2.0", "method": "getSlot"}] * 2) is None


def test_parameters_by_name_are_refused() -> None:
    assert said({**GOOD, "params": {"commitment": "processed"}})["error"]["code"] == -32602


def test_a_batch() -> None:
    found = said(
        [GOOD, 5, {**GOOD, "id": "b", "method": "x"}, {"jsonrpc": "2.0", "method": "getSlot"}, [GOOD]]
    )
    assert found == [
        {"jsonrpc": "2.0", "result": 100, "id": 1},
        {"jsonrpc": "2.0", "error": INVALID, "id": None},
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "b"},
        {"jsonrpc": "2.0", "error": INVALID, "id": None},
    ]
    assert said([])["error"] == INVALID


def test_a_batch_has_a_limit() -> None:
    assert len(said([GOOD] * 100)) == 100
    found = said([GOOD] * 101)
    assert found["error"] == {"code": -32600, "message": "Too many requests in a batch; max 100"}


def test_a_batch_cannot_ask_for_more_than_one_answer_may_have() -> None:
    request = {**GOOD, "method": "getMultipleAccounts", "params": [[USER] * 30]}
    batch = json.dumps([{**request, "id": number} for number in range(10)]).encode()
    text = answer(SOURCE, batch, 30_000)
    found = json.loads(text)
    assert [item["id"] for item in found] == list(range(10))
    assert ["result" in item for item in found] == [True] * 2 + [False] * 8
    assert {item["error"]["code"] for item in found[2:]} == {-32603}
    assert len(text) < 32_000
    alone = json.loads(answer(SOURCE, json.dumps(request).encode(), 1000))
    assert alone["error"]["code"] == -32603


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=60)
    | st.just(USER)
    | st.just(PROGRAM),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["offset", "bytes", "encoding", "memcmp", "dataSize", "filters", "dataSlice", "length", "id"]
            )
            | st.text(max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["getAccountInfo", "getMultipleAccounts", "getProgramAccounts", "getSlot", "x"]) | JSON,
    JSON | st.lists(JSON, max_size=3) | st.tuples(st.just(PROGRAM), JSON),
    JSON,
)
def test_any_request_has_an_answer(method: Any, params: Any, request_id: Any) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()
    found = json.loads(answer(SOURCE, body))
    assert found["jsonrpc"] == "2.0"
    assert ("result" in found) != ("error" in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_have_an_answer(body: bytes) -> None:
    found = answer(SOURCE, body)
    assert found == b"" or json.loads(found)


def test_commitments_reach_the_source() -> None:
    asked = []

    class Asked:
        def view(self, commitment: str) -> Any:
            asked.append(commitment)
            return replace(SOURCE.view_, slot=len(asked))

    for word in ("processed", "confirmed", "finalized", "recent", "singleGossip", "max", None):
        result(Asked(), "getSlot", {"commitment": word})
    assert asked == [
        "processed", "confirmed", "finalized", "processed", "confirmed", "finalized", "finalized",
    ]  # fmt: skip
