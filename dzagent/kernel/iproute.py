"""The kernel of this network namespace, read and written through iproute2's `ip`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import groupby
from typing import Final, TypeAlias

from dzagent.errors import KernelError, ObservationError
from dzagent.kernel import observe
from dzagent.kernel.commands import batch_lines, on_trial
from dzagent.kernel.failures import advised, classify, worst
from dzagent.kernel.rereading import merge, reading
from dzagent.kernel.run import Completed, Runner, run
from dzagent.kernel.watchlines import Touched
from dzagent.model import Action, Interest, Link, Observed, Outcome, Result, Step

_FAILED: Final = re.compile(r"^Command failed -:(\d+)\s*$")
_INDEX: Final = re.compile(rb'"ifindex": *([0-9]+)')
_Task: TypeAlias = tuple[Step, tuple[str, ...]]
"""A step and its lines."""

MAX_SPLITS: Final = 32
"""How often the steps of a phase may run again in halves: enough to isolate three of 1,000."""

MAX_SAID: Final = 500
"""Characters of what `ip` says that a message repeats: one that is no iproute2 prints how it is used."""

HIDDEN: Final = (
    "if no link here has its name or endpoints, one that was moved to another network namespace has"
)
"""Why the kernel may refuse a tunnel that nobody can see: it is found by its endpoints where it was made."""

_NO_TABLE: Final = re.compile(r"FIB table does not exist")
_UNREACHABLE: Final = re.compile(
    r"unreachable|No route to host|prohibited|Permission denied|Invalid (argument|cross-device)"
)
"""What `ip route get` says where there is no way. It needs no rights: they are denied by a prohibit route or rule."""


@dataclass(slots=True)
class _Budget:
    """What a phase may spend on isolating a step."""

    left: int

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


class IpRoute:
    """Implements `Kernel`. One process observes everything; one carries out a phase, and one makes each new link."""

    def __init__(self, runner: Runner = run) -> None:
        self._run = runner
        self._indexes: Mapping[str, int] = {}
        self._known = observe.Known()

    def observe(self, interest: Interest) -> Observed:
        """Read everything that `interest` covers; raises ObservationError if any part failed."""
        done = self._run("ip", observe.OPTIONS, observe.batch(interest))
        if done.code != 0:
            said = advised(" ".join(done.message.split())[:MAX_SAID])
            raise ObservationError(f"ip could not read the kernel's state (exit {done.code}): {said}")
        observed = observe.decode(done.stdout, interest, self._known)
        self._indexes = {link.name: link.ifindex for link in observed.links}
        return observed

    def reread(self, interest: Interest, touched: Touched, before: Observed) -> Observed:
        """Return what was seen `before`, with what was touched read again; raises ObservationError."""
        what = reading(touched, interest)
        if not what.size:
            return before
        observed = merge(self._read_again(what.lines(interest)), what, interest, before, self._known)
        self._indexes = {link.name: link.ifindex for link in observed.links}
        return observed

    def _read_again(self, lines: Sequence[str]) -> bytes:
        """Return the answers to these lines; raises ObservationError.

        One line alone is a command, not a batch: only then does `ip` let the kernel choose by table and protocol,
        instead of going through every route of the host (beside 1,000,000 others: 0.4 s). A missing table is an error
        of such a command, and none in a batch.
        """
        alone = len(lines) == 1
        args = (*observe.FORMAT, *lines[0].split()) if alone else observe.OPTIONS
        done = self._run("ip", args, "" if alone else "".join(f"{line}\n" for line in lines))
        if alone and done.code != 0 and _NO_TABLE.search(done.message):
            return b"[]\n"
        if done.code != 0:
            raise ObservationError(f"ip could not read the kernel's state (exit {done.code}): {done.message}")
        return done.stdout

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        """Run the steps in order in one process; raises KernelError only if `ip` cannot be started or has to be killed.

        Arguments that `ip` does not understand end the process in the middle, whatever -force says. Then the
        steps run again in two halves, and so on, until the one that does it is alone.
        """
        scripts = [self._script(step) for step in steps]
        tasks = [
            (step, script)
            for step, script in zip(steps, scripts, strict=True)
            if not isinstance(script, Outcome)
        ]
        ended = iter(self._run_all(tasks))
        return tuple(script if isinstance(script, Outcome) else next(ended) for script in scripts)

    def _run_all(self, tasks: Sequence[_Task]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        budget = _Budget(MAX_SPLITS)
        for kind, group in groupby(tasks, key=_kind):
            if kind == "new link":
                outcomes += [self._make_link(step, script) for step, script in group]
            elif kind == "on trial":
                outcomes += self._try_tasks(list(group), budget)
            else:
                outcomes += self._run_tasks(list(group), budget)
        return outcomes

    def _try_tasks(self, tasks: Sequence[_Task], budget: _Budget) -> list[Outcome]:
        """Run the first line of every task, then the others of those whose first line worked."""
        first = self._run_tasks([(step, script[:1]) for step, script in tasks], budget)
        both = zip(tasks, first, strict=True)
        ready = [(step, script[1:]) for (step, script), outcome in both if outcome.result is Result.DONE]
        rest = iter(self._run_tasks(ready, budget))
        return [next(rest) if outcome.result is Result.DONE else outcome for outcome in first]

    def _make_link(self, step: Step, script: tuple[str, ...]) -> Outcome:
        """Make a link in a process that stops at the first error: with -force, our mark would go to whoever has the name.

        The process also tells the number of the new link, by which later steps name it.
        """
        name = step.target.name if isinstance(step.target, Link) else ""
        self._indexes = {other: index for other, index in self._indexes.items() if other != name}
        done = self._run("ip", ("-j", "-batch", "-"), "\n".join([*script, f"link show dev {name}"]) + "\n")
        failed = failures(done, len(script))
        index = _INDEX.search(done.stdout)
        if not failed and index is not None:
            self._indexes = {**self._indexes, name: int(index[1])}
        outcome = _outcome(step, done.code, {n: text for n, text in failed.items() if n <= len(script)})
        if outcome.result is Result.RACED:
            return replace(outcome, message=f"{outcome.message} ({HIDDEN})")
        return outcome

    def _run_tasks(self, tasks: Sequence[_Task], budget: _Budget) -> list[Outcome]:
        lines = [line for _, script in tasks for line in script]
        if not lines:
            return [Outcome(step, Result.DONE) for step, _ in tasks]
        done = self._run("ip", ("-force", "-batch", "-"), "\n".join(lines) + "\n")
        if len(tasks) > 1 and _broke_off(done) and budget.take():
            middle = len(tasks) // 2
            return [*self._run_tasks(tasks[:middle], budget), *self._run_tasks(tasks[middle:], budget)]
        failed = failures(done, len(lines))
        outcomes, first = [], 1
        for step, script in tasks:
            own = {n: failed[n] for n in range(first, first + len(script)) if n in failed} if failed else {}
            outcomes.append(_outcome(step, done.code, own))
            first += len(script)
        return outcomes

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        """Return the source address towards `dst`, None without a route; raises ObservationError otherwise."""
        done = self._run("ip", ("-4", "-j", "route", "get", str(dst)))
        if done.code == 0:
            return observe.decode_source(done.stdout)
        if _UNREACHABLE.search(done.message):
            return None
        raise ObservationError(f"ip could not look up the route to {dst} (exit {done.code}): {done.message}")

    def foreign_routes(self, table: int, protocol: int) -> Sequence[str]:
        """Return the routes of other protocols in a table, one line each; raises ObservationError."""
        done = self._run("ip", ("-4", "-N", "-o", "route", "show", "table", str(table)))
        if done.code != 0 and not _NO_TABLE.search(done.message):
            raise ObservationError(f"ip could not read table {table} (exit {done.code}): {done.message}")
        ours = re.compile(rf"\bproto {protocol}\b")
        lines = done.stdout.decode(errors="replace").splitlines()
        return tuple(line.strip() for line in lines if line.strip() and not ours.search(line))

    def _script(self, step: Step) -> tuple[str, ...] | Outcome:
        try:
            return batch_lines(step, self._indexes)
        except KernelError as error:
            return Outcome(step, Result.PERMANENT, str(error))


def _kind(task: _Task) -> str:
    """Tell how a task is run: by a process of its own, in two parts, or with all others of its phase."""
    if task[0].action is Action.ADD and isinstance(task[0].target, Link):
        return "new link"
    return "on trial" if on_trial(task[0]) else "plain"


def failures(done: Completed, total: int) -> Mapping[int, str]:
    """Return the message of each failed line by its number, from 1.

    `ip -force -batch -` goes on after a failure and prints the message, then "Command failed -:LINE". A message
    without a line ended the process: no later line has run. A process that was killed, or failed without naming
    a line, may have run none of its lines: all failed.
    """
    found, rest = _messages(done)
    if done.code == 0 or (done.code > 0 and found and not rest):
        return found
    message = rest or f"ip ended with exit code {done.code}"
    first = 1 if done.code < 0 else max(found, default=0) + 1
    return {**dict.fromkeys(range(first, total + 1), message), **found}


def _messages(done: Completed) -> tuple[dict[int, str], str]:
    """Return the messages by line, and what was said after the last of them."""
    found: dict[int, str] = {}
    pending: list[str] = []
    for text in done.stderr.decode(errors="replace").splitlines():
        match = _FAILED.match(text)
        if match is None:
            pending.append(text.strip())
            continue
        found[int(match[1])] = " ".join(pending).strip() or "failed without a message"
        pending = []
    return found, " ".join(pending).strip()


def _broke_off(done: Completed) -> bool:
    """Tell whether `ip` gave up at a line that it did not understand, and not for a reason that may pass."""
    _, rest = _messages(done)
    return done.code > 0 and bool(rest) and classify("ip", done.code, Action.ADD, rest) is Result.PERMANENT


def _outcome(step: Step, code: int, failed: Mapping[int, str]) -> Outcome:
    if not failed:
        return Outcome(step, Result.DONE)
    messages = tuple(dict.fromkeys(failed.values()))
    result = worst([classify("ip", code, step.action, message) for message in messages])
    if result is Result.GONE and step.action is not Action.DELETE:
        result = Result.RACED
    return Outcome(step, result, advised("; ".join(messages)))
