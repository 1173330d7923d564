"""The poller against a fake node: what it asks, and that nothing but proven absence removes a user."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.errors import (
    LaggingNode,
    LedgerChanged,
    LedgerError,
    MethodRefused,
    SlotLeap,
    Unreachable,
    Unusable,
    WrongProgram,
)
from dzagent.ledger.asker import base58
from dzagent.ledger.pda import user_address
from dzagent.ledger.poller import Cost, DirectPoller, Pace
from dzagent.ledger.snapshot import Snapshot, build_snapshot
from tests.ledger_fakes import (
    CONFIG,
    DEVICE,
    DEVICE2,
    EDGE,
    EXCHANGE,
    GROUP,
    GROUP2,
    IP,
    MULTICAST,
    OLD_USER,
    OTHER_IP,
    OTHER_PROGRAM,
    PROGRAM,
    PROGRAM_CONFIG,
    TENANT,
    UNICAST,
    FakeLedger,
    account_json,
    device_bytes,
    group_bytes,
    key,
    unbase58,
    user_bytes,
)
from tests.test_rpc import Handler, calling, serving

ALWAYS = Pace(search=0.0)
"""A search in every poll."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def poller(ledger: Any, clock: Clock | None = None, **options: Any) -> DirectPoller:
    return DirectPoller(ledger, PROGRAM, 2, clock=clock or Clock(), **options)


def settled(ledger: FakeLedger, **options: Any) -> DirectPoller:
    """Return a poller that has seen the ledger as it is for two polls."""
    agent = poller(ledger, **options)
    agent.poll([IP])
    assert agent.poll([IP]).complete
    ledger.methods()
    return agent


def codes(snapshot: Snapshot) -> list[str]:
    return sorted(problem.code for problem in snapshot.problems)


def on(wanted: str, change: Callable[[Any, list[Any]], Any]) -> Callable[[str, list[Any], Any], Any]:
    """Change the results of one method."""
    return lambda method, params, result: change(result, params) if method == wanted else result


def in_search(change: Callable[[list[Any]], Any]) -> Callable[[str, list[Any], Any], Any]:
    return on("getProgramAccounts", lambda result, _: {**result, "value": change(result["value"])})


def at_address(address: str, entry: Any) -> Callable[[str, list[Any], Any], Any]:
    """Replace the entry of one address in look-ups, and in searches its account."""

    def mangle(method: str, params: list[Any], result: Any) -> Any:
        if method == "getMultipleAccounts":
            pairs = zip(params[0], result["value"], strict=True)
            return {**result, "value": [entry if asked == address else value for asked, value in pairs]}
        if method == "getProgramAccounts":
            value = [
                {**one, "account": entry} if one["pubkey"] == address else one for one in result["value"]
            ]
            return {**result, "value": value}
        return result

    return mangle


def test_a_poll_finds_the_user_and_all_it_names() -> None:
    ledger = FakeLedger()
    snapshot = poller(ledger).poll([IP])
    assert list(snapshot.users) == [UNICAST]
    assert snapshot.users[UNICAST].client_ip == IP
    assert set(snapshot.devices) == {DEVICE}
    assert set(snapshot.tenants) == {TENANT}
    assert set(snapshot.exchanges) == {EXCHANGE}
    assert snapshot.groups == {}
    assert (snapshot.slot, snapshot.genesis_hash) == (ledger.slot, ledger.genesis)
    assert snapshot.program is not None
    assert snapshot.problems == ()
    assert not snapshot.complete
    assert build_snapshot(snapshot.raw.items()).users == snapshot.users


def test_a_steady_poll_is_one_look_up_and_once_a_minute_a_search() -> None:
    ledger, clock = FakeLedger(), Clock()
    agent = settled(ledger, clock=clock)
    for now, methods in (
        (10.0, ["getMultipleAccounts"]),
        (59.0, ["getMultipleAccounts"]),
        (60.0, ["getProgramAccounts", "getMultipleAccounts"]),
        (119.0, ["getMultipleAccounts"]),
        (120.0, ["getProgramAccounts", "getMultipleAccounts"]),
    ):
        clock.now = now
        assert agent.poll([IP]).complete
        assert ledger.methods() == methods
        assert agent.cost == Cost(
            "direct", len(methods), 100 * len(methods), 1000 * len(methods), "getProgramAccounts" in methods
        )


def test_a_search_that_is_due_finds_a_user_at_an_old_address() -> None:
    ledger, clock = FakeLedger(), Clock()
    agent = settled(ledger, clock=clock)
    ledger.accounts[OLD_USER] = user_bytes(kind=3, index=77)
    assert set(agent.poll([IP]).users) == {UNICAST}
    clock.now = 60.0
    assert set(agent.poll([IP]).users) == {UNICAST, OLD_USER}
    ledger.methods()
    clock.now = 70.0
    ledger.accounts[OLD_USER] = user_bytes(kind=3, index=77, status=6)
    assert agent.poll([IP]).users[OLD_USER].status == 6
    assert ledger.methods() == ["getMultipleAccounts"]


