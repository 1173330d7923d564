"""Ten thousand answers that are wrong in every way we know: none crashes, none takes a service away, none is kept."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dzagent.errors import LedgerError
from dzagent.ledger.jsonrpc import read_answer
from dzagent.ledger.poller import DirectPoller, Pace
from dzagent.ledger.transport import MAX_BODY
from dzagent.matching import match
from dzagent.model import SERVICE_NAMES, Withdraw
from tests.ledger_fakes import (
    CONFIG,
    DEVICE2,
    EDGE,
    GROUP,
    IP,
    MULTICAST,
    OLD_USER,
    OTHER_IP,
    OTHER_PROGRAM,
    PROGRAM,
    UNICAST,
    FakeLedger,
    account_json,
    device_bytes,
    key,
    user_bytes,
)

ANSWERS = 10_000
LIMIT = 100_000_000
"""Bytes of memory above the start that no answer may cost."""

Change = Callable[[random.Random, Any], Any]


def entries(result: Any) -> list[Any]:
    value = result.get("value") if isinstance(result, dict) else None
    return value if isinstance(value, list) else []


def accounts(result: Any) -> list[dict[str, Any]]:
    """Return the account objects in a result, of look-ups and of searches."""
    found = (entry.get("account", entry) if isinstance(entry, dict) else None for entry in entries(result))
    return [account for account in found if isinstance(account, dict)]


def cut_list(chance: random.Random, result: Any) -> Any:
    value = entries(result)
    del value[chance.randrange(len(value) + 1) :]
    return result


def shuffle(chance: random.Random, result: Any) -> Any:
    chance.shuffle(entries(result))
    return result


def duplicate(chance: random.Random, result: Any) -> Any:
    value = entries(result)
    if value:
        value.insert(chance.randrange(len(value)), copy.deepcopy(chance.choice(value)))
    return result


def swap(chance: random.Random, result: Any) -> Any:
    """Give two addresses each other's account."""
    value = entries(result)
    if len(value) > 1:
        one, two = chance.sample(range(len(value)), 2)
        if isinstance(value[one], dict) and "pubkey" in value[one]:
            value[one]["account"], value[two]["account"] = value[two]["account"], value[one]["account"]
        else:
            value[one], value[two] = value[two], value[one]
    return result


def on_account(change: Change) -> Change:
    def apply(chance: random.Random, result: Any) -> Any:
        found = accounts(result)
        if found:
            account = chance.choice(found)
            account.update(change(chance, account))
        return result

    return apply


def data_of(account: dict[str, Any]) -> bytes:
    import base64

    return base64.b64decode(account["data"][0])


def with_data(data: bytes) -> dict[str, Any]:
    return {"data": account_json(data)["data"]}


def shorten(chance: random.Random, account: dict[str, Any]) -> dict[str, Any]:
    data = data_of(account)
    return with_data(data[: chance.randrange(len(data) + 1)])


def other_type(chance: random.Random, account: dict[str, Any]) -> dict[str, Any]:
    return with_data(bytes([chance.choice([0, 1, 2, 5, 7, 8, 14, 200])]) + data_of(account)[1:])


