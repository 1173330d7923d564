"""Which user counts, and what it proves if none does; accounts here are values, not bytes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.ledger.accounts import Device, GlobalConfig, User
from dzagent.ledger.snapshot import Snapshot
from dzagent.matching import MAX_REPORTED, STATUS_NAMES, Found, match, user_problems
from dzagent.model import Keep, ServiceName, UserType, Withdraw

IP, OTHER_IP = IPv4Address("198.51.100.7"), IPv4Address("198.51.100.8")
UNICAST = User(user_type=0, client_ip=IP, status=1)
MULTICAST = replace(UNICAST, user_type=3)
SERVICES: tuple[ServiceName, ...] = ("unicast", "multicast")


def picture(
    users: dict[str, User] | None = None,
    *,
    unreadable: dict[str, bytes | None] | None = None,
    complete: bool = True,
    devices: dict[str, Device] | None = None,
) -> Snapshot:
    """Make a snapshot; `unreadable` are accounts with the bytes that are known of them, None for none."""
    broken = unreadable or {}
    raw = {account: data for account, data in broken.items() if data is not None}
    return Snapshot(
        7,
        "genesis",
        GlobalConfig(),
        users=users or {},
        devices=devices or {},
        raw=raw,
        unreadable=frozenset(broken),
        complete=complete,
    )


def user_bytes(kind: int = 0, ip: IPv4Address = IP, length: int = 200, account_type: int = 7) -> bytes:
    """Write the bytes by which an account that breaks off is told: its type, the user's type, the client IP."""
    data = bytearray(length)
    data[0] = account_type
    data[50:51] = bytes([kind])
    data[116:120] = ip.packed
    return bytes(data[:length])


def code(decided: object) -> str:
    assert isinstance(decided, Keep), decided
    return decided.problem.code


# ---- readable users ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [(0, "unicast"), (1, "unicast"), (2, "unicast"), (3, "multicast")])
def test_each_type_belongs_to_one_service(kind: int, name: ServiceName) -> None:
    user = replace(UNICAST, user_type=kind)
    assert match(picture({"a": user}), IP, name) == Found("a", user, UserType(kind))
    other: ServiceName = "unicast" if name == "multicast" else "multicast"
    assert match(picture({"a": user}), IP, other) == Withdraw(f"no user for client IP {IP}")


def test_the_order_of_the_accounts_decides_and_not_their_names() -> None:
    users = {"z": replace(UNICAST, user_type=2), "a": UNICAST}
    found = match(picture(users), IP, "unicast")
    assert isinstance(found, Found)
    assert found.account == "z"


@pytest.mark.parametrize("status", [0, *range(2, len(STATUS_NAMES))])
def test_a_user_that_is_not_activated_withdraws_at_once_and_says_why(status: int) -> None:
    users = {"a": replace(UNICAST, status=status)}
    expected = Withdraw(f"user a is {STATUS_NAMES[status]}")
    assert match(picture(users, complete=False), IP, "unicast") == expected
    assert match(picture({**users, "b": UNICAST}), IP, "unicast") == Found("b", UNICAST, UserType.IBRL)


@pytest.mark.parametrize("status", [len(STATUS_NAMES), 100, 255])
def test_an_unknown_status_keeps_and_names_the_number(status: int) -> None:
    kept = match(picture({"a": replace(UNICAST, status=status)}), IP, "unicast")
    assert code(kept) == "UnknownUserStatus"
    assert isinstance(kept, Keep)
    assert f"status {status}" in kept.problem.message
    assert (kept.problem.service, kept.problem.account) == ("unicast", "a")


def test_an_unknown_status_keeps_though_another_user_is_banned() -> None:
    users = {"a": replace(UNICAST, status=6), "b": replace(UNICAST, status=99)}
    assert code(match(picture(users), IP, "unicast")) == "UnknownUserStatus"


def test_an_unknown_type_is_nobody_s_user() -> None:
    odd = {"a": replace(UNICAST, user_type=4)}
    assert match(picture(odd), IP, "unicast") == Withdraw(f"no user for client IP {IP}")
    (problem,) = user_problems(picture(odd), IP)
    assert (problem.code, problem.account, problem.service) == ("UnknownUserType", "a", None)


def test_absence_counts_only_where_it_is_proven() -> None:
    elsewhere = {"a": replace(UNICAST, client_ip=OTHER_IP)}
    for name in SERVICES:
        assert match(picture(elsewhere), IP, name) == Withdraw(f"no user for client IP {IP}")
        assert code(match(picture(elsewhere, complete=False), IP, name)) == "AbsenceNotProven"


# ---- accounts that cannot be read ------------------------------------------------------------------------------


def test_a_broken_account_that_may_be_ours_keeps_the_service_it_may_be_of() -> None:
    for data in (user_bytes(), user_bytes(length=121), user_bytes(length=118), user_bytes(length=50), b"\7"):
        assert code(match(picture(unreadable={"a": data}), IP, "unicast")) == "UnreadableUser"
    assert isinstance(match(picture(unreadable={"a": user_bytes()}), IP, "multicast"), Withdraw)
    doubts: tuple[bytes | None, ...] = (user_bytes(kind=9), user_bytes(length=50), b"\7", b"", None)
    for doubt in doubts:
        assert code(match(picture(unreadable={"a": doubt}), IP, "multicast")) == "UnreadableUser"


