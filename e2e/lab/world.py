"""Everything together: the network, the ledger, the devices, and the agent on its host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dzagent.model import UserType
from e2e.lab.errors import LabError
from e2e.lab.expect import expected, overlay
from e2e.lab.ledger import Ledger
from e2e.lab.liar import Lies
from e2e.lab.netns import Namespace
from e2e.lab.processes import Agent
from e2e.lab.topology import MULTICAST_ENDPOINT, Network
from e2e.lab.view import NOTHING, View, ifindex, learned, view
from e2e.lab.wait import wait_for

SESSION_UP = "BGP Session Up"


@dataclass(frozen=True, slots=True)
class Granted:
    """A user of the host: its account, what the host must hold for it, and where its tunnel leads."""

    account: str
    view: View
    far: str
    dz_ip: str


def granted(ledger: Ledger, *kinds: UserType) -> Granted:
    """Return what the ledger grants now to the host's users of these types (the first one's far end)."""
    found = [ledger.user(kind) for kind in kinds]
    users = [user for _, user in found]
    wanted = expected(ledger.snapshot(), *users)
    return Granted(found[0][0], wanted, str(overlay(users[0])[0]), str(users[0].dz_ip))


@dataclass(frozen=True, slots=True)
class World:
    """The running system."""

    network: Network
    ledger: Ledger
    agent: Agent

    @classmethod
    def start(cls, network: Network, root: Path) -> World:
        """Start the ledger and the agent, with the agent enabled. Raises LabError."""
        world = cls(network, Ledger(network, root / "ledger"), Agent(root / "agent"))
        world.ledger.start()
        world.agent.start()
        world.agent.enable()
        return world

    def stop(self) -> None:
        """End the processes; what they set up stays."""
        self.agent.stop()
        self.ledger.stop()

    @property
    def host(self) -> Namespace:
        """Where the agent runs."""
        return self.network.host

    def view(self) -> View:
        """What the host's kernel holds of the agent now."""
        return view(self.host)

    def index(self, name: str) -> int:
        """Return the ifindex of a link of the host, 0 if it is not there."""
        return ifindex(self.host, name)

    def polls(self) -> int:
        """How often this reconciler has asked the ledger, with or without success."""
        polls = self.agent.status()["ledger"].get("polls", {})
        return sum(int(count) for count in polls.values())

    # ---- granting and waiting ----------------------------------------------------------------------------

    def add(self, kind: UserType, device: str = "dev1", *options: str) -> Granted:
        """Add a user to the ledger; nobody waits for the agent."""
        if kind is UserType.MULTICAST:
            options = ("--tunnel-endpoint", MULTICAST_ENDPOINT, *options)
        self.ledger.add_user(kind, device, *options)
        return self.granted(kind)

    def granted(self, *kinds: UserType) -> Granted:
        """Return what the ledger grants now to the host's users of these types (the first one's far end)."""
        return granted(self.ledger, *kinds)

    def grant(self, kind: UserType, device: str = "dev1", *options: str) -> Granted:
        """Add a user and wait until the host holds exactly what it must, and its session is up."""
        granted = self.add(kind, device, *options)
        self.becomes(granted.view)
        self.connected(kind)
        return granted

    def connected(self, kind: UserType, limit: float = 30.0) -> None:
        """Wait until the session of a service is up, and what it teaches is in the kernel."""

        def is_up(status: dict[str, Any]) -> bool:
            sessions = [s["session"]["status"] for s in status["services"] if s["user_type"] == kind.label]
            return sessions == [SESSION_UP] and (kind is UserType.MULTICAST or bool(learned(self.host)))

        self.says("the session is up", is_up, limit)

    def becomes(self, wanted: View, limit: float = 15.0) -> None:
        """Wait until the host holds exactly this; the error shows the difference."""
        try:
            wait_for("", lambda: self.view() == wanted, limit)
        except LabError as error:
            raise LabError(f"{error}\nwanted: {wanted}\n  seen: {self.view()}\n{self.report()}") from None

    def says(self, what: str, look: Callable[[dict[str, Any]], bool], limit: float = 15.0) -> dict[str, Any]:
        """Wait until the status document is as wanted, and return it."""
        try:
            wait_for(what, lambda: look(self.agent.status()), limit)
        except LabError as error:
            raise LabError(f"{error}\n{self.report()}") from None
        return self.agent.status()

    def reset(self) -> None:
        """Return to an enabled agent without a user, a truthful ledger, and a clean host."""
        self.ledger.lie(Lies())
        if not self.agent.daemon.running:
            self.agent.daemon.start()
        self.ledger.delete_all()
        self.agent.disable()
        self.becomes(NOTHING)
        self.agent.enable()
        self.says("no service is left", lambda s: condition(s, "Ready") == ("False", "NoService"), 30)
        self.becomes(NOTHING)

    def report(self) -> str:
        """What the agent says: for the message of a failed test."""
        logs = "\n".join(self.agent.daemon.said.splitlines()[-30:])
        logs += "\nengine: " + "\n".join(self.agent.engine.said.splitlines()[-10:])
        try:
            status: object = self.agent.status()
        except (OSError, LabError) as error:
            status = error
        return f"status: {status}\ndzagentd: {logs}"


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    """Return (status, reason) of a condition, ("", "") if it is not there."""
    found = next((item for item in status["conditions"] if item["type"] == kind), None)
    return (found["status"], found["reason"]) if found else ("", "")


def problem_codes(status: dict[str, Any]) -> set[str]:
    """Return the codes of everything that status complains about, whole answer and services."""
    errors = [item["last_error"] for item in status["services"] if item["last_error"]]
    return {item["code"] for item in (*status["problems"], *errors)}
