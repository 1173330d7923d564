"""The kernel of this network namespace, read and written through iproute2's `ip`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

from dzagent.errors import KernelError, ObservationError
from dzagent.kernel import observe
from dzagent.kernel.commands import batch_lines
from dzagent.kernel.failures import classify, worst
from dzagent.kernel.run import Completed, Runner, run
from dzagent.model import Action, Interest, Observed, Outcome, Result, Step

_FAILED: Final = re.compile(r"^Command failed -:(\d+)\s*$")
_UNREACHABLE: Final = re.compile(r"unreachable|No route to host|prohibited|Invalid (argument|cross-device)")


class IpRoute:
    """Implements `Kernel`. One process observes everything; one process carries out a phase."""

    def __init__(self, runner: Runner = run) -> None:
        self._run = runner
        self._indexes: Mapping[str, int] = {}
        self._known = observe.Known()

    def observe(self, interest: Interest) -> Observed:
        """Read everything that `interest` covers; raises ObservationError if any part failed."""
        done = self._run("ip", observe.OPTIONS, observe.batch(interest))
        if done.code != 0:
            raise ObservationError(f"ip could not read the kernel's state (exit {done.code}): {done.message}")
        observed = observe.decode(done.stdout, interest, self._known)
        self._indexes = {link.name: link.ifindex for link in observed.links}
        return observed

    def apply(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        """Run the steps in order in one process; raises KernelError only if `ip` cannot be started."""
        scripts = [self._script(step) for step in steps]
        lines = [line for script in scripts if not isinstance(script, Outcome) for line in script]
        failed: Mapping[int, str] = {}
        code = 0
        if lines:
            done = self._run("ip", ("-force", "-batch", "-"), "\n".join(lines) + "\n")
            code, failed = done.code, failures(done, len(lines))
        outcomes, first = [], 1
        for step, script in zip(steps, scripts, strict=True):
            if isinstance(script, Outcome):
                outcomes.append(script)
                continue
            own = {n: failed[n] for n in range(first, first + len(script)) if n in failed} if failed else {}
            outcomes.append(_outcome(step, code, own))
            first += len(script)
        return tuple(outcomes)

    def source_for(self, dst: IPv4Address) -> IPv4Address | None:
        """Return the source address towards `dst`, None without a route; raises ObservationError otherwise."""
        done = self._run("ip", ("-4", "-j", "route", "get", str(dst)))
        if done.code == 0:
            return observe.decode_source(done.stdout)
        if _UNREACHABLE.search(done.message):
            return None
        raise ObservationError(f"ip could not look up the route to {dst} (exit {done.code}): {done.message}")

    def _script(self, step: Step) -> tuple[str, ...] | Outcome:
        try:
            return batch_lines(step, self._indexes)
        except KernelError as error:
            return Outcome(step, Result.PERMANENT, str(error))


def failures(done: Completed, total: int) -> Mapping[int, str]:
    """Return the message of each failed line by its number, from 1.

    `ip -force -batch -` goes on after a failure and prints the message, then "Command failed -:LINE". A
    process that failed without naming a line, or that was killed, may have run none of its lines: all failed.
    """
    found: dict[int, str] = {}
    pending: list[str] = []
    for text in done.stderr.decode(errors="replace").splitlines():
        match = _FAILED.match(text)
        if match is None:
            pending.append(text.strip())
            continue
        found[int(match[1])] = " ".join(pending) or "failed without a message"
        pending = []
    if done.code < 0 or (done.code != 0 and not found):
        message = " ".join(pending) or f"ip ended with exit code {done.code}"
        return {line: found.get(line, message) for line in range(1, total + 1)}
    return found


def _outcome(step: Step, code: int, failed: Mapping[int, str]) -> Outcome:
    if not failed:
        return Outcome(step, Result.DONE)
    messages = tuple(dict.fromkeys(failed.values()))
    result = worst([classify("ip", code, step.action, message) for message in messages])
    if result is Result.GONE and step.action is not Action.DELETE:
        result = Result.RACED
    return Outcome(step, result, "; ".join(messages))
