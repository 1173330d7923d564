"""The ledger side as it runs: poll thread, websocket and stored data against a development ledger, over loopback."""

from __future__ import annotations

import json
import queue
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import SECONDS, Server, Simulation
from dzagent import metrics
from dzagent.api.app import create_app
from dzagent.config import PROGRAM_IDS, Config, Intervals, Paths
from dzagent.devledger.faults import FaultFile, make
from dzagent.devledger.faulty import FaultyServer
from dzagent.devledger.pubsub import PubSubServer
from dzagent.devledger.server import Listen
from dzagent.ledgerside import LedgerSide, NoRpc
from dzagent.policy import Policy
from dzagent.state import request_forget
from tests.devledger_fakes import IP, PROGRAM
from tests.test_devledger_nodes import Living, running

WAIT = 60.0


class Side:
    """A ledger side, and the news it tells."""

    def __init__(self, tmp_path: Path, rpc: str, websocket: str = "") -> None:
        self.news: queue.Queue[None] = queue.Queue()
        self.config = Config(
            network="localnet",
            program_id=PROGRAM,
            rpc=(rpc,) if rpc else (),
            websocket=(websocket,) if websocket else (),
            intervals=Intervals(poll=3600.0, rpc_timeout=20.0),
            paths=Paths(state=tmp_path / "state", run=tmp_path / "run"),
        )
        self.config.paths.agent.mkdir(parents=True, exist_ok=True)
        self.side = LedgerSide(
            self.config, Policy(), candidates=lambda: (IP,), on_news=lambda: self.news.put(None)
        )

    def __enter__(self) -> Side:  # noqa: PYI034 - Self needs Python 3.11
        self.side.start()
        self.side.feed.enable(True)
        return self

    def __exit__(self, *_: object) -> None:
        self.side.stop()

    def until(self, done: Any) -> None:
        """Wait for news until something holds."""
        end = time.monotonic() + WAIT
        while not done(self.side.feed.view()):
            self.news.get(timeout=max(0.1, end - time.monotonic()))

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.config.paths.ledger.read_text())
        return found


class Moving(Living):
    """A source whose slots go on by themselves."""

    def view(self, commitment: str) -> Any:
        self.slot += 1
        return super().view(commitment)


def test_a_change_is_seen_without_waiting_for_the_next_poll(tmp_path: Path) -> None:
    source = Moving()
    servers = (
        FaultyServer(source, Listen(port=0), FaultFile(tmp_path / "faults")),
        PubSubServer(source, Listen(port=0), look_seconds=0.01),
    )
    with running(*servers) as (http, push), Side(tmp_path, f"http://{http}", f"ws://{push}") as side:
        side.until(lambda view: view.snapshot is not None and view.snapshot.complete)
        side.until(lambda _: side.report()["push"]["subscriptions"] >= 1)
        data = bytearray(source.accounts[source.account])
        data[131] = 6
        source.change(source.account, bytes(data))
        side.until(lambda view: view.snapshot.users[source.account].status == 6)
        report = side.report()
        assert report["hints"]["taken"] >= 1
        assert (report["mode"], report["poll"]["requests"] > 0, report["error"]) == ("direct", True, None)
        assert report["endpoints"][0]["state"] == "in use"
        assert report["push"]["connected"]


def test_a_process_goes_on_from_what_the_last_one_stored(tmp_path: Path) -> None:
    source = Moving()
    server = FaultyServer(source, Listen(port=0), FaultFile(tmp_path / "faults"))
    with running(server) as (http,):
        with Side(tmp_path, f"http://{http}") as side:
            side.until(lambda view: view.snapshot is not None)
        FaultFile(tmp_path / "faults").write([make("http-500")])
        with Side(tmp_path, f"http://{http}") as side:
            side.until(lambda view: view.error is not None)
            view = side.side.feed.view()
            assert (view.restored, view.searched, view.error_code) == (True, frozenset({IP}), "Unreachable")
            assert view.snapshot is not None
            assert source.account in view.snapshot.users
            # Another ledger: nothing changes until a person says so.
            FaultFile(tmp_path / "faults").write([make("other-genesis")])
            side.side.feed.poke()
            side.until(lambda view: view.error_code == "LedgerChanged")
            request_forget(side.config.paths.forget, time.time())
            side.side.feed.poke()
            side.until(lambda view: view.error is None and not view.restored)


def test_without_an_endpoint_it_runs_and_says_what_is_missing(tmp_path: Path) -> None:
    with Side(tmp_path, "") as side:
        side.until(lambda view: view.error is not None)
        assert "rpc is not set" in str(side.side.feed.view().error)
        assert side.report()["endpoints"] == []
    NoRpc(side.config).blame(ValueError())  # type: ignore[arg-type]  # nothing is done with it


def test_forgetting_is_asked_of_the_api(tmp_path: Path) -> None:
    config = Config(paths=Paths(state=tmp_path / "state", run=tmp_path / "run"))
    answer = create_app(config, clock=lambda: 1000.0).test_client().post("/v3/ledger/forget")
    assert (answer.status_code, answer.text) == (200, '{"status":"ok"}\n')
    assert json.loads(config.paths.forget.read_text()) == {"asked_at": 1000.0}


def test_metrics_tell_age_source_and_cost() -> None:
    ledger = {
        "endpoint": "rpc.example",
        "mode": "full",
        "poll": {"bytes_received": 1600, "requests": 2, "milliseconds": 3.5},
        "errors": {"TlsFailed": 2},
        "polls": {"lagging": 1},
        "endpoints": [
            {"endpoint": "a", "requests": 5, "errors": {"RateLimited": 1}},
            {"endpoint": "a", "requests": 6},
            7,
        ],
        "push": {"connected": False},
    }
    lines = metrics.render({"data_age_seconds": 12.5}, ledger, True, 0.0).splitlines()
    for line in (
        "dzagent_ledger_data_age_seconds 12.5",
        'dzagent_ledger_source_info{endpoint="rpc.example",mode="full"} 1',
        "dzagent_poll_received_bytes 1600",
        "dzagent_poll_milliseconds 3.5",
        'dzagent_ledger_errors_total{kind="TlsFailed"} 2',
        "dzagent_ledger_lagging_total 1",
        'dzagent_rpc_requests_total{endpoint="a"} 6',
        "dzagent_push_connected 0",
    ):
        assert line in lines
    assert metrics.render({}, {"poll": 7, "endpoints": {}, "push": [], "errors": []}, None, 0.0) is not None


@pytest.mark.parametrize("limited", [True, False])
def test_hosts_do_not_come_back_together(limited: bool) -> None:
    span = ((600.0, 900.0),)
    servers = [
        Server(name, down=() if limited else span, limited=span if limited else ()) for name in ("a", "b")
    ]
    simulation = Simulation(servers, hosts=300)
    simulation.run()
    total = [sum(server.requests[at] for server in servers) for at in range(SECONDS)]
    steady = sum(total[300:600]) / 300
    assert 30 < steady < 40
    assert max(total[900:]) < 2.2 * steady
    assert PROGRAM_IDS["localnet"] == PROGRAM
