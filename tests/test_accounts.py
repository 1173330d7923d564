"""The decoder: upstream's own accounts field by field, every age, and everything that is no account."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from dzagent.errors import DecodeError
from dzagent.ledger import layouts
from dzagent.ledger.accounts import (
    NO_KEY,
    TYPE_NAMES,
    AccessPass,
    Account,
    Device,
    Exchange,
    FeedSeat,
    GlobalConfig,
    Interface,
    MulticastGroup,
    Net,
    Other,
    ProgramConfig,
    Tenant,
    User,
    decode,
    read,
    refusal,
)
from dzagent.ledger.cursor import MAX_PROBLEMS, Cursor, Layout
from dzagent.ledger.interfaces import read_legacy, read_sized

FIXTURES = Path(__file__).parent / "fixtures" / "accounts"
DECODED: dict[str, type[Account]] = {
    "access_pass": AccessPass,
    "access_pass_edge_seat": AccessPass,
    "access_pass_validator": AccessPass,
    "device": Device,
    "device_future_version": Device,
    "device_legacy": Device,
    "exchange": Exchange,
    "global_config": GlobalConfig,
    "multicast_group": MulticastGroup,
    "program_config": ProgramConfig,
    "tenant": Tenant,
    "user": User,
}
NOT_DECODED = (
    "contributor",
    "feed",
    "global_state",
    "link",
    "location",
    "resource_extension_id",
    "resource_extension_ip",
)
UNSET = IPv4Address(0)
HUGE = b"\xff\xff\xff\xff"


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.bin").read_bytes()


def user() -> User:
    account = decode(fixture("user"))
    assert isinstance(account, User)
    return account


def device(data: bytes) -> Device:
    account = decode(data)
    assert isinstance(account, Device)
    return account


def patched(data: bytes, at: int, part: bytes) -> bytes:
    return data[:at] + part + data[at + len(part) :]


# ---- upstream's accounts, field by field -----------------------------------------------------------------

RENAMED = {
    "bump_seed": "bump",
    "multicast_group_block": "multicastgroup_block",
    "access_pass_type": "tag",
    "access_pass_type_validator_pubkey": "payload",
    "edge_seat_feed_seats": "payload",
    "mgroup_pub_allowlist": "publisher_allowlist",
    "mgroup_sub_allowlist": "subscriber_allowlist",
    "billing_discriminant": "billing",
    "interface_type": "type",
    "interface_cyoa": "cyoa",
    "interface_dia": "dia",
    "loopback_type": "loopback",
    "vlan_id": "vlan",
    "node_segment_idx": "node_segment",
    "feed_key": "feed_pk",
    "new_interfaces": "interfaces",
    "interfaces": "legacy_interfaces",
}
ITEMS = (
    ("NewInterface", "interfaces"),
    ("Interface", "legacy_interfaces"),
    ("FlexAlgoNodeSegments", "flex_algo_node_segments"),
    ("EdgeSeatFeedSeat", "payload"),
)
PARTS = ("Major", "Minor", "Patch")


def snake(name: str) -> str:
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return RENAMED.get(text, text)


def find(value: Any, name: str) -> Any:
    """Return what upstream's NAME is in an account of ours."""
    for prefix, ours in ITEMS:
        match = re.fullmatch(rf"{prefix}(\d+)(.+)", name)
        if match:
            return find(getattr(value, ours)[int(match[1])], match[2])
    version = re.fullmatch(r"(Version|MinCompatible)(?:Version)?(Major|Minor|Patch)", name)
    if version:
        return getattr(value, snake(version[1]))[PARTS.index(version[2])]
    if name.endswith("Len"):
        return len(getattr(value, snake(name[:-3])))
    item = re.fullmatch(r"(.+?)(\d+)", name)
    if item:
        return getattr(value, snake(item[1]))[int(item[2])]
    return getattr(value, snake(name))


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def made_by_the_program(fixture_name: str, field: str) -> bool:
    """Whether upstream's value is of its own making: sizes, and the second list that device_legacy lacks."""
    if re.fullmatch(r"NewInterface\d+Size", field):
        return True
    made = r"NewInterface\d+(Version|Mtu)"
    return fixture_name == "device_legacy" and re.fullmatch(made, field) is not None


