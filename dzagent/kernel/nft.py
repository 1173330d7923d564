"""The table `inet dzagent` of this network namespace, read and written through `nft`.

nft is a guest on the host: where it is missing, old, without JSON or hangs, that is told in the answer and nothing
is written; it never stops a pass. After it did not end in time it is left alone for a while.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from dzagent.errors import GrammarError, KernelError, ObservationError
from dzagent.kernel.failures import advised, classify
from dzagent.kernel.nftdecode import Known, counts
from dzagent.kernel.nftscript import script, whole
from dzagent.kernel.run import Completed, Runner, run
from dzagent.model import Action, Outcome, Result, Step
from dzagent.nftmodel import FAMILY, MARK, TABLE, NftSeen, NftTable
from dzagent.nftvalues import ValueRefused

LIST: Final = ("-j", "list", "table", FAMILY, TABLE)
"""Arguments of `nft` that make it print what `nftdecode` reads."""

TIMEOUT: Final = 5.0
"""Seconds that nft gets: it loads 20,000 elements in 0.3 s, and the loop waits for it."""

REST: Final = 60.0
"""Seconds for which nft is left alone after it could not be started or did not end."""

_ABSENT: Final = re.compile(r"Error: (Could not process rule: )?No such file or directory")
_EXPLAINED: Final = (
    (r"JSON support not compiled-in|invalid option -- 'j'", "NoJson", "install a release with JSON support"),
    (r"Operation not permitted|must be root", "NotPermitted", "dzagentd needs CAP_NET_ADMIN"),
    (
        r"Unable to initialize Netlink socket|Protocol not supported|cache initialization failed: Invalid",
        "NoNftables",
        "the kernel has no nf_tables: `modprobe nf_tables`, or install its modules",
    ),
)
"""What nft says when it cannot read anything: pattern, reason, advice."""


class Nft:
    """Reads the table with one process, and changes it with one transaction. `clock` gives monotonic seconds."""

    def __init__(self, runner: Runner | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = runner or partial(run, timeout=TIMEOUT)
        self._clock = clock
        self._known = Known()
        self._handle = 0
        self._rests_until = 0.0
        self._failed = NftSeen()

    def observe(self) -> NftSeen:
        """Return what nftables holds under our name; never raises: what went wrong is in the answer."""
        if self._clock() < self._rests_until:
            return self._failed
        try:
            done = self._run("nft", LIST)
        except KernelError as error:
            self._rests_until = self._clock() + REST
            reason = "NftMissing" if "was not found" in str(error) else "NftFailed"
            self._failed = NftSeen(reason=reason, message=str(error))
            return self._failed
        try:
            seen = self._read(done)
        except ObservationError as error:
            return NftSeen(reason="NftUnreadable", message=str(error))
        self._handle = seen.handle
        return seen

    def _read(self, done: Completed) -> NftSeen:
        if done.code == 0:
            return replace(self._known.read(done.stdout), counts=counts(done.stdout))
        message = done.message
        if _ABSENT.search(message):
            return NftSeen("absent")
        for pattern, reason, advice in _EXPLAINED:
            if re.search(pattern, message):
                return NftSeen(reason=reason, message=f"nft: {_first(message)} ({advice})")
        return NftSeen(reason="NftUnreadable", message=f"nft (exit {done.code}): {_first(message)}")

    def apply(self, step: Step) -> Outcome:
        """Carry out a step whose target is a table, in one transaction; never raises.

        A transaction that this nft or this kernel refuses for good is tried once more as a whole new table.
        """
        try:
            lines = self._exact(_guarded(step))
        except KernelError as error:
            return Outcome(step, Result.PERMANENT, str(error))
        outcome = self._transact(step, lines)
        if (
            outcome.result is Result.PERMANENT
            and step.action is Action.CHANGE
            and "permitted" not in outcome.message
        ):
            with suppress(KernelError):  # what stays as it is may be nothing that can be written
                outcome = self._transact(step, self._exact(_anew(step)))
        return outcome

    def _transact(self, step: Step, lines: Sequence[str]) -> Outcome:
        try:
            done = self._run("nft", ("-f", "-"), "".join(f"{line}\n" for line in lines))
        except KernelError as error:
            self._rests_until = self._clock() + REST
            self._failed = NftSeen(reason="NftFailed", message=str(error))
            return Outcome(step, Result.TRANSIENT, str(error))
        if done.code == 0:
            return Outcome(step, Result.DONE)
        message = advised(_first(done.message))
        return Outcome(step, classify("nft", done.code, step.action, done.message), message)

    def _exact(self, lines: Sequence[str]) -> Sequence[str]:
        """Delete the very table that was seen: another of its name may have come into its place meanwhile."""
        if not self._handle:
            return lines
        by_name, by_handle = f"delete table {FAMILY} {TABLE}", f"delete table {FAMILY} handle {self._handle}"
        return tuple(by_handle if line == by_name else line for line in lines)


def _guarded(step: Step) -> Sequence[str]:
    """Return the transaction of a step; one that changes a table works on a table of ours alone.

    Another one may have come into its place meanwhile, and a change names it by its name. A table that is made anew is
    deleted by its handle. Every other change empties our mark first, which is empty: that fails where there is none, and
    with it all the rest.
    """
    lines, before = script(step), step.before
    if step.action is not Action.CHANGE or f"delete table {FAMILY} {TABLE}" in lines:
        return lines
    if not any(chain.name == MARK for chain in _table(before).chains):
        return _anew(step)
    return (f"flush chain {FAMILY} {TABLE} {MARK}", *lines)


def _anew(step: Step) -> Sequence[str]:
    """Return the transaction that makes the table anew. Raises KernelError for what cannot be written safely."""
    try:
        return whole(_table(step.before), _table(step.target))
    except (GrammarError, ValueRefused) as error:
        raise KernelError(f"No safe command: {error}.") from error


def _table(obj: object) -> NftTable:
    return obj if isinstance(obj, NftTable) else NftTable()


def _first(message: str) -> str:
    """Return the first line of a message: the rest repeats the command."""
    return next((line.strip() for line in message.splitlines() if line.strip()), "no message")
