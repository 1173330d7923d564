"""`dzagent ledger decode`: the document, every way to give it an account, and what it says about anything else."""

from __future__ import annotations

import base64
import json
import struct
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.cli.decode import MAX_INPUT, decode
from dzagent.errors import DecodeError, DzagentError, InputError
from dzagent.ledger import layouts
from dzagent.ledger.accounts import TYPE_NAMES
from dzagent.ledger.document import document

FIXTURES = Path(__file__).parent / "fixtures" / "accounts"
USER = (FIXTURES / "user.bin").read_bytes()
NAMES = sorted(path.stem for path in FIXTURES.glob("*.bin"))


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.bin").read_bytes()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def patched(data: bytes, at: int, part: bytes) -> bytes:
    return data[:at] + part + data[at + len(part) :]


def run(*args: str, stdin: bytes | str | None = None) -> Any:
    """Run the command and return the document it prints."""
    result = CliRunner().invoke(decode, args, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.output, parse_constant=pytest.fail)


def refused(*args: str, stdin: bytes | str | None = None) -> str:
    """Run the command and return its one line of error."""
    result = CliRunner().invoke(decode, args, input=stdin)
    assert isinstance(result.exception, DzagentError), result.output
    assert result.stdout == ""
    message = str(result.exception)
    assert "\n" not in message
    assert len(message) < 300
    return message


# ---- the document ----------------------------------------------------------------------------------------


def test_a_user_is_shown_whole() -> None:
    assert run(str(FIXTURES / "user.bin")) == {
        "type": "User",
        "type_number": 7,
        "fields": {
            "account_type": 7,
            "owner": "7Tk94Yf6oGXYDQYXqSZrwxYwqwEznCn34GcFKinYCEU7",
            "index": 200,
            "bump": 248,
            "user_type": {"value": 3, "name": "multicast"},
            "tenant_pk": "7XeYi3PBh72Fd6fWLwqJqtJB6womV9swe8v8pv6Xv38T",
            "device_pk": "7bYxMY7GawWy2nnUrT6kjp3QMxNYC6yrE1E2L7QXdqno",
            "cyoa_type": {"value": 2, "name": "gre_over_fabric"},
            "client_ip": "198.51.100.10",
            "dz_ip": "10.200.0.1",
            "tunnel_id": 100,
            "tunnel_net": "169.254.100.0/30",
            "status": {"value": 1, "name": "activated"},
            "publishers": ["7fTN12qMUn1gSUuTMxNCdjndcxwJu45kosXuqJiXMeT9"],
            "subscribers": ["7jMmeXZSNcWPrB2RsTdeXfXrsyW5c1BfPjqoLW2X5T7V"],
            "validator_pubkey": "7oGBJ2HXGT17Fs9QNxu6RbH68z4rJxHZyc9gqhLWoFmq",
            "tunnel_endpoint": "0.0.0.0",  # noqa: S104 - the ledger's "not set"
            "tunnel_flags": 0,
            "bgp_status": {"value": 1, "name": "up"},
            "last_bgp_up_at": 1700000000,
            "last_bgp_reported_at": 1700000100,
            "bgp_rtt_ns": 5500000,
            "feed_pks": [
                "7w4zb1jh47zY5FPMPyRzDSmYf1CPirVP9LmTr5xWEs6X",
                "7zyQEWTmwxVFUwWKuUhS7NWmv1mARobHjD5MMHGVxfks",
            ],
        },
        "missing": [],
        "trailing_bytes": 0,
        "problems": [],
    }


def test_a_device_has_its_interfaces_as_objects() -> None:
    shown = document(fixture("device"))["fields"]
    assert shown["dz_prefixes"] == ["10.10.0.0/24"]
    assert shown["public_ip"] == "203.0.113.1"
    assert shown["device_health"] == {"value": 3, "name": "ready_for_users"}
    assert [interface["name"] for interface in shown["legacy_interfaces"]] == ["Loopback0", "Ethernet1"]
    assert shown["interfaces"][0] == {
        "version": 4,
        "status": {"value": 3, "name": "activated"},
        "name": "Loopback0",
        "type": {"value": 1, "name": "loopback"},
        "cyoa": {"value": 0, "name": "none"},
        "dia": {"value": 0, "name": "none"},
        "loopback": {"value": 1, "name": "vpnv4"},
        "bandwidth": 0,
        "cir": 0,
        "mtu": 9000,
        "routing_mode": {"value": 0, "name": "static"},
        "vlan": 0,
        "ip_net": "10.0.0.1/32",
        "node_segment": 100,
        "user_tunnel_endpoint": False,
        "flex_algo_node_segments": [
            {"topology": "5eM8cB4pfhAGBjJE6pNomwRmrfzBiZ2ZHrHGjTQfjWco", "node_segment": 300}
        ],
    }


