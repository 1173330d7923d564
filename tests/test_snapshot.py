"""Building a snapshot from raw accounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.errors import Unusable
from dzagent.ledger.snapshot import build_snapshot
from tests.ledger_fakes import (
    CONFIG,
    DEVICE,
    EXCHANGE,
    GROUP,
    OLD_USER,
    TENANT,
    UNICAST,
    config_bytes,
    key,
    standard_accounts,
    user_bytes,
)


def test_accounts_go_where_their_type_says_in_the_order_given() -> None:
    accounts = [(OLD_USER, user_bytes(kind=3)), *standard_accounts().items()]
    snapshot = build_snapshot(accounts, slot=7, genesis_hash="g")
    assert (snapshot.slot, snapshot.genesis_hash, snapshot.complete) == (7, "g", True)
    assert list(snapshot.users) == [OLD_USER, UNICAST]
    assert [list(m) for m in (snapshot.devices, snapshot.groups, snapshot.tenants, snapshot.exchanges)] == [
        [DEVICE],
        [GROUP],
        [TENANT],
        [EXCHANGE],
    ]
    assert snapshot.config.remote_asn == 65342
    assert snapshot.devices[DEVICE].code == "fra-dz001"
    assert dict(snapshot.raw) == dict(accounts)


def test_a_snapshot_is_made_again_of_its_raw_bytes() -> None:
    snapshot = build_snapshot(standard_accounts().items())
    assert build_snapshot(snapshot.raw.items()) == snapshot


@pytest.mark.parametrize("data", [b"", b"\7", b"\5" + bytes(60), user_bytes()[:120]])
def test_an_account_that_cannot_be_decoded_is_reported_and_the_others_go_on(data: bytes) -> None:
    snapshot = build_snapshot([*standard_accounts().items(), (OLD_USER, data)])
    assert snapshot.unreadable == {OLD_USER}
    assert [(p.code, p.account) for p in snapshot.problems] == [("UndecodableAccount", OLD_USER)]
    assert list(snapshot.users) == [UNICAST]


@pytest.mark.parametrize("kind", [1, 3, 6, 10, 12, 18, 200])
def test_types_that_provisioning_does_not_need_are_skipped(kind: int) -> None:
    snapshot = build_snapshot([*standard_accounts().items(), (OLD_USER, bytes([kind]) + bytes(300))])
    assert list(snapshot.users) == [UNICAST]


def test_without_exactly_one_readable_global_config_nothing_is_usable() -> None:
    accounts = standard_accounts()
    twice = [*accounts.items(), (key(9), config_bytes())]
    cut = {**accounts, CONFIG: config_bytes()[:40]}
    del accounts[CONFIG]
    for bad in ([], accounts.items(), cut.items(), twice):
        with pytest.raises(Unusable, match="GlobalConfig"):
            build_snapshot(bad)


def test_one_address_with_two_contents_is_refused_and_with_one_is_not() -> None:
    accounts = list(standard_accounts().items())
    build_snapshot([*accounts, (UNICAST, dict(accounts)[UNICAST])])
    with pytest.raises(Unusable, match="two contents"):
        build_snapshot([*accounts, (UNICAST, user_bytes(status=6))])


@given(st.lists(st.tuples(st.sampled_from([UNICAST, DEVICE, GROUP]), st.binary(max_size=250)), max_size=4))
def test_any_bytes_beside_a_config_are_a_snapshot_or_unusable(accounts: list[tuple[str, bytes]]) -> None:
    try:
        build_snapshot([(CONFIG, config_bytes()), *accounts])
    except Unusable:
        assert len(accounts) > 0