def test_where_no_byte_changed_nothing_is_decoded_again() -> None:
    agent = settled(FakeLedger())
    one, two = agent.poll([IP]), agent.poll([IP])
    assert one.users is two.users
    assert one.slot < two.slot


def test_the_requests_are_what_a_node_expects() -> None:
    ledger = FakeLedger()
    poller(ledger).poll([IP])
    methods = [method for method, _ in ledger.calls]
    assert methods[0] == "getGenesisHash"
    _, (program, options) = ledger.calls[1]
    assert program == PROGRAM
    assert options == {
        "encoding": "base64",
        "commitment": "finalized",
        "withContext": True,
        "filters": [
            {"memcmp": {"offset": 0, "encoding": "base58", "bytes": "8"}},
            {"memcmp": {"offset": 116, "encoding": "base58", "bytes": base58(IP.packed)}},
        ],
    }
    _, (addresses, options) = ledger.calls[2]
    assert addresses[:2] == [CONFIG, PROGRAM_CONFIG]
    assert {user_address(PROGRAM, IP, kind) for kind in range(4)} <= set(addresses)
    assert {DEVICE, TENANT} <= set(addresses)
    assert options["minContextSlot"] == 1010  # the slot of the search


def test_a_user_at_an_old_address_and_its_groups_are_found() -> None:
    ledger = FakeLedger()
    ledger.accounts[OLD_USER] = user_bytes(kind=3, publishers=[GROUP], index=77)
    snapshot = poller(ledger).poll([IP])
    assert set(snapshot.users) == {UNICAST, OLD_USER}
    assert set(snapshot.groups) == {GROUP}


def test_a_newly_named_account_is_fetched_in_the_same_poll() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.accounts[DEVICE2] = device_bytes("ams-dz001", index=2)
    ledger.accounts[UNICAST] = user_bytes(device=DEVICE2)
    snapshot = agent.poll([IP])
    assert set(snapshot.devices) == {DEVICE2}
    assert snapshot.problems == ()


def test_many_addresses_are_asked_in_chunks() -> None:
    ledger = FakeLedger()
    groups = [key(2**210 + n) for n in range(250)]
    ledger.accounts.update({group: group_bytes(f"g{n}", index=n) for n, group in enumerate(groups)})
    ledger.accounts[MULTICAST] = user_bytes(kind=3, publishers=groups)
    assert len(poller(ledger).poll([IP]).groups) == 250


def test_a_user_that_names_a_hundred_thousand_groups_is_followed_so_far() -> None:
    ledger = FakeLedger()
    ledger.accounts[MULTICAST] = user_bytes(kind=3, publishers=[key(2**210 + n) for n in range(2000)])
    agent = poller(ledger)
    agent.poll([IP])
    assert len(ledger.calls) < 12
    assert set(agent.poll([IP]).devices) == {DEVICE}


def test_at_most_eight_client_ips_are_looked_up() -> None:
    ledger = FakeLedger()
    snapshot = poller(ledger).poll([IP, IP, *(IPv4Address(f"203.0.113.{n}") for n in range(20))])
    assert ledger.methods().count("getProgramAccounts") == 8
    assert codes(snapshot) == ["TooManyClientIps"]


def test_without_a_client_ip_nothing_is_proven() -> None:
    ledger = FakeLedger()
    agent = poller(ledger)
    agent.poll([])
    assert not agent.poll([]).complete


# ---- absence -------------------------------------------------------------------------------------------


def test_a_deleted_user_goes_after_two_sound_polls() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    before = agent.poll([IP]).users[UNICAST]
    del ledger.accounts[UNICAST]
    ledger.methods()
    first = agent.poll([IP])
    assert ledger.methods() == ["getMultipleAccounts", "getProgramAccounts"]
    assert first.users == {UNICAST: before}
    assert not first.complete
    assert codes(first) == ["AbsenceUnproven"]
    assert set(first.devices) == {DEVICE}
    second = agent.poll([IP])
    assert second.users == {}
    assert second.complete
    assert second.problems == ()


def test_absent_polls_in_a_row_are_needed() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    for _ in range(4):
        user = ledger.accounts.pop(UNICAST)
        assert set(agent.poll([IP]).users) == {UNICAST}
        ledger.accounts[UNICAST] = user
        assert agent.poll([IP]).complete


def test_a_fresh_start_proves_absence_by_two_polls_too() -> None:
    ledger = FakeLedger()
    del ledger.accounts[UNICAST]
    agent = poller(ledger)
    assert not agent.poll([IP]).complete
    assert agent.poll([IP]).complete


