"""What dzagentd would publish, and clients of the API's socket, for the tests of API and command line."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from gunicorn.config import Config as GunicornConfig

from dzagent.api.app import create_app
from dzagent.api.connection import Limits
from dzagent.api.respond import Responder, refuse
from dzagent.api.serve import settings
from dzagent.api.server import Server
from dzagent.cli.main import main
from dzagent.config import Config, Paths
from dzagent.files import write_json
from dzagent.intent import intent_stamp
from dzagent.state import read_intent, send_wake

NOW = 1_792_000_000.0

UNICAST: Mapping[str, Any] = {
    "name": "unicast",
    "user_type": "IBRL",
    "tunnel_name": "doublezero0",
    "tunnel_src": "198.51.100.7",
    "tunnel_dst": "192.0.2.1",
    "doublezero_ip": "198.51.100.7",
    "overlay": "169.254.0.0/31",
    "account": "GxGbEwVnYk5BpuTkbVt1mUgBBRWzUmEpVDbPYTJwDyaR",
    "device_pk": "8PQkip3CxWhQTdP7doCyhT2kwjSL2csRTdnRg2zbDPs1",
    "current_device": "ams-dz001",
    "metro": "Amsterdam",
    "tenant": "acme",
    "multicast_groups": {"publisher": [], "subscriber": []},
    "subscriptions": [],
    "provisioned": True,
    "session": {"status": "Pending BGP Session", "last_update": 0},
    "last_error": None,
}


def group(number: int, *, publisher: bool, subscriber: bool) -> dict[str, Any]:
    """Return one entry of a service's subscriptions."""
    return {
        "pubkey": f"G{number}" + "1" * 41,
        "code": f"g{number}",
        "multicast_ip": f"233.84.178.{number}",
        "max_bandwidth": 1_000_000_000 if number == 1 else 0,
        "publisher": publisher,
        "subscriber": subscriber,
    }


def multicast(publish: tuple[int, ...] = (), subscribe: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the entry of a multicast service; a pure subscriber has no address of its own."""
    every = dict.fromkeys([*subscribe, *publish])
    return {
        **UNICAST,
        "name": "multicast",
        "user_type": "Multicast",
        "tunnel_name": "doublezero1",
        "tunnel_dst": "192.0.2.9",
        "doublezero_ip": "203.0.113.5" if publish else "",
        "overlay": "169.254.0.2/31",
        "multicast_groups": {
            "publisher": [f"g{n}" for n in publish],
            "subscriber": [f"g{n}" for n in subscribe],
        },
        "subscriptions": [group(n, publisher=n in publish, subscriber=n in subscribe) for n in every],
    }


def condition(kind: str, status: str, reason: str = "Because", message: str = "") -> dict[str, Any]:
    """Return one condition."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "last_transition": NOW - 60,
        "observed_generation": 3,
    }


READY = (
    condition("IntentReadable", "True"),
    condition("IdentityKnown", "True"),
    condition("LedgerReachable", "True"),
    condition("Rendered", "True"),
    condition("InSync", "True", "Equal", "the kernel holds what the files say"),
    condition("SessionUp", "Unknown", "Absent", "no sessions yet"),
    condition("Conflict", "False"),
    condition("Held", "False"),
    condition("Ready", "True", "Provisioned", "1 of 1 services are provisioned"),
)


def changed(*others: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions of a ready agent with these in the place of those of the same type."""
    by_type = {item["type"]: item for item in (*READY, *others)}
    return list(by_type.values())


@dataclass(frozen=True)
class World:
    """A configuration in a directory of its own, and a hand in the place of dzagentd."""

    config: Config

    @classmethod
    def at(cls, root: Path, **changes: Any) -> World:
        """Make the directories."""
        config = replace(Config(network="localnet", paths=Paths(root / "state", root / "run")), **changes)
        config.paths.agent.mkdir(parents=True)
        config.paths.intent.parent.mkdir(parents=True)
        return cls(config)

    @property
    def stamp(self) -> int:
        """What tells one version of the intent file from another."""
        return intent_stamp(self.config.paths.intent)

    def publish(self, **changes: Any) -> dict[str, Any]:
        """Write a status document: that of a ready agent with one IBRL service, changed as told."""
        document: dict[str, Any] = {
            "version": 1,
            "pid": 4242,
            "agent_version": "0.1.0",
            "started_at": NOW - 3600,
            "mode": self.config.apply,
            "network": self.config.network,
            "program_id": self.config.program_id,
            "enabled": True,
            "intent_stamp": self.stamp,
            "client_ip": "198.51.100.7",
            "client_ip_source": "client_ip of the configuration",
            "generation": 3,
            "slot": 123456,
            "services": [UNICAST],
            "problems": [],
            "conflicts": [],
            "withdrawn": {},
            "matched_users": {"unicast": 1, "multicast": 0},
            "conditions": list(READY),
            "counters": {
                kind: {name: {"success": 0, "error": 0} for name in ("unicast", "multicast")}
                for kind in ("provisions", "removals", "updates")
            },
            "last_apply": None,
            **changes,
        }
        write_json(self.config.paths.status, document)
        return document

    def publish_ledger(self, **changes: Any) -> None:
        """Write what the last poll said."""
        buckets = dict.fromkeys(("0.1", "0.5", "1", "2", "5", "10", "30", "60", "120", "+Inf"), 7)
        document = {
            "slot": 123460,
            "fetched_at": NOW - 3,
            "attempted_at": NOW - 3,
            "endpoint": "http://ledger.example.net",
            "error": None,
            "polls": {"success": 7, "error": 2},
            "fetch": {"success": 7, "error_stale": 1, "error_no_cache": 1},
            "fetch_buckets": {**buckets, "0.1": 5},
            "fetch_sum": 1.25,
            "fetch_count": 7,
            **changes,
        }
        write_json(self.config.paths.ledger, document)

    @contextlib.contextmanager
    def agent(self) -> Iterator[socket.socket]:
        """Run something that listens as dzagentd does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(self.config.paths.wake))
            yield listener
        self.config.paths.wake.unlink()

    @contextlib.contextmanager
    def serving(self) -> Iterator[Path]:
        """Serve the real application on the configured socket, from a thread; yields the path of the socket."""
        path = self.config.paths.socket
        with listening(path) as listener, self.serving_on(listener):
            yield path

    @contextlib.contextmanager
    def serving_on(self, listener: socket.socket) -> Iterator[None]:
        """Serve the real application on a socket."""
        app = create_app(self.config, clock=lambda: NOW)
        with threaded(listener, Responder(gunicorn_config(self.config), app, lambda: False), Limits()):
            yield


