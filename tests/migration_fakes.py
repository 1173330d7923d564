"""A host that doublezerod has set up, in memory: kernel, systemd, processes; each step can break off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from dzagent.config import Config, Doublezerod, Paths
from dzagent.desired import DesiredStore
from dzagent.errors import MigrationError
from dzagent.foreign.sight import Eyes
from dzagent.grammar import parse
from dzagent.kernel.run import Completed
from dzagent.migration.ending import Ending
from dzagent.migration.move import Mover
from dzagent.migration.scene import Scene, look
from dzagent.migration.units import MASK, Unit
from dzagent.model import Address, KernelObject, Link, Provide, Route, Rule
from dzagent.policy import Policy
from dzagent.render import Templates, render_service
from dzagent.share import find
from dzagent.wishes import Texts
from tests.fake_kernel import FakeKernel
from tests.service_fakes import CLIENT, DEVICE_IP, EDGE, SUBSCRIBER, USER, USER2, UserSpec, run

ANY = IPv4Network("0.0.0.0/0")
PREFIX = IPv4Network("148.51.0.0/24")
DZ_IP = IPv4Address("148.51.0.9")
PEER, PEER1 = IPv4Address("169.254.0.4"), IPv4Address("169.254.0.6")
GROUP_IP = IPv4Network("233.84.178.1/32")
LINK = Link("doublezero0", CLIENT, IPv4Address(DEVICE_IP), 64, 1476, "")
LINK1 = Link("doublezero1", CLIENT, IPv4Address("192.0.2.2"), 64, 1476, "")
ADDRESSES = (
    Address("doublezero0", IPv4Interface("169.254.0.5/31"), "link"),
    Address("doublezero0", IPv4Interface((DZ_IP, 32)), "global"),
    Address("doublezero1", IPv4Interface("169.254.0.7/31"), "link"),
)
DEFAULT = Route(ANY, PEER, "doublezero0", 101, 3, DZ_IP)
GROUP = Route(GROUP_IP, PEER1, "doublezero1", 254, 4)
LEARNED = tuple(
    Route(IPv4Network(f"198.18.0.{n}/32"), PEER, "doublezero0", 100, 186, DZ_IP) for n in range(1, 4)
)
RULES = (Rule(100, ANY, PREFIX, 100, 2), Rule(101, PREFIX, ANY, 101, 2))
USERS: dict[str, UserSpec] = {USER: EDGE, USER2: replace(SUBSCRIBER, net="169.254.0.6/31")}
BREAK = RuntimeError("killed here")


class FakeIp:
    """Understands the batches of a swap, on a kernel in memory, with the messages of the real one."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.fails: dict[str, str] = {}
        self.breaks_after: int | None = None

    def __call__(self, program: str, args: Sequence[str], stdin: str = "") -> Completed:
        assert (program, list(args)) == ("ip", ["-force", "-batch", "-"])
        errors = []
        for number, line in enumerate(stdin.splitlines(), 1):
            if self.breaks_after is not None and len(self.lines) >= self.breaks_after:
                raise BREAK
            self.lines.append(line)
            message = self.fails.get(line) or self._do(line)
            errors += [f"{message}\nCommand failed -:{number}"] if message else []
        return Completed(1 if errors else 0, b"", "\n".join(errors).encode())

    def _do(self, line: str) -> str:
        alias = re.fullmatch(r'link set dev (\S+) alias ("")?(\S*)', line)
        if alias is not None:
            return self._mark(alias[1], alias[3])
        kind, verb, rest = line.split(" ", 2)
        obj = parse(f"{kind} add {rest}\n", "x.ip", "unicast")[0].obj
        held: list[KernelObject] = list(self.kernel.rules if kind == "rule" else self.kernel.routes)
        if verb == "del":
            if obj not in held:
                return "RTNETLINK answers: No such process"
            held.remove(obj)
        elif obj in held:
            return "RTNETLINK answers: File exists"
        else:
            held.append(obj)
        self.kernel.rules = [o for o in held if isinstance(o, Rule)] if kind == "rule" else self.kernel.rules
        self.kernel.routes = (
            [o for o in held if isinstance(o, Route)] if kind == "route" else self.kernel.routes
        )
        return ""

    def _mark(self, name: str, alias: str) -> str:
        seen = self.kernel.links.get(name)
        if seen is None or seen.tunnel is None:
            return f'Cannot find device "{name}"'
        self.kernel.links[name] = replace(seen, alias=alias, tunnel=replace(seen.tunnel, alias=alias))
        return ""