@pytest.mark.parametrize("name", DECODED)
def test_every_field_of_an_account_is_what_upstream_says(name: str) -> None:
    account = decode(fixture(name))
    listed = json.loads((FIXTURES / f"{name}.json").read_text())
    compared = 0
    for field in listed["fields"]:
        if field["name"] == "AccountType":
            assert fixture(name)[0] == int(field["value"])
        elif not made_by_the_program(name, field["name"]):
            assert shown(find(account, field["name"])) == field["value"], field["name"]
        compared += 1
    assert compared == len(listed["fields"]) > 7
    assert type(account) is DECODED[name]
    assert (account.trailing, account.problems) == (0, ())
    assert account.missing == (("interfaces",) if name == "device_legacy" else ())


@pytest.mark.parametrize("name", NOT_DECODED)
def test_accounts_that_are_not_needed_are_others(name: str) -> None:
    data = fixture(name)
    assert decode(data) == Other(type_number=data[0], trailing=len(data) - 1)
    assert data[0] in TYPE_NAMES


LAYOUTS: dict[type[Account], Layout] = {
    GlobalConfig: layouts.CONFIG,
    Exchange: layouts.EXCHANGE,
    Device: layouts.DEVICE,
    User: layouts.USER,
    MulticastGroup: layouts.GROUP,
    ProgramConfig: layouts.PROGRAM,
    AccessPass: layouts.PASS,
    Tenant: layouts.TENANT,
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_fields_stand_in_the_order_of_the_bytes(kind: type[Account]) -> None:
    own = [field.name for field in fields(kind)][len(fields(Account)) :]
    assert own == [name for name, _ in LAYOUTS[kind]]


def test_the_offsets_that_searches_use_are_those_of_the_bytes() -> None:
    data = patched(patched(fixture("user"), 116, bytes([203, 0, 113, 9])), 50, b"\2")
    account = decode(data)
    assert isinstance(account, User)
    assert (account.client_ip, account.user_type) == (IPv4Address("203.0.113.9"), 2)


# ---- accounts of every age -------------------------------------------------------------------------------

BARE = 140
"""Bytes of the first users, without groups."""


def bare_user() -> bytes:
    """Return the fixture without its groups and feeds: 206 bytes."""
    data = fixture("user")
    return data[:132] + bytes(8) + data[204:266] + bytes(4)


@pytest.mark.parametrize(
    ("length", "first_missing"),
    [
        (140, "validator_pubkey"),
        (172, "tunnel_endpoint"),
        (176, "tunnel_flags"),
        (177, "bgp_status"),
        (194, "bgp_rtt_ns"),
        (202, "feed_pks"),
        (206, None),
    ],
)
def test_users_of_every_age_have_defaults_from_the_first_missing_field_on(
    length: int, first_missing: str | None
) -> None:
    assert len(bare_user()) == 206
    account = decode(bare_user()[:length])
    assert isinstance(account, User)
    names = [name for name, _ in layouts.USER]
    assert account.missing == (tuple(names[names.index(first_missing) :]) if first_missing else ())
    assert (account.trailing, account.problems) == (0, ())
    whole, default = decode(bare_user()), User()
    for name in names:
        source = default if name in account.missing else whole
        assert getattr(account, name) == getattr(source, name), name
    assert default.tunnel_endpoint == UNSET
    assert default.validator_pubkey == NO_KEY


def test_a_user_of_234_bytes_has_no_feeds_and_28_zeros_behind() -> None:
    account = decode(bare_user()[:202] + bytes(32))
    assert isinstance(account, User)
    assert (account.feed_pks, account.missing, account.trailing) == ((), (), 28)


@pytest.mark.parametrize(
    ("end", "first_missing"),
    [
        ("max_users", "device_health"),
        ("device_health", "desired_status"),
        ("desired_status", "unicast_users_count"),
        ("max_multicast_subscribers", "reserved_seats"),
        ("reserved_seats", "multicast_publishers_count"),
        ("max_multicast_publishers", "interfaces"),
    ],
)
def test_devices_of_every_age_are_read(end: str, first_missing: str) -> None:
    whole = fixture("device_legacy")
    widths = {"device_health": 1, "desired_status": 1}
    names = [name for name, _ in layouts.DEVICE]
    after = names[names.index(end) + 1 : -1]
    account = device(whole[: len(whole) - sum(widths.get(name, 2) for name in after)])
    assert account.missing == tuple(names[names.index(first_missing) :])
    assert account.problems == ()
    known = device(whole).legacy_interfaces
    assert known
    assert account.legacy_interfaces == account.interfaces == known
    assert account.max_users == 100


@pytest.mark.parametrize("length", [57, 59, 64])
def test_global_configs_of_every_age_are_read(length: int) -> None:
    account = decode(fixture("global_config")[:length])
    assert isinstance(account, GlobalConfig)
    assert len(account.missing) == {57: 2, 59: 1, 64: 0}[length]
    assert account.multicastgroup_block == Net(IPv4Address("239.0.0.0"), 8)
    assert account.multicast_publisher_block == (
        Net(IPv4Address("148.51.120.0"), 21) if length == 64 else None
    )


def test_a_program_config_of_14_bytes_has_no_oldest_client() -> None:
    account = decode(fixture("program_config")[:14])
    assert isinstance(account, ProgramConfig)
    assert (account.version, account.min_compatible, account.missing) == (
        (1, 2, 3),
        (0, 0, 0),
        ("min_compatible",),
    )


def test_an_exchange_of_the_first_kind_ends_after_its_name() -> None:
    data = fixture("exchange")
    old = patched(data[:95], 66, struct.pack("<I", 4818))
    account = decode(old)
    assert isinstance(account, Exchange)
    assert (account.name, account.missing) == (
        "Amsterdam IX",
        ("reference_count", "device1_pk", "device2_pk"),
    )
    assert account.bgp_community == 4818
    assert [p for p in account.problems if p.startswith("bgp_community is 4818")]


def test_a_group_of_an_older_layout_is_said_to_have_no_counts() -> None:
    head = fixture("multicast_group")[:-8]
    for lists in (bytes(16), struct.pack("<I", 1) + bytes([9] * 32) + bytes(12)):
        account = decode(head + lists)
        assert isinstance(account, MulticastGroup)
        assert account.trailing >= 8
        assert account.multicast_ip == IPv4Address("239.1.1.1")
        assert [p for p in account.problems if p.startswith("publisher_count")]
    assert decode(head + bytes(8)).problems == ()


def test_a_tenant_without_topologies_is_read() -> None:
    account = decode(fixture("tenant")[:-4])
    assert isinstance(account, Tenant)
    assert (account.code, account.missing) == ("acme", ("include_topologies",))


def test_a_billing_that_is_not_known_ends_a_tenant() -> None:
    account = decode(patched(fixture("tenant"), len(fixture("tenant")) - 21, b"\5"))
    assert isinstance(account, Tenant)
    assert account.missing == (
        "billing",
        "billing_rate",
        "billing_last_deduction_dz_epoch",
        "include_topologies",
    )
    assert "form 5" in account.problems[0]
    assert account.metro_routing is True


# ---- access passes and their tags -------------------------------------------------------------------------


def access_pass(tag: int, payload: bytes) -> bytes:
    data = fixture("access_pass")
    return data[:34] + bytes([tag]) + payload + data[35:]


def text(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


@pytest.mark.parametrize(
    ("tag", "payload", "expected"),
    [
        (0, b"", None),
        (1, bytes(31) + b"\1", str(Pubkey(bytes(31) + b"\1"))),
        (2, bytes(31) + b"\2", str(Pubkey(bytes(31) + b"\2"))),
        (3, text(b"ab") + text(b"c"), ("ab", "c")),
        (4, bytes(4), ()),
    ],
)
def test_a_payload_is_read_by_the_tags_meaning_of_today(tag: int, payload: bytes, expected: object) -> None:
    account = decode(access_pass(tag, payload))
    assert isinstance(account, AccessPass)
    assert (account.tag, account.payload, account.problems) == (tag, expected, ())
    assert account.client_ip == IPv4Address("198.51.100.20")
    assert account.max_multicast_users == 3


def test_seats_of_an_edge_feed_are_read() -> None:
    account = decode(fixture("access_pass_edge_seat"))
    assert isinstance(account, AccessPass)
    assert account.payload == (
        FeedSeat(
            feed_pk="Cyqa5AA25q85i8QRYpQUMwfh4jaCg78NwPu4biE9JCgP",
            max_users=7,
            max_future_users=4,
            current_users=3,
            anniversary_day=15,
            window_end=1800000000,
            terminates_at=1900000000,
        ),
    )


@pytest.mark.parametrize(
    ("tag", "payload"),
    [
        (3, bytes([200] * 32)),  # a publisher's address, February 2026
        (4, bytes([200] * 32)),  # a subscriber's address
        (4, b""),  # no payload, July 2026
        (5, text(b"ab") + text(b"c")),  # what is 3 today
        (77, b""),
    ],
)
def test_a_payload_of_an_older_meaning_is_not_guessed_at(tag: int, payload: bytes) -> None:
    account = decode(access_pass(tag, payload))
    assert isinstance(account, AccessPass)
    assert account.missing[0] == "payload"
    assert account.client_ip == UNSET
    assert account.max_unicast_users == 1
    assert len(account.problems) == 1
    assert "2026" in account.problems[0]


@pytest.mark.parametrize(
    ("tag", "payload"),
    [
        (3, b"\5" + bytes(31)),  # an address that could be two texts
        (4, bytes(32)),  # an address that could be an empty list
    ],
)
def test_an_older_payload_that_happens_to_fit_is_doubted(tag: int, payload: bytes) -> None:
    account = decode(access_pass(tag, payload))
    assert [p for p in account.problems if p.startswith("payload may be read wrongly")]


def test_an_older_pass_without_a_payload_is_doubted_although_it_fits() -> None:
    data = fixture("access_pass_edge_seat")
    older = patched(data[:35] + data[91:], 90, bytes(9))  # no flags, no tenants, no unicast users
    account = decode(older)
    assert account.missing == ("multicast_user_count", "max_multicast_users")
    assert [p for p in account.problems if p.startswith("payload may be read wrongly")]


# ---- odd input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("user", 132),
        ("device", 136),
        ("device_legacy", 136),
        ("global_config", 57),
        ("program_config", 14),
        ("exchange", 71),
        ("multicast_group", 95),
        ("tenant", 42),
        ("access_pass", 35),
    ],
)
def test_what_ends_before_what_provisioning_needs_is_refused_and_not_one_byte_later(
    name: str, least: int
) -> None:
    data = fixture(name)
    for length in range(len(data)):
        if length >= least:
            assert decode(data[:length]) == read(data[:length])
        else:
            with pytest.raises(DecodeError):
                decode(data[:length])
    with pytest.raises(DecodeError, match="breaks off at"):
        decode(data[: least - 1])


