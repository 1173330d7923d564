"""The configuration file: every key, every refusal with file and line."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dzagent import yamlfile
from dzagent.config import PROGRAM_IDS, Config, Doublezerod, Paths, redact_url, refuse_client_ip
from dzagent.configfile import load_config, parse_config
from dzagent.errors import ConfigError, DzagentError
from dzagent.share import find, share_dirs

SAMPLE = Path(__file__).parent.parent / "packaging" / "config.yaml"


def config_of(text: str | bytes) -> Config:
    data = text.encode() if isinstance(text, str) else text
    return parse_config(yamlfile.parse(data, "c.yaml"), "c.yaml")


def refused(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config_of(text)
    return caught.value


def test_an_empty_file_gives_the_defaults() -> None:
    config = config_of("# nothing\n")
    assert config.network == "mainnet-beta"
    assert config.program_id == PROGRAM_IDS["mainnet-beta"]
    assert config.rpc == ()
    assert config.apply == "auto"
    assert config.links.of("unicast") == "doublezero0"
    assert config.links.of("multicast") == "doublezero1"
    assert (config.intervals.poll, config.intervals.resync, config.intervals.rpc_timeout) == (
        10.0,
        60.0,
        10.0,
    )


def test_every_key_is_read() -> None:
    config = config_of(
        """
