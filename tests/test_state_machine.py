"""A long life in random order: ledger, neighbours, restarts, wishes, clocks. What must always hold is checked always."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dzagent.feed import LedgerView
from dzagent.model import Route, Rule
from tests.kernel_fake.state import subnet
from tests.service_fakes import CLIENT, EDGE, IBRL, SUBSCRIBER, USER, USER2, UserSpec, snapshot
from tests.test_fault_matrix import FOREIGN, OURS, foreign
from tests.test_reconcile import World

ENDPOINTS = ("192.0.2.1", "192.0.2.8", "192.0.2.9")
LINKS = {USER: "doublezero0", USER2: "doublezero1"}
OURS_BY_NAME = tuple(LINKS.values())

names = st.sampled_from(OURS_BY_NAME)
numbers = st.integers(0, 99)


class Life(RuleBasedStateMachine):
    """One host. `granted`: what the last sound answer of the ledger gives. sound: nothing doubtful came after it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="dzagent-life-", dir=_fast()))
        self.world = World(self.root)
        self.kernel = self.world.kernel
        self.kernel.rules.clear()
        for endpoint in ENDPOINTS:
            self.kernel.sources[IPv4Address(endpoint)] = CLIENT
        for command in FOREIGN:
            self.kernel.ip(command)
        self.granted: dict[str, UserSpec] = {}
        self.sound = False
        self.enabled = False
        self.squatted: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.theirs = foreign(self.kernel)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    # ---- the ledger --------------------------------------------------------------------------------------

    @rule(
        unicast=st.sampled_from([None, IBRL, EDGE]),
        multicast=st.booleans(),
        endpoint=st.sampled_from(ENDPOINTS),
    )
    def answer(self, unicast: UserSpec | None, endpoint: str, multicast: bool) -> None:
        """Give, take away and move; users appear and disappear."""
        users: dict[str, UserSpec] = {}
        if unicast is not None:
            users[USER] = replace(unicast, endpoint=endpoint)
        if multicast:
            users[USER2] = SUBSCRIBER
        self.granted, self.sound = users, True
        self.world.ledger(users)

    @rule()
    def unreachable(self) -> None:
        """Nobody answers; the last answer still counts."""
        self.world.feed.seen = replace(self.world.feed.seen, error="no answer", error_code="Unreachable")

    @rule()
    def forgetful(self) -> None:
        """A new process that has not heard of the ledger yet."""
        self.sound = False
        self.world.feed.seen = LedgerView(error="no answer", error_code="Unreachable")

    @rule(status=st.sampled_from([77, 200]), complete=st.booleans())
    def doubtful(self, status: int, complete: bool) -> None:
        """An answer that proves nothing about the user, whether it is read or missing."""
        users = (
            {USER: replace(IBRL, status=status), USER2: replace(SUBSCRIBER, status=status)}
            if complete
            else {}
        )
        self.sound = False
        now = self.world.clock.now
        self.world.feed.seen = LedgerView(snapshot(users, complete=complete), frozenset({CLIENT}), now, now)

    # ---- the person --------------------------------------------------------------------------------------

    @rule(enabled=st.booleans())
    def wish(self, enabled: bool) -> None:
        self.enabled = enabled
        self.world.say(enabled=enabled)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(seconds=st.sampled_from([1.0, 61.0, 3600.0, 86400.0 * 3]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.now += seconds

    # ---- neighbours --------------------------------------------------------------------------------------

    def _lines(self) -> list[str]:
        """Return the commands that would delete each object of ours."""
        kernel, lines = self.kernel, list[str]()
        lines += [
            f"link delete dev {name}"
            for name in OURS_BY_NAME
            if name in kernel.links and name not in self.squatted
        ]
        lines += [
            f"addr del {a.interface} dev {a.dev}"
            for a in kernel.addresses
            if a.dev in OURS_BY_NAME and not a.extra
        ]
        lines += [
            f"route del {r.dst} dev {r.dev} table {r.table} proto {OURS}"
            for r in kernel.routes
            if r.protocol == OURS
        ]
        lines += [
            f"rule del priority {r.priority} from {r.src} to {r.dst} table {r.table} protocol {OURS}"
            for r in kernel.rules
            if r.protocol == OURS
        ]
        return lines

    @rule(number=numbers)
    def delete_ours(self, number: int) -> None:
        lines = self._lines()
        if lines:
            self.kernel.ip(lines[number % len(lines)])

    @rule(name=names, change=st.sampled_from(["down", "mtu 1300", "alias x", "mtu 1400"]))
    def alter_link(self, name: str, change: str) -> None:
        """A link that has lost its alias is still ours by the journal."""
        if name in self.kernel.links and name not in self.squatted:
            self.kernel.ip(f"link set dev {name} {change}")

    @rule(name=names, address=st.sampled_from(["10.9.0.1/24", "10.9.0.2/24", "169.254.0.4/31"]))
    def add_address(self, name: str, address: str) -> None:
        interfaces = {(a.dev, str(a.interface)) for a in self.kernel.addresses}
        used = {subnet(a) for a in self.kernel.addresses if a.dev == name}
        if (
            name in self.kernel.links
            and name not in self.squatted
            and (name, address) not in interfaces
            and not used & {_net(address)}
        ):
            self.kernel.ip(f"addr add {address} dev {name} scope global")

    @rule(
        priority=st.sampled_from([100, 101]),
        protocol=st.sampled_from([4, OURS]),
        table=st.sampled_from([100, 101, 7]),
    )
    def add_rule(self, priority: int, protocol: int, table: int) -> None:
        made = Rule(priority, _net("10.98.0.0/16"), _net("0.0.0.0/0"), table, protocol)
        if made not in self.kernel.rules:
            self.kernel.ip(
                f"rule add priority {priority} from {made.src} to {made.dst} table {table} protocol {protocol}"
            )
        self.theirs = foreign(self.kernel)

    @rule(table=st.sampled_from([100, 101]), verb=st.sampled_from(["add", "replace"]))
    def take_our_key(self, table: int, verb: str) -> None:
        """Somebody else's default route in our table, beside ours or in its place."""
        held = [r for r in self.kernel.routes if r.table == table and str(r.dst) == "0.0.0.0/0"]
        if verb == "replace" or not held:
            self.kernel.ip(f"route {verb} 0.0.0.0/0 via 198.51.100.1 dev eth0 table {table} proto 4")
        self.theirs = foreign(self.kernel)

    @rule(table=st.sampled_from([100, 101]))
    def leave_our_key(self, table: int) -> None:
        if any(_default(r, table) and r.protocol == 4 for r in self.kernel.routes):
            self.kernel.ip(f"route del 0.0.0.0/0 table {table} proto 4")
        self.theirs = foreign(self.kernel)

    @rule(name=names)
    def squat(self, name: str) -> None:
        """Somebody else's link of our name."""
        if name not in self.kernel.links:
            self.kernel.ip(f"link add name {name} type bridge")
            self.squatted.add(name)

    @precondition(lambda self: bool(self.squatted))
    @rule()
    def leave(self) -> None:
        self.kernel.delete_link(self.squatted.pop())

    # ---- the agent ---------------------------------------------------------------------------------------

    @rule()
    def one_pass(self) -> None:
        before = self.tunnels()
        self.world.run()
        if self.enabled:
            withdrawn = set(OURS_BY_NAME) - self.given() if self.sound else set[str]()
            assert before - self.tunnels() <= withdrawn, "torn down on doubt"

    @rule()
    def rest(self) -> None:
        """Left alone, the agent comes to rest within bounded passes, and then writes nothing."""
        for _ in range(6):
            self.world.clock.now += 1300
            self.world.run()
        written = len(self.kernel.written)
        self.world.clock.now += 1300
        self.world.run(2)
        assert len(self.kernel.written) == written, f"still at work: {self.kernel.written[written:]}"
        if not self.enabled:
            assert self.tunnels() == set()
            assert OURS not in {r.protocol for r in self.kernel.routes}
            assert OURS not in {r.protocol for r in self.kernel.rules}
        elif self.sound:
            assert self.tunnels() == self.given() - self.squatted

    def given(self) -> set[str]:
        return {LINKS[user] for user in self.granted}

    def tunnels(self) -> set[str]:
        return {n for n, seen in self.kernel.links.items() if n in OURS_BY_NAME and n not in self.squatted}

    # ---- what always holds -------------------------------------------------------------------------------

    @invariant()
    def nobody_else_s_objects_change(self) -> None:
        if hasattr(self, "theirs"):
            assert foreign(self.kernel) == self.theirs
        for name in self.squatted:
            assert self.kernel.links[name].kind == "bridge"
            assert not [a for a in self.kernel.addresses if a.dev == name]

    @invariant()
    def a_key_has_one_owner(self) -> None:
        keys = [(r.table, r.dst, r.metric) for r in self.kernel.routes]
        assert len(keys) == len(set(keys))
        slots = [(a.dev, a.interface) for a in self.kernel.addresses]
        assert len(slots) == len(set(slots))


def _default(route: Route, table: int) -> bool:
    return route.table == table and str(route.dst) == "0.0.0.0/0"


def _net(text: str) -> IPv4Network:
    return IPv4Interface(text).network


def _fast() -> str | None:
    """Where files need no disk, if there is such a place: a life writes many."""
    shared = "/dev/shm"  # noqa: S108 - mkdtemp makes a directory of its own in there
    return shared if Path(shared).is_dir() else None


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