def test_an_account_without_data_is_refused() -> None:
    for reader in (decode, read):
        with pytest.raises(DecodeError, match="no data"):
            reader(b"")


def test_numbers_that_are_not_known_are_kept() -> None:
    account = decode(patched(patched(fixture("user"), 131, b"\xc8"), 50, b"\x63"))
    assert isinstance(account, User)
    assert (account.status, account.user_type) == (200, 99)


@pytest.mark.parametrize("length", [33, 128, 255])
def test_a_network_that_is_too_long_is_none_and_reported(length: int) -> None:
    account = decode(patched(fixture("user"), 130, bytes([length])))
    assert isinstance(account, User)
    assert account.tunnel_net is None
    assert account.problems == (
        f"tunnel_net is 169.254.100.0/{length}: a prefix length of 0 to 32 is needed",
    )
    assert account.status == 1


def test_host_bits_and_all_lengths_up_to_32_are_kept() -> None:
    for length in range(33):
        account = decode(patched(fixture("user"), 126, bytes([169, 254, 0, 7, length])))
        assert isinstance(account, User)
        assert account.tunnel_net == Net(IPv4Address("169.254.0.7"), length)
        assert str(account.tunnel_net) == f"169.254.0.7/{length}"


def test_a_bad_prefix_of_a_device_is_none_among_good_ones() -> None:
    data = fixture("device")
    nets = struct.pack("<I", 3) + bytes([10, 0, 0, 0, 24, 10, 0, 1, 0, 40, 10, 0, 2, 0, 0])
    account = device(data[:127] + nets + data[136:])
    assert account.dz_prefixes == (
        Net(IPv4Address("10.0.0.0"), 24),
        None,
        Net(IPv4Address("10.0.2.0"), 0),
    )
    assert account.problems == ("dz_prefixes[1] is 10.0.1.0/40: a prefix length of 0 to 32 is needed",)
    assert account.mgmt_vrf == "mgmt"


