"""`make demo`: the life of a connection, narrated, on an embedded ledger and a real kernel.

Outside the lab this starts the lab around itself; inside it tells the story. KEEP=1 ends in a shell on the host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dzagent.model import UserType
from e2e.lab.enter import run_inside, say
from e2e.lab.errors import LabError
from e2e.lab.topology import CLIENT_IP, DEV1, DEV2, LEDGER_IP, PEER_DZ_IP, build_network
from e2e.lab.view import NOTHING
from e2e.lab.wait import SLOW
from e2e.lab.world import Granted, World

LIMIT = 900.0
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")

NEXT = """
What to try next
  KEEP=1 make demo        the same, then a shell on the host with everything running
  make test               unit and property tests: no root, no network
  make e2e                what you saw here and much more, as tests
  less README.md          and packaging/config.yaml, policies/default.yaml
"""

SHELL = """
PS1='[lab host \\W]\\$ '
agent() {{ dzagent --config {config} "$@"; }}
ledger() {{ dzagent ledger "$@" --state {state}; }}
cd {root}
cat <<'TEXT'

You are on the host {client}, with everything running. Devices: dev1, dev2; also: ledger, peer, router.
  agent enable; agent status           agent plan; agent diff
  ledger user add --client-ip {client} --type EdgeFiltering --device dev1
  ip link delete doublezero0           watch it come back: tail -f agent/dzagentd.log
  cat agent/state/desired/*/*.ip       ip netns exec dev1 ip -br addr
Leave with `exit`; nothing stays behind.
TEXT
"""


def step(title: str) -> None:
    """Begin a chapter."""
    print(f"\n{BOLD}== {title}{PLAIN}", flush=True)


def tell(text: str) -> None:
    """Say something about what is seen."""
    print(f"   {text}", flush=True)


def show(title: str, output: str) -> None:
    """Show a command and what it printed."""
    print(f"   {DIM}$ {title}{PLAIN}")
    for line in output.rstrip().splitlines():
        print(f"     {line}")
    sys.stdout.flush()


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long something took; a dot a second shows that it goes on."""
    began = time.monotonic()
    print(f"   ... {what} ", end="", flush=True)
    done = threading.Event()

    def dots() -> None:
        while not done.wait(1.0):
            print(".", end="", flush=True)

    thread = threading.Thread(target=dots, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(f" {time.monotonic() - began:.2f} s", flush=True)


class Story:
    """The chapters, in order."""

    def __init__(self, world: World) -> None:
        self._world = world

    def tell_all(self) -> None:
        """Tell everything. Raises LabError where the agent does not do what the story says."""
        for chapter in (self._grant, self._delete, self._move, self._edge, self._ban, self._disable):
            chapter()

    def _ip(self, command: str) -> None:
        show(f"ip {command}", self._world.host.ip(command))

    def _ping(self, address: str, *options: str) -> None:
        done = self._world.host.run("ping", "-n", "-c", "3", "-i", "0.2", *options, address)
        show(f"ping {' '.join((*options, address))}", "\n".join(done.stdout.splitlines()[-2:]))
        if done.returncode != 0:
            raise LabError(f"no answer from {address}")

    def _agent(self, *words: str) -> None:
        done = self._world.agent.cli(*words)
        show(f"dzagent {' '.join(words)}", done.stdout + done.stderr)

    def _index(self) -> int:
        return self._world.index("doublezero0")

    def _grant(self) -> None:
        world = self._world
        step("A user is activated on the ledger")
        tell(f"The host is {CLIENT_IP}, the devices are dev1 ({DEV1.public_ip}) and dev2 ({DEV2.public_ip}).")
        with timed("dzagent ledger user add --type IBRL --device dev1; the agent polls, renders, applies"):
            granted = world.grant(UserType.IBRL)
        step("What should be is rendered into files; the files are the desired state")
        for file in sorted((world.agent.desired / "unicast").glob("*.ip")):
            text = file.read_text()
            if any(line and not line.startswith("#") for line in text.splitlines()):
                show(f"cat desired/unicast/{file.name}", text)
        step("The kernel holds the same")
        self._ip("-d -br link show doublezero0")
        self._ip("-br -4 addr show dev doublezero0")
        self._ping(granted.far)
        self._agent("status")

    def _delete(self) -> None:
        step("Somebody deletes the tunnel at three in the morning")
        before = self._index()
        granted = self._world.granted(UserType.IBRL)
        self._ip("link delete doublezero0")
        with timed("until everything is back"):
            self._world.becomes(granted.view)
        tell(f"The interface is a new one (index {before}, now {self._index()}), the addresses are back.")
        self._ping(granted.far)

    def _move(self) -> None:
        step("The ledger gives the user another device")
        before = self._index()
        with timed("dzagent ledger user move --device dev2"):
            self._world.ledger.move(UserType.IBRL, "dev2")
            after = self._world.granted(UserType.IBRL)
            self._world.becomes(after.view)
        self._ip("-d link show doublezero0")
        tell(f"Changed in place: index {before} before, {self._index()} now.")
        self._ping(after.far)

    def _edge(self) -> None:
        step("Another kind of user: EdgeFiltering, with an address and policy rules of its own")
        with timed("the old user is deleted (absence must be proven twice), the new one is added"):
            self._world.ledger.delete(UserType.IBRL)
            self._world.becomes(NOTHING, 60)
            granted = self._world.grant(UserType.EDGE_FILTERING)
        self._show_edge(granted)

    def _show_edge(self, granted: Granted) -> None:
        self._ip("-br -4 addr show dev doublezero0")
        self._ip("rule show")
        self._ip("route show table 101")
        tell(f"Another user, {PEER_DZ_IP}, through the tunnel and the device:")
        self._ping(PEER_DZ_IP, "-I", granted.dz_ip)

    def _ban(self) -> None:
        step("The user is banned")
        with timed("dzagent ledger user ban"):
            self._world.ledger.ban(UserType.EDGE_FILTERING)
            self._world.becomes(NOTHING)
        self._agent("status")

    def _disable(self) -> None:
        step("And what a person says counts most")
        self._world.ledger.delete(UserType.EDGE_FILTERING)
        with timed("the user is back"):
            self._world.grant(UserType.IBRL)
        with timed("dzagent disable --wait"):
            done = self._world.agent.cli("disable", "--wait")
        show("dzagent disable --wait", done.stdout + done.stderr)
        if self._world.view() != NOTHING:
            raise LabError("disabled, but something is left")
        tell("Nothing of ours is left in the kernel; everything else on the host is as it was.")


def keep(world: World, root: Path) -> None:
    """Give the person a shell on the host; devices follow the ledger meanwhile."""
    if not sys.stdin.isatty():
        print("\nKEEP=1: there is no terminal to give you a shell on (standard input is not one).")
        return
    rc = root / "shell"
    text = SHELL.format(
        config=world.agent.config, state=world.ledger.state, root=root, client=CLIENT_IP, ledger=LEDGER_IP
    )
    rc.write_text(text)
    world.agent.enable()
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(world.ledger.follow, over.wait), daemon=True)
    follower.start()
    subprocess.run(["bash", "--noprofile", "--rcfile", str(rc), "-i"], check=False)
    over.set()
    follower.join(10)


def _follow(follow: Callable[[], object], over: Callable[[float], bool]) -> None:
    while not over(SLOW):
        try:
            follow()
        except LabError as error:
            print(f"a device cannot follow the ledger: {error}", file=sys.stderr)


def inside() -> int:
    """Tell the story in the lab; returns the exit status."""
    began = time.monotonic()
    print(f"{BOLD}dzagent: the life of a connection{PLAIN}")
    with tempfile.TemporaryDirectory(prefix="dzagent-demo-") as name:
        root = Path(name)
        network = build_network()
        with timed("starting ledger, devices, reconciler and API"):
            world = World.start(network, root)
        try:
            Story(world).tell_all()
            print(f"\nThat took {time.monotonic() - began:.0f} s.")
            if os.environ.get("KEEP"):
                keep(world, root)
            else:
                print(NEXT)
        finally:
            world.stop()
    return 0


def main() -> int:
    """Run in the lab, or start the lab around this."""
    if os.environ.get("LAB_INSIDE"):
        return inside()
    interactive = bool(os.environ.get("KEEP")) and sys.stdin.isatty()
    kind, accel = os.environ.get("LAB_KIND", "auto"), os.environ.get("LAB_ACCEL", "auto")
    limit = float("inf") if interactive else LIMIT
    say("the demo needs a kernel with GRE and root in it; nothing on this machine is changed")
    return run_inside(["python", "-m", "e2e.demo"], kind, accel, limit, interactive=interactive)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ndemo: ended by you; everything it made is gone", file=sys.stderr)
        sys.exit(130)