def test_a_device_whose_lists_of_interfaces_differ_is_shown_without_them() -> None:
    data = fixture("device")
    shown = document(patched(data, len(data) - 146, struct.pack("<I", 1)))
    assert shown["fields"]["interfaces"] is None
    assert len(shown["fields"]["legacy_interfaces"]) == 2
    assert shown["problems"] == ["interfaces are not known: one list has 2 of them and the other 1"]
    assert shown["trailing_bytes"] == 54


def test_other_accounts_are_shown_with_their_own_kinds_of_values() -> None:
    assert document(fixture("program_config"))["fields"]["version"] == [1, 2, 3]
    assert document(fixture("exchange"))["fields"]["lat"] == pytest.approx(52.3676)
    assert document(fixture("global_config"))["fields"]["multicastgroup_block"] == "239.0.0.0/8"
    assert document(fixture("tenant"))["fields"]["metro_routing"] is True
    assert document(fixture("access_pass"))["fields"]["last_access_epoch"] == 2**64 - 1
    seats = document(fixture("access_pass_edge_seat"))["fields"]
    assert seats["tag"] == {"value": 4, "name": "edge_seat"}
    assert seats["payload"][0]["terminates_at"] == 1900000000


@pytest.mark.parametrize("name", NAMES)
def test_every_account_of_upstream_is_shown_without_loss(name: str) -> None:
    shown = run(str(FIXTURES / f"{name}.bin"))
    assert list(shown) == ["type", "type_number", "fields", "missing", "trailing_bytes", "problems"]
    listed = json.loads((FIXTURES / f"{name}.json").read_text())
    assert shown["type_number"] == listed["account_type"]
    assert shown["type"] == TYPE_NAMES[listed["account_type"]]
    assert listed["name"].startswith(shown["type"])


def test_large_numbers_stay_exact() -> None:
    data = patched(USER, 33, b"\xff" * 16)
    assert run(b64(data))["fields"]["index"] == 2**128 - 1


@pytest.mark.parametrize(
    ("account", "field", "enum", "but"),
    [
        ("user", "user_type", "UserUserType", ()),
        ("user", "cyoa_type", "CyoaType", ()),
        ("user", "status", "UserStatus", ("2",)),
        ("device", "device_type", "DeviceDeviceType", ()),
        ("device", "device_health", "DeviceHealth", ()),
        ("device", "desired_status", "DeviceDesiredStatus", ()),
        ("exchange", "status", "ExchangeStatus", ()),
        ("multicast_group", "status", "MulticastGroupStatus", ()),
        ("tenant", "payment_status", "TenantPaymentStatus", ()),
        ("access_pass", "tag", "AccessPassTypeTag", ()),  # changes what follows, so it is not searched for
        ("access_pass", "status", "AccessPassStatus", ()),
    ],
)
def test_enums_have_the_names_of_upstream(account: str, field: str, enum: str, but: tuple[str, ...]) -> None:
    names = json.loads((FIXTURES / "enum_strings.json").read_text())[enum]
    at = 34 if field == "tag" else offset(account, field)
    for number in range(256):
        shown = document(patched(fixture(account), at, bytes([number])))["fields"][field]
        expected = names.get(str(number)) if number != 99 else None
        assert shown["value"] == number
        if str(number) not in but:
            assert shown["name"] == expected, number


def offset(account: str, field: str) -> int:
    """Return where a field of one byte is: the only one that changes it and nothing else."""
    data = fixture(account)
    whole = document(data)["fields"]
    for at in range(1, len(data)):
        changed = document(patched(data, at, bytes([data[at] ^ 0x40])))["fields"]
        if {name for name in whole if changed[name] != whole[name]} == {field}:
            return at
    raise AssertionError(field)