def test_text_that_is_not_utf8_is_replaced_and_reported() -> None:
    account = decode(patched(fixture("device"), 124, b"d\xff1"))
    assert isinstance(account, Device)
    assert account.code == "d\ufffd1"
    assert account.problems == ("code is not UTF-8 at its byte 1",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_none_so_that_an_account_equals_itself(value: float) -> None:
    data = patched(fixture("exchange"), 50, struct.pack("<d", value))
    account = decode(data)
    assert isinstance(account, Exchange)
    assert account.lat is None
    assert account.lng == pytest.approx(4.9041)
    assert account == decode(data)
    assert account.problems == (f"lat is {value}: a finite number is needed",)


def test_trailing_bytes_are_counted_and_change_nothing() -> None:
    for name in DECODED:
        if name in {"device_legacy", "multicast_group", "access_pass_edge_seat"}:
            continue
        account, longer = decode(fixture(name)), decode(fixture(name) + b"\xab" * 7)
        assert longer.trailing == 7
        assert longer.problems == ()
        for field in fields(account):
            if field.name != "trailing":
                assert getattr(account, field.name) == getattr(longer, field.name)


def test_an_end_within_a_field_is_reported_and_one_between_two_is_not() -> None:
    data = bare_user()
    assert decode(data[:172]).problems == ()
    account = decode(data[:174])
    assert account.missing[0] == "tunnel_endpoint"
    assert account.trailing == 0
    assert account.problems == (
        "tunnel_endpoint cannot be read: 4 bytes are needed at byte 172 and 2 are left",
    )


@pytest.mark.parametrize(("at", "field"), [(132, "publishers"), (168, "subscribers"), (266, "feed_pks")])
def test_a_count_larger_than_the_data_ends_a_user(at: int, field: str) -> None:
    for count in (HUGE, struct.pack("<I", 10)):
        account = decode(patched(fixture("user"), at, count))
        assert isinstance(account, User)
        assert account.missing[0] == field
        assert getattr(account, field) == ()
        assert account.problems[0].startswith(f"{field} cannot be read")
        assert account.status == 1


def test_problems_of_one_account_are_bounded() -> None:
    data = fixture("device")
    nets = struct.pack("<I", 5000) + bytes([10, 0, 0, 0, 99]) * 5000
    account = device(data[:127] + nets + data[136:])
    assert account.dz_prefixes == (None,) * 5000
    assert len(account.problems) == MAX_PROBLEMS + 1
    assert account.problems[-1] == f"{5000 - MAX_PROBLEMS} more such problems are not listed"


@pytest.mark.parametrize(
    "number", sorted({0, 14, 19, 200, 255} | (set(TYPE_NAMES) - {2, 4, 5, 7, 8, 9, 11, 13}))
)
def test_other_types_are_kept_by_number(number: int) -> None:
    assert decode(bytes([number]) * 9) == Other(type_number=number, trailing=8)
    assert decode(bytes([number])) == Other(type_number=number)


# ---- interfaces ---------------------------------------------------------------------------------------------

BEFORE_LEGACY = 136 + 32 + 32 + 8
"""Where the first list of the fixtures begins."""


def v1(name: bytes = b"et1") -> bytes:
    return b"\0\3" + text(name) + struct.pack("<BBH5sHB", 2, 0, 5, bytes([10, 0, 0, 1, 31]), 7, 1)


def v2(name: bytes = b"et1", form: int = 1) -> bytes:
    body = struct.pack("<BBBBQQHBH5sHB", 2, 1, 1, 0, 10**9, 10**8, 9000, 1, 5, bytes([10, 0, 0, 1, 31]), 7, 1)
    return bytes([form, 3]) + text(name) + body


def v3(name: bytes = b"et1") -> bytes:
    return v2(name, 3) + struct.pack("<I", 1) + bytes([8] * 32) + struct.pack("<H", 300)


def sized(name: bytes = b"et1", version: int = 4, *, more: bytes = b"", size: int | None = None) -> bytes:
    body = v2(name)[1:] + bytes(4) + more
    return struct.pack("<HB", len(body) + 3 if size is None else size, version) + body


def with_interfaces(legacy: list[bytes], second: list[bytes] | None, *, count: int | None = None) -> bytes:
    head, counters = fixture("device")[:BEFORE_LEGACY], struct.pack("<IHHBB7H", *range(1, 13))
    data = head + struct.pack("<I", len(legacy)) + b"".join(legacy) + counters
    if second is None:
        return data
    return data + struct.pack("<I", len(second) if count is None else count) + b"".join(second)


def test_every_legacy_form_is_read() -> None:
    account = device(with_interfaces([v1(b"a"), v2(b"b"), v2(b"c", 2), v3(b"d")], None))
    assert account.interfaces == account.legacy_interfaces
    assert account.interfaces is not None
    assert [i.version for i in account.interfaces] == [0, 1, 2, 3]
    assert [i.name for i in account.interfaces] == ["a", "b", "c", "d"]
    assert {(i.status, i.type, i.vlan, i.node_segment) for i in account.interfaces} == {(3, 2, 5, 7)}
    assert {i.ip_net for i in account.interfaces} == {Net(IPv4Address("10.0.0.1"), 31)}
    assert [i.mtu for i in account.interfaces] == [0, 9000, 9000, 9000]
    assert [len(i.flex_algo_node_segments) for i in account.interfaces] == [0, 0, 0, 1]
    assert account.interfaces[3].flex_algo_node_segments[0].node_segment == 300
    assert (account.reference_count, account.max_multicast_publishers) == (1, 12)


def test_an_unknown_legacy_form_ends_the_device_there() -> None:
    account = device(with_interfaces([v2(), v2(form=9)], [sized(), sized()]))
    assert account.interfaces is None
    assert account.legacy_interfaces is None
    assert account.missing[0] == "legacy_interfaces"
    assert account.missing[-1] == "interfaces"
    assert "form 9" in account.problems[0]
    assert account.dz_prefixes == (Net(IPv4Address("10.10.0.0"), 24),)


def test_a_second_list_that_is_absent_or_empty_leaves_the_first() -> None:
    absent_or_empty: tuple[list[bytes] | None, ...] = (None, [])
    for second in absent_or_empty:
        account = device(with_interfaces([v2(b"a"), v1(b"b")], second))
        assert account.interfaces == account.legacy_interfaces
        assert account.interfaces is not None
        assert [i.name for i in account.interfaces] == ["a", "b"]
        assert account.problems == ()


def test_the_second_list_counts_where_both_are_there() -> None:
    account = device(with_interfaces([v2(b"a")], [sized(b"b")]))
    assert account.interfaces is not None
    assert [i.name for i in account.interfaces] == ["b"]


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (0, 1)])
def test_lists_of_different_lengths_leave_the_device_without_known_interfaces(
    first: int, second: int
) -> None:
    account = device(with_interfaces([v2()] * first, [sized()] * second))
    assert account.interfaces is None
    assert account.legacy_interfaces is not None
    assert len(account.legacy_interfaces) == first
    assert account.problems == (
        f"interfaces are not known: one list has {first} of them and the other {second}",
    )
    assert account.missing == ()
    assert account.public_ip == IPv4Address("203.0.113.1")


