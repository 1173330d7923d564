"""The development ledger as clients see it: solana's strict typed client, and the agent's own transport and poller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from solana.exceptions import SolanaRpcException
from solana.rpc.api import Client
from solana.rpc.core import RPCException
from solana.rpc.types import DataSliceOpts, MemcmpOpts
from solders.pubkey import Pubkey

from dzagent.devledger import base58, people, world
from dzagent.devledger.server import Listen
from dzagent.errors import LaggingNode, LedgerChanged, Unusable
from dzagent.ledger.asker import Asker
from dzagent.ledger.poller import DirectPoller
from dzagent.ledger.rpc import Rpc
from dzagent.model import UserType
from tests.devledger_fakes import IP, PROGRAM, Ledger, empty, ip, populated, serving, with_user

PROGRAM_KEY = Pubkey.from_string(PROGRAM)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.make(tmp_path / "F")


@pytest.fixture
def where(ledger: Ledger) -> Iterator[Listen]:
    with serving(ledger.node()) as listening:
        yield listening


# ---- solana ----------------------------------------------------------------------------------------------


@contextmanager
def solana(where: Listen) -> Iterator[Client]:
    """Connect solana's own client."""
    client = Client(f"http://{where}")
    try:
        yield client
    finally:
        client._provider.session.close()


@pytest.fixture
def client(where: Listen) -> Iterator[Client]:
    with solana(where) as client:
        yield client


def test_the_typed_client_reads_every_account(client: Client, ledger: Ledger) -> None:
    state, account = ledger.store.change(with_user)
    by_base64 = client.get_program_accounts(PROGRAM_KEY, encoding="base64").value
    by_zstd = client.get_program_accounts(PROGRAM_KEY, encoding="base64+zstd").value
    assert [item.account.data for item in by_base64] == [item.account.data for item in by_zstd]
    assert account in {str(item.pubkey) for item in by_base64}
    assert len(by_base64) == 2 + 1 + 2 + 2 + 1 + 1
    one = client.get_account_info(Pubkey.from_string(account)).value
    assert one is not None
    assert (one.owner, one.lamports, one.rent_epoch) == (PROGRAM_KEY, 2324640, 2**64 - 1)
    assert one.data[116:120] == state.users[account].client_ip.packed


def test_the_typed_client_filters_and_slices(client: Client, ledger: Ledger) -> None:
    _, account = ledger.store.change(with_user)
    filters: list[int | MemcmpOpts] = [
        206,
        MemcmpOpts(0, base58.encode(b"\x07")),
        MemcmpOpts(116, base58.encode(IP.packed)),
    ]
    found = client.get_program_accounts(
        PROGRAM_KEY, encoding="base64", data_slice=DataSliceOpts(116, 4), filters=filters
    ).value
    assert [(str(item.pubkey), item.account.data) for item in found] == [(account, IP.packed)]


def test_the_typed_client_reads_everything_else(client: Client, ledger: Ledger) -> None:
    state = ledger.store.load()
    keys = [Pubkey.from_string(state.config.account), Pubkey(bytes(32))]
    answer = client.get_multiple_accounts(keys)
    assert [item is None for item in answer.value] == [False, True]
    assert answer.context.slot == client.get_slot().value == client.get_block_height().value
    assert str(client.get_genesis_hash().value) == state.genesis_hash
    assert client.get_version().value.solana_core == "2.3.6"
    assert client.get_epoch_info().value.slots_in_epoch == 432_000
    assert client.get_minimum_balance_for_rent_exemption(206).value == 2324640
    assert client.is_connected()


def test_the_typed_client_understands_the_errors(client: Client) -> None:
    with pytest.raises(RPCException, match="less than 128 bytes"):
        client.get_program_accounts(PROGRAM_KEY, encoding="base58")
    with pytest.raises(RPCException, match="max 4"):
        client.get_program_accounts(PROGRAM_KEY, encoding="base64", filters=[206] * 5)
    with pytest.raises(RPCException, match="max 100"):
        client.get_multiple_accounts([PROGRAM_KEY] * 101)


def test_a_body_that_is_too_large_is_http_413(client: Client) -> None:
    with pytest.raises(SolanaRpcException) as raised:
        client.get_multiple_accounts([PROGRAM_KEY] * 2000)
    assert "413" in str(raised.value.__cause__)


# ---- the agent -------------------------------------------------------------------------------------------


@pytest.fixture
def rpc(where: Listen) -> Iterator[Rpc]:
    rpc = Rpc([f"http://{where}"], timeout=20)
    yield rpc
    rpc.close()


@pytest.fixture
def poller(rpc: Rpc) -> DirectPoller:
    return DirectPoller(rpc, PROGRAM, absent_polls=2)


