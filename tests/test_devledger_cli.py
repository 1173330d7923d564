"""Every verb of `dzagent ledger`, as a person types it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dzagent.cli.ledger import COMMANDS, ledger
from dzagent.cli.main import main
from dzagent.devledger.server import Listen
from dzagent.ledger.accounts import User, decode
from tests.devledger_fakes import PROGRAM, post

KEY = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"
DEVICE = ("device", "add", "dev1", "--public-ip", "192.0.2.1", "--dz-prefix", "203.0.113.0/26")
USER = ("user", "add", "--client-ip", "198.51.100.7", "--type", "IBRL", "--device", "dev1")


class Cli:
    """Runs verbs on one state file."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def run(self, *words: str, state: bool = True) -> Result:
        """Run a verb."""
        chosen = ("--state", str(self.state)) if state else ()
        return CliRunner().invoke(
            main, ["ledger", *words, *chosen], env={"XDG_STATE_HOME": str(self.state.parent)}
        )

    def ok(self, *words: str) -> str:
        """Run a verb that must work; returns what it prints."""
        done = self.run(*words)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *words: str) -> Any:
        """Run a verb with --json; returns the document."""
        return json.loads(self.ok(*words, "--json"))

    def refused(self, *words: str) -> str:
        """Run a verb that must fail with exit status 2; returns the error."""
        done = self.run(*words)
        assert done.exit_code == 2, done.output
        assert done.stdout == ""
        return done.stderr


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path / "ledger.json")
    cli.ok("init")
    return cli


@pytest.fixture
def full(cli: Cli) -> Cli:
    """A ledger with two devices, two groups, a tenant and an exchange."""
    cli.ok("exchange", "add", "xfra", "--name", "Frankfurt", "--lat", "50.1", "--lng", "8.6")
    cli.ok(*DEVICE, "--exchange", "xfra", "--tunnel-endpoint", "192.0.2.2")
    cli.ok("device", "add", "dev2", "--public-ip", "192.0.2.9", "--dz-prefix", "203.0.113.64/26")
    cli.ok("group", "add", "blocks", "--multicast-ip", "233.84.178.1")
    cli.ok("group", "add", "shreds")
    cli.ok("tenant", "add", "acme")
    return cli


# ---- help ------------------------------------------------------------------------------------------------


def test_help_needs_no_verb_to_be_imported() -> None:
    done = CliRunner().invoke(main, ["ledger", "--help"])
    assert done.exit_code == 0
    for command in COMMANDS:
        assert command.name in done.stdout