def test_a_later_version_is_read_as_far_as_it_is_known_and_then_passed_over() -> None:
    account = device(with_interfaces([v2()] * 2, [sized(b"a", 5, more=b"\xff" * 9), sized(b"b", 4)]))
    assert account.interfaces is not None
    assert [(i.version, i.name, i.mtu) for i in account.interfaces] == [(5, "a", 9000), (4, "b", 9000)]
    assert (account.trailing, account.problems) == (0, ())


@pytest.mark.parametrize("length", [HUGE, struct.pack("<I", 60)])
def test_an_interface_that_does_not_fit_its_size_spoils_only_itself(length: bytes) -> None:
    long_name = struct.pack("<HB", 45, 4) + b"\3" + length + bytes(37)
    account = device(with_interfaces([v2()] * 2, [long_name, sized(b"b")]))
    assert account.interfaces is not None
    assert account.interfaces[0] == Interface(version=4, status=3)
    assert account.interfaces[1].name == "b"
    assert len(account.problems) == 1
    assert account.problems[0].startswith("interfaces[0].name cannot be read")


def test_a_bad_network_of_an_interface_is_none_and_reported() -> None:
    bad = v1()[:-8] + bytes([10, 0, 0, 1, 60]) + v1()[-3:]
    account = device(with_interfaces([bad], None))
    assert account.interfaces is not None
    assert account.interfaces[0].ip_net is None
    assert account.problems == (
        "legacy_interfaces[0].ip_net is 10.0.0.1/60: a prefix length of 0 to 32 is needed",
    )