def test_the_agent_sees_the_life_of_a_user(ledger: Ledger, poller: DirectPoller) -> None:
    first = poller.poll([IP])
    assert (first.users, first.problems) == ({}, ())
    _, account = ledger.store.change(lambda s: with_user(s, UserType.EDGE_FILTERING, tenant="acme"))
    snapshot = poller.poll([IP])
    user = snapshot.users[account]
    assert (user.status, user.user_type, snapshot.problems) == (1, 2, ())
    device = snapshot.devices[user.device_pk]
    assert (device.code, str(device.public_ip)) == ("dev1", "192.0.2.1")
    assert str(user.dz_ip) == "203.0.113.1"
    assert snapshot.exchanges[device.exchange_pk].name == "Frankfurt"
    assert [tenant.code for tenant in snapshot.tenants.values()] == ["acme"]
    assert snapshot.slot > first.slot
    ledger.store.change(lambda s: people.ban(s, account))
    assert poller.poll([IP]).users[account].status == 6
    ledger.store.change(lambda s: people.delete_user(s, account))
    missing = poller.poll([IP])
    assert (list(missing.users), [p.code for p in missing.problems]) == ([account], ["AbsenceUnproven"])
    ledger.pass_(1)
    gone = poller.poll([IP])
    assert (gone.users, gone.problems, gone.complete) == ({}, (), True)


def test_the_agent_follows_a_move_and_groups(ledger: Ledger, poller: DirectPoller) -> None:
    _, account = ledger.store.change(lambda s: with_user(s, UserType.MULTICAST, subscribe=["blocks"]))
    before = poller.poll([IP])
    ledger.store.change(lambda s: people.move(s, account, "dev2"))
    ledger.store.change(lambda s: people.set_groups(s, account, ["shreds"], ["blocks"]))
    after = poller.poll([IP])
    old, new = before.users[account], after.users[account]
    assert (after.devices[new.device_pk].code, new.tunnel_net) == ("dev2", old.tunnel_net)
    assert {group.code for group in after.groups.values()} == {"blocks", "shreds"}
    assert str(new.dz_ip) == "148.51.120.1"


def test_the_agent_finds_a_user_at_an_old_address(ledger: Ledger, poller: DirectPoller) -> None:
    _, account = ledger.store.change(lambda s: with_user(s, index=77))
    assert poller.poll([IP]).users[account].index == 77


def test_the_agent_follows_a_ledger_that_was_emptied(ledger: Ledger, poller: DirectPoller) -> None:
    ledger.store.change(with_user)
    slot = poller.poll([IP]).slot
    ledger.store.change(lambda s: (world.emptied(s), None))
    poller.poll([IP])
    ledger.pass_(1)
    gone = poller.poll([IP])
    assert (gone.users, gone.slot > slot) == ({}, True)


def test_the_agent_does_not_follow_another_ledger(ledger: Ledger, rpc: Rpc, poller: DirectPoller) -> None:
    before = poller.poll([IP])
    ledger.store.renew(lambda now: world.fresh(PROGRAM, now, lambda size: b"\x09" * size))
    with pytest.raises(LedgerChanged):
        DirectPoller(rpc, PROGRAM, previous=before).poll([IP])


def test_bytes_that_were_put_reach_the_agent(ledger: Ledger, poller: DirectPoller) -> None:
    _, account = ledger.store.change(with_user)
    good = poller.poll([IP]).users[account]
    ledger.store.change(lambda s: world.put_account(s, account, "Bw=="))
    snapshot = poller.poll([IP])
    assert (snapshot.users[account], [p.code for p in snapshot.problems]) == (good, ["UndecodableAccount"])
    ledger.store.change(lambda s: world.put_account(s, s.config.account, "AgA="))
    with pytest.raises(Unusable, match="GlobalConfig"):
        poller.poll([IP])


def test_a_slot_that_is_not_reached_is_a_lagging_node(rpc: Rpc) -> None:
    with pytest.raises(LaggingNode):
        Asker(rpc, PROGRAM, "finalized", 10**9).accounts([PROGRAM])


def test_many_users_at_once(tmp_path: Path) -> None:
    state = populated()
    for number in range(1, 201):
        state, _ = with_user(state, client_ip=ip(f"198.51.100.{number}"), device=f"dev{1 + number % 2}")
    ledger = Ledger.make(tmp_path / "many", state)
    with serving(ledger.node()) as listening, solana(listening) as client:
        users = client.get_program_accounts(
            PROGRAM_KEY, encoding="base64", filters=[MemcmpOpts(0, "8")]
        ).value
        assert len({item.account.data[126:130] for item in users}) == 200


def test_an_empty_ledger_is_sound(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "empty", empty())
    with serving(ledger.node()) as listening:
        rpc = Rpc([f"http://{listening}"], timeout=20)
        snapshot = DirectPoller(rpc, PROGRAM).poll([IP])
        rpc.close()
    assert (snapshot.users, snapshot.problems, snapshot.config.remote_asn) == ({}, (), 65342)
    assert snapshot.program is not None
    assert snapshot.program.version == (0, 34, 0)