@dataclass
class FakeUnits:
    """Implements `Units`; `done` records what was asked for."""

    host: Host
    unit: Unit | None
    done: list[str] = field(default_factory=list)
    refuses: str = ""

    def show(self, name: str) -> Unit | None:
        del name
        return self.unit

    def hold(self, name: str) -> str:
        self._note(f"hold {name}")
        if self.unit is not None:
            self.unit = replace(self.unit, load="masked")
        return MASK

    def release(self, name: str, how: str) -> None:
        self._note(f"release {name} {how}")
        if self.unit is not None:
            self.unit = replace(self.unit, load="loaded")

    def kill(self, name: str) -> None:
        self._note(f"kill {name}")
        self.host.end_all()

    def start(self, name: str) -> None:
        self._note(f"start {name}")
        self.host.process(78)

    def _note(self, what: str) -> None:
        if self.refuses and what.startswith(self.refuses):
            raise MigrationError(f"{what}: refused")
        self.done.append(what)


@cache
def rendered(users: tuple[tuple[str, UserSpec], ...], policy: Policy) -> Texts:
    """Return the texts of what a ledger with these users grants."""
    decisions = run(dict(users))
    templates = Templates((find("templates"),))
    granted = [d.service for d in (decisions.unicast, decisions.multicast) if isinstance(d, Provide)]
    return {item.name: render_service(item, policy, templates) for item in granted}


class Host:
    """Everything together: EdgeFiltering with two rules and three learned routes, and a multicast subscriber."""

    USERS = USERS

    def __init__(self, root: Path, users: dict[str, UserSpec] = USERS) -> None:
        self.root = root
        self.proc = root / "proc"
        (self.proc / "net").mkdir(parents=True)
        (self.proc / "self" / "ns").mkdir(parents=True)
        (self.proc / "self" / "uid_map").write_text("0 0 1\n")
        (root / "old").mkdir()
        self.config = Config(
            client_ip=CLIENT,
            paths=Paths(root / "state", root / "run"),
            doublezerod=Doublezerod(root / "old", root / "doublezerod.sock"),
            network="testnet",
            program_id="DZtnuQ839pSaDMFG5q1ad2V95G82S5EC4RrB3Ndw2Heb",
        )
        self.config.paths.agent.mkdir(parents=True)
        self.policy = Policy()
        self.kernel = FakeKernel()
        for link in (LINK, LINK1):
            self.kernel.add_link(link)
        self.kernel.addresses += ADDRESSES
        self.kernel.routes += [DEFAULT, GROUP, *LEARNED]
        self.kernel.rules += RULES
        self.ip = FakeIp(self.kernel)
        self.units = FakeUnits(self, Unit("doublezerod.service", "loaded", active=True, enabled="enabled"))
        self.said: list[str] = []
        self.killed: list[int] = []
        self.now = 0.0
        self.process(77)
        self.render(users)

    def process(self, pid: int, *words: str) -> None:
        """Let doublezerod run."""
        directory = self.proc / str(pid)
        directory.mkdir()
        (directory / "comm").write_text("doublezerod\n")
        (directory / "status").write_text("State:\tS (x)\nCapEff:\t0000000000001000\n")
        (directory / "uid_map").write_text("0 0 1\n")
        (directory / "cmdline").write_text(
            "\0".join(["/usr/bin/doublezerod", *(words or ("-env", "testnet")), ""])
        )

    def end_all(self) -> None:
        """Let it end without a word."""
        for comm in self.proc.glob("*/comm"):
            comm.unlink()

    def render(self, users: dict[str, UserSpec]) -> None:
        """Render what the ledger grants, as a pass of dzagentd does."""
        DesiredStore(self.config.paths).write(rendered(tuple(users.items()), self.policy))

    @property
    def eyes(self) -> Eyes:
        return Eyes(self.config.doublezerod, proc=self.proc, cgroups=self.root / "cgroups")

    def look(self) -> Scene:
        return look(self.config, self.policy, self.kernel, self.units, self.eyes)

    def _kill(self, _eyes: Eyes, pid: int) -> None:
        self.killed.append(pid)
        self.end_all()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def mover(self, kill: Callable[[Eyes, int], None] | None = None) -> Mover:
        ending = Ending(self.eyes, self.units, kill or self._kill, self.sleep, lambda: self.now)
        return Mover(
            self.config, self.policy, self.kernel, self.ip, self.units, ending, self.said.append,
            now=lambda: 7.0, boot=lambda: "boot 1", sleep=self.sleep,
        )  # fmt: skip

    def migrate(self) -> tuple[str, ...]:
        return self.mover().migrate(self.look(), enabled=True)

    @property
    def phase(self) -> str:
        path = self.config.paths.migration
        return str(json.loads(path.read_text())["phase"]) if path.exists() else ""

    def state(self) -> tuple[object, ...]:
        """Return everything that the kernel holds, whatever its order."""
        kernel = self.kernel
        return (dict(kernel.links), set(kernel.addresses), set(kernel.routes), set(kernel.rules))