def other_owner(chance: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    return {"owner": chance.choice([OTHER_PROGRAM, "1" * 32, "", None, 7, []])}


def odd_data(chance: random.Random, _: dict[str, Any]) -> dict[str, Any]:
    return {"data": chance.choice([None, "", [], ["?", "base64"], ["AAAA", "base58"], [1, 2], {"a": 1}])}


def odd_user(chance: random.Random, account: dict[str, Any]) -> dict[str, Any]:
    """Give a user values that nobody knows, or another client IP; nothing that says "not activated"."""
    data = bytearray(data_of(account))
    if len(data) > 131 and data[0] == 7:
        at, values = chance.choice([(50, range(4, 256)), (131, range(9, 256)), (119, range(256))])
        data[at] = chance.choice(values)
    return with_data(bytes(data))


def drop_one(chance: random.Random, result: Any) -> Any:
    """Leave one account out of a list. (A look-up that says "absent" while the search lacks it is a deletion.)"""
    value = entries(result)
    if value and isinstance(value[0], dict) and "pubkey" in value[0]:
        del value[chance.randrange(len(value))]
    return result


def drop_all(_: random.Random, result: Any) -> Any:
    return {**result, "value": []} if isinstance(result, dict) else result


def slot_back(chance: random.Random, result: Any) -> Any:
    if isinstance(result, dict) and "context" in result:
        slot = result["context"]["slot"]
        wrong = [slot - chance.randrange(1, 1000), 0, -1, None, str(slot), 2**62, 2**80, 1.5, True]
        return {**result, "context": {"slot": chance.choice(wrong)}}
    return result


def replace(chance: random.Random, _: Any) -> Any:
    return chance.choice([None, [], {}, "x", 7, True, [None], {"context": {}}, {"value": []}, "2" * 44])


SHAPES: list[Change] = [
    cut_list, shuffle, duplicate, swap, drop_one, drop_all, slot_back, replace,
    *map(on_account, (shorten, other_type, other_owner, odd_data, odd_user)),
]  # fmt: skip


def cut_bytes(chance: random.Random, body: bytes) -> bytes:
    return body[: chance.randrange(len(body))]


def junk_bytes(chance: random.Random, body: bytes) -> bytes:
    at = chance.randrange(len(body))
    return body[:at] + chance.randbytes(chance.randrange(1, 50)) + body[at:]


def html(_: random.Random, __: bytes) -> bytes:
    return b"<html><body>502 Bad Gateway</body></html>"


def error(chance: random.Random, body: bytes) -> bytes:
    codes: list[Any] = [
        -32005,
        -32016,
        -32010,
        -32601,
        -32602,
        -32700,
        -32099,
        429,
        1015,
        0,
        None,
        "x",
        2**70,
        [],
    ]
    wrong: Any = chance.choice(
        [None, 7, "x", [], {"code": chance.choice(codes), "message": chance.choice(["", 7, None])}]
    )
    return json.dumps({"id": json.loads(body)["id"], "error": wrong}).encode()


def wrong_id(_: random.Random, body: bytes) -> bytes:
    return json.dumps({**json.loads(body), "id": 10**9}).encode()


BYTES: list[Callable[[random.Random, bytes], bytes]] = [cut_bytes, junk_bytes, html, error, wrong_id]

HUGE: list[Callable[[random.Random, bytes], bytes]] = [
    lambda chance, _: chance.randbytes(8 << 20),
    lambda chance, _: chance.randbytes(4 << 20).hex().encode(),
    lambda _, __: b"[" * 1_000_000,
    lambda _, __: b'{"a":' * 1_000_000,
    lambda _, __: b"[" + b"[]," * 4_000_000 + b"[]]",
    lambda _, body: b'{"result":"' + b"x" * (12 << 20) + b'",' + body[1:],
    lambda _, body: big_account(body),
]


def big_account(body: bytes) -> bytes:
    """Let one account hold 10 MB (as base64 that is 13.3 MB)."""
    answer = json.loads(body)
    found = accounts(answer.get("result"))
    if found:
        found[-1].update(with_data(b"\7" + bytes(10_000_000)))
    return json.dumps(answer).encode()


class Liar(FakeLedger):
    """A node whose answers pass the real parser, after something was done to them."""

    chance: random.Random
    lies: int = 0
    often: float = 0.7
    huge: bool = False

    def call(self, method: str, params: Any = (), *, max_body: int | None = None) -> Any:
        result = super().call(method, params, max_body=max_body)
        chance = self.chance
        if self.huge:
            return self._through(method, result, chance.choice(HUGE))
        if chance.random() > self.often:
            return result
        self.lies += 1
        if chance.random() < 0.3:
            return self._through(method, result, chance.choice(BYTES))
        return chance.choice(SHAPES)(chance, result)

    def _through(self, _method: str, result: Any, change: Callable[[random.Random, bytes], bytes]) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "result": result, "id": 5}).encode()
        return read_answer(change(self.chance, body), 5, MAX_BODY)