def _verbs(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _verbs(command, (*path, name))
        else:
            yield (*path, name), command


VERBS = dict(_verbs(ledger, ()))


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_has_help_state_and_json(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, ["ledger", *path, "--help"])
    assert done.exit_code == 0, done.output
    if path not in {("decode",), ("forget",)}:
        assert "--state FILE" in done.stdout
        assert "--json" in done.stdout
    command = VERBS[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in _PLAIN:
            assert parameter.help, f"{path}: --{parameter.name} has no help"


_PLAIN = frozenset(
    {
        "help",
        "max_users",
        "max_unicast_users",
        "max_multicast_users",
        "kind",
        "metro_routing",
        "route_liveness",
    }
)


# ---- the file --------------------------------------------------------------------------------------------


def test_init_makes_a_ledger_once(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "deep" / "ledger.json")
    assert "made an empty ledger" in cli.ok("init")
    before = cli.state.read_bytes()
    assert "exists already" in cli.refused("init")
    assert cli.state.read_bytes() == before
    assert cli.json("show")["program_id"] == PROGRAM
    other = Cli(tmp_path / "other.json")
    assert other.json("init", "--program-id", KEY)["program_id"] == KEY


def test_the_default_file_is_the_same_for_every_verb(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "unused.json")
    assert cli.run("init", state=False).exit_code == 0
    assert (tmp_path / "dzagent" / "ledger.json").exists()
    assert cli.run(*DEVICE, state=False).exit_code == 0
    assert "dev1" in cli.run("device", "list", state=False).stdout


@pytest.mark.parametrize(
    "path", [path for path in VERBS if path[0] not in {"decode", "forget", "init", "serve"}], ids=" ".join
)
def test_without_a_ledger_no_verb_makes_one(tmp_path: Path, path: tuple[str, ...]) -> None:
    cli = Cli(tmp_path / "ledger.json")
    values = {
        "--public-ip": "192.0.2.1", "--client-ip": "198.51.100.7", "--type": "IBRL", "--device": "dev1",
        "--name": "Somewhere",
    }  # fmt: skip
    words = list(path)
    for parameter in VERBS[path].params:
        if isinstance(parameter, click.Argument) and parameter.required:
            words.append(KEY)
        elif parameter.required:
            words += [parameter.opts[0], values[parameter.opts[0]]]
    extra: dict[tuple[str, ...], list[str]] = {
        ("config", "set"): ["--local-asn", "1"],
        ("node", "set"): ["--healthy"],
        ("account", "put"): ["Bw=="],
    }
    words += extra.get(path, [])
    assert "there is no ledger at" in cli.refused(*words)
    assert list(tmp_path.iterdir()) == []


def test_reset_keeps_the_ledger_and_renew_makes_another(full: Cli) -> None:
    full.ok(*USER)
    before = full.json("show")
    after = full.json("reset")
    assert (after["genesis_hash"], after["users"], after["devices"]) == (before["genesis_hash"], [], [])
    assert after["slot"] > before["slot"]
    assert "the old file is" in full.ok("reset", "--renew")
    assert full.json("show")["genesis_hash"] != before["genesis_hash"]


def test_a_corrupt_file_is_named_until_a_person_decides(cli: Cli) -> None:
    cli.state.write_text("{")
    for words in (("show",), USER, ("reset",), ("serve", "--listen", "127.0.0.1:0")):
        said = cli.refused(*words)
        assert "not valid JSON" in said
        assert "reset --renew" in said
        assert said.count("\n") == 1
    assert cli.state.read_text() == "{"
    cli.ok("reset", "--renew")
    assert cli.json("user", "list") == []


# ---- users -----------------------------------------------------------------------------------------------


def test_the_life_of_a_user(full: Cli) -> None:
    added = full.json(*USER, "--tenant", "acme")
    account = added["account"]
    assert (added["type"], added["status"], added["device"], added["dz_ip"], added["tenant"]) == (
        "IBRL", "activated", "dev1", "198.51.100.7", "acme",
    )  # fmt: skip
    moved = full.json("user", "move", account, "--device", "dev2")
    assert (moved["device"], moved["tunnel_net"], moved["tunnel_to"]) == (
        "dev2",
        added["tunnel_net"],
        "192.0.2.9",
    )
    banned = full.json("user", "ban", "198.51.100.7")
    assert (banned["status"], banned["slot"] > moved["slot"] > added["slot"]) == ("banned", True)
    assert full.json("user", "set", account, "--status", "activated")["status"] == "activated"
    assert full.json("user", "set", account, "--status", "200")["status"] == "200"
    assert full.json("user", "delete", "198.51.100.7:IBRL")["account"] == account
    assert full.json("user", "list") == []


@pytest.mark.parametrize("label", ["IBRL", "IBRLWithAllocatedIP", "EdgeFiltering", "Multicast", "multicast"])
def test_types_by_name(full: Cli, label: str) -> None:
    added = full.json("user", "add", "--client-ip", "198.51.100.7", "--type", label, "--device", "dev1")
    assert added["type"].lower() == label.lower()


def test_groups(full: Cli) -> None:
    added = full.json(
        "user", "add", "--client-ip", "198.51.100.7", "--type", "Multicast", "--device", "dev1",
        "--publish", "blocks", "--subscribe=shreds", "--subscribe=blocks", "--tunnel-endpoint", "192.0.2.2",
    )  # fmt: skip
    assert (added["publish"], added["subscribe"]) == (["blocks"], ["shreds", "blocks"])
    assert (added["dz_ip"], added["tunnel_endpoint"]) == ("148.51.120.1", "192.0.2.2")
    changed = full.json("user", "groups", added["account"], "--subscribe", "shreds")
    assert (changed["publish"], changed["subscribe"], changed["dz_ip"]) == ([], ["shreds"], None)
    assert full.json("user", "groups", added["account"])["subscribe"] == []
    assert "only Multicast users" in full.refused(
        "user", "groups", full.json(*USER)["account"], "--publish", "blocks"
    )


def test_status_and_addresses_as_given(full: Cli) -> None:
    added = full.json(
        *USER, "--status", "out_of_credits", "--dz-ip", "203.0.113.9", "--tunnel-net", "169.254.7.0/31"
    )
    assert (added["status"], added["dz_ip"], added["tunnel_net"]) == (
        "out-of-credits",
        "203.0.113.9",
        "169.254.7.0/31",
    )
    old = full.json(*USER, "--index", "5", "--payer", KEY)
    assert (old["index"], old["payer"]) == (5, KEY)


def test_a_change_is_told_in_one_line_with_its_slot(full: Cli) -> None:
    said = full.ok(*USER)
    assert "198.51.100.7:IBRL on dev1, tunnel 169.254.0.0/31 (slot " in said
    assert said.count("\n") == 1
    assert "banned now" in full.ok("user", "ban", "198.51.100.7")
    assert "is deleted" in full.ok("user", "delete", "198.51.100.7")


def test_a_note_goes_to_the_standard_error(full: Cli) -> None:
    full.ok(*USER[:-1], "dev2")
    done = full.run("user", "add", "--client-ip", "198.51.100.7", "--type", "Multicast", "--device", "dev2")
    assert (done.exit_code, "note: the tunnels of" in done.stderr, "note" in done.stdout) == (0, True, False)


def test_users_are_listed_and_shown(full: Cli) -> None:
    assert full.ok("user", "list") == "no users; add one with `dzagent ledger user add`\n"
    account = full.json(*USER)["account"]
    full.ok("user", "add", "--client-ip", "198.51.100.8", "--type", "IBRL", "--device", "dev1")
    lines = full.ok("user", "list").splitlines()
    assert (len(lines), lines[0].split()[:3]) == (3, ["account", "client_ip", "type"])
    (only,) = full.json("user", "list", "--client-ip", "198.51.100.7")
    assert only == full.json("user", "show", "198.51.100.7")
    assert account in full.ok("user", "show", account)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*USER[:-1], "dev9"), "there is no device 'dev9'; there are: dev1, dev2"),
        (("user", "add", "--client-ip", "x", "--type", "IBRL", "--device", "dev1"), "not an IPv4 address"),
        (("user", "add", "--client-ip", "198.51.100.7", "--type", "X", "--device", "dev1"), "EdgeFiltering"),
        ((*USER, "--status", "happy"), "not one of pending, activated"),
        ((*USER, "--status", "256"), "a number up to 255"),
        ((*USER, "--tunnel-net", "169.254.0.1/30"), "169.254.0.0/30 is the network"),
        ((*USER, "--tunnel-net", "169.254.0.0"), "not an IPv4 network"),
        ((*USER, "--payer", "me"), "not a key"),
        (("user", "ban", "198.51.100.99"), "there is no user '198.51.100.99'"),
        (("device", "add", "a b", "--public-ip", "192.0.2.1"), "cannot be the code"),
        (("device", "add", "bad", "--public-ip", "127.0.0.1"), "public_ip 127.0.0.1 is a loopback address"),
        (("group", "add", "bad", "--multicast-ip", "10.0.0.1"), "224.0.0.0/4"),
        (("exchange", "add", "bad", "--name", "X", "--lat", "nan"), "degrees"),
        (("exchange", "add", "bad", "--name", "X", "--lng", "181"), "degrees"),
        (("config", "set"), "nothing to set"),
        (("config", "set", "--local-asn", "4294967296"), "4294967295"),
        (("node", "set"), "nothing to set"),
        (("account", "put", KEY), "give one of them"),
        (("account", "put", "nope", "Bw=="), "not a key"),
        (("account", "put", KEY, "--file", "/nowhere"), "cannot be read"),
        (("account", "show", KEY), "there is no account"),
    ],
)
def test_mistakes_are_named(full: Cli, words: tuple[str, ...], says: str) -> None:
    before = full.state.read_bytes()
    assert says in " ".join(full.refused(*words).split())
    assert full.state.read_bytes() == before


