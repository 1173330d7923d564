"""HTTP over the API's unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dzagent.cli.commands import Options
from dzagent.errors import DzagentError, InputError

TIMEOUT = 10.0
"""Seconds for each step of a request; the API answers in milliseconds."""
FULL_TRIES, FULL_PAUSE = 100, 0.02
"""How often, and after how many seconds each, a socket whose queue is full is tried again."""
MAX_ANSWER = 32 * 1024 * 1024

Json = dict[str, Any]


class NoApi(DzagentError):
    """The API cannot be reached; the text names its socket and what to do."""


class ApiRefused(DzagentError):
    """The API understood and said no."""


class Unreadable(DzagentError):
    """Something answered that is not the API."""


def client_of(ctx: click.Context) -> Client:
    """Return the client that the options before the verb ask for. Raises ConfigError."""
    return Client((ctx.find_object(Options) or Options()).api_socket())


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float, pause: Callable[[float], None]) -> None:
        super().__init__("dzagent", timeout=timeout)
        self._path, self._pause = path, pause

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        for _ in range(FULL_TRIES):
            try:
                self.sock.connect(str(self._path))
            except BlockingIOError:  # many connections wait there; the kernel does not let us wait, too
                self._pause(FULL_PAUSE)
            else:
                return
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class Client:
    """Asks the API at `socket`. Every method may raise NoApi, ApiRefused, InputError (a 400), Unreadable."""

    socket: Path
    timeout: float = TIMEOUT
    pause: Callable[[float], None] = time.sleep

    def status(self) -> Json:
        """GET /v3/status."""
        return self.ask("GET", "/v3/status")

    def plan(self) -> Json:
        """GET /v3/plan."""
        return self.ask("GET", "/v3/plan")

    def events(self) -> Json:
        """GET /v3/events."""
        return self.ask("GET", "/v3/events")

    def enable(self, client_ip: str | None) -> None:
        """POST /enable."""
        self.ask("POST", "/enable", None if client_ip is None else {"client_ip": client_ip})

    def disable(self) -> None:
        """POST /disable."""
        self.ask("POST", "/disable")

    def apply(self, plan_id: str, confirm: int | None = None) -> None:
        """POST /v3/apply."""
        self.ask("POST", "/v3/apply", {"plan_id": plan_id, **_within(confirm)})

    def confirm(self, plan_id: str) -> None:
        """POST /v3/confirm."""
        self.ask("POST", "/v3/confirm", {"plan_id": plan_id})

    def approve(self, held: str, confirm: int | None = None) -> None:
        """POST /v3/approve."""
        self.ask("POST", "/v3/approve", {"id": held, **_within(confirm)})

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send one request and return the JSON object of the answer."""
        code, data = self._exchange(method, path, body)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if code == http.client.OK and isinstance(document, dict):
            return document
        said = document.get("description") if isinstance(document, dict) else None
        if code == http.client.BAD_REQUEST and isinstance(said, str):
            raise InputError(said)
        if isinstance(said, str):
            raise ApiRefused(said)
        raise Unreadable(f"{self.socket} answers {method} {path} with status {code}: it is not dzagent's API")

    def _exchange(self, method: str, path: str, body: Json | None) -> tuple[int, bytes]:
        connection = _Connection(self.socket, self.timeout, self.pause)
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if content else {}
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(MAX_ANSWER)
        except http.client.HTTPException as error:
            raise Unreadable(
                f"{self.socket} does not speak HTTP ({error!r}): it is not dzagent's API"
            ) from error
        except OSError as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _unreachable(self, error: OSError) -> NoApi:
        return NoApi(f"the API does not answer: {_advice(self.socket, error)}")


def _within(confirm: int | None) -> Json:
    return {} if confirm is None else {"confirm": confirm}


def _advice(path: Path, error: OSError) -> str:
    """What is wrong with the socket, and what to do."""
    start = "start it with: systemctl start dzagent-api.socket (or: dzagent api)"
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist; {start}"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens on {path}; {start}"
    if isinstance(error, PermissionError):
        return (
            f"you may not use {path}; join its group: usermod -aG dzagent YOU, then log in again, or use sudo"
        )
    if isinstance(error, TimeoutError):
        return f"{path} took the request and said nothing; restart it: systemctl restart dzagent-api"
    return f"{path}: {error.strerror or error}; restart it: systemctl restart dzagent-api"
