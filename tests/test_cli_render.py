"""`dzagent render` on dumps, good and bad: files, words, exit status."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dzagent.cli.render import render
from dzagent.errors import InputError
from tests.service_fakes import (
    ALLOCATED,
    CLIENT,
    CONFIG,
    DEVICE,
    EDGE,
    GROUP,
    IBRL,
    PUBLISHER,
    SUBSCRIBER,
    USER,
    USER2,
    UserSpec,
    config,
    device,
    group,
)


def dump(users: Mapping[str, UserSpec], **others: bytes) -> list[dict[str, str]]:
    accounts = {
        CONFIG: others.get("config", config()),
        DEVICE: others.get("device", device()),
        GROUP: group(),
        **{account: spec.data() for account, spec in users.items()},
    }
    return [{"pubkey": k, "data": base64.b64encode(v).decode()} for k, v in accounts.items() if v]


def run(tmp_path: Path, document: object, *options: str) -> Result:
    path = tmp_path / "accounts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    words = ["--accounts", str(path), "--client-ip", str(CLIENT), "--out", str(tmp_path / "out"), *options]
    return CliRunner().invoke(render, words)


def as_json(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_each_granted_service_has_its_files(tmp_path: Path) -> None:
    done = run(tmp_path, dump({USER: EDGE, USER2: SUBSCRIBER}), "--json")
    document = as_json(done)
    assert (done.exit_code, document["valid"], document["problems"]) == (0, True, [])
    assert [s["user_type"] for s in document["services"]] == ["EdgeFiltering", "Multicast"]
    assert len(document["files"]) == 10
    rules = (tmp_path / "out" / "unicast" / "rule.ip").read_text()
    assert "to 148.51.0.0/24 table 100 protocol 210\n" in rules
    assert "dzagent:multicast" in (tmp_path / "out" / "multicast" / "tunnel.ip").read_text()


def test_the_tunnel_source_serves_the_types_that_look_it_up(tmp_path: Path) -> None:
    for spec, source in ((IBRL, str(CLIENT)), (ALLOCATED, "192.0.2.200")):
        done = run(tmp_path, dump({USER: spec}), "--tunnel-src", "192.0.2.200", "--json")
        assert as_json(done)["services"][0]["tunnel_src"] == source
    done = run(tmp_path, dump({USER: ALLOCATED}), "--json")
    assert as_json(done)["services"][0]["tunnel_src"] == str(CLIENT)


def test_the_same_from_a_folder_and_from_an_answer_of_a_node(tmp_path: Path) -> None:
    accounts = dump({USER: IBRL})
    expected = as_json(run(tmp_path, accounts, "--json"))
    nodes = [{"pubkey": a["pubkey"], "account": {"data": [a["data"], "base64"]}} for a in accounts]
    assert as_json(run(tmp_path, nodes, "--json")) == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    for account in accounts:
        (folder / f"{account['pubkey']}.bin").write_bytes(base64.b64decode(account["data"]))
    words = ["--accounts", str(folder), "--client-ip", str(CLIENT), "--out", str(tmp_path / "out"), "--json"]
    assert as_json(CliRunner().invoke(render, words)) == expected


def test_an_invalid_service_is_left_out_and_the_other_one_rendered(tmp_path: Path) -> None:
    done = run(tmp_path, dump({USER: replace(IBRL, net="169.254.0.4/30"), USER2: PUBLISHER}), "--json")
    document = as_json(done)
    assert (done.exit_code, [s["name"] for s in document["services"]]) == (1, ["multicast"])
    assert [(p["code"], p["service"]) for p in document["problems"]] == [("InvalidOverlay", "unicast")]
    assert not (tmp_path / "out" / "unicast").exists()


@pytest.mark.parametrize(
    ("users", "code"),
    [
        ({USER: replace(IBRL, kind=9)}, "UnknownUserType"),
        ({USER: IBRL, USER2: EDGE}, "DuplicateUser"),
        ({USER: replace(IBRL, endpoint="127.0.0.1")}, "InvalidEndpoint"),
        ({USER: replace(IBRL, endpoint="224.0.0.5")}, "InvalidEndpoint"),
        ({USER: replace(IBRL, status=99)}, "UnknownUserStatus"),
    ],
)
def test_a_user_without_a_service_is_exit_1(tmp_path: Path, users: Mapping[str, UserSpec], code: str) -> None:
    done = run(tmp_path, dump(users))
    assert done.exit_code == 1
    assert f"problem {code}: " in done.stdout


def test_a_user_that_is_banned_is_no_error_and_gets_nothing(tmp_path: Path) -> None:
    run(tmp_path, dump({USER: IBRL}))
    mine = tmp_path / "out" / "unicast" / "notes.txt"
    mine.write_text("mine")
    done = run(tmp_path, dump({USER: replace(IBRL, status=6)}))
    assert (done.exit_code, "unicast: not granted: " in done.stdout) == (0, True)
    assert [p.name for p in mine.parent.iterdir()] == ["notes.txt"], "old files go, others stay"


def test_a_hostile_prefix_is_refused_and_named(tmp_path: Path) -> None:
    bad = device(prefixes=("0.0.0.0/0", f"{CLIENT}/24", "148.51.0.0/24"))
    document = as_json(run(tmp_path, dump({USER: EDGE}, device=bad), "--json"))
    assert document["services"][0]["prefixes"] == ["148.51.0.0/24"]
    assert [p["code"] for p in document["problems"]] == ["PrefixRefused"] * 2


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "expected a list"),
        ([1], "entry 1 has no base58 pubkey"),
        ([{"pubkey": "0OIl", "data": ""}], "entry 1 has no base58 pubkey"),
        ([{"pubkey": USER}], "has no base64 data"),
        ([{"pubkey": USER, "data": "%%%"}], "has no base64 data"),
        ([{"pubkey": USER, "data": "é"}], "has no base64 data"),
        ([], "GlobalConfig"),
        (dump({USER: IBRL}, config=b""), "GlobalConfig"),
    ],
)
def test_an_unusable_dump_is_one_error_and_nothing_is_written(
    tmp_path: Path, document: object, why: str
) -> None:
    done = run(tmp_path, document)
    assert isinstance(done.exception, InputError)
    assert why in str(done.exception)
    assert str(tmp_path / "accounts.json") in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_paths_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "hello.bin").write_bytes(b"")
    base = ["--client-ip", str(CLIENT), "--out", str(tmp_path / "out")]
    for path in (tmp_path / "missing", empty, odd):
        done = CliRunner().invoke(render, ["--accounts", str(path), *base])
        assert isinstance(done.exception, InputError), path
    file = tmp_path / "file"
    file.write_text("")
    done = run(tmp_path, dump({USER: IBRL}), "--out", str(file / "below"))
    assert isinstance(done.exception, InputError)
    assert "--out" in str(done.exception)


@pytest.mark.parametrize("ip", ["1.2.3", "::1", "198.51.100.7/24", ""])
def test_an_address_that_is_none_is_a_usage_error(tmp_path: Path, ip: str) -> None:
    done = run(tmp_path, dump({USER: IBRL}), "--client-ip", ip)
    assert done.exit_code == click.UsageError.exit_code
    assert "--client-ip" in done.stderr
    for never in ("127.0.0.1", "224.0.0.1"):
        assert isinstance(run(tmp_path, dump({}), "--client-ip", never).exception, InputError)