def test_a_poll_of_the_same_slot_proves_nothing() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    del ledger.accounts[UNICAST]
    agent.poll([IP])
    ledger.step = 0
    for _ in range(3):
        assert set(agent.poll([IP]).users) == {UNICAST}
    ledger.step = 1
    assert agent.poll([IP]).users == {}


@pytest.mark.parametrize("view", ["getProgramAccounts", "getMultipleAccounts"])
def test_absence_in_one_view_alone_removes_nothing(view: str) -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    at = at_address(UNICAST, None)
    if view == "getMultipleAccounts":
        ledger.mangle = lambda method, params, result: (
            at(method, params, result) if method == view else result
        )
    else:
        ledger.mangle = in_search(lambda _: [])
    for _ in range(5):
        assert set(agent.poll([IP]).users) == {UNICAST}


def test_absence_of_each_client_ip_is_proven_for_itself() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    assert not agent.poll([IP, OTHER_IP]).complete
    assert agent.poll([IP, OTHER_IP]).complete
    assert agent.poll([OTHER_IP]).users == {}
    assert not agent.poll([IP]).complete


def test_failed_polls_change_nothing() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    del ledger.accounts[UNICAST]
    config = ledger.accounts.pop(CONFIG)
    for _ in range(3):
        with pytest.raises(Unusable, match="GlobalConfig"):
            agent.poll([IP])
    ledger.accounts[CONFIG] = config
    assert set(agent.poll([IP]).users) == {UNICAST}
    assert agent.poll([IP]).users == {}


def test_a_user_that_is_not_activated_is_in_the_snapshot_at_once() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.accounts[UNICAST] = user_bytes(status=6)
    snapshot = agent.poll([IP])
    assert snapshot.users[UNICAST].status == 6
    assert snapshot.complete


def test_users_of_an_earlier_process_stay_until_proven_absent() -> None:
    ledger = FakeLedger()
    previous = settled(ledger).poll([IP])
    del ledger.accounts[UNICAST]
    agent = poller(ledger, previous=previous)
    assert set(agent.poll([IP]).users) == {UNICAST}
    assert agent.poll([IP]).users == {}
    ledger.slot = 5
    with pytest.raises(LaggingNode):
        poller(ledger, previous=previous).poll([IP])
    ledger.genesis = key(1)
    with pytest.raises(LedgerChanged):
        poller(ledger, previous=previous).poll([IP])


# ---- unreadable accounts ---------------------------------------------------------------------------------

GOOD = account_json(user_bytes())
BROKEN_ENTRIES: list[Any] = [
    account_json(b""),
    account_json(user_bytes()[:100]),
    account_json(user_bytes()[:131]),
    account_json(user_bytes()[:190]),
    account_json(b"\x05" + user_bytes()[1:]),
    account_json(b"\xff" + user_bytes()[1:]),
    account_json(user_bytes(), OTHER_PROGRAM),
    account_json(user_bytes(), "11111111111111111111111111111111"),
    {**GOOD, "data": ["***", "base64"]},
    {**GOOD, "data": ["!" + GOOD["data"][0], "base64"]},
    {**GOOD, "data": ["\u00e9", "base64"]},
    {**GOOD, "data": ["AAAA", "base58"]},
    {**GOOD, "data": "AAAA"},
    {**GOOD, "data": [1, "base64"]},
    {**GOOD, "owner": None},
    {},
    [],
    7,
    "x",
]


@pytest.mark.parametrize("entry", BROKEN_ENTRIES)
def test_a_broken_account_keeps_what_was_known_for_ever(entry: Any) -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    before = agent.poll([IP]).users
    ledger.mangle = at_address(UNICAST, entry)
    for _ in range(4):
        snapshot = agent.poll([IP])
        assert snapshot.users == before
        assert "UndecodableAccount" in codes(snapshot)
    ledger.mangle = None
    assert agent.poll([IP]).problems == ()


@pytest.mark.parametrize("entry", [entry for n, entry in enumerate(BROKEN_ENTRIES) if n != 3])
def test_a_broken_account_on_a_fresh_start_is_not_absence(entry: Any) -> None:
    ledger = FakeLedger()
    ledger.mangle = at_address(UNICAST, entry)
    agent = poller(ledger)
    for _ in range(4):
        snapshot = agent.poll([IP])
        assert snapshot.users == {}
        assert snapshot.unreadable == {UNICAST}
        assert not snapshot.complete


@pytest.mark.parametrize("pubkey", [None, 7, "", "not a key", "0" * 44, "1" * 31, GOOD])
def test_an_entry_without_an_address_proves_no_absence(pubkey: Any) -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    del ledger.accounts[UNICAST]
    ledger.mangle = in_search(lambda value: [*value, {"pubkey": pubkey, "account": GOOD}])
    for _ in range(4):
        snapshot = agent.poll([IP])
        assert set(snapshot.users) == {UNICAST}
        assert "BrokenEntries" in codes(snapshot)