def test_a_person_can_insist(full: Cli) -> None:
    full.ok("device", "add", "bad", "--public-ip", "127.0.0.1", "--dz-prefix", "0.0.0.0/0", "--force")
    full.ok("group", "add", "odd", "--multicast-ip", "10.0.0.1", "--force")
    full.ok("user", "add", "--client-ip", "198.51.100.7", "--type", "IBRL", "--device", "bad", "--tunnel-net",
            "169.254.0.0/30", "--force")  # fmt: skip


# ---- the rest of the ledger --------------------------------------------------------------------------------


def test_devices(full: Cli) -> None:
    (first, second) = full.json("device", "list")
    assert (first["code"], first["exchange"], first["tunnel_endpoints"]) == ("dev1", "xfra", ["192.0.2.2"])
    assert "203.0.113.64/26" in full.ok("device", "list")
    changed = full.json("device", "set", "dev2", "--public-ip", "192.0.2.10", "--status", "drained")
    assert (changed["public_ip"], changed["status"], changed["account"]) == (
        "192.0.2.10",
        "drained",
        second["account"],
    )
    full.ok(*USER)
    assert "is named by 198.51.100.7:IBRL" in full.refused("device", "delete", "dev1")
    full.ok("device", "delete", "dev1", "--force")
    assert full.json("user", "show", "198.51.100.7")["device"] == first["account"]