def test_the_status_of_a_device_is_the_programs_and_not_the_one_of_the_sdk() -> None:
    names = [
        document(patched(fixture("device"), 119, bytes([n])))["fields"]["status"]["name"] for n in range(9)
    ]
    assert names[1] == "activated"
    assert names[3:] == [
        "deleting",
        "rejected (deprecated)",
        "drained",
        "device-provisioning",
        "link-provisioning",
        None,
    ]


def test_a_suspended_user_has_a_name_although_the_sdk_has_none() -> None:
    status = document(patched(USER, 131, b"\2"))["fields"]["status"]
    assert status == {"value": 2, "name": "suspended (deprecated)"}


# ---- accounts that are odd -------------------------------------------------------------------------------


def test_missing_fields_are_listed_and_have_their_defaults() -> None:
    bare = USER[:132] + bytes(8)
    shown = run(b64(bare))
    names = [name for name, _ in layouts.USER]
    assert shown["missing"] == names[names.index("validator_pubkey") :]
    assert shown["fields"]["tunnel_endpoint"] == "0.0.0.0"  # noqa: S104 - the ledger's "not set"
    assert shown["fields"]["feed_pks"] == []
    assert list(shown["fields"]) == ["account_type", *names]
    assert (shown["trailing_bytes"], shown["problems"]) == (0, [])


@pytest.mark.parametrize(
    ("name", "length"), [("user", 131), ("device", 120), ("global_config", 56), ("tenant", 1)]
)
def test_an_account_too_short_for_provisioning_is_shown_as_far_as_it_goes(name: str, length: int) -> None:
    whole, shown = document(fixture(name)), run(b64(fixture(name)[:length]))
    assert shown["type"] == whole["type"]
    assert shown["missing"]
    for field, value in shown["fields"].items():
        assert field in shown["missing"] or value == whole["fields"][field]
    assert [p for p in shown["problems"] if p.startswith("provisioning would refuse this account")]
    # Cut where the last field that is needed begins, nothing more is odd about it.
    assert len(shown["problems"]) <= 2


def test_trailing_bytes_are_counted() -> None:
    assert run(b64(USER + bytes(3)))["trailing_bytes"] == 3