def test_a_listed_account_without_content_is_no_absence() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    del ledger.accounts[UNICAST]
    ledger.mangle = in_search(lambda _: [{"pubkey": UNICAST, "account": None}])
    for _ in range(4):
        assert set(agent.poll([IP]).users) == {UNICAST}


def test_a_user_of_another_ip_in_the_place_of_ours_is_not_ours() -> None:
    ledger = FakeLedger()
    ledger.accounts[UNICAST] = user_bytes(OTHER_IP)
    agent = poller(ledger)
    assert agent.poll([IP]).users == {}
    snapshot = agent.poll([IP])
    assert snapshot.users == {}
    assert snapshot.complete
    assert codes(snapshot) == ["MisplacedAccount"]


def test_a_garbled_stray_in_a_filtered_search_proves_no_absence() -> None:
    ledger = FakeLedger()
    del ledger.accounts[UNICAST]
    stray = {"pubkey": OLD_USER, "account": account_json(b"\x05" + user_bytes()[1:])}
    ledger.mangle = in_search(lambda value: [*value, stray])
    agent = poller(ledger)
    for _ in range(4):
        assert not agent.poll([IP]).complete


def test_a_node_that_ignores_filters_is_understood() -> None:
    ledger = FakeLedger()
    ledger.accounts[OLD_USER] = user_bytes(OTHER_IP, index=3)

    def everything(result: Any, _: list[Any]) -> Any:
        value = [{"pubkey": a, "account": account_json(d)} for a, d in ledger.accounts.items()]
        return {**result, "value": value}

    ledger.mangle = on("getProgramAccounts", everything)
    agent = poller(ledger)
    agent.poll([IP])
    snapshot = agent.poll([IP])
    assert set(snapshot.users) == {UNICAST}
    assert snapshot.complete


def test_odd_fields_that_do_not_matter_are_ignored() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    odd = {
        **account_json(ledger.accounts[UNICAST]),
        "rentEpoch": 1.8e19,
        "lamports": "x",
        "space": None,
        "new": [],
    }
    ledger.mangle = at_address(UNICAST, odd)
    assert agent.poll([IP]).problems == ()


@pytest.mark.parametrize("address", [DEVICE, TENANT, EXCHANGE])
@pytest.mark.parametrize("entry", [None, account_json(b""), account_json(user_bytes()), 3])
def test_named_accounts_keep_their_last_good_content(address: str, entry: Any) -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    before = agent.poll([IP])
    ledger.mangle = at_address(address, entry)
    for _ in range(3):
        snapshot = agent.poll([IP])
        assert dict(snapshot.raw) == dict(before.raw)
        assert codes(snapshot) == ["MissingAccount" if entry is None else "UndecodableAccount"]
        assert snapshot.problems[0].account == address


def test_a_group_that_never_existed_is_reported() -> None:
    ledger = FakeLedger()
    ledger.accounts[MULTICAST] = user_bytes(kind=3, publishers=[GROUP, GROUP2])
    snapshot = poller(ledger).poll([IP])
    assert set(snapshot.groups) == {GROUP}
    assert [(p.code, p.account) for p in snapshot.problems] == [("MissingAccount", GROUP2)]


def test_swapped_devices_are_seen_through() -> None:
    ledger = FakeLedger()
    ledger.accounts[DEVICE2] = device_bytes("ams-dz001", index=2)
    ledger.accounts[MULTICAST] = user_bytes(kind=3, device=DEVICE2)
    agent = settled(ledger)
    before = agent.poll([IP]).devices
    one, two = ledger.accounts[DEVICE], ledger.accounts[DEVICE2]
    ledger.accounts.update({DEVICE: two, DEVICE2: one})
    snapshot = agent.poll([IP])
    assert snapshot.devices == before
    assert codes(snapshot) == ["UndecodableAccount"] * 2


def test_an_unreadable_program_config_is_only_reported() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.mangle = at_address(PROGRAM_CONFIG, account_json(b"\7"))
    snapshot = agent.poll([IP])
    assert snapshot.program is None
    assert codes(snapshot) == ["UndecodableAccount"]


# ---- answers that do not fit -----------------------------------------------------------------------------

