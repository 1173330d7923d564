"""The lab's host as a person has it: a booted distribution with the package, behind the lab's router."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dzagent.model import UserType
from e2e.lab.errors import LabError
from e2e.lab.ledger import Ledger
from e2e.lab.netns import Namespace
from e2e.lab.processes import ask
from e2e.lab.topology import CLIENT_IP, LEDGER_IP, LEDGER_PORT, Network, host_commands, host_link
from e2e.lab.view import View, learned, view
from e2e.lab.wait import SLOW, wait_for
from e2e.lab.world import SESSION_UP, Granted, granted
from e2e.package.box import Box
from e2e.package.trees import Tree, run

NAME = "box"
"""The host's namespace, as `ip netns` and the lab know it."""
LINK = "box0"
CONFIG = f"""network: localnet
rpc: http://{LEDGER_IP}:{LEDGER_PORT}
client_ip: {CLIENT_IP}
intervals:
  poll: {1 if SLOW == 1 else 3}
  rpc_timeout: {2 * SLOW:.0f}
"""
UNIT = f"""[Unit]
Description=The network of the lab
DefaultDependencies=no
Before=network.target network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'until ip link show {LINK} >/dev/null 2>&1; do sleep 0.2; done'
ExecStart=/usr/sbin/ip -batch /etc/lab-network
ExecStart=/bin/sh -c 'for f in all default; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done'
[Install]
WantedBy=multi-user.target network-online.target
"""
"""Distributions filter by reverse path: the answers of another user come in by a tunnel."""


class Host:
    """A booted host in the lab, and the ledger that it asks."""

    def __init__(self, network: Network, tree: Tree, root: Path) -> None:
        self.network, self._root = network, root
        self.space = network.host
        self.ledger = Ledger(network, root / "ledger")
        self.box = Box(tree, root / "box.log", self._connect)
        tree.put("/etc/systemd/system/lab-network.service", UNIT)
        tree.put("/etc/lab-network", "".join(f"{line}\n" for line in host_commands(LINK)))
        tree.must("systemctl", "enable", "lab-network.service")

    def _connect(self, init: int) -> None:
        host_link(self.network, LINK)
        here = Namespace()
        here.ip(f"link set {LINK} netns {init}")
        here.ip(f"netns attach {NAME} {init}")

    def start(self) -> None:
        """Boot it. Raises LabError."""
        self.box.start()

    def stop(self) -> None:
        """Shut it down; its network goes with it, as that of a machine does."""
        self.box.stop()
        run("ip", "netns", "delete", NAME)
        self.network.router.run("ip", "link", "delete", "to-host")

    def reboot(self) -> None:
        """Shut it down and boot it: nothing but its disk is left of it in between. Raises LabError."""
        self.stop()
        self.start()

    def put(self, text: str = CONFIG) -> None:
        """Write the configuration as an operator does: into the file that is there, which keeps its mode."""
        self.box.tree.path("/etc/dzagent/config.yaml").write_text(text)

    # ---- what it says and holds ----------------------------------------------------------------------------

    def view(self) -> View:
        """What the host's kernel holds of the agent now."""
        return view(self.space)

    def status(self) -> dict[str, Any]:
        """Return /v3/status, {} while the API does not answer."""
        api = Path(f"/proc/{self.box.init}/root/run/dzagent/dzagent.sock")
        try:
            code, document = ask(api, "GET", "/v3/status")
        except (OSError, http.client.HTTPException):
            return {}
        return document if code == http.client.OK and isinstance(document, dict) else {}

    def says(self, what: str, look: Callable[[dict[str, Any]], bool], limit: float = 30.0) -> dict[str, Any]:
        """Wait until the status document is as wanted, and return it. Raises LabError."""

        def seen() -> dict[str, Any]:
            status = self.status()
            return status if status and look(status) else {}

        try:
            return wait_for(what, seen, limit)
        except LabError as error:
            raise LabError(f"{error}\n{self.report()}") from None

    def becomes(self, wanted: View, limit: float = 30.0) -> None:
        """Wait until the host holds exactly this; the error shows the difference. Raises LabError."""
        try:
            wait_for("the host holds what it must", lambda: self.view() == wanted, limit)
        except LabError as error:
            raise LabError(f"{error}\nwanted: {wanted}\n  seen: {self.view()}\n{self.report()}") from None

    def connected(self, user: Granted, kind: UserType = UserType.IBRL, limit: float = 60.0) -> None:
        """Wait until tunnel, session and routes of a user are there. Raises LabError."""
        self.becomes(user.view, limit)

        def is_up(status: dict[str, Any]) -> bool:
            sessions = [s["session"]["status"] for s in status["services"] if s["user_type"] == kind.label]
            return sessions == [SESSION_UP] and bool(learned(self.space))

        self.says("the session is up", is_up, limit)

    def grant(self, kind: UserType = UserType.IBRL) -> Granted:
        """Add a user to the ledger."""
        self.ledger.add_user(kind, "dev1")
        return granted(self.ledger, kind)

    def report(self) -> str:
        """What the host says: for the message of a failed test."""
        journal = self.box.journal("--unit=dzagent*", "--lines=40")
        return f"status: {self.status()}\n{journal}"
