"""The processes of the lab: the ledger, the reconciler, the API. Each logs to a file, each can be killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.lab.errors import LabError
from e2e.lab.netns import Namespace
from e2e.lab.topology import CLIENT_IP, LEDGER_IP, LEDGER_PORT
from e2e.lab.wait import SLOW, wait_for

BIN = Path(sys.executable).parent
LAUNCHER = Path(__file__).resolve().parents[2] / "packaging" / "dzagent-bird"


class Process:
    """A child that runs until it is stopped; its output goes to `log`."""

    def __init__(self, name: str, namespace: Namespace, command: Sequence[str], log: Path) -> None:
        self._name, self._namespace, self._command, self._log = name, namespace, command, log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is there and has not ended by itself."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, 0 if it was never started."""
        return self._child.pid if self._child else 0

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self._namespace.argv(self._command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def check(self) -> None:
        """Raise LabError, with the last of its output, if it has ended."""
        if not self.running:
            raise LabError(f"{self._name} has ended: {self.said[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end. Raises LabError if that takes too long."""
        if self._child is None:
            return
        self._child.send_signal(number)
        try:
            self._child.wait(15 * SLOW)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self._name} does not end on {number.name}: {self.said[-2000:]}") from error

    def stop(self) -> None:
        """End it, gently first."""
        if self.running:
            self.send(signal.SIGTERM)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("dzagent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in the file system."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(api: Path, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Ask the API at a socket; returns the HTTP status and the JSON (or the text) of the answer."""
    connection = _UnixConnection(api, 10 * SLOW)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


CONFIG = """network: localnet
rpc: http://{ledger}:{port}
client_ip: {client_ip}
log_level: info
intervals:
  poll: {poll}
  resync: {resync}
  rpc_timeout: {timeout}
directories:
  state: {root}/state
  run: {root}/run
"""


@dataclass(slots=True)
class Agent:
    """The agent on the host: configuration, reconciler, API, command line."""

    root: Path
    namespace: Namespace = field(default_factory=Namespace)
    daemon: Process = field(init=False)
    api: Process = field(init=False)
    engine: Process = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        # A poll is cheap; under emulation it is not, and would take the processor from the rest.
        values = {"poll": 1 if SLOW == 1 else 3, "resync": 60, "timeout": 2 * SLOW}
        self.config.write_text(
            CONFIG.format(ledger=LEDGER_IP, port=LEDGER_PORT, client_ip=CLIENT_IP, root=self.root, **values)
        )
        options = ["--config", str(self.config)]
        self.daemon = Process(
            "dzagentd", self.namespace, [str(BIN / "dzagentd"), *options], self.root / "dzagentd.log"
        )
        self.api = Process(
            "api", self.namespace, [str(BIN / "dzagent"), *options, "api"], self.root / "api.log"
        )

        launcher = [str(LAUNCHER), "--state", str(self.root / "state"), "--run", str(self.root / "run")]
        self.engine = Process("engine", self.namespace, launcher, self.root / "engine.log")

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "config.yaml"

    @property
    def desired(self) -> Path:
        """Where the rendered files are."""
        return self.root / "state" / "desired"

    def start(self) -> None:
        """Start engine, API and reconciler, and wait until the API answers. Raises LabError."""
        self.engine.start()
        self.api.start()
        self.daemon.start()
        wait_for("the API answers", self._answers, 30)

    def _answers(self) -> bool:
        self.api.check()
        try:
            return self.request("GET", "/status")[0] == http.client.OK
        except OSError:
            return False

    def stop(self) -> None:
        """End the processes; what they set up stays."""
        self.daemon.stop()
        self.api.stop()
        self.engine.stop()

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the API; returns the HTTP status and the JSON (or the text) of the answer."""
        return ask(self.root / "run" / "dzagent.sock", method, path, body)

    def status(self) -> dict[str, Any]:
        """Return /v3/status."""
        code, document = self.request("GET", "/v3/status")
        if code != http.client.OK or not isinstance(document, dict):
            raise LabError(f"/v3/status answers {code}: {document}")
        return document

    def enable(self) -> None:
        """Say that tunnels are wanted."""
        self._post("/enable")

    def disable(self) -> None:
        """Say that tunnels are not wanted."""
        self._post("/disable")

    def _post(self, path: str) -> None:
        code, answer = self.request("POST", path)
        if code != http.client.OK:
            raise LabError(f"POST {path} answers {code}: {answer}")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line on this agent's configuration."""
        command = [str(BIN / "dzagent"), "--config", str(self.config), *words]
        return subprocess.run(
            self.namespace.argv(command),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "NO_COLOR": "1"},
        )