UNFIT: list[Callable[[str, list[Any], Any], Any]] = [
    on("getMultipleAccounts", lambda result, _: {**result, "value": result["value"][:-1]}),
    on("getMultipleAccounts", lambda result, _: {**result, "value": [*result["value"], None]}),
    on("getMultipleAccounts", lambda result, _: {**result, "value": []}),
    on("getMultipleAccounts", lambda result, _: {**result, "value": None}),
    on("getMultipleAccounts", lambda result, _: {**result, "value": result["value"][::-1]}),
    on("getMultipleAccounts", lambda result, _: {"value": result["value"]}),
    on("getMultipleAccounts", lambda result, _: {**result, "context": {"slot": "9999"}}),
    on("getMultipleAccounts", lambda result, _: {**result, "context": {"slot": True}}),
    on("getMultipleAccounts", lambda result, _: {**result, "context": {"slot": 2**70}}),
    on("getMultipleAccounts", lambda _result, _params: [None]),
    on("getProgramAccounts", lambda result, _: result["value"]),
    on("getProgramAccounts", lambda result, _: {**result, "value": result["value"] * 2}),
    on("getProgramAccounts", lambda result, _: {**result, "value": {}}),
    on("getProgramAccounts", lambda _result, _params: "x"),
    at_address(CONFIG, None),
    at_address(CONFIG, account_json(b"\2" * 20)),
    at_address(CONFIG, account_json(user_bytes())),
    at_address(CONFIG, account_json(FakeLedger().accounts[CONFIG], OTHER_PROGRAM)),
    at_address(CONFIG, account_json(FakeLedger().accounts[CONFIG][:59])),
]


@pytest.mark.parametrize("mangle", UNFIT)
def test_an_answer_that_does_not_fit_is_unusable_and_forgotten(mangle: Any) -> None:
    ledger = FakeLedger()
    agent = settled(ledger, pace=ALWAYS)
    before = agent.poll([IP])
    ledger.mangle = mangle
    for _ in range(3):
        with pytest.raises(Unusable):
            agent.poll([IP])
    ledger.mangle = None
    after = agent.poll([IP])
    assert (after.users, after.devices, after.complete) == (before.users, before.devices, True)


def test_two_contents_of_one_slot_are_refused() -> None:
    ledger = FakeLedger()
    agent = settled(ledger, pace=ALWAYS)
    banned = {"pubkey": UNICAST, "account": account_json(user_bytes(status=6))}
    ledger.mangle = in_search(lambda _: [banned])
    ledger.step = 0
    with pytest.raises(Unusable, match="two contents"):
        agent.poll([IP])


def test_the_newer_view_wins() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)

    def later(result: Any, _: list[Any]) -> Any:
        return {**result, "context": {"slot": ledger.slot + 1}}

    fresh = at_address(UNICAST, account_json(user_bytes(status=6)))

    def mangle(method: str, params: list[Any], result: Any) -> Any:
        if method != "getMultipleAccounts":
            return result
        return later(fresh(method, params, result), params)

    ledger.mangle = mangle
    assert agent.poll([IP]).users[UNICAST].status == 6


def test_the_order_of_entries_does_not_matter() -> None:
    ledger = FakeLedger()
    ledger.accounts.update({key(2**220 + n): user_bytes(kind=n % 4, index=n + 1) for n in range(20)})
    agent = settled(ledger)
    before = list(agent.poll([IP]).users)
    chance = random.Random(1)
    ledger.mangle = in_search(lambda value: chance.sample(value, len(value)))
    for _ in range(5):
        assert list(agent.poll([IP]).users) == before


def test_a_flood_of_users_is_bounded() -> None:
    ledger = FakeLedger()
    agent = settled(ledger, pace=ALWAYS)
    names = iter(range(2**20))

    def flood(_: list[Any]) -> list[Any]:
        return [{"pubkey": key(2**230 + next(names)), "account": GOOD} for _ in range(100)]

    ledger.mangle = in_search(flood)
    for _ in range(8):
        snapshot = agent.poll([IP])
        assert (set(snapshot.users), snapshot.complete) == ({UNICAST}, False)
    ledger.mangle = None
    for _ in range(2):
        snapshot = agent.poll([IP])
    assert (set(snapshot.users), snapshot.complete) == ({UNICAST}, True)
    assert len(agent._decoder._seen) < 20


def test_more_users_than_there_can_be_are_unusable() -> None:
    ledger = FakeLedger()
    ledger.accounts.update({key(2**220 + n): user_bytes(index=n + 1) for n in range(60)})
    agent = poller(ledger, pace=ALWAYS)
    ips = [IP, *(IPv4Address(f"203.0.113.{n}") for n in range(7))]
    for ip in ips[1:]:
        ledger.accounts.update(
            {key(2**221 + 1000 * int(ip) + n): user_bytes(ip, index=n + 1) for n in range(60)}
        )
    with pytest.raises(Unusable, match="more users"):
        agent.poll(ips)


# ---- content in another's place --------------------------------------------------------------------------


@pytest.mark.parametrize("other", [EDGE, TENANT, DEVICE, PROGRAM_CONFIG])
def test_answers_that_swap_two_addresses_prove_no_absence(other: str) -> None:
    ledger = FakeLedger()
    agent = settled(ledger, pace=ALWAYS)

    def mangle(method: str, params: list[Any], result: Any) -> Any:
        if method == "getProgramAccounts":
            return {**result, "value": []}
        value = list(result["value"])
        one, two = params[0].index(UNICAST), params[0].index(other)
        value[one], value[two] = None, value[one]
        return {**result, "value": value}

    ledger.mangle = mangle
    for _ in range(5):
        assert UNICAST in agent.poll([IP]).users