def test_groups_tenants_exchanges(full: Cli) -> None:
    assert [group["multicast_ip"] for group in full.json("group", "list")] == ["233.84.178.1", "233.84.178.2"]
    assert full.json("group", "set", "blocks", "--max-bandwidth", "5")["max_bandwidth"] == 5
    full.ok("group", "delete", "blocks")
    assert full.json("tenant", "list")[0]["vrf_id"] == 1
    full.ok("tenant", "delete", "acme")
    assert full.json("exchange", "list")[0]["devices"] == ["dev1"]
    assert "named by dev1" in full.refused("exchange", "delete", "xfra")
    full.ok("device", "set", "dev1", "--exchange", "")
    full.ok("exchange", "delete", "xfra")
    for kind in ("tenant", "exchange"):
        assert f"no {kind}s; add one" in full.ok(kind, "list")


def test_passes(full: Cli) -> None:
    added = full.json("pass", "add", "--client-ip", "198.51.100.7", "--publish", "blocks", "--tenant", "acme")
    assert (added["publish"], added["tenants"], added["last_access_epoch"]) == (["blocks"], ["acme"], None)
    assert full.json("pass", "list")[0]["type"] == "prepaid"
    assert "198.51.100.7" in full.ok("pass", "list")
    full.ok("pass", "delete", "198.51.100.7")
    assert full.json("pass", "list") == []


def test_config_and_node(full: Cli) -> None:
    changed = full.json(
        "config", "set", "--local-asn", "65010", "--user-tunnel-block", "169.254.8.0/24", "--version", "1.2.3"
    )
    assert (changed["local_asn"], changed["user_tunnel_block"], changed["version"]) == (
        65010,
        "169.254.8.0/24",
        "1.2.3",
    )
    assert "65010" in full.ok("config", "show")
    assert full.json(*USER)["tunnel_net"] == "169.254.8.0/31"
    assert "unhealthy, 9 slots behind" in full.ok("node", "set", "--unhealthy", "--behind", "9")
    assert full.json("node", "show")["slots_behind"] == 9
    assert "healthy" in full.ok("node", "show")
    assert "--unhealthy" in full.refused("node", "set", "--behind", "3")