def test_a_network_that_is_too_long_is_null_and_said() -> None:
    shown = run(b64(patched(USER, 130, b"\x21")))
    assert shown["fields"]["tunnel_net"] is None
    assert shown["problems"] == [
        "tunnel_net is 169.254.100.0/33: a prefix length of 0 to 32 is needed",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_write_is_null_and_said(value: float) -> None:
    shown = run(b64(patched(fixture("exchange"), 58, struct.pack("<d", value))))
    assert shown["fields"]["lng"] is None
    assert shown["problems"] == [f"lng is {value}: a finite number is needed"]


def test_text_that_could_move_a_terminal_is_escaped() -> None:
    data = patched(fixture("device"), 124, b"\x1b[m")
    result = CliRunner().invoke(decode, [b64(data)])
    assert "\x1b" not in result.output
    assert json.loads(result.output)["fields"]["code"] == "\x1b[m"


@pytest.mark.parametrize("number", [0, 14, 19, 200, 252, 255])
def test_a_type_that_is_not_known_has_no_fields(number: int) -> None:
    assert run(b64(bytes([number]) * 30)) == {
        "type": None,
        "type_number": number,
        "fields": {},
        "missing": [],
        "trailing_bytes": 29,
        "problems": [f"account type {number} is not known: its fields cannot be read"],
    }


@pytest.mark.parametrize("number", [1, 3, 6, 10, 12, 15, 16, 17, 18])
def test_a_type_that_is_not_needed_is_named_and_has_no_fields(number: int) -> None:
    shown = run(b64(bytes([number]) + bytes(40)))
    assert (shown["type"], shown["type_number"], shown["fields"]) == (TYPE_NAMES[number], number, {})
    assert len(shown["problems"]) == 1


# ---- every way to give it an account ---------------------------------------------------------------------

RPC_ACCOUNT = {
    "data": [b64(USER), "base64"],
    "executable": False,
    "owner": "x",
    "rentEpoch": 1.8e19,
    "space": 334,
}
FORMS = {
    "raw": USER,
    "base64": b64(USER).encode(),
    "base64 with a newline": b64(USER).encode() + b"\n",
    "base64 in lines": base64.encodebytes(USER),
    "base64 after a byte order mark": b"\xef\xbb\xbf" + b64(USER).encode(),
    "JSON text": json.dumps(b64(USER)).encode(),
    "RPC account": json.dumps(RPC_ACCOUNT, indent=2).encode(),
    "RPC value": json.dumps({"context": {"slot": 5}, "value": RPC_ACCOUNT}).encode(),
    "RPC answer": json.dumps({"jsonrpc": "2.0", "id": 0, "result": {"value": RPC_ACCOUNT}}).encode(),
    "RPC list of one": json.dumps({"result": [{"pubkey": "k", "account": RPC_ACCOUNT}]}).encode(),
    "entry of a dump": json.dumps({"pubkey": "k", "data": b64(USER)}).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_and_standard_input_may_hold_any_form(form: str, tmp_path: Path) -> None:
    file, expected = tmp_path / "account", document(USER)
    file.write_bytes(FORMS[form])
    assert run(str(file)) == expected
    assert run(stdin=FORMS[form]) == expected
    assert run("-", stdin=FORMS[form]) == expected


def test_an_argument_may_be_base64_or_json() -> None:
    assert run(b64(USER)) == run(f" {b64(USER)}\n") == run(json.dumps(RPC_ACCOUNT)) == document(USER)


def test_a_file_goes_before_base64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Bwcc").write_bytes(fixture("tenant"))
    assert run("Bwcc")["type"] == "Tenant"
    assert run("Bwcd")["type"] == "User"


def test_a_path_without_a_file_is_not_taken_for_base64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("abc").mkdir()
    assert base64.b64decode("abc/user")
    assert refused("abc/user") == "There is no file 'abc/user'."
    assert refused("no-such-file.bin").startswith("'no-such-file.bin' is neither a file nor")
    assert refused(str(tmp_path / "none")) == f"There is no file {str(tmp_path / 'none')!r}."


def test_the_blanks_of_an_account_are_not_taken_for_an_empty_file(tmp_path: Path) -> None:
    for number in (9, 10, 13):
        file = tmp_path / "account"
        for data in (bytes([number]), bytes([number]) + b"AAA"):
            file.write_bytes(data)
            assert run(str(file))["type_number"] == number


# ---- what cannot be read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"hello, world", "neither base64 nor the JSON of an account"),
        (b"<html><body>502 Bad Gateway</body></html>", "neither base64 nor"),
        (b'{"data": ["AAAA"', "it looks like JSON and is not"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"data": ["****", "base64"]}', 'the "data" of the account is not base64'),
        (b'{"data": ["AAAA", "base58"]}', "encoded as 'base58': ask for base64"),
        (b'{"data": ["AAAA", {"a": 1}]}', "ask for base64"),
        (b'{"data": "AAAA", "owner": "x"}', "encoded as base58: ask for base64"),
        (b'{"data": {"parsed": 1}}', 'JSON without the "data" of an account'),
        (b'{"a": 1}', 'JSON without the "data" of an account'),
        (b'{"result": {"context": {"slot": 1}, "value": null}}', "there is no such account"),
        (b"null", "there is no such account"),
        (b"[]", "it lists 0 accounts: one is needed"),
        (b"[{}, {}]", "it lists 2 accounts: one is needed"),
        (b'{"error": {"code": -32602, "message": "Invalid\\nparam"}}', "the answer is an error, 'Invalid"),
        (b'{"data": ["", "base64"]}', "the account has no data"),
        (b'{"value": ' * 50 + b"3" * 5000 + b"}" * 50, 'JSON without the "data" of an account'),
    ],
)
def test_content_that_is_no_account_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "content"
    file.write_bytes(content)
    assert said in refused(str(file))
    assert said in refused(stdin=content)


