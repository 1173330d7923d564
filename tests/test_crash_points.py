"""Killed at any boundary of journal and exec, started again: converges, leaks nothing, touches nothing foreign.

The boundaries are found by counting them in a run that nobody kills.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.fake_kernel import Killed
from tests.service_fakes import CLIENT, EDGE, SUBSCRIBER, USER, USER2
from tests.test_fault_matrix import FOREIGN, foreign, mine
from tests.test_reconcile import World

BOTH = {USER: EDGE, USER2: SUBSCRIBER}


class Mortal(World):
    """A host whose agent dies at the `dies_at`-th boundary from now; None lets it live. `passed` names them."""

    def __init__(self, tmp_path: Path) -> None:
        self.passed: list[str] = []
        self.dies_at: int | None = None
        super().__init__(tmp_path)
        self.kernel.rules.clear()
        self.kernel.moment = self.boundary
        for command in FOREIGN:
            self.kernel.ip(command)

    def boundary(self, what: str) -> None:
        self.passed.append(what)
        if self.dies_at is not None and len(self.passed) >= self.dies_at:
            raise Killed

    def restart(self) -> None:
        super().restart()
        journal = self.loop._parts.journal
        write = journal._write

        def watched() -> None:
            self.boundary("journal")
            write()
            self.boundary("journaled")

        vars(journal)["_write"] = watched

    def live(self, dies_at: int | None = None) -> bool:
        """Run one pass; returns whether the agent outlived it."""
        self.passed, self.dies_at = [], dies_at
        try:
            self.run()
        except Killed:
            return False
        finally:
            self.dies_at = None
        return True


def bring_up(world: Mortal) -> None:
    world.say(enabled=True)
    world.ledger(BOTH)


def take_down(world: Mortal) -> None:
    world.grant(BOTH)
    world.say(enabled=False)


def move(world: Mortal) -> None:
    world.grant(BOTH)
    world.kernel.sources[IPv4Address("192.0.2.8")] = CLIENT
    world.ledger({USER: replace(EDGE, endpoint="192.0.2.8"), USER2: SUBSCRIBER})


def rebuild(world: Mortal) -> None:
    """One link is gone, the other is down, an address is too many, rules are missing."""
    world.grant(BOTH)
    kernel = world.kernel
    kernel.ip("link set dev doublezero0 down")
    kernel.delete_link("doublezero1")
    kernel.ip("addr add 10.9.0.1/24 dev doublezero0 scope global")
    kernel.rules = [rule for rule in kernel.rules if rule.protocol != 210]


def unmark(world: Mortal) -> None:
    world.grant(BOTH)
    world.kernel.ip("link set dev doublezero0 alias x")


def withdraw(world: Mortal) -> None:
    world.grant(BOTH)
    world.ledger({USER2: SUBSCRIBER})


SCENES: Mapping[str, Callable[[Mortal], None]] = {
    scene.__name__: scene for scene in (bring_up, take_down, move, rebuild, withdraw, unmark)
}
TORN = [name for name in SCENES if name != "unmark"]
"""Without alias and journal nothing says any more that a link is ours: then it is left alone."""


def settled(world: Mortal) -> tuple[object, ...]:
    return mine(world.kernel), foreign(world.kernel)


def in_shape(world: Mortal) -> bool:
    return world.condition("InSync")[0] == "True"


@pytest.mark.parametrize(
    ("scene", "torn"), [*((name, False) for name in SCENES), *((name, True) for name in TORN)]
)
def test_killed_at_any_boundary_it_converges_after_a_restart(tmp_path: Path, scene: str, torn: bool) -> None:
    calm = Mortal(tmp_path / "calm")
    SCENES[scene](calm)
    assert calm.live()
    boundaries = len(calm.passed)
    assert {"journal", "journaled", "look", "start", "line", "end"} == set(calm.passed)
    calm.run(2)
    for at in range(1, boundaries + 1, 5 if torn else 1):
        world = Mortal(tmp_path / str(at))
        SCENES[scene](world)
        assert not world.live(at), f"was not killed at boundary {at} of {boundaries}"
        journal = world.config.paths.journal
        if torn and journal.exists():
            data = journal.read_bytes()
            journal.write_bytes(data[: len(data) - 7])
        world.clock.now += 120
        world.restart()
        world.live(at)  # and perhaps once more
        world.restart()
        world.clock.now += 120
        assert world.run(3) < boundaries
        assert world.run() == 0, f"not at rest after a death at boundary {at}, {calm.passed[at - 1]}"
        assert settled(world) == settled(calm), f"after a death at boundary {at}, {calm.passed[at - 1]}"
        assert in_shape(world) == in_shape(calm)
        left = [
            path.name for path in world.config.paths.agent.iterdir() if path.name.startswith((".", "tmp"))
        ]
        assert left == []