def gunicorn_config(config: Config) -> Any:
    """Return gunicorn's own form of our settings."""
    cfg = GunicornConfig()
    for name, value in settings(config).items():
        cfg.set(name, value)
    return cfg


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(512)
        yield listener
    path.unlink()


@contextlib.contextmanager
def threaded(
    listener: socket.socket,
    answer: Callable[[bytes], Any],
    limits: Limits,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Server]:
    """Run a Server on a socket, in a thread."""
    server = Server([listener], answer, refuse, limits, clock)
    stopping = threading.Event()
    thread = threading.Thread(target=server.run, args=(stopping.is_set, lambda: None))
    thread.start()
    try:
        yield server
    finally:
        stopping.set()
        server.wake()
        thread.join()


# ---- clients -------------------------------------------------------------------------------------------------


def connect(path: Path, timeout: float = 20.0) -> socket.socket:
    """Connect; blocking, as a full backlog would refuse a socket that has a timeout already."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    sock.settimeout(timeout)
    return sock


def request_bytes(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: dzagent", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response: status, headers in lower case, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError(f"the connection ended after {data!r}")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError("the connection ended within the body")
        body += chunk
    return int(first.split()[1]), headers, body


def ask(
    path: Path, method: str, target: str, body: bytes = b"", *headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own."""
    with connect(path) as sock:
        sock.sendall(request_bytes(method, target, body, *headers))
        return read_answer(sock)


def closed(sock: socket.socket) -> bool:
    """Whether the server has closed, or closes within the socket's timeout, after whatever it still sends."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def eventually(what: str, look: Callable[[], Any], limit: float = 30.0) -> Any:
    """Return the first true value of `look`; fails after `limit` seconds."""
    end = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit:.0f} s: {what}")
        time.sleep(0.01)
    return found


# ---- the real program ----------------------------------------------------------------------------------------


def config_file(root: Path, extra: str = "") -> Path:
    """Write a configuration file for the directories under `root`."""
    file = root / "config.yaml"
    file.write_text(f"network: localnet\ndirectories:\n  state: {root}/state\n  run: {root}/run\n{extra}")
    return file


def api_process(file: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start `dzagent api`."""
    command = [sys.executable, "-m", "dzagent.cli.main", "--config", str(file), "api"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)


def answers(path: Path) -> bool:
    """Whether the API on this socket answers."""
    try:
        return ask(path, "GET", "/status")[0] == 200
    except OSError:
        return False


def loads(body: bytes) -> Any:
    """Read JSON."""
    return json.loads(body)


# ---- the command line ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*words: str, config: Path | None = None) -> Done:
    """Run `dzagent WORDS` in this process, as a program."""
    options = [] if config is None else ["--config", str(config)]
    result = CliRunner().invoke(main, [*options, *words], prog_name="dzagent")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@contextlib.contextmanager
def obedient(world: World, answer: Callable[[World, bool], None] | None = None) -> Iterator[None]:
    """Run an agent that, whenever it is woken, publishes that everything is as the intent file wants it."""
    obey = answer or at_once

    def loop(listener: socket.socket) -> None:
        while listener.recv(64) != b"end of test":
            wish = read_intent(world.config.paths.intent)
            obey(world, wish is not None and wish.enabled)

    with world.agent() as listener:
        thread = threading.Thread(target=loop, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            send_wake(world.config.paths.wake, "end of test")
            thread.join()


def at_once(world: World, enabled: bool) -> None:
    """Publish that it is so."""
    if enabled:
        world.publish()
    else:
        off = condition("Ready", "False", "Disabled", "the agent is disabled")
        world.publish(enabled=False, services=[], conditions=changed(off))
