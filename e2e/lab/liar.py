"""A JSON-RPC proxy that lies: it passes requests on and changes the answers as a file tells it to.

`python -m e2e.lab.liar --listen IP:PORT --upstream IP:PORT --lies FILE`. The file is JSON, read anew for each request:
{"mode": "" or "hang" or "error" or "garbage", "drop": [ADDRESS...], "patch": {ADDRESS: {"OFFSET": "hex"}}}.
A missing file is the truth.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click

HANG_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Lies:
    """What to change in answers."""

    mode: str = ""
    drop: frozenset[str] = frozenset()
    patch: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Lies:
        """Read the file; a missing one is the truth."""
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        return cls(found.get("mode", ""), frozenset(found.get("drop", ())), found.get("patch", {}))

    def write(self, path: Path) -> None:
        """Write the file, in one step."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"mode": self.mode, "drop": sorted(self.drop), "patch": dict(self.patch)}))
        new.rename(path)

    def account(self, address: str, account: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the account as it is told."""
        if account is None or address in self.drop:
            return None
        changes = self.patch.get(address)
        if not changes:
            return account
        text, *encoding = account["data"]
        data = bytearray(base64.b64decode(text))
        for offset, value in changes.items():
            new = bytes.fromhex(value)
            data[int(offset) : int(offset) + len(new)] = new
        return {**account, "data": [base64.b64encode(data).decode(), *encoding]}

    def answer(self, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer as it is told."""
        result = answer.get("result")
        method, params = request.get("method"), request.get("params", [])
        if result is None:
            return answer
        if method == "getMultipleAccounts":
            told = [self.account(key, item) for key, item in zip(params[0], result["value"], strict=True)]
            return {**answer, "result": {**result, "value": told}}
        if method == "getProgramAccounts":
            bare = isinstance(result, list)
            items = result if bare else result["value"]
            pairs = ((item, self.account(item["pubkey"], item["account"])) for item in items)
            told = [{**item, "account": account} for item, account in pairs if account is not None]
            return {**answer, "result": told if bare else {**result, "value": told}}
        return answer


def make_handler(upstream: str, lies: Path) -> type[BaseHTTPRequestHandler]:
    """Return a request handler for this upstream and file."""

    class Handler(BaseHTTPRequestHandler):
        """Passes one request on."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Answer, or not."""
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            told = Lies.read(lies)
            if told.mode == "hang":
                time.sleep(HANG_SECONDS)
            if told.mode == "error":
                self._send(http.client.SERVICE_UNAVAILABLE, b"")
            elif told.mode == "garbage":
                self._send(http.client.OK, b'{"jsonrpc":"2.0","result":')
            else:
                answer = told.answer(json.loads(body), self._ask(body))
                self._send(http.client.OK, json.dumps(answer).encode())

        def _ask(self, body: bytes) -> dict[str, Any]:
            connection = http.client.HTTPConnection(upstream, timeout=60)
            try:
                connection.request("POST", "/", body, {"Content-Type": "application/json"})
                answer: dict[str, Any] = json.loads(connection.getresponse().read())
            finally:
                connection.close()
            return answer

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the tests look at what the agent says."""

    return Handler


@click.command()
@click.option("--listen", required=True)
@click.option("--upstream", required=True)
@click.option("--lies", required=True, type=click.Path(path_type=Path))
def main(listen: str, upstream: str, lies: Path) -> None:
    """Serve until killed."""
    host, _, port = listen.rpartition(":")
    ThreadingHTTPServer((host, int(port)), make_handler(upstream, lies)).serve_forever()


if __name__ == "__main__":
    main()