def test_a_device_that_breaks_off_between_the_lists_has_the_first() -> None:
    for cut in (1, 2, 9):
        account = device(with_interfaces([v2(b"a"), v1(b"b")], None)[:-cut])
        assert account.interfaces == account.legacy_interfaces
        assert account.interfaces is not None
        assert [i.name for i in account.interfaces] == ["a", "b"]


def test_a_device_that_breaks_off_within_the_first_list_has_none_that_are_known() -> None:
    data = with_interfaces([v2()] * 2, None)
    account = device(data[:-40])
    assert (account.interfaces, account.missing[0]) == (None, "legacy_interfaces")


@pytest.mark.parametrize("size", [0, 1, 2, 60000])
def test_a_size_that_cannot_be_ends_the_list(size: int) -> None:
    account = device(with_interfaces([v2()], [sized(size=size)]))
    assert account.interfaces is None
    assert account.missing == ("interfaces",)
    assert f"an interface of {size} bytes" in account.problems[0]


@pytest.mark.parametrize("count", [2, 2**32 - 1])
def test_a_second_list_that_is_cut_leaves_the_interfaces_unknown(count: int) -> None:
    for items in ([], [sized()]):
        account = device(with_interfaces([v2()] * 2, items, count=count))
        assert account.interfaces is None
        assert account.missing == ("interfaces",)