def test_the_user_of_another_ip_in_a_derived_place_is_no_absence_of_ours() -> None:
    ledger = FakeLedger()
    agent = settled(ledger, pace=ALWAYS)
    ledger.accounts[UNICAST] = user_bytes(OTHER_IP)
    for _ in range(5):
        assert UNICAST in agent.poll([IP]).users


def test_a_user_at_a_strange_address_needs_two_answers() -> None:
    ledger = FakeLedger()
    agent = settled(ledger, full_fetch=True)
    ledger.accounts[OLD_USER] = user_bytes(kind=3, index=77)
    first = agent.poll([IP])
    assert (set(first.users), first.complete) == ({UNICAST}, False)
    assert set(agent.poll([IP]).users) == {UNICAST, OLD_USER}
    ledger.mangle = in_search(
        lambda value: [{**one, "account": GOOD} if one["pubkey"] == DEVICE else one for one in value]
    )
    agent.poll([IP])
    ledger.mangle = None
    assert set(agent.poll([IP]).users) == {UNICAST, OLD_USER}


def test_a_list_of_everything_that_was_cut_proves_no_absence_until_it_lasts() -> None:
    ledger = FakeLedger()
    ledger.accounts.update({key(5000 + n): user_bytes(OTHER_IP, index=n + 1) for n in range(100)})
    agent = settled(ledger, full_fetch=True)
    kept = {CONFIG, PROGRAM_CONFIG, DEVICE, EXCHANGE, TENANT}
    ledger.mangle = in_search(lambda value: [one for one in value if one["pubkey"] in kept])
    for _ in range(10):
        assert set(agent.poll([IP]).users) == {UNICAST}
    agent.poll([IP])
    agent.poll([IP])
    assert agent.poll([IP]).users == {}


# ---- slots and ledgers -----------------------------------------------------------------------------------


def test_a_slot_never_goes_back() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    newest = agent.poll([IP]).slot
    ledger.slot -= 500
    with pytest.raises(LaggingNode):
        agent.poll([IP])
    ledger.obeys_min_slot = False
    with pytest.raises(LaggingNode, match="behind"):
        agent.poll([IP])
    ledger.slot = newest + 1
    assert agent.poll([IP]).slot > newest


def test_a_look_up_older_than_the_search_is_late() -> None:
    ledger = FakeLedger()
    ledger.mangle = on(
        "getMultipleAccounts", lambda result, _: {**result, "context": {"slot": ledger.slot - 11}}
    )
    with pytest.raises(LaggingNode):
        poller(ledger).poll([IP])


def test_another_ledger_changes_nothing() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.endpoint, ledger.genesis = "node-b", key(5)
    with pytest.raises(LedgerChanged, match="node-b"):
        agent.poll([IP])
    ledger.endpoint, ledger.genesis = "node-a", FakeLedger().genesis
    assert agent.poll([IP]).complete


def test_a_ledger_that_started_anew_behind_the_same_name_is_noticed() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.slot, ledger.genesis = 1, key(5)
    with pytest.raises(LaggingNode):
        agent.poll([IP])
    with pytest.raises(LedgerChanged):
        agent.poll([IP])


def test_the_genesis_hash_is_asked_once_per_endpoint() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    for endpoint, asked in (("node-a", 0), ("node-b", 1), ("node-b", 0), ("node-a", 0)):
        ledger.endpoint = endpoint
        agent.poll([IP])
        assert ledger.methods().count("getGenesisHash") == asked


def test_a_failover_in_the_middle_of_a_poll_is_verified_too() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)

    def fail_over(result: Any, _: list[Any]) -> Any:
        ledger.endpoint, ledger.genesis = "node-b", key(5)
        return result

    ledger.mangle = on("getMultipleAccounts", fail_over)
    with pytest.raises(LedgerChanged):
        agent.poll([IP])


@pytest.mark.parametrize("genesis", [None, 7, "", "0OIl" * 10, [], "1" * 100])
def test_an_odd_genesis_hash_is_unusable(genesis: Any) -> None:
    with pytest.raises(Unusable):
        poller(FakeLedger(genesis=genesis)).poll([IP])


# ---- all devices -----------------------------------------------------------------------------------------


def edge_ledger() -> FakeLedger:
    ledger = FakeLedger()
    ledger.accounts[EDGE] = user_bytes(kind=2)
    ledger.accounts[DEVICE2] = device_bytes("ams-dz001", index=2)
    return ledger


def device_lists(ledger: FakeLedger) -> int:
    return sum(
        method == "getProgramAccounts" and params[1]["filters"][0]["memcmp"]["bytes"] == "6"
        for method, params in ledger.calls
    )


