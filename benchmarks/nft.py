"""What the nftables table costs in a network namespace, by the number of prefixes in its set.

load: a whole table in one transaction. one: one element more, and less, in a transaction of its own. read: `nft -j list`
and what is made of it, at first and where nothing but counters moved. plan: an equal table. Medians of a few runs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dzagent.errors import KernelError
from dzagent.kernel.nft import Nft
from dzagent.kernel.run import run
from dzagent.model import Action, Desired, Observed, Origin, Result, Step, Wanted
from dzagent.nftgrammar import format_table, parse
from dzagent.nftmodel import MARKED, NftInterval, NftSeen, NftTable, combine
from dzagent.plan import make_plan
from dzagent.policy import Policy
from dzagent.render import Templates, parse_texts, render_service
from dzagent.share import find
from e2e.lab.errors import LabError
from e2e.lab.walls import LINKS, OWNER, UNICAST, walls

T = TypeVar("T")

RUNS = 7
SIZES = (100, 1_000, 4_096, 20_000)


def main() -> None:
    try:
        print(f"{run('nft', ['--version']).stdout.decode().strip()}; milliseconds")
        titles = ("prefixes", "parse", "load", "add one", "del one", "read", "same", "plan")
        print(" ".join(f"{title:>8}" for title in titles))
        with walls("bench") as host:
            for size in SIZES:
                print(f"{size:>8} " + " ".join(f"{value:>8.1f}" for value in _row(host.nft, size)))
    except (KernelError, LabError) as error:
        print(f"nft: NOT MEASURED: {error}")


def _elements(count: int) -> tuple[NftInterval, ...]:
    """Return /24 networks with a gap after each."""
    first = 11 << 24
    return tuple((first + n * 512, first + n * 512 + 255) for n in range(count))


def _row(nft: Nft, size: int) -> tuple[float, ...]:
    table = _table(_elements(size))
    more = _table(_elements(size + 1))
    text = "".join(f"{line}\n" for line in format_table(table))
    parsing = _median(lambda: parse(text, "x"))
    loads, adds, deletes, reads, sames, plans = [], [], [], [], [], []
    for _ in range(RUNS):
        loads.append(_apply(nft, Step(Action.ADD, None, table, "bench")))
        seen, took = _timed(nft.observe)
        reads.append(took)
        sames.append(_timed(nft.observe)[1])
        desired = Desired((Wanted(_part(table), Origin("unicast", "unicast/nftables.nft", 1)),))
        plans.append(_timed(partial(make_plan, desired, Observed(nft=seen), OWNER))[1])
        adds.append(_apply(nft, _change(seen, more)))
        deletes.append(_apply(nft, _change(nft.observe(), table)))
        _apply(nft, Step(Action.DELETE, OWNER.table(table, marked=True, handle=None), None, "bench"))
    return (parsing, *(statistics.median(times) for times in (loads, adds, deletes, reads, sames, plans)))


def _table(elements: tuple[NftInterval, ...]) -> NftTable:
    text = render_service(UNICAST, Policy(), Templates((find("templates"),)), links=tuple(LINKS.values()))
    part = next(o for o in parse_texts({"unicast": text}, OWNER).objects if isinstance(o, NftTable))
    return combine((MARKED, replace(part, sets=(replace(part.sets[0], elements=elements),))))


def _part(table: NftTable) -> NftTable:
    return replace(table, chains=table.chains[1:], counters=table.counters[1:])


def _change(seen: NftSeen, after: NftTable) -> Step:
    return Step(Action.CHANGE, OWNER.table(seen.table, marked=True, handle=None), after, "bench")


def _apply(nft: Nft, step: Step) -> float:
    nft.observe()
    outcome, took = _timed(lambda: nft.apply(step))
    if outcome.result is not Result.DONE:
        sys.exit(f"nft refused: {outcome.message}")
    return took


def _timed(what: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = what()
    return result, (time.perf_counter() - start) * 1000


def _median(what: Callable[[], object]) -> float:
    return statistics.median(_timed(what)[1] for _ in range(RUNS))


if __name__ == "__main__":
    main()