def test_arguments_that_are_nothing_are_refused(tmp_path: Path) -> None:
    for argument in (
        "",
        " ",
        "/",
        "*",
        "AAA",
        "nothing here",
        "x" * 5001,
        "\x00",
        "\u00e9\u00e9\u00e9\u00e9",
    ):
        assert "neither a file nor the base64 text" in refused(argument)
    assert refused(str(tmp_path)).endswith("Is a directory.")
    assert refused(str(FIXTURES / "user.bin") + "x" * 300).startswith("There is no file '")
    assert "JSON" in refused('{"a": 1}')


def test_blank_standard_input_is_empty() -> None:
    for blank in (b"", b"\n", b" \n\t\r\n"):
        assert refused(stdin=blank) == "standard input: it is empty: an account is needed."


def test_a_terminal_and_a_closed_standard_input_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        buffer: Any

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    terminal.buffer = terminal
    for stdin in (terminal, None):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(InputError, match="There is nothing to decode"):
            decode.main([], standalone_mode=False)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert refused(str(tmp_path / "loop")) == f"There is no file {str(tmp_path / 'loop')!r}."
    assert refused("/proc/self/mem").startswith("/proc/self/mem: it cannot be read: ")


def test_input_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as large:
        large.truncate(MAX_INPUT + 1)
    assert refused(str(file)) == f"{file}: it is larger than 16 MB, which no account is."
    assert "larger than 16 MB" in refused("/dev/zero")
    assert "larger than 16 MB" in refused(stdin=bytes(MAX_INPUT + 1))
    assert "larger than 16 MB" in refused("A" * (MAX_INPUT + 1))


def test_no_more_than_the_limit_is_asked_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Endless:
        buffer: Any

        def isatty(self) -> bool:
            return False

        def read(self, size: int) -> bytes:
            asked.append(size)
            return bytes(size)

    endless = Endless()
    endless.buffer = endless
    monkeypatch.setattr(sys, "stdin", endless)
    with pytest.raises(InputError, match="larger than 16 MB"):
        decode.main([], standalone_mode=False)
    assert asked == [MAX_INPUT + 1]


def test_in_a_group_an_error_is_one_line_and_exit_2() -> None:
    @click.group()
    def group() -> None:
        """Turn errors into exit codes as the main group does."""

    group.add_command(decode)

    class Main(click.Group):
        def invoke(self, ctx: click.Context) -> Any:
            try:
                return super().invoke(ctx)
            except DzagentError as error:
                click.echo(f"dzagent: {error}", err=True)
                ctx.exit(2)

    result = CliRunner().invoke(Main("main", commands={"ledger": group}), ["ledger", "decode", "*"])
    assert result.exit_code == 2
    assert result.stderr == "dzagent: '*' is neither a file nor the base64 text of an account.\n"
    assert result.stdout == ""


# ---- any bytes at all ------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.integers(0, 255), st.binary(max_size=400))
def test_any_bytes_are_a_document(number: int, rest: bytes) -> None:
    shown = document(bytes([number]) + rest)
    json.dumps(shown, allow_nan=False)
    assert shown["type_number"] == number
    assert set(shown["missing"]) <= set(shown["fields"])


@settings(max_examples=150)
@given(st.sampled_from(NAMES), st.data())
def test_cut_extended_and_changed_accounts_are_documents(name: str, data: st.DataObject) -> None:
    changed = bytearray(fixture(name))
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed)[: data.draw(st.integers(1, len(changed)))] + data.draw(st.binary(max_size=20))
    shown = document(cut)
    json.dumps(shown, allow_nan=False)
    assert shown["type_number"] == cut[0]


def test_no_bytes_are_no_document() -> None:
    with pytest.raises(DecodeError):
        document(b"")


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=300))
def test_the_command_reads_any_base64(data: bytes) -> None:
    assert run(b64(data)) == json.loads(json.dumps(document(data)))


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_the_command_prints_a_document_or_one_line_for_any_input(content: bytes) -> None:
    result = CliRunner().invoke(decode, input=content)
    if result.exception is None:
        assert set(json.loads(result.output)) == set(document(USER))
    else:
        assert isinstance(result.exception, DzagentError)
        assert "\n" not in str(result.exception)