def test_all_devices_are_listed_every_two_minutes_for_an_edge_user_only() -> None:
    ledger, clock = edge_ledger(), Clock()
    agent = poller(ledger, clock)
    assert set(agent.poll([IP]).devices) == {DEVICE, DEVICE2}
    clock.now = 119.0
    assert set(agent.poll([IP]).devices) == {DEVICE, DEVICE2}
    assert device_lists(ledger) == 1
    clock.now = 120.0
    agent.poll([IP])
    assert device_lists(ledger) == 2
    ledger.accounts[EDGE] = user_bytes(kind=2, status=6)
    clock.now = 500.0
    assert set(agent.poll([IP]).devices) == {DEVICE}
    assert device_lists(ledger) == 2


def test_a_device_missing_from_one_list_stays() -> None:
    ledger, clock = edge_ledger(), Clock()
    agent = poller(ledger, clock)
    agent.poll([IP])
    del ledger.accounts[DEVICE2]
    clock.now = 120.0
    assert set(agent.poll([IP]).devices) == {DEVICE, DEVICE2}
    clock.now = 240.0
    assert set(agent.poll([IP]).devices) == {DEVICE}


@pytest.mark.parametrize("broken", [True, False])
def test_device_lists_that_are_broken_or_of_one_slot_prove_no_absence(broken: bool) -> None:
    ledger, clock = edge_ledger(), Clock()
    agent = poller(ledger, clock)
    agent.poll([IP])
    del ledger.accounts[DEVICE2]
    if broken:
        ledger.mangle = in_search(lambda value: [*value, 7])
    else:
        ledger.step = 0
    for now in (120.0, 240.0, 360.0):
        clock.now = now
        assert set(agent.poll([IP]).devices) == {DEVICE, DEVICE2}


def test_a_broken_device_in_the_list_stays_as_it_was() -> None:
    ledger, clock = edge_ledger(), Clock()
    agent = poller(ledger, clock)
    before = agent.poll([IP]).devices
    ledger.mangle = at_address(DEVICE2, account_json(b"\5\0"))
    clock.now = 120.0
    snapshot = agent.poll([IP])
    assert snapshot.devices == before
    assert codes(snapshot) == ["UndecodableAccount"]


def test_a_device_list_that_fails_is_fatal_only_when_there_is_none_yet() -> None:
    ledger, clock = edge_ledger(), Clock()

    def refuse(result: Any, params: list[Any]) -> Any:
        if params[1]["filters"][0]["memcmp"]["bytes"] == "6":
            raise Unreachable("RPC endpoint node-a answered HTTP 500.")
        return result

    agent = poller(ledger, clock)
    ledger.mangle = on("getProgramAccounts", refuse)
    with pytest.raises(Unreachable):
        agent.poll([IP])
    ledger.mangle = None
    before = agent.poll([IP]).devices
    ledger.mangle = on("getProgramAccounts", refuse)
    clock.now = 120.0
    snapshot = agent.poll([IP])
    assert snapshot.devices == before
    assert codes(snapshot) == ["StaleDeviceList"]


# ---- servers that refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", ["filters", "getMultipleAccounts"])
def test_a_server_that_refuses_is_asked_for_everything_and_later_for_less(refused: str) -> None:
    ledger, clock = edge_ledger(), Clock()
    ledger.accounts[OLD_USER] = user_bytes(OTHER_IP, index=3)
    ledger.refuses = {refused}
    agent = poller(ledger, clock)
    first = agent.poll([IP])
    assert (set(first.users), set(first.devices), first.problems) == ({UNICAST, EDGE}, {DEVICE, DEVICE2}, ())
    assert set(first.tenants) == {TENANT}
    assert agent.cost.mode == "full"
    assert "refused" in agent.refusal
    ledger.methods()
    clock.now = 299.0
    assert agent.poll([IP]).complete
    assert ledger.methods() == ["getProgramAccounts"]
    ledger.refuses = set()
    clock.now = 300.0
    assert agent.poll([IP]).complete
    assert (agent.cost.mode, agent.refusal) == ("direct", "")
    assert "getMultipleAccounts" in ledger.methods()


def test_absence_in_full_fetches_is_proven_by_two_of_them() -> None:
    ledger = FakeLedger()
    agent = settled(ledger, full_fetch=True)
    assert (agent.cost.mode, agent.refusal) == ("full", "")
    ledger.mangle = in_search(lambda value: [one for one in value if one["pubkey"] != CONFIG])
    with pytest.raises(Unusable, match="GlobalConfig"):
        agent.poll([IP])
    ledger.mangle = None
    del ledger.accounts[UNICAST]
    first = agent.poll([IP])
    assert (set(first.users), codes(first)) == ({UNICAST}, ["AbsenceUnproven"])
    assert agent.poll([IP]).users == {}


