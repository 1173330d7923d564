"""The HTTP API: paths, methods, bodies, errors; what is written; and that answer, file and status always agree."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import threading
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from dzagent.api import documents
from dzagent.api.app import create_app
from dzagent.api.bodies import MAX_BODY
from dzagent.api.store import FileStore
from dzagent.config import Config
from dzagent.errors import StateError
from dzagent.files import write_json
from dzagent.lock import take_lock
from dzagent.state import ApplyRequest, Intent, read_apply_request, read_approvals, read_intent
from tests.api_fakes import NOW, UNICAST, World, ask, condition, loads

OK = b'{"status":"ok"}\n'
READS = ("/status", "/v2/status", "/v3/status", "/v3/plan", "/v3/events", "/metrics", "/config")
WRITES = ("/enable", "/disable", "/v3/apply")
ABSENT = ("/latency", "/v2/latency")
ABSENT_WRITES = ("/provision", "/remove")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def http(world: World) -> FlaskClient:
    return client(world.config)


def client(config: Config, store: Any = None) -> FlaskClient:
    return create_app(config, store=store, clock=lambda: NOW).test_client()


def intent(world: World) -> Intent | None:
    return read_intent(world.config.paths.intent)


# ---- shapes of doublezerod -----------------------------------------------------------------------------------


def test_status_with_and_without_services(world: World, http: FlaskClient) -> None:
    assert http.get("/status").data == b'[{"doublezero_status": {"session_status": "disconnected"}}]'
    world.publish()
    answer = http.get("/status")
    assert answer.content_type == "application/json"
    assert [service["tunnel_name"] for service in loads(answer.data)] == ["doublezero0"]
    assert answer.data.endswith(b"]\n")


def test_status_v2_says_what_the_intent_file_says(world: World, http: FlaskClient) -> None:
    world.publish(enabled=True)
    assert loads(http.get("/v2/status").data)["reconciler_enabled"] is False, "nobody has enabled it"
    http.post("/enable")
    assert loads(http.get("/v2/status").data)["reconciler_enabled"] is True
    world.config.paths.intent.write_text("{")
    assert loads(http.get("/v2/status").data)["reconciler_enabled"] is True, "corrupt: the agent's own word"


@pytest.mark.parametrize("path", ["/enable", "/disable"])
def test_a_wish_is_written_and_told(world: World, http: FlaskClient, path: str) -> None:
    with world.agent() as wake:
        answer = http.post(path)
        assert wake.recv(64) == b"intent"
    assert (answer.status_code, answer.data, answer.content_type) == (200, OK, "application/json")
    assert intent(world) == Intent(path == "/enable")


def test_a_dead_agent_is_no_error(world: World, http: FlaskClient) -> None:
    assert http.post("/enable").data == OK
    assert intent(world) == Intent(True)


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b"null", b"{}", b'{"client_ip": ""}', b'{"client_ip": null, "x": 1}']
)
def test_enable_needs_no_body(world: World, http: FlaskClient, body: bytes) -> None:
    assert http.post("/enable", data=body).data == OK
    assert intent(world) == Intent(True)


@pytest.mark.parametrize("body", [b"garbage", b"\xff\xfe", b"[1]", b'{"client_ip": "x"}', b"[" * 60000])
def test_disable_ignores_its_body(world: World, http: FlaskClient, body: bytes) -> None:
    assert http.post("/disable", data=body).data == OK
    assert intent(world) == Intent(False)


def test_a_pinned_address_is_kept_until_another_comes(world: World, http: FlaskClient) -> None:
    http.post("/enable", data=b'{"client_ip": "198.51.100.7"} and more')
    assert intent(world) == Intent(True, IPv4Address("198.51.100.7"))
    http.post("/disable")
    http.post("/enable")
    assert intent(world) == Intent(True, IPv4Address("198.51.100.7"))
    http.post("/enable", json={"client_ip": "198.51.100.8"})
    assert intent(world) == Intent(True, IPv4Address("198.51.100.8"))


BAD_BODIES: Mapping[bytes, tuple[int, str]] = {
    b"garbage": (400, "malformed enable request: the body is not valid JSON"),
    b"\xff": (400, "malformed enable request: the body is not valid JSON"),
    b"[" * 60000: (400, "malformed enable request: the body is not valid JSON"),
    b"[]": (400, "malformed enable request: the body is not a JSON object"),
    b'"x"': (400, "malformed enable request: the body is not a JSON object"),
    b'{"client_ip": 7}': (400, "malformed enable request: client_ip is not a string"),
    b'{"client_ip": {}}': (400, "malformed enable request: client_ip is not a string"),
    b'{"client_ip": "x"}': (400, 'invalid client_ip "x": not an IPv4 address'),
    b'{"client_ip": "::1"}': (400, 'invalid client_ip "::1": not an IPv4 address'),
    b'{"client_ip": "198.51.100.7/32"}': (400, 'invalid client_ip "198.51.100.7/32": not an IPv4 address'),
    b'{"client_ip": "127.0.0.1"}': (400, "127.0.0.1 cannot be a client IP: no other host can send to it"),
}


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: str(body[:30]))
def test_a_bad_address_changes_nothing(world: World, http: FlaskClient, body: bytes) -> None:
    answer = http.post("/enable", data=body)
    code, message = BAD_BODIES[body]
    assert answer.status_code == code
    assert (
        answer.data
        == json.dumps({"description": message, "status": "error"}, separators=(",", ":")).encode() + b"\n"
    )
    assert intent(world) is None


def test_an_address_that_the_configuration_overrules_is_refused(tmp_path: Path) -> None:
    world = World.at(tmp_path, client_ip=IPv4Address("198.51.100.7"))
    http = client(world.config)
    refused = http.post("/enable", json={"client_ip": "198.51.100.8"})
    assert refused.status_code == 409
    assert (
        "conflicts with client_ip 198.51.100.7 of /etc/dzagent/config.yaml"
        in loads(refused.data)["description"]
    )
    assert intent(world) is None
    assert http.post("/enable", json={"client_ip": "198.51.100.7"}).data == OK


def test_private_addresses_are_for_private_networks(tmp_path: Path) -> None:
    for network, code in (("localnet", 200), ("mainnet-beta", 400)):
        world = World.at(tmp_path / network, network=network)
        assert client(world.config).post("/enable", json={"client_ip": "10.0.0.7"}).status_code == code


@pytest.mark.parametrize("path", ["/enable", "/disable"])
def test_a_wish_that_cannot_be_written_is_a_500(world: World, path: str) -> None:
    class Full(FileStore):
        def write(self, path: Path, intent: Intent) -> None:
            raise StateError(f'{path} cannot be written (No space left on device); {intent} is not "there"')

    answer = client(world.config, Full()).post(path)
    assert answer.status_code == 500
    assert list(loads(answer.data)) == ["description", "status"]
    assert "No space left" in loads(answer.data)["description"]
    assert intent(world) is None


def test_config_shows_no_token(tmp_path: Path) -> None:
    world = World.at(tmp_path, rpc=("https://user:secret@rpc.example.net:8899/token?key=1",))
    answer = client(world.config).get("/config").data
    expected = f'{{"program_id":"{world.config.program_id}","rpc_url":"https://rpc.example.net:8899"}}\n'
    assert answer == expected.encode()


# ---- paths and methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nothing", "/status/", "//status", "/v3", "/v1/status", "/status%00"])
def test_unknown_paths(http: FlaskClient, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.data) == (404, b"404 page not found\n")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", READS + ABSENT)
def test_reads_refuse_other_methods(http: FlaskClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"):
        answer = http.open(path, method=method)
        assert (answer.status_code, answer.data) == (405, b"Method Not Allowed\n")
        assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", WRITES + ABSENT_WRITES)
def test_writes_refuse_other_methods(http: FlaskClient, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "OPTIONS"):
        answer = http.open(path, method=method)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", READS)
def test_reads_answer_whatever_is_missing(http: FlaskClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert http.head(path).status_code == 200


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"services": 7, "conditions": {}}', "\0" * 100])
def test_reads_answer_whatever_is_published(world: World, http: FlaskClient, path: str, content: str) -> None:
    paths = world.config.paths
    for file in (paths.status, paths.plan, paths.events, paths.ledger, paths.intent):
        file.write_text(content)
    assert http.get(path).status_code == 200


@pytest.mark.parametrize("path", ABSENT)
def test_what_is_not_built_is_said(http: FlaskClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 501
    assert loads(answer.data)["description"].startswith(f"{path} is not built")


@pytest.mark.parametrize("path", WRITES + ABSENT_WRITES)
def test_bodies_have_a_size(http: FlaskClient, path: str) -> None:
    assert http.post(path, data=b"x" * (MAX_BODY + 1)).status_code == 413
    chunked = http.post(path, headers={"Transfer-Encoding": "chunked"})
    assert chunked.status_code == 411


# ---- v3 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "free", "files", "left", "full"),
    [
        (100, 0, 50, 9, True),
        (100, 1, 50, 9, False),
        (100, 7, 50, 0, True),
        (0, 0, 0, 0, False),  # a file system without a size
    ],
)
def test_a_full_disk_is_told_since_the_agent_cannot(
    blocks: int, free: int, files: int, left: int, *, full: bool
) -> None:
    seen = os.statvfs_result((4096, 4096, blocks, free, free, files, left, left, 0, 255))
    said = documents.full_disk(Path("/run/dzagent/agent"), lambda _: seen)
    assert ("make room (`df -h /run/dzagent/agent`)" in said) is full


def test_a_disk_that_cannot_be_asked_is_not_full(tmp_path: Path) -> None:
    assert documents.full_disk(tmp_path / "none") == ""
    assert documents.full_disk(tmp_path) == ""


def test_full_status_of_a_running_agent(world: World, http: FlaskClient) -> None:
    http.post("/enable", json={"client_ip": "198.51.100.7"})
    world.publish()
    world.publish_ledger()
    with world.agent():
        document = loads(http.get("/v3/status").data)
    assert document["agent"] == {"running": True, "message": "dzagentd runs"}
    assert document["data_age_seconds"] == 3.0
    assert document["intent"] == {
        "reconciler_enabled": True,
        "client_ip": "198.51.100.7",
        "stamp": world.stamp,
        "readable": True,
        "message": "",
    }
    assert document["intent_stamp"] == world.stamp
    assert document["services"] == [UNICAST]
    by_type = {c["type"]: c for c in document["conditions"]}
    assert by_type["Ready"] == condition("Ready", "True", "Provisioned", "1 of 1 services are provisioned")
    assert by_type["AgentRunning"]["status"] == by_type["StatusReadable"]["status"] == "True"
    assert document["notes"] == []


def test_what_a_dead_agent_has_said_is_history(world: World, http: FlaskClient) -> None:
    world.publish(pid=0)
    document = loads(http.get("/v3/status").data)
    by_type = {c["type"]: c for c in document["conditions"]}
    assert by_type["Ready"]["status"] == "Unknown"
    assert by_type["Ready"]["reason"] == "AgentNotRunning"
    assert "it last said True: 1 of 1 services" in by_type["Ready"]["message"]
    assert by_type["AgentRunning"]["status"] == "False"
    assert document["agent"]["message"].endswith("systemctl start dzagentd")


def test_a_missing_ledger_document_is_told_only_of_an_agent_that_asks(
    world: World, http: FlaskClient
) -> None:
    world.publish()
    http.post("/disable")
    assert loads(http.get("/v3/status").data)["notes"] == []
    http.post("/enable")
    (note,) = loads(http.get("/v3/status").data)["notes"]
    assert "ledger.json does not exist" in note


def test_files_that_cannot_be_read_are_named(world: World, http: FlaskClient) -> None:
    world.config.paths.status.write_text("{")
    world.config.paths.intent.write_text("[]")
    document = loads(http.get("/v3/status").data)
    assert any("status.json is not valid JSON" in note for note in document["notes"])
    assert any("state.json" in note for note in document["notes"])
    assert document["intent"]["readable"] is False
    assert document["intent"]["reconciler_enabled"] is None


def test_plan_and_events(world: World, http: FlaskClient) -> None:
    empty = loads(http.get("/v3/plan").data)
    assert (empty["id"], empty["steps"]) == (None, [])
    assert "plan.json does not exist" in empty["message"]
    assert "events.json does not exist" in loads(http.get("/v3/events").data)["message"]
    write_json(world.config.paths.plan, {"id": "abcd", "mode": "auto", "steps": [{"object": "x"}]})
    write_json(world.config.paths.events, {"events": [{"at": 1.5}]})
    found = loads(http.get("/v3/plan").data)
    assert (found["id"], found["steps"], found["message"]) == ("abcd", [{"object": "x"}], "")
    assert loads(http.get("/v3/events").data) == {"events": [{"at": 1.5}], "message": ""}


def test_the_plan_that_was_seen_is_asked_for(tmp_path: Path) -> None:
    world = World.at(tmp_path, apply="manual")
    http = client(world.config)
    write_json(world.config.paths.plan, {"id": "abcd0123", "mode": "manual"})
    with world.agent() as wake:
        assert http.post("/v3/apply", json={"plan_id": "abcd0123"}).data == OK
        assert wake.recv(64) == b"apply"
    assert read_apply_request(world.config.paths.approval) == ApplyRequest("abcd0123")


@pytest.mark.parametrize(
    ("mode", "body", "code", "said"),
    [
        ("manual", b'{"plan_id": "ffff"}', 409, "plan ffff is not the current one; that is abcd0123"),
        ("auto", b'{"plan_id": "abcd0123"}', 409, "apply: auto"),
        ("observe", b'{"plan_id": "abcd0123"}', 409, "apply: observe"),
        ("manual", b'{"plan_id": "../x"}', 400, "the id that `dzagent plan` prints"),
        ("manual", b'{"plan_id": 7}', 400, "the id that `dzagent plan` prints"),
        ("manual", b"", 400, "the id that `dzagent plan` prints"),
        ("manual", b"{", 400, "the body is not valid JSON"),
        ("manual", b'{"plan_id": "' + b"a" * 65 + b'"}', 400, "the id that `dzagent plan` prints"),
    ],
)
def test_any_other_plan_is_refused(
    world: World, http: FlaskClient, mode: str, body: bytes, code: int, said: str
) -> None:
    write_json(world.config.paths.plan, {"id": "abcd0123", "mode": mode})
    answer = http.post("/v3/apply", data=body)
    assert answer.status_code == code
    assert said in loads(answer.data)["description"]
    assert read_apply_request(world.config.paths.approval) is None


# ---- whether the agent runs ----------------------------------------------------------------------------------


def test_an_agent_runs_while_it_listens(world: World) -> None:
    paths = world.config.paths
    assert not documents.agent_state(paths, {}).running
    with world.agent():
        assert documents.agent_state(paths, {}).running
    world.config.paths.lock.touch()
    assert not documents.agent_state(paths, {"pid": 1}).running, (
        "nobody holds the lock: pid 1 is another process"
    )


def test_looking_for_the_agent_takes_no_lock_from_it(world: World) -> None:
    """A dzagentd that starts while somebody asks for the status must get its lock."""
    with world.agent():
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                documents.agent_state(world.config.paths, {})

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(300):
                os.close(take_lock(world.config.paths.lock))
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_socket_that_a_dead_agent_left_proves_nothing(world: World) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(world.config.paths.wake))
    assert world.config.paths.wake.exists()
    assert not documents.agent_state(world.config.paths, {"pid": 1}).running


@pytest.mark.parametrize("pid", [None, True, "1", 0, -1, 2**40, 1.0])
def test_a_senseless_pid_is_nobody(world: World, pid: Any) -> None:
    assert not documents.agent_state(world.config.paths, {"pid": pid}).running


# ---- latest wish wins ----------------------------------------------------------------------------------------


def test_a_thousand_wishes_from_many_threads_end_in_agreement(world: World) -> None:
    """The order in which wishes are answered is the order in which they are written."""

    class Recording(FileStore):
        def __init__(self) -> None:
            self.written: list[Intent] = []

        def write(self, path: Path, intent: Intent) -> None:
            super().write(path, intent)
            self.written.append(intent)

    store = Recording()
    app = create_app(world.config, store=store)
    barrier = threading.Barrier(8)
    failures: list[Any] = []

    def wish(seed: int) -> None:
        chance = random.Random(seed)
        http = app.test_client()
        barrier.wait()
        for _ in range(125):
            enabled = chance.random() < 0.5
            pin = chance.choice([None, "198.51.100.7", "198.51.100.8"]) if enabled else None
            answer = http.post("/enable" if enabled else "/disable", json={"client_ip": pin} if pin else None)
            if answer.data != OK:
                failures.append(answer.data)
            http.get("/v2/status")

    threads = [threading.Thread(target=wish, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.written) == 1000
    last = store.written[-1]
    assert intent(world) == last
    assert loads(app.test_client().get("/v2/status").data)["reconciler_enabled"] is last.enabled
    pins = [None, *(wish.client_ip for wish in store.written)]
    assert all(after is not None or before is None for before, after in itertools.pairwise(pins)), "kept"


def test_whoever_speaks_last_over_the_socket_is_heard(world: World) -> None:
    chance = random.Random(7)
    with world.serving() as path:

        def wish(enabled: bool) -> None:
            assert ask(path, "POST", "/enable" if enabled else "/disable")[2] == OK

        for _ in range(20):
            crowd = [threading.Thread(target=wish, args=(chance.random() < 0.5,)) for _ in range(5)]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
            last = chance.random() < 0.5
            wish(last)
            assert loads(ask(path, "GET", "/v2/status")[2])["reconciler_enabled"] is last
            assert intent(world) == Intent(last)


# ---- what a person lets through, and the way back ---------------------------------------------------------------


def test_a_plan_can_be_asked_for_with_a_way_back(tmp_path: Path) -> None:
    world = World.at(tmp_path, apply="manual")
    write_json(world.config.paths.plan, {"id": "abcd0123", "mode": "manual"})
    http = client(world.config)
    assert http.post("/v3/apply", json={"plan_id": "abcd0123", "confirm": 60}).data == OK
    assert read_apply_request(world.config.paths.approval) == ApplyRequest("abcd0123", 60)


@pytest.mark.parametrize("value", ["60", 1.5, True, 0, 4, 3601, -1, [], {}])
@pytest.mark.parametrize("path", ["/v3/apply", "/v3/approve"])
def test_a_time_to_confirm_that_makes_no_sense_is_refused(
    world: World, http: FlaskClient, path: str, value: Any
) -> None:
    write_json(world.config.paths.plan, {"id": "abcd0123", "mode": "manual", "held": [{"id": "abcd0123"}]})
    answer = http.post(path, json={"plan_id": "abcd0123", "id": "abcd0123", "confirm": value})
    assert answer.status_code == 400
    assert "seconds from 5 to 3600" in loads(answer.data)["description"]
    assert read_apply_request(world.config.paths.approval) is None
    assert read_approvals(world.config.paths.approvals) == ()


def test_only_what_waits_can_be_confirmed(world: World, http: FlaskClient) -> None:
    paths = world.config.paths
    answer = http.post("/v3/confirm", json={"plan_id": "abcd0123"})
    assert (answer.status_code, read_apply_request(paths.confirmation)) == (409, None)
    write_json(paths.checkpoint, {"plan_id": "ffff"})
    answer = http.post("/v3/confirm", json={"plan_id": "abcd0123"})
    assert answer.status_code == 409
    assert "plan ffff does" in loads(answer.data)["description"]
    with world.agent() as wake:
        assert http.post("/v3/confirm", json={"plan_id": "ffff"}).data == OK
        assert wake.recv(64) == b"confirm"
    assert read_apply_request(paths.confirmation) == ApplyRequest("ffff")


def test_only_what_is_withheld_can_be_approved(world: World, http: FlaskClient) -> None:
    paths = world.config.paths
    for held in (None, [], "x", [7, {"id": ["abcd"]}, {}], [{"id": "ffff"}]):
        write_json(paths.plan, {"id": "a", "held": held})
        answer = http.post("/v3/approve", json={"id": "abcd"})
        assert answer.status_code == 409
        assert "nothing that is withheld has the id abcd" in loads(answer.data)["description"]
    for name in ("../x", "", 7, None, "ABCD", "a" * 65):
        assert http.post("/v3/approve", json={"id": name}).status_code == 400
    assert read_approvals(paths.approvals) == ()
    with world.agent() as wake:
        assert http.post("/v3/approve", json={"id": "ffff", "confirm": 30}).data == OK
        assert wake.recv(64) == b"approve"
    (asked,) = read_approvals(paths.approvals)
    assert (asked.id, asked.confirm) == ("ffff", 30)


def test_a_look_at_the_kernel_is_asked_for_by_a_token(world: World, http: FlaskClient) -> None:
    answer = http.post("/v3/resync")
    assert answer.status_code == 503
    assert "systemctl start dzagentd" in loads(answer.data)["description"]
    with world.agent() as wake:
        said = loads(http.post("/v3/resync").data)
        assert said["status"] == "ok"
        assert wake.recv(64) == f"resync:{said['token']}".encode()
        assert said["token"] != loads(http.post("/v3/resync").data)["token"]
