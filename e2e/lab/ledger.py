"""The ledger of the lab: the embedded development ledger in its own namespace, and what is done to it.

Every change goes through the same verbs that a person types (`dzagent ledger user add ...`), in this process so that
emulation does not start Python anew each time. Every change is followed on the devices. The agent asks through a
proxy that tells the truth until a test makes it lie.
"""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import click

from dzagent.cli.main import main as dzagent
from dzagent.config import PROGRAM_IDS
from dzagent.ledger.accounts import User
from dzagent.ledger.rpc import Rpc
from dzagent.ledger.snapshot import Snapshot, build_snapshot
from dzagent.model import UserType
from e2e.lab.devices import Controller, Devices
from e2e.lab.errors import LabError
from e2e.lab.liar import Lies
from e2e.lab.processes import BIN, Process
from e2e.lab.routers import BirdRouter, FrrRouter, Neighbour, PeerUser, Timers
from e2e.lab.topology import (
    CLIENT_IP,
    DEVICES,
    LEDGER_IP,
    LEDGER_PORT,
    PEER_DZ_IP,
    PEER_NET,
    TRUE_LEDGER_PORT,
    Network,
)
from e2e.lab.wait import SLOW, wait_for

PROGRAM_ID = PROGRAM_IDS["localnet"]
GROUPS = {"blocks": "233.84.178.1", "shreds": "233.84.178.2"}


class Ledger:
    """The ledger, and the devices that follow it."""

    def __init__(self, network: Network, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.state, self._lies = root / "ledger.json", root / "lies.json"
        truth, told = f"{LEDGER_IP}:{TRUE_LEDGER_PORT}", f"{LEDGER_IP}:{LEDGER_PORT}"
        serve = [str(BIN / "dzagent"), "ledger", "serve", "--listen", truth, "--state", str(self.state)]
        serve += ["--websocket", f"{LEDGER_IP}:{LEDGER_PORT + 1}"]  # where the agent looks for it
        liar = [sys.executable, "-m", "e2e.lab.liar", "--listen", told, "--upstream", truth]
        self._server = Process("ledger", network.ledger, serve, root / "ledger.log")
        self._proxy = Process("proxy", network.ledger, [*liar, "--lies", str(self._lies)], root / "proxy.log")
        self._rpc = Rpc([f"http://{truth}"], timeout=5 * SLOW)
        timers = Timers() if SLOW == 1 else Timers(9, 3)
        makes = {"dev1": FrrRouter, "dev2": BirdRouter}
        device, user = PEER_NET
        self._devices = Controller(
            Devices(
                network.devices,
                {site.name: frozenset(site.addresses) for site in DEVICES},
                {n: makes[n](space, root / n, timers=timers) for n, space in network.devices.items()},
                {"dev1": (Neighbour("peer", "peer0", device, user, PEER_DZ_IP),)},
            )
        )
        self.peer = PeerUser(network.peer, root / "peer")
        self.peer.address, self.peer.overlay = PEER_DZ_IP, PEER_NET

    def start(self) -> None:
        """Create the ledger with its devices and groups, and serve it. Raises LabError."""
        self.verb("init")
        for site in DEVICES:
            self.verb("device", "add", site.name, "--public-ip", site.public_ip, "--dz-prefix", site.prefix)
        for code, address in GROUPS.items():
            self.verb("group", "add", code, "--multicast-ip", address)
        self._devices.start()
        self.peer.start([])
        self._server.start()
        self.start_proxy()
        wait_for("the ledger answers", lambda: self._answers(self._server, TRUE_LEDGER_PORT), 30)

    def start_proxy(self) -> None:
        """Start what the agent asks."""
        self._proxy.start()
        wait_for("the proxy answers", lambda: self._answers(self._proxy, LEDGER_PORT), 30)

    def stop_proxy(self) -> None:
        """From now on nobody answers the agent."""
        self._proxy.stop()

    def stop(self) -> None:
        """End the processes."""
        self._rpc.close()
        self._proxy.stop()
        self._server.stop()
        self._devices.stop()
        self.peer.stop()

    @staticmethod
    def _answers(process: Process, port: int) -> bool:
        process.check()
        try:
            socket.create_connection((LEDGER_IP, port), timeout=SLOW).close()
        except OSError:
            return False
        return True

    def lie(self, lies: Lies) -> None:
        """Tell the agent something else from now on; `Lies()` is the truth."""
        lies.write(self._lies)

    # ---- what a person does to the ledger ---------------------------------------------------------------

    def verb(self, *words: str) -> None:
        """Run `dzagent ledger WORDS --state FILE`. Raises LabError."""
        command = ["ledger", *words, "--state", str(self.state)]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                dzagent.main(command, "dzagent", standalone_mode=False)
        except (click.ClickException, SystemExit) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            raise LabError(f"dzagent ledger {' '.join(words)}: {message}") from error

    def add_user(self, kind: UserType, device: str = "dev1", *options: str) -> str:
        """Add an activated user for the host's client IP; returns its account."""
        words = ("user", "add", "--client-ip", CLIENT_IP, "--type", kind.label, "--device", device)
        self.verb(*words, *options)
        return self.user(kind)[0]

    def ban(self, kind: UserType) -> None:
        """Ban the host's user of this type."""
        self.verb("user", "ban", self.user(kind)[0])
        self.follow()

    def delete(self, kind: UserType) -> None:
        """Close the account of the host's user of this type."""
        self.verb("user", "delete", self.user(kind)[0])
        self.follow()

    def move(self, kind: UserType, device: str) -> None:
        """Give the host's user of this type another device."""
        self.verb("user", "move", self.user(kind)[0], "--device", device)
        self.follow()

    def groups(self, kind: UserType, publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> None:
        """Set which groups the user publishes and subscribes."""
        options = [*(f"--publish={code}" for code in publish), *(f"--subscribe={code}" for code in subscribe)]
        self.verb("user", "groups", self.user(kind)[0], *options)
        self.follow()

    def delete_all(self) -> None:
        """Close the accounts of all users of the host."""
        for account, user in self.snapshot().users.items():
            if user.client_ip == IPv4Address(CLIENT_IP):
                self.verb("user", "delete", account)
        self.follow()

    # ---- what it says --------------------------------------------------------------------------------------

    def follow(self) -> Snapshot:
        """Let the devices do what the ledger says now; returns what it says."""
        snapshot = self.snapshot()
        self._devices.sync(snapshot)
        return snapshot

    def snapshot(self) -> Snapshot:
        """Ask the ledger itself for everything."""
        answer: Any = self._rpc.call("getProgramAccounts", [PROGRAM_ID, {"encoding": "base64"}])
        return build_snapshot(
            (item["pubkey"], base64.b64decode(item["account"]["data"][0])) for item in answer
        )

    def user(self, kind: UserType) -> tuple[str, User]:
        """Return (account, user) of the host's user of this type. Raises LabError if there is none."""
        for account, user in self.follow().users.items():
            if user.user_type == kind and user.client_ip == IPv4Address(CLIENT_IP):
                return account, user
        raise LabError(f"the ledger has no {kind.label} user for {CLIENT_IP}")