def test_a_broken_entry_of_a_full_fetch_proves_no_absence() -> None:
    ledger = FakeLedger()
    agent = settled(ledger, full_fetch=True)
    del ledger.accounts[UNICAST]
    ledger.mangle = in_search(lambda value: [*value, {"pubkey": "?", "account": GOOD}])
    for _ in range(4):
        assert set(agent.poll([IP]).users) == {UNICAST}


def test_a_server_that_refuses_everything_is_an_error() -> None:
    ledger = FakeLedger(refuses={"getMultipleAccounts", "getProgramAccounts"})
    with pytest.raises(MethodRefused):
        poller(ledger).poll([IP])


# ---- slots that cannot be, and other networks ------------------------------------------------------------


def test_a_slot_far_ahead_is_believed_only_after_a_while() -> None:
    ledger, clock = FakeLedger(), Clock()
    agent = settled(ledger, clock=clock)
    true = ledger.slot
    ledger.slot = 2**60
    for now in (0.0, 10.0, 20.0, 59.0):
        clock.now = now
        with pytest.raises(SlotLeap):
            agent.poll([IP])
    assert isinstance(ledger.blamed[0], SlotLeap)
    ledger.slot = true
    assert agent.poll([IP]).slot < 2**60
    ledger.slot = 2**60
    for now in (100.0, 130.0, 159.0):
        clock.now = now
        with pytest.raises(SlotLeap):
            agent.poll([IP])
    clock.now = 161.0
    assert agent.poll([IP]).slot > 2**60


def test_slots_that_rise_as_they_do_are_no_leap() -> None:
    ledger, clock = FakeLedger(), Clock()
    agent = settled(ledger, clock=clock)
    for _ in range(5):
        clock.now += 86400.0
        ledger.slot += 216_000
        agent.poll([IP])


def test_an_endpoint_that_is_behind_is_blamed() -> None:
    ledger = FakeLedger(obeys_min_slot=False)
    agent = settled(ledger)
    ledger.slot -= 500
    with pytest.raises(LaggingNode):
        agent.poll([IP])
    assert [type(error) for error in ledger.blamed] == [LaggingNode]


def test_a_ledger_without_the_program_is_named() -> None:
    with pytest.raises(WrongProgram, match="another network's RPC, or program_id is wrong"):
        poller(FakeLedger(accounts={})).poll([IP])
    agent = settled(FakeLedger())
    agent._rpc.accounts.clear()  # type: ignore[attr-defined]  # the fake's accounts
    with pytest.raises(Unusable) as caught:
        agent.poll([IP])
    assert not isinstance(caught.value, WrongProgram)


def test_a_ledger_that_is_forgotten_proves_nothing_for_the_next() -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.genesis, ledger.slot = key(5), 1
    del ledger.accounts[UNICAST]
    agent.forget()
    first = agent.poll([IP])
    assert (first.genesis_hash, first.users, first.complete) == (key(5), {}, False)
    assert agent.poll([IP]).complete


# ---- properties ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_mangled_answer_removes_a_user_or_escapes_the_error_tree(data: st.DataObject) -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    before = agent.poll([IP]).users
    cut = st.integers(0, len(user_bytes()) - 1).map(lambda n: account_json(user_bytes(tenant=TENANT)[:n]))
    junk = st.one_of(st.integers(), st.text(), st.binary(max_size=40).map(account_json), cut)
    for _ in range(3):
        ledger.mangle = at_address(UNICAST, data.draw(junk))
        try:
            assert agent.poll([IP]).users.keys() == before.keys()
        except LedgerError:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["context", "slot", "value", "pubkey", "account", "data", "owner"]), inner
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(json_values, st.sampled_from(["getProgramAccounts", "getMultipleAccounts", "getGenesisHash"]))
def test_any_json_as_a_result_is_a_ledger_error_or_a_snapshot(value: Any, method: str) -> None:
    ledger = FakeLedger()
    agent = settled(ledger)
    ledger.mangle = on(method, lambda _result, _params: value)
    with contextlib.suppress(LedgerError):
        assert set(agent.poll([IP]).users) == {UNICAST}


def test_a_poll_over_http() -> None:
    ledger = FakeLedger()

    def reply(handler: Handler, request: dict[str, Any]) -> None:
        result = ledger.call(request["method"], request["params"])
        handler.send(json.dumps({"id": request["id"], "result": result}).encode())

    with serving(reply) as server, calling(server.url) as rpc:
        agent = DirectPoller(rpc, PROGRAM)
        agent.poll([IP])
        snapshot = agent.poll([IP])
    assert set(snapshot.users) == {UNICAST}
    assert snapshot.complete


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_base58_is_reversible(data: bytes) -> None:
    assert unbase58(base58(data)) == data


def test_base58_of_the_account_types() -> None:
    assert [base58(bytes([n])) for n in (5, 7, 8)] == ["6", "8", "9"]