def test_show_is_everything(full: Cli) -> None:
    full.ok(*USER)
    text = full.ok("show")
    for part in ("devices: 2", "groups: 2", "tenants: 1", "users: 1", "exchanges: 1", "genesis_hash"):
        assert part in text
    document = full.json("show")
    assert [user["client_ip"] for user in document["users"]] == ["198.51.100.7"]


def test_bytes_of_accounts(full: Cli, tmp_path: Path) -> None:
    account = full.json(*USER)["account"]
    data = base64.b64decode(full.ok("account", "show", account))
    assert isinstance(decode(data), User)
    (tmp_path / "bytes").write_bytes(b"\x07\x01")
    full.ok("account", "put", account, "--file", str(tmp_path / "bytes"))
    assert full.json("account", "show", account) == {"pubkey": account, "space": 2, "data": "BwE="}
    full.ok("account", "put", KEY, "Bw==")
    rows = {row["pubkey"]: row for row in full.json("account", "list")}
    assert (rows[KEY]["put"], rows[KEY]["type"], len(rows)) == (True, "User", 10)
    full.ok("account", "drop", account)
    assert base64.b64decode(full.ok("account", "show", account)) == data
    dumped = {row["pubkey"]: row["data"] for row in json.loads(full.ok("dump"))}
    assert (base64.b64decode(dumped[account]), dumped[KEY]) == (data, "Bw==")


def test_decode_reads_what_account_show_prints(full: Cli) -> None:
    text = full.ok("account", "show", full.json(*USER)["account"])
    done = CliRunner().invoke(main, ["ledger", "decode"], input=text)
    assert (done.exit_code, json.loads(done.stdout)["type"]) == (0, "User")


def test_as_a_function_an_error_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="there is no ledger"):
        main.main(["ledger", "show", "--state", str(tmp_path / "F")], "dzagent", standalone_mode=False)


# ---- serve -----------------------------------------------------------------------------------------------


@contextmanager
def served(state: Path, *words: str) -> Iterator[tuple[Any, Listen, subprocess.Popen[str]]]:
    """Run `serve` as a process of its own; yields what it prints, where it listens, and the process."""
    command = [
        sys.executable,
        "-m",
        "dzagent.cli.main",
        "ledger",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--json",
    ]
    with subprocess.Popen(
        [*command, "--state", str(state), *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            document = json.JSONDecoder().raw_decode(_until_brace(process))[0]
            host, _, port = document["url"].removeprefix("http://").rpartition(":")
            yield document, Listen(host, int(port)), process
        finally:
            process.kill()


def _until_brace(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            break
    return "".join(lines)


def _slot(where: Listen) -> int:
    body = b'{"jsonrpc":"2.0","id":1,"method":"getSlot"}'
    return int(json.loads(post(where, body)[2])["result"])


def test_serve_makes_a_ledger_and_follows_the_verbs(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "ledger.json")
    with served(cli.state) as (document, where, process):
        assert (document["network"], document["program_id"], document["made"]) == ("localnet", PROGRAM, True)
        cli.ok(*DEVICE)
        account = cli.json(*USER)["account"]
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "getAccountInfo",
            "params": [account, {"encoding": "base64"}],
        }
        found = json.loads(post(where, json.dumps(body).encode())[2])
        assert isinstance(decode(base64.b64decode(found["result"]["value"]["data"][0])), User)
        before = _slot(where)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with served(cli.state) as (again, where, process):
        assert (again["made"], again["genesis_hash"]) == (False, document["genesis_hash"])
        assert _slot(where) >= before
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_serve_refuses_a_port_that_is_taken_and_another_program(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "ledger.json")
    with served(cli.state) as (_, where, _process):
        assert "something listens there already" in cli.refused("serve", "--listen", str(where))
    assert "is a ledger of program" in cli.refused("serve", "--program-id", KEY)
    assert "is not IP:PORT" in cli.refused("serve", "--listen", "here")
