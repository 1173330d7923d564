"""What people and programs see of BGP: endpoints, the command, policy keys, remembered peers."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dzagent import metrics, yamlfile
from dzagent.api.app import create_app
from dzagent.api.compat import routes
from dzagent.bgp.exclude import from_route_config
from dzagent.bgp.peers import PeerStore, peer_json
from dzagent.cli.output import Paper
from dzagent.cli.routes import route_lines
from dzagent.config import Config, Paths
from dzagent.errors import ConfigError, StateError
from dzagent.policy import parse_policy
from tests.bgp_fakes import PEER

DOCUMENT: dict[str, Any] = {
    "services": {
        "unicast": {
            "via": "169.254.0.4",
            "dev": "doublezero0",
            "src": "198.51.100.7",
            "table": 254,
            "present": ["198.18.0.10/32", "198.18.0.2/32"],
            "absent": ["192.0.2.1/32"],
            "stale": {"198.18.0.2/32": 900},
        }
    }
}
BGP = {
    "peers": {
        "unicast": {
            "peer": "169.254.0.4",
            "session": {"status": "BGP Session Up"},
            "learned": 3,
            "installed": 2,
            "refused": {"Default": 1, "TooMany": 40},
            "refused_routes": [{"prefix": "0.0.0.0/0", "code": "Default", "message": "never installed"}],
        }
    }
}


def test_routes_have_doublezerods_shape_and_order() -> None:
    rows = [
        {"network": "testnet", "local_ip": "198.51.100.7", "peer_ip": ip, "kernel_state": "present"}
        for ip in ("198.18.0.10", "198.18.0.2")  # in the order of their texts, as there
    ]
    assert routes(DOCUMENT, "testnet") == rows


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"services": []},
        {"services": {"unicast": 5}},
        {"services": {"unicast": {"table": 254, "src": 7, "present": [1, None]}}},
        {"services": {"unicast": {"table": 100, "src": "198.51.100.7", "present": ["198.18.0.1/32"]}}},
    ],
)
def test_what_is_not_a_main_route_is_not_listed(odd: dict[str, Any]) -> None:
    assert routes(odd, "testnet") == []


@pytest.fixture
def config(tmp_path: Path) -> Config:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    paths.agent.mkdir(parents=True)
    return Config(network="testnet", paths=paths)


def test_the_endpoints(config: Config) -> None:
    client = create_app(config).test_client()
    assert client.get("/routes").data == b"[]\n"
    config.paths.routes.write_text(json.dumps(DOCUMENT))
    config.paths.bgp.write_text(json.dumps(BGP))
    assert client.get("/routes").data.startswith(b'[{"network":"testnet","local_ip":"198.51.100.7",')
    answer = client.get("/v3/routes").get_json()
    assert answer["services"]["unicast"]["absent"] == ["192.0.2.1/32"]
    assert answer["bgp"]["peers"]["unicast"]["refused"]["Default"] == 1
    assert b"doublezero_session_is_up 1" in client.get("/metrics").data


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", 400, b"malformed request\n"),
        (b"{", 400, b"malformed request\n"),
        (b"{}", 400, b"invalid request\n"),
        (b'{"dst": 5}', 400, b"invalid request\n"),
        (b'{"dst": "x"}', 400, b"invalid request\n"),
        (b'{"dst": "127.0.0.1"}', 200, b'{"src":"127.0.0.1"}\n'),
    ],
)
def test_resolve_route(config: Config, body: bytes, code: int, text: bytes) -> None:
    answer = create_app(config).test_client().post("/resolve-route", data=body)
    assert (answer.status_code, answer.data) == (code, text)


def test_the_command_shows_absent_ones_first_and_reasons() -> None:
    lines = route_lines({**DOCUMENT, "bgp": BGP}, 2, Paper(), 1000.0)
    text = "\n".join(lines)
    assert lines[0] == "unicast: BGP Session Up, peer 169.254.0.4: 3 learned, 2 installed"
    assert lines[1].split()[:2] == ["192.0.2.1/32", "absent"]
    assert lines[2].split()[:2] == ["198.18.0.2/32", "present"]
    assert "stale for 100 s" in lines[2]
    assert "and 1 more" in text
    assert "0.0.0.0/0 refused, Default: never installed" in text
    assert "and 40 more are refused" in text


def test_the_command_without_anything() -> None:
    assert route_lines({}, None, Paper(), 0.0) == ["no route was learned: no service has a BGP session"]
    assert route_lines({"services": 5, "bgp": {"peers": {"unicast": 5}}}, None, Paper(), 0.0)


def test_two_sessions_never_hide_each_other() -> None:
    both = {"peers": {"unicast": {"session": {"status": "BGP Session Up"}}, "multicast": {"session": {}}}}
    text = metrics.render({}, {}, None, 0.0, both)
    assert "doublezero_session_is_up 0" in text
    assert 'dzagent_session_up{service="unicast",peer_ip=""} 1' in text


def policy(text: str) -> Any:
    return parse_policy(yamlfile.parse(text.encode(), "p.yaml"), "p.yaml").bgp


def test_policy_keys() -> None:
    found = policy(
        "bgp:\n  exclude: [192.0.2.1, 198.18.0.0/24]\n  keep_stale: 0\n  max_routes: 5\n  ssh_peer: withhold\n"
    )
    assert found.exclude == ("192.0.2.1", "198.18.0.0/24")
    assert (found.keep_stale, found.max_routes, found.ssh_peer) == (0, 5, "withhold")
    assert IPv4Network("127.0.0.0/8") in found.martians


@pytest.mark.parametrize(
    "text",
    [
        "exclude: [x]",
        "exclude: [192.0.2.1/24]",
        "port: 179",
        "poll: 1",
        "max_routes: 0",
        "min_length: 0",
        "ssh_peer: no",
        "x: 1",
    ],
)
def test_wrong_policy_keys_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.yaml:2"):
        policy(f"bgp:\n  {text}\n")


def test_peers_are_remembered(tmp_path: Path) -> None:
    peers = {"unicast": PEER, "multicast": replace(PEER, service="multicast", advertise=None, install=False)}
    PeerStore(tmp_path / "p.json").write(peers)  # type: ignore[arg-type]
    assert PeerStore(tmp_path / "p.json").read() == peers


@pytest.mark.parametrize(
    "change",
    [
        {"link": 'x"; }'},
        {"local": None},
        {"remote": "x"},
        {"local_asn": "1; "},
        {"remote_asn": 0},
        {"table": True},
        {"keep": 1, "advertise": 5},
    ],
)
def test_a_file_of_peers_that_was_meddled_with_is_forgotten(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"unicast": {**peer_json(PEER), **change}}))
    assert PeerStore(tmp_path / "p.json").read() == {}


@pytest.mark.parametrize("text", ["[]", '{"exclude": 5}', '{"exclude": [5]}', "nonsense"])
def test_a_broken_route_config_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(StateError):
        from_route_config(tmp_path / "r.json")


def test_doublezerods_route_config(tmp_path: Path) -> None:
    assert not from_route_config(tmp_path / "none.json").hosts
    (tmp_path / "r.json").write_text('{"exclude": ["1.2.3.4"]}')
    assert from_route_config(tmp_path / "r.json").hosts == {IPv4Address("1.2.3.4")}
    (tmp_path / "r.json").write_text("{}")
    assert not from_route_config(tmp_path / "r.json").hosts