network: custom
program_id: DZtnuQ839pSaDMFG5q1ad2V95G82S5EC4RrB3Ndw2Heb
rpc: [http://127.0.0.1:8899/a, 'https://[2001:db8::1]:443/token']
client_ip: 198.51.100.7
apply: manual
policy: /etc/dzagent/p.yaml
templates: /srv/t
compat_socket: true
log_level: debug
intervals: {poll: 5, resync: 0.5, rpc_timeout: 3}
directories: {state: /srv/state, run: /srv/run}
links: {unicast: dz0, multicast: dz1}
doublezerod: {state: /srv/old, socket: /srv/old.sock, unit: dz@1.service}
"""
    )
    assert config.program_id.startswith("DZtnu")
    assert config.rpc == ("http://127.0.0.1:8899/a", "https://[2001:db8::1]:443/token")
    assert config.client_ip == IPv4Address("198.51.100.7")
    assert (config.apply, config.policy, config.templates) == (
        "manual",
        "/etc/dzagent/p.yaml",
        Path("/srv/t"),
    )
    assert (config.compat_socket, config.log_level) == (True, "debug")
    assert (config.intervals.poll, config.intervals.resync) == (5.0, 0.5)
    assert config.paths == Paths(Path("/srv/state"), Path("/srv/run"))
    assert config.links.multicast == "dz1"
    assert config.doublezerod == Doublezerod(Path("/srv/old"), Path("/srv/old.sock"), "dz@1.service")


def test_the_sample_holds_the_defaults_and_every_key() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    assert load_config(SAMPLE) == Config(file=str(SAMPLE))
    documented = "\n".join(
        line.removeprefix("# ") if line.lstrip("# ").split(":")[0].replace("_", "").isalnum() else ""
        for line in text.splitlines()
    )
    top = (
        "network",
        "rpc",
        "program_id",
        "client_ip",
        "apply",
        "policy",
        "templates",
        "compat_socket",
        "log_level",
    )
    parts = ("intervals", "poll", "resync", "rpc_timeout", "links", "unicast", "multicast")
    for key in (*top, *parts, "directories", "state", "run"):
        assert f"{key}:" in documented, key


@pytest.mark.parametrize("network", sorted(PROGRAM_IDS))
def test_each_network_has_its_program(network: str) -> None:
    assert config_of(f"network: {network}").program_id == PROGRAM_IDS[network]


def test_only_localnet_has_an_endpoint_of_its_own() -> None:
    assert config_of("network: localnet").require_rpc() == ("http://localhost:8899",)
    with pytest.raises(ConfigError, match=r"c\.yaml: rpc is not set: network testnet needs the URL"):
        config_of("network: testnet").require_rpc()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("netwrok: testnet", 1, "unknown key 'netwrok'; did you mean network?"),
        ("zzz: 1", 1, "known keys: network"),
        ("links:\n  unicats: a", 2, "unknown key 'unicats' in links; did you mean unicast?"),
        ("apply: auto\napply: auto", 2, "set twice (first on line 1)"),
        ("network: mainet-beta", 1, "did you mean mainnet-beta?"),
        ("network: [a]", 1, "found a list"),
        ("network:", 1, "found nothing"),
        ("- a", 1, "expected a mapping"),
        ("text", 1, "expected a mapping"),
        ("\n\nlinks: 5", 3, "links: expected a mapping"),
        ("links: {unicast: a/b}", 1, "interface name"),
        ("doublezerod: {unit: doublezerod}", 1, "the name of a systemd service"),
        ("doublezerod: {unit: '../x.service'}", 1, "the name of a systemd service"),
        ("doublezerod: {state: here}", 1, "absolute"),
        ("links: {unicast: sixteen-letters-}", 1, "interface name"),
        ("links: {unicast: '-x'}", 1, "interface name"),
        ("links: {unicast: '..'}", 1, "interface name"),
        ("links: {unicast: 'a b'}", 1, "interface name"),
        ('links: {unicast: "a\\n"}', 1, "printable"),
        ("links: {unicast: 'é'}", 1, "interface name"),
        ("links: {unicast: lo}", 1, "the kernel uses itself"),
        ("links: {unicast: gre0}", 1, "the kernel uses itself"),
        ("links:\n  unicast: doublezero1", 2, "different names"),
        ("links: {unicast: a, multicast: a}", 1, "different names"),
        ("intervals: {poll: 0}", 1, "intervals.poll: expected a number of seconds from 1 to 3600, found '0'"),
        ("intervals: {poll: .nan}", 1, "number of seconds"),
        ("intervals: {poll: .inf}", 1, "number of seconds"),
        ("intervals: {poll: -1}", 1, "number of seconds"),
        ("intervals: {poll: 1e3}", 1, "number of seconds"),
        ("intervals: {poll: 010}", 1, "number of seconds"),
        ("intervals: {poll: 1:30}", 1, "number of seconds"),
        ("intervals: {poll: '5'}", 1, "number of seconds"),
        ("intervals: {observe: 9999999999999999999999}", 1, "number of seconds"),
        ("compat_socket: yes", 1, "true or false, found 'yes'"),
        ("compat_socket: 'true'", 1, "true or false"),
        ("client_ip: 198.51.100.7/24", 1, "IPv4 address"),
        ("client_ip: 2001:db8::1", 1, "IPv4 address"),
        ("client_ip: 127.0.0.1", 1, "cannot be a client IP"),
        ("client_ip: 0.0.0.0", 1, "cannot be a client IP"),
        ("client_ip: 255.255.255.255", 1, "cannot be a client IP"),
        ("client_ip: 1.2.3", 1, "IPv4 address"),
        ("rpc: ftp://x/", 1, "http or https URL"),
        ("rpc: https:///x", 1, "http or https URL"),
        ("rpc: http://h:99999/", 1, "http or https URL"),
        ("rpc: 'http://h/ x'", 1, "http or https URL"),
        ("rpc: 'http://[::1/'", 1, "http or https URL"),
        ("rpc:\n- http://a\n- 7", 3, "rpc[1]: expected text"),
        ("rpc: [http://a, http://a]", 1, "in the list twice"),
        ("rpc: {a: b}", 1, "expected text, found a mapping"),
        ("rpc: [" + ",".join(f"http://h{n}" for n in range(9)) + "]", 1, "at most 8"),
        ("program_id: abc", 1, "base58 address"),
        ("program_id: 0OIl0OIl0OIl0OIl0OIl0OIl0OIl0OIl0OIl0OIl", 1, "base58 address"),
        ("program_id: " + "z" * 44, 1, "base58 address"),
        ("network: custom", None, "program_id is not set"),
        ("policy: ../x", 1, "name of a policy"),
        ("policy: /a/../b", 1, "absolute path"),
        ("templates: t", 1, "absolute path"),
        ("directories: {state: /a, run: /a}", 1, "two directories"),
        ("directories: {state: /}", 1, "two directories"),
        ("directories: {state: //}", 1, "absolute path"),
        ("directories: {run: //run/dzagent}", 1, "absolute path"),
        ("directories: {run: /" + "a" * 90 + "}", 1, "at most 90 bytes"),
        ("log_level: 5", 1, "one of debug"),
        ("? [a]\n: b", 1, "expected a key, found a list"),
        ("<<: {a: b}", 1, "unknown key"),
        ("a: &x 1", 1, "anchors and aliases"),
        ("a: *x", 1, "anchors and aliases"),
        ("a: !!python/object:os.system x", 1, "tags"),
        ("a: !!str x", 1, "tags"),
        ("network: testnet\n---\nnetwork: devnet", 2, "one YAML document"),
        ("a: [", 1, "not valid YAML"),
        ("a: b: c", 1, "not valid YAML"),
        ("\ta: b", 1, "not valid YAML"),
        ("a: '\u0007'", 1, "not valid YAML"),
        ("[" * 2000, 1, "nested more than"),
        ("{a: " * 2000, 1, "nested more than"),
        (b"network: testnet\nx: \xff\xfe", 2, "not UTF-8"),
        (b"\xff\xfen\x00", 1, "not UTF-8"),
        ("# " + "x" * 70000, None, "larger than 65536 bytes"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str | bytes, line: int | None, said: str) -> None:
    error = refused(text)
    assert said in str(error)
    assert (error.file, error.line or None) == ("c.yaml", line)
    assert str(error).startswith("c.yaml:")
    assert "\n" not in str(error)
    assert len(str(error)) < 400


def test_null_means_no_pinned_address() -> None:
    assert config_of("client_ip: null").client_ip is None


def test_a_byte_order_mark_is_no_error() -> None:
    assert config_of(b"\xef\xbb\xbfnetwork: testnet").network == "testnet"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_config(tmp_path / "none.yaml")


def test_a_missing_file_that_need_not_exist_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.yaml", required=False) == Config()


def test_a_file_that_is_there_and_cannot_be_read_never_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "dangling.yaml").symlink_to("gone.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("dangling.yaml", "loop.yaml", "folder.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(tmp_path / name, required=False)


def test_a_directory_or_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError):
            load_config(path)


def test_a_path_with_a_nul_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        load_config(Path("a\0b"))


def test_the_files_that_processes_share() -> None:
    paths = Paths(Path("/s"), Path("/r"))
    assert {str(p) for p in (paths.intent, paths.approval, paths.desired)} == {
        "/s/intent/state.json",
        "/s/intent/apply.json",
        "/s/desired",
    }
    assert str(paths.socket) == "/r/dzagent.sock"
    shared = (paths.wake, paths.status, paths.plan, paths.events, paths.ledger, paths.lock)
    assert [str(p) for p in shared] == [
        "/r/agent/wake",
        "/r/agent/status.json",
        "/r/agent/plan.json",
        "/r/agent/events.json",
        "/r/agent/ledger.json",
        "/r/agent/lock",
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example/TOKEN?key=1", "https://h.example"),
        ("http://user:secret@h:8899/", "http://h:8899"),
        ("http://[2001:db8::1]:1/x", "http://[2001:db8::1]:1"),
    ],
)
def test_a_shown_url_has_no_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_private_addresses_are_client_ips_in_laboratories_only() -> None:
    private = IPv4Address("10.1.2.3")
    assert refuse_client_ip(private, "localnet") is None
    assert "private" in (refuse_client_ip(private, "testnet") or "")
    for good in ("198.51.100.7", "198.18.0.1", "8.8.8.8"):
        assert refuse_client_ip(IPv4Address(good), "mainnet-beta") is None


def said_about(data: bytes) -> str:
    """Say what is wrong with a file, or "" where it is a configuration."""
    try:
        config_of(data)
    except DzagentError as error:
        return str(error)
    return ""


@given(st.binary(max_size=200))
def test_any_bytes_give_a_config_or_a_config_error(data: bytes) -> None:
    said = said_about(data)
    assert not said or said.startswith("c.yaml:")


@given(
    st.sampled_from(
        ("network", "rpc", "client_ip", "intervals", "links", "directories", "policy", "program_id")
    ),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8),
)
def test_any_value_of_any_key_gives_a_config_or_a_config_error(key: str, value: object) -> None:
    said = said_about(yaml.safe_dump({key: value}).encode())
    assert not said or said.startswith("c.yaml:")


def test_templates_and_policies_are_found_in_the_first_place_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "b" / "policies").mkdir(parents=True)
    assert find("policies", None, (tmp_path / "a", tmp_path / "b")) == tmp_path / "b" / "policies"
    assert find("policies", tmp_path, ()) == tmp_path
    with pytest.raises(ConfigError, match="does not exist"):
        find("policies", tmp_path / "none")
    with pytest.raises(ConfigError, match="no templates are installed"):
        find("templates", None, (tmp_path,))
    assert Path("/usr/share/dzagent") in share_dirs()


def test_the_websocket_is_where_solana_has_it() -> None:
    config = config_of("rpc: [https://h/T, 'http://127.0.0.1:8899', 'https://u:p@h:443/T?k=v']")
    assert config.websocket == ("wss://h/T", "ws://127.0.0.1:8900", "wss://u:p@h:443/T?k=v")
    assert config_of("rpc: https://h/T\nwebsocket: none").websocket == ()
    assert config_of("websocket: [wss://h/T, ws://h]").websocket == ("wss://h/T", "ws://h")
    assert config_of("websocket: wss://h/T").websocket == ("wss://h/T",)
    assert config_of("rpc: http://[::1]:8899\nwebsocket: auto").websocket == ("ws://[::1]:8900",)
    for bad in ("https://h", "off", "7", "ws://", "{}"):
        assert "c.yaml:1" in str(refused(f"websocket: {bad}"))


def test_an_outside_look_up_is_for_public_networks_and_can_be_turned_off() -> None:
    custom = "network: custom\nprogram_id: DZtnuQ839pSaDMFG5q1ad2V95G82S5EC4RrB3Ndw2Heb\n"
    assert config_of("").outside_lookup == "https://ifconfig.me/ip"
    assert config_of("outside_lookup: none").outside_lookup == ""
    assert config_of(custom).outside_lookup == ""
    assert config_of(custom + "outside_lookup: http://h/ip").outside_lookup == "http://h/ip"
    assert "an http or https URL" in str(refused("outside_lookup: ftp://h"))


def test_ledger_keys() -> None:
    config = config_of(
        "rpc_budget: 10\ncommitment: confirmed\nfull_fetch: true\nintervals: {search: 30, devices: 300}"
    )
    assert (config.rpc_budget, config.commitment, config.full_fetch) == (10, "confirmed", True)
    assert (config.intervals.search, config.intervals.devices) == (30.0, 300.0)
    assert config_of("").rpc_budget == 120
    assert config_of("intervals: {poll: 1}").rpc_budget == 300
    assert config_of("intervals: {poll: 1}\nrpc_budget: 50").rpc_budget == 50
    for bad in ("rpc_budget: 9", "commitment: settled", "full_fetch: yes", "intervals: {search: 1}"):
        refused(bad)


def test_the_old_name_of_the_resync_interval_is_read_with_a_remark() -> None:
    config = config_of("intervals:\n  poll: 9\n  observe: 2")
    assert config.intervals.resync == 2.0
    assert len(config.remarks) == 1
    assert ":3: intervals.observe is called intervals.resync now" in config.remarks[0]
    assert config_of("intervals: {resync: 2}").remarks == ()
    with pytest.raises(ConfigError, match=r"old name of intervals\.resync"):
        config_of("intervals: {observe: 2, resync: 60}")