# ---- hostile counts -------------------------------------------------------------------------------------------


class Counting(Cursor):
    """Counts how often something is taken: that is the work done."""

    __slots__ = ("takes",)

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.takes = 0

    def take(self, size: int) -> bytes:
        self.takes += 1
        return super().take(size)


@pytest.mark.parametrize("reader", [read_legacy, read_sized, Cursor.keys, Cursor.nets, Cursor.text])
@pytest.mark.parametrize("rest", [0, 17, 4000])
def test_a_count_of_four_billion_costs_one_read(reader: Any, rest: int) -> None:
    cursor = Counting(HUGE + bytes(rest))
    with pytest.raises(DecodeError, match="4294967295 items"):
        reader(cursor)
    assert cursor.takes == 1


@pytest.mark.parametrize(("reader", "least"), [(read_legacy, 18), (read_sized, 45)])
def test_one_interface_more_than_there_can_be_costs_one_read(reader: Any, least: int) -> None:
    cursor = Counting(struct.pack("<I", 101) + bytes(101 * least - 1))
    with pytest.raises(DecodeError, match=f"101 items of at least {least} bytes"):
        reader(cursor)
    assert cursor.takes == 1


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.binary(max_size=400))
def test_there_are_never_more_interfaces_than_bytes_for_them(count: int, tail: bytes) -> None:
    counted = struct.pack("<I", count)
    for reader, least in ((read_legacy, 18), (read_sized, 45)):
        cursor = Counting(counted + tail)
        try:
            found = reader(cursor)
        except DecodeError:
            found = ()
        assert len(found) * least <= len(tail)
        assert cursor.takes <= 2 * len(tail) + 2


# ---- any bytes at all ----------------------------------------------------------------------------------------

WHOLE = [fixture(name) for name in DECODED]


def check(data: bytes) -> None:
    """Decode, or be refused with the one error, and agree with the lenient reader."""
    try:
        account = decode(data)
    except DecodeError:
        assert not data or refusal(read(data)) is not None
        return
    assert read(data) == account
    assert 0 <= account.trailing < max(1, len(data))
    assert all("\n" not in problem for problem in account.problems)


@given(st.sampled_from(WHOLE), st.data())
def test_cut_and_extended_accounts_decode_or_are_refused(whole: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(whole)))
    check(whole[:cut])
    check(whole[:cut] + data.draw(st.binary(max_size=80)))


@settings(max_examples=300)
@given(st.sampled_from(WHOLE), st.data())
def test_accounts_with_flipped_bytes_decode_or_are_refused(whole: bytes, data: st.DataObject) -> None:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(changed))


@given(st.integers(0, 255), st.binary(max_size=600))
def test_random_bytes_of_any_type_decode_or_are_refused(number: int, rest: bytes) -> None:
    check(bytes([number]) + rest)


def test_every_proper_prefix_of_every_account_decodes_or_is_refused() -> None:
    for whole in WHOLE:
        for length in range(len(whole)):
            check(whole[:length])