def liar(seed: int) -> Liar:
    ledger = Liar(step=3)
    ledger.accounts[MULTICAST] = user_bytes(kind=3, publishers=[GROUP])
    ledger.accounts[OLD_USER] = user_bytes(kind=2, index=77)
    ledger.accounts[DEVICE2] = device_bytes("ams-dz001", index=2)
    for number in range(60):
        ledger.accounts[key(3 + number)] = user_bytes(OTHER_IP, index=number + 1)
    ledger.chance = random.Random(seed)
    return ledger


class Ticks:
    """A clock that goes on by three seconds whenever it is read: a poll reads it a few times."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 3.0
        return self.now


def resident() -> int:
    """Return this process's memory in bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def assert_kept(snapshot: Any) -> None:
    for service in SERVICE_NAMES:
        found = match(snapshot, IP, service)
        assert not isinstance(found, Withdraw), found.reason


def start(ledger: Liar, **options: Any) -> DirectPoller:
    often, ledger.often = ledger.often, 0.0
    agent = DirectPoller(ledger, PROGRAM, clock=Ticks(), **options)
    for _ in range(3):
        snapshot = agent.poll([IP])
    assert set(snapshot.users) == {UNICAST, MULTICAST, OLD_USER}
    ledger.often = often
    return agent


def lie(ledger: Liar, agent: DirectPoller, count: int) -> int:
    """Poll until so many answers were lies; return how many polls gave a picture all the same."""
    target, good = ledger.lies + count, 0
    while ledger.lies < target:
        try:
            snapshot = agent.poll([IP])
        except LedgerError:
            continue
        assert_kept(snapshot)
        good += 1
    return good


def test_ten_thousand_wrong_answers_take_nothing_away() -> None:
    before = resident()
    good = 0
    ways: list[dict[str, Any]] = [{}, {"pace": Pace(search=0.0)}, {"full_fetch": True}, {"absent_polls": 3}]
    for seed, options in enumerate(ways):
        ledger = liar(seed)
        agent = start(ledger, **options)
        good += lie(ledger, agent, ANSWERS // 4)
        ledger.often = 0.0
        for _ in range(5):
            final = agent.poll([IP])
        assert (set(final.users), final.complete, final.problems) == (
            {UNICAST, MULTICAST, OLD_USER},
            True,
            (),
        )
        assert len(agent._decoder._seen) < 20
    assert good > 100
    assert resident() - before < LIMIT


def test_a_deleted_user_is_seen_to_be_gone_once_the_lies_end() -> None:
    ledger = liar(9)
    agent = start(ledger)
    del ledger.accounts[UNICAST]
    ledger.often = 0.0
    assert UNICAST in agent.poll([IP]).users
    assert UNICAST not in agent.poll([IP]).users


def test_huge_answers_cost_little_memory_and_nothing_else() -> None:
    ledger = liar(1)
    agent = start(ledger)
    before, most = resident(), 0
    ledger.huge = True
    for _ in range(21):
        with contextlib.suppress(LedgerError):
            assert_kept(agent.poll([IP]))
        most = max(most, resident() - before)
    ledger.huge = False
    assert set(start(ledger).poll([IP]).users) == {UNICAST, MULTICAST, OLD_USER}
    assert most < LIMIT


def test_lies_from_the_first_answer_on_grant_only_what_the_ledger_grants() -> None:
    for seed in range(150):
        ledger = liar(seed)
        del ledger.accounts[MULTICAST]
        agent = DirectPoller(ledger, PROGRAM, clock=Ticks())
        for _ in range(4):
            try:
                snapshot = agent.poll([IP])
            except LedgerError:
                continue
            assert CONFIG in snapshot.raw
            assert all(user.client_ip == IP for user in snapshot.users.values())
            assert EDGE not in snapshot.users or snapshot.users[EDGE].user_type == 2
