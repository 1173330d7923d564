"""Carries out changes of marks: one process makes all the new ones, another removes the old ones that have a twin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dzagent.errors import ObservationError
from dzagent.kernel.iproute import failures
from dzagent.kernel.protocol import Kernel
from dzagent.kernel.run import Runner
from dzagent.migration.adoption import ROUTE_PROTOCOLS, Change
from dzagent.model import Interest, Observed

_THERE: Final = "File exists"
_GONE: Final = ("No such process", "No such file or directory", "does not exist")


@dataclass(frozen=True, slots=True)
class Failed:
    """A change that did not happen, or only half of it: then both the old object and its twin are there."""

    change: Change
    message: str


def survey(kernel: Kernel, protocol: int, links: Sequence[str]) -> Observed:
    """Read everything that can be ours or doublezerod's. Raises ObservationError."""
    looks = [
        kernel.observe(Interest(number, tuple(links)))
        for number in dict.fromkeys((protocol, *ROUTE_PROTOCOLS))
    ]
    first = looks[0]
    if any(look.links != first.links for look in looks):
        raise ObservationError("links changed while they were looked at: try again")
    routes = dict.fromkeys(route for look in looks for route in look.routes)
    return Observed(first.links, looks[-1].addresses, tuple(routes), looks[-1].rules)


def swap(runner: Runner, changes: Sequence[Change]) -> tuple[Failed, ...]:
    """Make every twin, then remove what has one. What is done already counts as done, so that it can be done again.

    Raises KernelError if `ip` cannot be started.
    """
    failed = {id(change): text for change, text in _run(runner, [(c, c.make) for c in changes], (_THERE,))}
    made = [(change, change.remove) for change in changes if change.remove and id(change) not in failed]
    failed |= {id(change): text for change, text in _run(runner, made, _GONE)}
    return tuple(Failed(change, failed[id(change)]) for change in changes if id(change) in failed)


def _run(
    runner: Runner, lines: Sequence[tuple[Change, str]], harmless: Iterable[str]
) -> list[tuple[Change, str]]:
    if not lines:
        return []
    done = runner("ip", ("-force", "-batch", "-"), "".join(f"{line}\n" for _, line in lines))
    found = failures(done, len(lines))
    return [
        (lines[number - 1][0], message)
        for number, message in found.items()
        if not any(word in message for word in harmless)
    ]
