"""The lab itself: what the other tests stand on."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from e2e.lab.liar import Lies
from e2e.lab.netns import Monitor, Pinger
from e2e.lab.topology import DEV1, DEV2, LEDGER_IP, PEER_DZ_IP, PEER_IP, PEER_NET, Network
from e2e.lab.wait import wait_for


def test_every_place_can_be_reached(network: Network) -> None:
    for address in (DEV1.public_ip, DEV2.public_ip, LEDGER_IP, PEER_IP):
        assert network.host.pings(address), address


def test_the_other_user_has_a_working_tunnel(network: Network) -> None:
    assert network.peer.pings(PEER_NET[0])
    assert network.devices["dev1"].pings(PEER_DZ_IP)


def test_a_stream_of_pings_tells_what_was_lost(network: Network, tmp_path: Path) -> None:
    pinger = Pinger(network.host, LEDGER_IP, tmp_path / "ping")
    wait_for("some answers", lambda: len(pinger.answered) >= 5)
    seen = len(pinger.answered)
    network.ledger.ip("link set eth0 down")
    network.ledger.ip("link set eth0 up")
    network.ledger.ip("route replace default via 192.0.2.22")
    wait_for("answers again", lambda: len(pinger.answered) >= seen + 5)
    # The short interruption may or may not have hit a ping; what counts is that the numbers add up.
    answered = pinger.answered
    lost = pinger.stop()
    assert set(lost).isdisjoint(answered)


def test_the_monitor_counts_changes_and_only_those(network: Network, tmp_path: Path) -> None:
    with Monitor(network.host, tmp_path / "monitor") as monitor:
        assert monitor.changes() == ()
        network.host.ip("rule add priority 999 table 999")
        network.host.ip("rule del priority 999 table 999")
        assert len(monitor.changes()) == 2


def _account(data: bytes) -> dict[str, Any]:
    return {"data": [base64.b64encode(data).decode(), "base64"], "lamports": 1}


def test_lies_change_answers_and_the_truth_does_not(tmp_path: Path) -> None:
    file = tmp_path / "lies.json"
    assert Lies.read(file) == Lies()
    Lies(drop=frozenset({"B"}), patch={"A": {"1": "ff"}}).write(file)
    lies = Lies.read(file)
    asked = {"method": "getMultipleAccounts", "params": [["A", "B", "C", "D"], {}]}
    honest = {"result": {"value": [_account(b"\0\0\0"), _account(b"b"), None, _account(b"d")]}}
    told = {"result": {"value": [_account(b"\0\xff\0"), None, None, _account(b"d")]}}
    assert lies.answer(asked, honest) == told
    assert Lies().answer(asked, honest) == honest
    listed = {
        "result": [{"pubkey": "B", "account": _account(b"b")}, {"pubkey": "D", "account": _account(b"d")}]
    }
    assert lies.answer({"method": "getProgramAccounts"}, listed) == {"result": listed["result"][1:]}
    wrapped = {"result": {"context": {"slot": 1}, "value": listed["result"]}}
    assert lies.answer({"method": "getProgramAccounts"}, wrapped)["result"]["value"] == listed["result"][1:]