@pytest.mark.parametrize(
    "data", [user_bytes(ip=OTHER_IP), user_bytes(kind=3), user_bytes(account_type=5), b"\x0b" * 300]
)
def test_a_broken_account_that_is_provably_not_ours_keeps_nothing(data: bytes) -> None:
    assert match(picture(unreadable={"a": data}), IP, "unicast") == Withdraw(f"no user for client IP {IP}")


def test_an_activated_user_counts_whatever_else_is_broken() -> None:
    assert isinstance(match(picture({"a": UNICAST}, unreadable={"b": user_bytes()}), IP, "unicast"), Found)


def test_only_a_broken_account_that_is_ours_beyond_doubt_stops_a_ban() -> None:
    banned = {"a": replace(UNICAST, status=6)}
    assert code(match(picture(banned, unreadable={"b": user_bytes()}), IP, "unicast")) == "UnreadableUser"
    for data in (user_bytes(length=118), user_bytes(length=50), b"", user_bytes(kind=3)):
        assert isinstance(match(picture(banned, unreadable={"b": data}), IP, "unicast"), Withdraw)


def test_what_others_call_a_broken_account_does_not_count_against_its_bytes() -> None:
    """A stranger's user could name ours as its device or group, and so hide it."""
    stranger = replace(MULTICAST, client_ip=OTHER_IP, publishers=("a",), subscribers=("a",), device_pk="a")
    for named in (stranger, replace(stranger, tenant_pk="a")):
        broken = picture({"s": named}, unreadable={"a": user_bytes()})
        assert code(match(broken, IP, "unicast")) == "UnreadableUser"
    device = Device(exchange_pk="a")
    assert (
        code(match(picture(devices={"d": device}, unreadable={"a": user_bytes()}), IP, "unicast"))
        == "UnreadableUser"
    )


@pytest.mark.parametrize("data", [None, b""])
def test_an_account_without_bytes_is_what_readable_ones_call_it(data: bytes | None) -> None:
    for user in (
        replace(MULTICAST, publishers=("a",)),
        replace(MULTICAST, subscribers=("a",)),
        replace(MULTICAST, tenant_pk="a"),
        replace(MULTICAST, device_pk="a"),
    ):
        known = picture({"u": user}, unreadable={"a": data})
        assert match(known, IP, "unicast") == Withdraw(f"no user for client IP {IP}")
    metro = picture(devices={"d": Device(exchange_pk="a")}, unreadable={"a": data})
    assert match(metro, IP, "unicast") == Withdraw(f"no user for client IP {IP}")


# ---- what is left out --------------------------------------------------------------------------------------------


def test_second_users_are_reported_and_those_that_do_not_count_are_not() -> None:
    users = {
        "a": UNICAST,
        "b": replace(UNICAST, user_type=1),
        "c": replace(UNICAST, status=0),
        "d": MULTICAST,
        "e": replace(MULTICAST, client_ip=OTHER_IP),
    }
    (problem,) = user_problems(picture(users), IP)
    assert (problem.code, problem.service, problem.account) == ("DuplicateUser", "unicast", "b")
    assert "a is used" in problem.message


def test_reports_are_bounded() -> None:
    crowd = {str(n): replace(UNICAST, user_type=n % 256) for n in range(1000)}
    assert len(user_problems(picture(crowd), IP)) == MAX_REPORTED


statuses = st.integers(0, 255)
users = st.builds(
    User,
    user_type=st.integers(0, 5),
    client_ip=st.sampled_from([IP, OTHER_IP]),
    status=st.one_of(st.just(1), statuses),
    publishers=st.lists(st.sampled_from("abc"), max_size=2).map(tuple),
)


@given(
    st.dictionaries(st.sampled_from("abcd"), users),
    st.dictionaries(st.sampled_from("efg"), st.none() | st.binary(max_size=140)),
    st.booleans(),
    st.sampled_from(SERVICES),
)
def test_a_service_is_withdrawn_on_sound_evidence_only(
    known: dict[str, User], broken: dict[str, bytes | None], complete: bool, name: ServiceName
) -> None:
    decided = match(picture(known, unreadable=broken, complete=complete), IP, name)
    mine = [u for u in known.values() if u.client_ip == IP and _service(u) == name]
    if any(user.status == 1 for user in mine):
        assert isinstance(decided, Found)
        return
    assert not isinstance(decided, Found)
    if isinstance(decided, Withdraw):
        assert mine or complete
        assert all(user.status < len(STATUS_NAMES) for user in mine)
        assert mine or not any(data is None for data in broken.values())


def _service(user: User) -> ServiceName | None:
    return UserType(user.user_type).service if user.user_type in set(UserType) else None
