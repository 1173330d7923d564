"""The fault matrix for the nftables table: each change of it with each way to fail, and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from dzagent.model import Outcome, Result, Step
from dzagent.nftmodel import NftSeen, NftTable
from tests.nft_fakes import TableKernel
from tests.service_fakes import EDGE
from tests.test_fault_matrix import foreign, later, mine
from tests.test_reconcile import World


@dataclass
class Shaky(TableKernel):
    """A table whose next transactions go wrong in some way; `met` counts them, -1 `times` is always."""

    way: str = ""
    times: int = 0
    met: int = 0

    def _load(self, step: Step) -> Outcome:
        if self.times == 0:
            return super()._load(step)
        self.times -= 1
        self.met += 1
        if self.way == "fails":
            return Outcome(step, Result.TRANSIENT, "Could not process rule: Device or resource busy")
        if self.way == "killed":
            return Outcome(step, Result.TRANSIENT, "nft ended with exit code -9")
        super()._load(step)  # the work was done, and the answer says otherwise
        message = (
            "nft did not end" if self.way == "times out" else "Could not receive: No buffer space available"
        )
        return Outcome(step, Result.TRANSIENT, message)


def table(world: World) -> Shaky:
    assert isinstance(world.kernel, Shaky)
    return world.kernel


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.kernel = Shaky(**{item.name: getattr(made.kernel, item.name) for item in fields(made.kernel)})
    made.restart()
    made.grant(EDGE)
    assert table(made).table is not None
    return made


def lose(world: World) -> None:
    table(world).table = None


def edit(world: World) -> None:
    kernel = table(world)
    assert kernel.table is not None
    kernel.table = replace(kernel.table, chains=kernel.table.chains[1:])


def disable(world: World) -> None:
    world.say(enabled=False)


CASES: Mapping[str, Callable[[World], None]] = {"add": lose, "change": edit, "delete": disable}


@pytest.mark.parametrize("way", ["fails", "killed", "lies", "times out"])
@pytest.mark.parametrize("case", CASES)
def test_a_transaction_that_goes_wrong_once_heals(world: World, case: str, way: str) -> None:
    kernel, theirs = table(world), foreign(world.kernel)
    aim = None if case == "delete" else kernel.table
    kernel.way, kernel.times = way, 1
    CASES[case](world)
    assert later(world) == 0
    assert kernel.met == 1, "the fault was never met"
    assert (kernel.table, foreign(kernel)) == (aim, theirs)
    assert world.condition("InSync")[0] == "True"


@pytest.mark.parametrize("case", CASES)
def test_a_transaction_that_always_fails_is_paced_and_stops_nothing_else(world: World, case: str) -> None:
    kernel, before = table(world), mine(world.kernel)
    aim = None if case == "delete" else kernel.table
    kernel.way, kernel.times = "fails", -1
    CASES[case](world)
    world.run()
    met = kernel.met
    assert met > 0, "the fault was never met"
    world.run(5)
    assert kernel.met == met, "no second try before its time"
    later(world, 2)
    assert kernel.met > met
    assert mine(kernel) == (({}, set(), set(), set()) if case == "delete" else before)
    kernel.times = 0
    assert later(world) == 0
    assert kernel.table == aim


@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_cannot_be_read_changes_nothing_of_the_table(world: World, case: str) -> None:
    kernel = table(world)
    aim = None if case == "delete" else kernel.table
    CASES[case](world)
    there = kernel.table
    kernel.broken = NftSeen(reason="NftUnreadable", message="half an answer")
    later(world, 2)
    assert kernel.table == there
    kernel.broken = None
    later(world)
    assert kernel.table == aim


def test_a_foreign_table_of_our_name_that_appears_stays_as_it_is(world: World) -> None:
    kernel = table(world)
    theirs = NftTable(odd=("somebody else's",))
    kernel.table, kernel.handle = theirs, kernel.handle + 1
    later(world)
    assert kernel.table == theirs
    assert world.condition("Conflict")[0] == "True"
    world.say(enabled=False)
    later(world)
    assert kernel.table == theirs
