"""The development ledger as a cluster: commitments, nodes that lag, a crowd, subscriptions, and every fault."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from solders.rpc.responses import (
    AccountNotification,
    GetMultipleAccountsResp,
    GetProgramAccountsWithContextResp,
    ProgramNotification,
    SlotNotification,
    SubscriptionResult,
    parse_websocket_message,
)
from websockets.sync.client import connect

from dzagent.cli.main import main
from dzagent.devledger import bank
from dzagent.devledger.crowd import Crowd
from dzagent.devledger.crowd import population as make_population
from dzagent.devledger.faults import ANSWERS, TRANSPORT, Fault, FaultFile, make
from dzagent.devledger.faulty import FaultyServer
from dzagent.devledger.history import CONFIRMED_SLOTS, FINALIZED_SLOTS, Depths, History
from dzagent.devledger.node import Source, View
from dzagent.devledger.pubsub import PubSubServer
from dzagent.devledger.server import Listen
from dzagent.errors import InputError, LaggingNode, LedgerChanged, LedgerError
from dzagent.ledger.accounts import decode
from dzagent.ledger.poller import DirectPoller, Pace
from dzagent.ledger.rpc import Rpc
from dzagent.matching import match
from dzagent.model import Withdraw
from tests.devledger_fakes import IP, PROGRAM, Fixed, Ledger, ask, populated, result, with_user

BASE64 = {"encoding": "base64"}


@functools.cache
def population() -> Mapping[str, bytes]:
    """Return the crowd, made once."""
    return make_population()


class Living:
    """A source whose accounts and slot a test changes."""

    def __init__(self) -> None:
        self.state, self.account = with_user(populated())
        self.slot = 1000
        self.accounts = bank.accounts(self.state)

    def view(self, _commitment: str) -> View:
        return View(self.slot, self.state.genesis_hash, PROGRAM, self.accounts, self.state.node)

    def change(self, address: str, data: bytes | None) -> None:
        self.slot += 1
        changed = {**self.accounts, address: data}
        self.accounts = {key: data for key, data in changed.items() if data is not None}


# ---- commitments -----------------------------------------------------------------------------------------------


def test_each_commitment_shows_a_change_when_it_has_come_so_far() -> None:
    source = Living()
    history = History(source, Depths(CONFIRMED_SLOTS, FINALIZED_SLOTS))
    source.change(source.account, None)
    history.look()
    seen = []
    for _ in range(FINALIZED_SLOTS + 1):
        seen.append(
            [source.account in history.view(c).accounts for c in ("processed", "confirmed", "finalized")]
        )
        source.slot += 1
    assert seen[0] == [False, True, True]
    assert seen[CONFIRMED_SLOTS] == [False, False, True]
    assert seen[FINALIZED_SLOTS - 1] == [False, False, True]
    assert seen[FINALIZED_SLOTS] == [False, False, False]
    assert history.view("processed").slot - history.view("finalized").slot == FINALIZED_SLOTS


def test_a_node_that_lags_answers_for_older_slots_and_refuses_newer_ones() -> None:
    source = Living()
    behind = History(source, Depths(lag=50))
    assert result(behind, "getSlot") == 950
    wanted = {**BASE64, "minContextSlot": 960}
    assert ask(behind, "getMultipleAccounts", [source.account], wanted)["error"] == {
        "code": -32016,
        "message": "Minimum context slot has not been reached",
        "data": {"contextSlot": 950},
    }


# ---- the crowd -------------------------------------------------------------------------------------------------


def test_the_crowd_is_as_large_as_mainnet_and_readable() -> None:
    crowd = population()
    assert 5300 < len(crowd) < 5500
    said = json.dumps(result(Crowd(Fixed.of(populated()), crowd), "getProgramAccounts", PROGRAM, BASE64))
    assert 2_400_000 < len(said) < 3_200_000
    kinds = {data[0] for data in crowd.values()}
    assert {3, 4, 5, 6, 7, 8, 11, 12} <= kinds
    for data in crowd.values():
        if data[0] in {4, 5, 7, 8, 11}:
            account = decode(data)
            assert (account.problems, account.missing, account.trailing) == ((), (), 0)


def test_own_accounts_are_found_in_the_crowd() -> None:
    source = Living()
    together = Crowd(source, population())
    assert together.view("finalized").accounts[source.account] == source.accounts[source.account]
    filters = [{"memcmp": {"offset": 0, "bytes": "8"}}, {"memcmp": {"offset": 116, "bytes": list(IP.packed)}}]
    found = result(together, "getProgramAccounts", PROGRAM, {**BASE64, "filters": filters})
    assert [item["pubkey"] for item in found] == [source.account]


# ---- servers in threads ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(*servers: FaultyServer | PubSubServer) -> Iterator[list[Listen]]:
    """Serve in a thread; yields where, in the order of the servers."""
    places: list[Listen] = []
    begun = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        over = asyncio.Event()
        loops.append((asyncio.get_running_loop(), over))
        places.extend([await server.start() for server in servers])
        begun.set()
        await over.wait()
        for server in servers:
            await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(30)
    try:
        yield places
    finally:
        loops[0][0].call_soon_threadsafe(loops[0][1].set)
        thread.join(30)
        assert not thread.is_alive()


def hear(socket: Any) -> str:
    return str(socket.recv(timeout=30))


def subscribe(socket: Any, method: str, *params: Any) -> int:
    socket.send(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}))
    while True:
        (parsed,) = parse_websocket_message(hear(socket))
        if isinstance(parsed, SubscriptionResult):
            return int(parsed.result)


def test_subscriptions_as_solana_parses_them() -> None:
    source = Living()
    with running(PubSubServer(source, Listen(port=0), look_seconds=0.01)) as (place,):  # noqa: SIM117 - two are easier to read
        with connect(f"ws://{place}") as socket:
            filters = [{"memcmp": {"offset": 0, "encoding": "base58", "bytes": "8"}}]
            program = subscribe(socket, "programSubscribe", PROGRAM, {**BASE64, "filters": filters})
            account = subscribe(socket, "accountSubscribe", source.account, BASE64)
            data = bytearray(source.accounts[source.account])
            data[131] = 6
            source.change(source.account, bytes(data))
            told = [parse_websocket_message(hear(socket))[0] for _ in range(2)]
            first = next(one for one in told if isinstance(one, ProgramNotification))
            second = next(one for one in told if isinstance(one, AccountNotification))
            assert (first.subscription, second.subscription) == (program, account)
            assert first.result.context.slot == source.slot
            assert str(first.result.value.pubkey) == source.account
            assert bytes(second.result.value.data) == bytes(data)
            # A closed account: only the account's own subscription hears of it.
            source.change(source.account, None)
            (gone,) = parse_websocket_message(hear(socket))
            assert isinstance(gone, AccountNotification)
            assert (gone.result.value.lamports, bytes(gone.result.value.data)) == (0, b"")
            with pytest.raises(TimeoutError):
                socket.recv(timeout=0.1)
            socket.send(
                json.dumps({"jsonrpc": "2.0", "id": 8, "method": "accountUnsubscribe", "params": [account]})
            )
            assert json.loads(hear(socket))["result"] is True
            subscribe(socket, "slotSubscribe")
            source.slot += 1
            (slot,) = parse_websocket_message(hear(socket))
            assert isinstance(slot, SlotNotification)
            assert slot.result.slot == source.slot


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", -32700),
        ("[]", -32600),
        ('{"id": 1}', -32600),
        ('{"id": 1, "method": "nameSubscribe"}', -32601),
        ('{"id": 1, "method": "accountSubscribe", "params": ["x"]}', -32602),
        ('{"id": 1, "method": "accountSubscribe", "params": []}', -32602),
        ('{"id": 1, "method": "accountUnsubscribe", "params": [9]}', -32602),
        ("[" * 60_000, -32700),
    ],
)
def test_odd_subscriptions_are_errors(message: str, code: int) -> None:
    with (
        running(PubSubServer(Living(), Listen(port=0))) as (place,),
        connect(f"ws://{place}") as socket,
    ):
        socket.send(message)
        assert json.loads(hear(socket))["error"]["code"] == code


# ---- faults ------------------------------------------------------------------------------------------------------


def faulty(source: Source, path: Path) -> FaultyServer:
    return FaultyServer(source, Listen(port=0), FaultFile(path))


def test_a_fault_counts_down_and_may_be_for_one_method(tmp_path: Path) -> None:
    file = FaultFile(tmp_path / "f")
    assert file.take("getSlot") is None
    file.write([make("null", "getSlot", None, 2), make("hang", "getHealth")])
    again = FaultFile(tmp_path / "f")
    names = [
        fault.name if (fault := again.take(method)) else ""
        for method in ("getSlot", "x", "getSlot", "getSlot")
    ]
    assert names == ["null", "", "null", ""]
    assert again.take("getHealth") == Fault("hang", "getHealth")
    (tmp_path / "f").write_text("{")
    assert FaultFile(tmp_path / "f").take("getHealth") is None
    for bad in (("no-such",), ("null", None, None, 0), ("null", 7)):
        with pytest.raises(InputError):
            make(*bad)


QUICK = sorted({*TRANSPORT, *ANSWERS} - {"gzip-bomb", "junk", "refuse"})


@pytest.mark.parametrize("name", QUICK)
def test_no_fault_takes_a_service_away_and_its_end_is_noticed(name: str, tmp_path: Path) -> None:
    source = Living()
    server = faulty(source, tmp_path / "faults")
    with running(server) as (place,), contextlib.closing(_rpc(place, 20.0)) as rpc:
        agent = DirectPoller(rpc, PROGRAM, pace=Pace(search=0.0))
        for _ in range(2):
            source.slot += 10
            agent.poll([IP])
        if name in {"hang", "drip"}:
            rpc._timeout = 0.3
        # A user that is missing wherever one looks is deleted: only the lists may lack it here.
        FaultFile(tmp_path / "faults").write(
            [make(name, "getProgramAccounts" if name == "no-user" else None)]
        )
        for _ in range(3):
            source.slot += 10
            try:
                snapshot = agent.poll([IP])
            except LedgerError:
                continue
            assert not isinstance(match(snapshot, IP, "unicast"), Withdraw)
        FaultFile(tmp_path / "faults").write([])
        rpc.close()
        source.slot += 5000
        fresh = DirectPoller(_rpc(place, 20.0), PROGRAM, previous=agent._last)
        assert source.account in fresh.poll([IP]).users
        fresh._rpc.close()  # type: ignore[attr-defined]  # the real client has it


def _rpc(place: Listen, timeout: float) -> Rpc:
    return Rpc([f"http://{place}"], timeout=timeout, retry_delay=0.0, budget=10_000)


def test_the_bomb_and_the_noise_end_at_the_limit(tmp_path: Path) -> None:
    server = faulty(Living(), tmp_path / "faults")
    with running(server) as (place,), contextlib.closing(Rpc([f"http://{place}"], retry_delay=0.0)) as rpc:
        for name, said in (("gzip-bomb", "larger than"), ("junk", "cannot be read")):
            FaultFile(tmp_path / "faults").write([make(name)])
            with pytest.raises(LedgerError, match=said):
                rpc.call("getSlot")


def test_nobody_listens_while_it_refuses(tmp_path: Path) -> None:
    server = faulty(Living(), tmp_path / "faults")
    with running(server) as (place,), contextlib.closing(_rpc(place, 20.0)) as rpc:
        rpc.call("getSlot")
        FaultFile(tmp_path / "faults").write([make("refuse")])
        with pytest.raises(LedgerError):  # noqa: PT012 - it takes a moment until nobody listens
            for _ in range(1000):
                rpc.call("getSlot")
        FaultFile(tmp_path / "faults").write([])
        for _ in range(1000):
            try:
                assert rpc.call("getSlot") == 1000
            except LedgerError:
                continue
            break
        else:
            raise AssertionError("it never came back")


# ---- two nodes ---------------------------------------------------------------------------------------------------


def test_two_nodes_that_disagree_take_nothing_away(tmp_path: Path) -> None:
    source = Living()
    one, two = faulty(source, tmp_path / "one"), faulty(source, tmp_path / "two")
    FaultFile(tmp_path / "two").write([make("no-user")])
    with running(one, two) as (first, second):
        rpc = Rpc([f"http://{first}", f"http://{second}"], timeout=20.0, retry_delay=0.0, return_after=0.0)
        with contextlib.closing(rpc):
            agent = DirectPoller(rpc, PROGRAM, pace=Pace(search=0.0))
            for round_ in range(6):
                source.slot += 10
                # The first one fails at times, so that the other one is asked.
                faults = [make("http-500", "getProgramAccounts" if round_ % 2 else "getMultipleAccounts")]
                FaultFile(tmp_path / "one").write(faults if round_ > 1 else [])
                with contextlib.suppress(LedgerError):
                    assert source.account in agent.poll([IP]).users
            assert rpc.health()[1]["requests"] > 0


def test_a_node_that_lags_is_left_for_one_that_does_not(tmp_path: Path) -> None:
    source = Living()
    behind = History(source, Depths(lag=100))
    one, two = faulty(behind, tmp_path / "one"), faulty(source, tmp_path / "two")
    with running(one, two) as (first, second):
        ahead = DirectPoller(_rpc(second, 20.0), PROGRAM)
        newest = ahead.poll([IP])
        ahead._rpc.close()  # type: ignore[attr-defined]  # the real client has it
        with contextlib.closing(_rpc(first, 20.0)) as rpc, pytest.raises(LaggingNode):
            DirectPoller(rpc, PROGRAM, previous=newest).poll([IP])
        both = Rpc([f"http://{first}", f"http://{second}"], timeout=20.0, retry_delay=0.0)
        with contextlib.closing(both):
            assert DirectPoller(both, PROGRAM, previous=newest).poll([IP]).slot >= newest.slot
            assert both.endpoint.endswith("#2")
            assert both.health()[0]["errors"] == {"LaggingNode": both.health()[0]["requests"] - 1}


def test_another_genesis_hash_is_another_ledger(tmp_path: Path) -> None:
    with running(faulty(Living(), tmp_path / "f")) as (place,), contextlib.closing(_rpc(place, 20.0)) as rpc:
        before = DirectPoller(rpc, PROGRAM).poll([IP])
        FaultFile(tmp_path / "f").write([make("other-genesis")])
        with pytest.raises(LedgerChanged, match="dzagent ledger forget"):
            DirectPoller(rpc, PROGRAM, previous=before).poll([IP])


def test_typed_answers_of_the_crowd_parse() -> None:
    source = Crowd(Living(), population())
    asked = {**BASE64, "withContext": True, "filters": [{"memcmp": {"offset": 0, "bytes": "6"}}]}
    said = json.dumps(ask(source, "getProgramAccounts", PROGRAM, asked))
    parsed = GetProgramAccountsWithContextResp.from_json(said)
    assert isinstance(parsed, GetProgramAccountsWithContextResp)
    assert len(parsed.value) == 112
    some = [item["pubkey"] for item in json.loads(said)["result"]["value"][:5]]
    many = GetMultipleAccountsResp.from_json(json.dumps(ask(source, "getMultipleAccounts", some, BASE64)))
    assert isinstance(many, GetMultipleAccountsResp)


def test_a_served_file_is_what_the_cluster_shows(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "ledger.json")
    history = History(ledger.node(), Depths(2, 32))
    before = len(history.view("finalized").accounts)
    ledger.store.change(lambda state: (with_user(state)[0], None))
    assert len(history.view("processed").accounts) == before + 1 + (1 if _has_pass(history) else 0)
    assert len(history.view("finalized").accounts) == before
    ledger.pass_(33 * 0.4)
    assert len(history.view("finalized").accounts) > before


def _has_pass(history: History) -> bool:
    return any(data[0] == 11 for data in history.view("processed").accounts.values())


def test_addresses_of_the_crowd_are_nobody_of_ours() -> None:
    users = [decode(data) for data in population().values() if data[0] == 7]
    assert all(getattr(user, "client_ip", IPv4Address(0)) != IP for user in users)
    assert replace(Depths(), lag=3).of("processed") == 3


# ---- the verbs ---------------------------------------------------------------------------------------------------


def verb(*words: str) -> Any:
    done = CliRunner().invoke(main, ["ledger", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_faults_are_switched_by_verbs(tmp_path: Path) -> None:
    state = str(tmp_path / "ledger.json")
    verb("init", "--state", state)
    assert "http-429" in verb("fault", "list", "--state", state)["faults"]
    on = verb("fault", "set", "null", "--count", "2", "--method", "getSlot", "--state", state)
    assert on == {"name": "null", "method": "getSlot", "account": None, "left": 2}
    verb("fault", "set", "hang", "--state", state)
    file = FaultFile(Path(state + ".faults"))
    assert [fault.name for fault in file.read()] == ["hang", "null"]
    assert [one["name"] for one in verb("fault", "clear", "hang", "--state", state)["on"]] == ["null"]
    assert verb("fault", "clear", "--state", state)["on"] == []
    assert CliRunner().invoke(main, ["ledger", "fault", "set", "boo", "--state", state]).exit_code != 0
    assert "hang" in CliRunner().invoke(main, ["ledger", "fault", "list", "--state", state]).stdout


def test_a_crowd_and_websockets_are_served(tmp_path: Path) -> None:
    words = [
        "ledger",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--state",
        str(tmp_path / "l.json"),
        "--population",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "dzagent.cli.main", *words, "--real-commitments", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            text += process.stdout.readline()
        document = json.loads(text)
        with contextlib.closing(Rpc([document["url"]], timeout=20.0)) as rpc:
            found = rpc.call("getProgramAccounts", [document["program_id"], BASE64])
            newest, settled = (rpc.call("getSlot", [{"commitment": c}]) for c in ("processed", "finalized"))
        assert len(found) > 5000
        assert settled <= max(0, newest - FINALIZED_SLOTS + 5)
        with connect(document["websocket"]) as socket:
            assert subscribe(socket, "slotSubscribe") > 0
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
