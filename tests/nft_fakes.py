"""A kernel in memory that has nftables as well: one table, of whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from dzagent.model import Action, Interest, Observed, Outcome, Result, Step
from dzagent.nftmodel import NftSeen, NftTable
from tests.fake_kernel import FakeKernel


@dataclass
class TableKernel(FakeKernel):
    """A `FakeKernel` with a table. `broken` is what nft says instead, `refuses` how every transaction ends."""

    table: NftTable | None = None
    handle: int = 1
    broken: NftSeen | None = None
    refuses: Result | None = None
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    loaded: list[Step] = field(default_factory=list)

    def observe(self, interest: Interest) -> Observed:
        seen = (
            NftSeen("absent")
            if self.table is None
            else NftSeen("there", self.table, self.handle, counts=self.counts)
        )
        return replace(super().observe(interest), nft=self.broken or seen)

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        outcomes: list[Outcome] = []
        for step in steps:
            outcomes += [self._load(step)] if isinstance(step.target, NftTable) else super().apply([step])
        return tuple(outcomes)

    def _load(self, step: Step) -> Outcome:
        self.applied.append(step)
        self.loaded.append(step)
        if self.refuses is not None:
            return Outcome(step, self.refuses, "Could not process rule: Operation not supported")
        if step.action is Action.ADD:
            assert self.table is None
            self.handle += 1
        after = step.after
        self.table = after if isinstance(after, NftTable) else None
        return Outcome(step, Result.DONE)


def with_table(kernel: FakeKernel) -> TableKernel:
    """Return the same kernel, with nftables."""
    return TableKernel(**{item.name: getattr(kernel, item.name) for item in fields(FakeKernel)})
