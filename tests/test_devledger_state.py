"""The state file and the node that follows it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.devledger import bank, people, slots, world
from dzagent.devledger.document import read_state, write_state
from dzagent.devledger.people import NewPass
from dzagent.devledger.records import State
from dzagent.devledger.store import GONE, Store, default_path
from dzagent.errors import InputError, StateError
from dzagent.model import UserType
from tests.devledger_fakes import IP, OTHER_IP, START, Clock, Ledger, empty, populated, with_user


def rich() -> State:
    """Return a ledger with something of every kind."""
    state, account = with_user(populated(), UserType.MULTICAST, publish=["blocks"], tenant="acme")
    state, _ = people.add_pass(state, NewPass(IP, publish=["blocks"]))
    state, _ = world.put_account(state, account, "BwEB")
    state, _ = world.set_node(state, healthy=False, slots_behind=2)
    return state


def text_of(state: State) -> dict[str, Any]:
    """Return the document as it is in the file."""
    document: dict[str, Any] = json.loads(json.dumps(write_state(state)))
    return document


# ---- the document ----------------------------------------------------------------------------------------


def test_what_is_written_is_read_again() -> None:
    assert read_state(text_of(rich()), "F") == rich()


Spoil = Callable[[dict[str, Any]], Any]


def _user(document: dict[str, Any]) -> dict[str, Any]:
    user: dict[str, Any] = next(iter(document["users"].values()))
    return user


SPOILED: dict[str, tuple[Spoil, str]] = {
    "no version": (lambda d: d.pop("version"), 'expected an object with "version"'),
    "another version": (lambda d: d.update(version=2), "version: expected 1"),
    "true for a version": (lambda d: d.update(version=True), "version: expected 1"),
    "an unknown key": (lambda d: d.update(nonsense=1), "nonsense: unknown key"),
    "a missing key": (lambda d: d.pop("payer"), "payer: missing"),
    "users is a list": (lambda d: d.update(users=[]), "users: expected an object"),
    "a user is a list": (lambda d: d["users"].update({d["payer"]: []}), "users.*: expected an object"),
    "a bad account": (lambda d: d["users"].update(nope=_user(d)), "users.nope: expected the base58"),
    "an address of text": (lambda d: _user(d).update(client_ip="x"), "client_ip: expected an IPv4 address"),
    "an address of a number": (lambda d: _user(d).update(client_ip=1), "client_ip: expected a string"),
    "no network": (lambda d: _user(d).update(tunnel_net="169.254.0.0"), "expected an IPv4 network"),
    "host bits": (lambda d: _user(d).update(tunnel_net="169.254.0.1/30"), "expected an IPv4 network"),
    "a number too large": (lambda d: _user(d).update(status=256), "status: expected an integer from 0 to 255"),
    "a negative number": (lambda d: _user(d).update(tunnel_id=-1), "tunnel_id: expected an integer"),
    "true for a number": (lambda d: _user(d).update(status=True), "status: expected an integer"),
    "a broken list": (lambda d: _user(d).update(publishers="x"), "publishers: expected a list"),
    "a broken item": (lambda d: _user(d).update(publishers=["x"]), r"publishers\[0\]: expected the base58"),
    "a broken flag": (lambda d: _user(d).update(created_as_publisher=1), "expected true or false"),
    "a hostile code": (lambda d: next(iter(d["devices"].values())).update(code="a\nb"), "expected a code"),
    "a hostile name": (lambda d: next(iter(d["exchanges"].values())).update(name="\x1b["), "printable"),
    "a number that is none": (lambda d: next(iter(d["exchanges"].values())).update(lat=float("nan")), "a number"),
    "a number of text": (lambda d: next(iter(d["exchanges"].values())).update(lat="1"), "a number"),
    "an endless number": (lambda d: d.update(slot_time=10**400), "a number"),
    "a version of text": (lambda d: d["program"].update(version="new"), "not a version"),
    "a tag without a layout": (lambda d: next(iter(d["passes"].values())).update(kind=3), "from 0 to 2"),
    "no base64": (lambda d: d["raw"].update({d["payer"]: "!"}), "expected base64"),
    "a null": (lambda d: d.update(node=None), "node: expected an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_document_is_named_with_its_place(name: str) -> None:
    spoil, says = SPOILED[name]
    document = text_of(rich())
    spoil(document)
    with pytest.raises(InputError, match=rf"F is not the file of a development ledger .*{says}"):
        read_state(document, "F")


@pytest.mark.parametrize("document", [None, [], 1, "x", {}])
def test_what_is_no_ledger_at_all_is_refused(document: object) -> None:
    with pytest.raises(InputError, match="not the file of a development ledger"):
        read_state(document, "F")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(p for key, item in value.items() for p in _paths(item, (*path, key)))]
    if isinstance(value, list):
        return [path, *(p for number, item in enumerate(value) for p in _paths(item, (*path, number)))]
    return [path]


PATHS = [path for path in _paths(text_of(rich())) if path]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_any_value_anywhere_is_refused_or_gives_a_ledger_with_bytes(
    path: tuple[Any, ...], value: Any
) -> None:
    document = text_of(rich())
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        state = read_state(document, "F")
    except InputError:
        return
    assert all(bank.accounts(state).values()) or state.raw
    assert read_state(text_of(state), "F") == state


# ---- the file --------------------------------------------------------------------------------------------


def test_the_default_place_is_the_users_own(tmp_path: Path) -> None:
    assert default_path({"XDG_STATE_HOME": "/x"}) == Path("/x/dzagent/ledger.json")
    for environment in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}):
        assert default_path(environment, lambda: tmp_path) == tmp_path / ".local/state/dzagent/ledger.json"


def test_without_a_home_a_file_must_be_named() -> None:
    def homeless() -> Path:
        raise RuntimeError

    with pytest.raises(InputError, match="--state"):
        default_path({}, homeless)


def test_a_missing_file_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "F", Clock())
    for action in (store.load, lambda: store.change(_add_user), lambda: store.renew(empty)):
        with pytest.raises(InputError, match=r"no ledger at .*`dzagent ledger init`"):
            action()
    assert (list(tmp_path.iterdir()), store.stamp()) == ([], GONE)


def test_create_never_replaces(tmp_path: Path) -> None:
    store = Store(tmp_path / "F", Clock())
    store.create(empty)
    with pytest.raises(InputError, match="exists already"):
        store.create(empty)
    (tmp_path / "F").write_text("something else")
    with pytest.raises(InputError, match="exists already"):
        store.create(empty)
    assert (tmp_path / "F").read_text() == "something else"


def _add_user(state: State) -> tuple[State, str]:
    return with_user(state)


def test_a_change_advances_slot_and_revision(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    ledger.wall.pass_(0.1)
    first, account = ledger.store.change(_add_user)
    second, _ = ledger.store.change(lambda s: people.ban(s, account))
    assert (second.slot, second.revision) == (first.slot + 1, first.revision + 1)
    ledger.wall.pass_(40)
    third, _ = ledger.store.change(lambda s: people.delete_user(s, account))
    assert third.slot == second.slot + 101
    assert ledger.store.load() == third


def test_what_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    before = ledger.store.stamp()
    ledger.store.change(lambda state: (state, None))
    with pytest.raises(InputError):
        ledger.store.change(lambda state: people.ban(state, "nobody"))
    assert ledger.store.stamp() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"null", "null"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (16 * 1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_corrupt_file_is_reported_and_left_alone(tmp_path: Path, content: bytes, says: str) -> None:
    ledger = Ledger.make(tmp_path / "F")
    ledger.path.write_bytes(content)
    for action in (ledger.store.load, lambda: ledger.store.change(_add_user)):
        with pytest.raises(InputError, match=says) as raised:
            action()
        assert "reset --renew" in str(raised.value)
    assert ledger.path.read_bytes() == content


def test_renew_sets_the_old_file_aside(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    ledger.path.write_text("corrupt")
    state, aside = ledger.store.renew(empty)
    assert (aside.read_text(), ledger.store.load()) == ("corrupt", state)
    _, second = ledger.store.renew(empty)
    assert second != aside
    assert aside.exists()


def test_renew_leaves_what_is_no_file_alone(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    with pytest.raises(InputError):
        Store(tmp_path / "dir", Clock()).renew(empty)
    assert (tmp_path / "dir").is_dir()


def test_a_ledger_that_grows_too_large_is_not_written(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    big = "A" * (1024 * 1024)

    def grow(state: State) -> tuple[State, None]:
        return replace(state, raw={**state.raw, **dict.fromkeys(_keys(20), big)}), None

    before = ledger.path.read_bytes()
    with pytest.raises(StateError, match="larger than 16777216 bytes"):
        ledger.store.change(grow)
    assert ledger.path.read_bytes() == before


def _keys(count: int) -> list[str]:
    from dzagent.devledger import base58

    return [base58.encode(bytes([number + 1]) * 32) for number in range(count)]


def test_only_what_can_be_read_again_is_written(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    before = ledger.path.read_bytes()
    with pytest.raises(InputError, match=r"config\.local_asn"):
        ledger.store.change(lambda s: (replace(s, config=replace(s.config, local_asn=-1)), None))
    assert ledger.path.read_bytes() == before


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")

    def add(number: int) -> None:
        from tests.devledger_fakes import ip

        for step in range(5):
            address = ip(f"198.51.100.{number * 5 + step + 1}")
            ledger.store.change(lambda s, address=address: with_user(s, client_ip=address))  # type: ignore[misc]

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = ledger.store.load()
    assert len(state.users) == 20
    assert len({user.tunnel_net for user in state.users.values()}) == 20
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["F", "F.lock"]


# ---- slots -----------------------------------------------------------------------------------------------


def test_a_slot_lasts_400_ms() -> None:
    state = empty(START)
    assert [slots.slot_at(state, START + seconds) for seconds in (0, 0.39, 0.41, 4.01, 400.1)] == [
        1,
        1,
        2,
        11,
        1001,
    ]


def test_a_clock_that_goes_back_does_not_take_slots_back() -> None:
    state = replace(empty(START), slot=500)
    assert slots.slot_at(state, START - 1e6) == 500
    after = slots.changed(state, state, START - 1e6)
    assert (after.slot, slots.slot_at(after, START - 1e6 + 4)) == (501, 511)


def test_slots_have_an_end() -> None:
    assert slots.slot_at(empty(0.0), 1e30) == slots.MAX_SLOT


# ---- the node --------------------------------------------------------------------------------------------


def test_the_node_follows_the_file(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    before = node.view("finalized")
    state, account = ledger.store.change(_add_user)
    after = node.view("finalized")
    assert account not in before.accounts
    assert after.accounts[account] == bank.user(state.users[account])
    assert (after.slot > before.slot, after.genesis_hash) == (True, before.genesis_hash)


def test_the_node_reads_only_a_file_that_has_changed(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    assert node.view("finalized").accounts is node.view("processed").accounts


def test_slots_rise_with_time_and_not_back_over_a_restart(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    first = node.slot
    ledger.pass_(10)
    assert node.slot == first + 25
    assert ledger.node().slot == first + 25


def test_no_two_contents_share_a_slot(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    ledger.monotonic.pass_(100)  # the wall clock was set back meanwhile
    seen = [node.view("finalized").slot]
    for number in range(3):
        ledger.store.change(lambda s, n=number: world.set_config(s, world.Settings(local_asn=n)))  # type: ignore[misc]
        seen.append(node.view("finalized").slot)
    assert seen == sorted(set(seen))


def test_the_slot_outlives_a_clock_that_was_set_back(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    ledger.monotonic.pass_(400)
    ledger.wall.pass_(-400)
    served = node.slot
    node.remember_slot()
    assert ledger.node().slot >= served
    assert ledger.store.load().revision == 1, "nothing has changed"


def test_a_slot_that_the_clock_remembers_is_not_written(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    ledger.pass_(400)
    before = ledger.store.stamp()
    node.remember_slot()
    assert ledger.store.stamp() == before


def test_a_file_that_breaks_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    good = ledger.path.read_bytes()
    before = node.view("finalized").accounts
    ledger.path.write_text("{")
    for _ in range(3):
        view = node.view("finalized")
        assert (view.accounts, view.node.healthy) == (before, False)
    assert len(ledger.warnings) == 1
    assert "last good state is served" in ledger.warnings[0]
    ledger.path.write_bytes(good)
    assert node.view("finalized").node.healthy
    assert "good again" in ledger.warnings[1]


def test_a_file_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    ledger.path.unlink()
    assert not node.view("finalized").node.healthy
    assert "no ledger at" in ledger.warnings[0]
    with pytest.raises(InputError, match="no ledger"):
        node.remember_slot()


def test_another_ledger_in_the_same_file_is_another_ledger(tmp_path: Path) -> None:
    ledger = Ledger.make(tmp_path / "F")
    node = ledger.node()
    before = node.view("finalized")
    ledger.store.renew(lambda now: world.fresh(before.program_id, now, os.urandom))
    after = node.view("finalized")
    assert after.genesis_hash != before.genesis_hash
    ledger.store.change(lambda s: with_user(replace(s, devices=populated().devices), client_ip=OTHER_IP))
    assert len(node.view("finalized").accounts) > len(after.accounts)
