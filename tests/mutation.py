"""Does a test notice when a decision is wrong? Changes one place of a module at a time, and runs its tests.

    python -m tests.mutation [MODULE...]        such as dzagent/guard.py; all of TARGETS by default

Prints what survives: a change that no test notices. Exits with 1 unless that is exactly what `mutation_known.py`
lists, each with its reason. Each change is made in a process of its own, in memory; no file is written.

A change counts as noticed only where a test fails. One with which the module or a test file cannot even be loaded is
counted beside, since any test would do; one that comes to no end is printed and has to be listed like a survivor;
everything else (no test ran, pytest itself failed, the process died) ends the command with an error.
Random tests draw the same examples every time.
"""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
import sh  # noqa: F401 - loaded once, here, and not in every process again
from hypothesis import Phase, settings

from tests.mutants import Change, changed, changes
from tests.mutation_known import KNOWN

WORKERS: Final = int(os.environ.get("WORKERS", "2"))

SPARE: Final = 10
"""Seconds of processor time that a change may cost beyond five times what its tests need without any change."""

PATIENCE: Final = 20
"""Times as many seconds may pass: for one that waits for ever, on a machine however busy."""

MEMORY: Final = 4 << 30
"""Bytes of address space of a process: a loop that collects for ever ends with an error."""

_UNLOADABLE: Final = 100
"""Exit code of a process in which the changed module cannot be loaded; pytest's own are small."""


@dataclass(frozen=True)
class Target:
    """The tests that are to notice a change of a module, and slower ones for what those miss."""

    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()


TARGETS: Final = {
    "dzagent/plan.py": Target(("test_plan", "test_execute", "test_ownership"), ("test_converge",)),
    "dzagent/plan_links.py": Target(("test_plan", "test_execute", "test_ownership"), ("test_converge",)),
    "dzagent/guard.py": Target(("test_guard", "test_protect"), ("test_reconcile",)),
    "dzagent/capture.py": Target(("test_capture",), ("test_guard",)),
    "dzagent/routing.py": Target(("test_routing", "test_capture")),
    "dzagent/volume.py": Target(("test_volume", "test_losses")),
    "dzagent/losses.py": Target(("test_losses",)),
    "dzagent/undo.py": Target(("test_undo",)),
    "dzagent/ownership.py": Target(("test_ownership",), ("test_plan", "test_journal", "test_fights")),
    "dzagent/owned.py": Target(("test_ownership", "test_plan")),
    "dzagent/journal.py": Target(("test_journal",), ("test_fights",)),
    "dzagent/contested.py": Target(("test_contested",), ("test_fights",)),
    "dzagent/kernel/failures.py": Target(("test_failures",), ("test_iproute",)),
}


class Verdict(enum.Enum):
    """What became of the tests of one change."""

    SURVIVES = "survives"
    NOTICED = "noticed"
    UNLOADABLE = "cannot be loaded"
    ENDLESS = "comes to no end"
    BROKEN = "no verdict"


# ---- one process -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Child:
    """A process that was started. until: when patience ends, on the monotonic clock."""

    pid: int
    until: float


def start(run: Callable[[], int], seconds: int) -> _Child:
    """Run something in a process of its own; `seconds` of processor time are its limit."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            code = run()
        finally:
            os._exit(code)
    with suppress(OSError):  # whoever of the two comes first; the process may be gone already
        os.setpgid(pid, pid)
    return _Child(pid, time.monotonic() + seconds * PATIENCE)


def ended(child: _Child) -> tuple[Verdict, float] | None:
    """Return the end of a process and the seconds of processor time that it took, None while it runs."""
    done, status, usage = os.wait4(child.pid, os.WNOHANG)
    if done:
        return verdict(os.waitstatus_to_exitcode(status)), usage.ru_utime + usage.ru_stime
    if time.monotonic() <= child.until:
        return None
    os.killpg(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    return Verdict.ENDLESS, 0.0


def verdict(code: int) -> Verdict:
    """Say what an exit code means; below zero is the signal that ended the process.

    With its limits reached a process gets SIGXCPU, and SIGKILL if it ignores that.
    """
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        return Verdict.ENDLESS
    return _VERDICTS.get(code, Verdict.BROKEN)


_VERDICTS: Final = {
    int(pytest.ExitCode.OK): Verdict.SURVIVES,
    int(pytest.ExitCode.TESTS_FAILED): Verdict.NOTICED,
    int(pytest.ExitCode.INTERRUPTED): Verdict.UNLOADABLE,  # a test file that cannot be collected
    _UNLOADABLE: Verdict.UNLOADABLE,
}


class _Changed(MetaPathFinder, Loader):
    """Gives the changed module to whoever imports it."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path = name, path
        self._code = compile(tree, str(path), "exec")
        self.loaded = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))  # noqa: S102 - our own module, with one change
        self.loaded = True


_OPTIONS: Final = (
    *("-x", "-q", "--assert=plain", "--show-capture=no", "--tb=no", "--hypothesis-profile=mutation"),
    *("-p", "no:cacheprovider", "-p", "no:randomly"),
)


def run_tests(file: str, tree: ast.Module, tests: Sequence[str]) -> int:
    """Be the process: imports nothing of ours before the changed module stands ready. Returns the exit code."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    name = file.removesuffix(".py").replace("/", ".")
    there = _Changed(name, Path(file), tree)
    sys.meta_path.insert(0, there)
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever it is, the module cannot be loaded
        return _UNLOADABLE
    if not there.loaded:
        return int(pytest.ExitCode.INTERNAL_ERROR)
    # Which failing example is the smallest does not matter here, and none is kept for later runs.
    settings.register_profile(
        "mutation",
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
    )
    return int(pytest.main([*_OPTIONS, *(f"tests/{test}.py" for test in tests)]))


# ---- one module ------------------------------------------------------------------------------------------


def _wait(child: _Child) -> tuple[Verdict, float]:
    while (end := ended(child)) is None:
        time.sleep(0.02)
    return end


def _limit(file: str, tree: ast.Module, tests: Sequence[str]) -> int:
    """Return the seconds that these tests may take, from how long they do without any change."""
    end, took = _wait(start(partial(run_tests, file, tree, tests), 3600))
    if end is not Verdict.SURVIVES:
        raise SystemExit(f"{file}: {' '.join(tests)} fail without any change ({end.value})")
    return SPARE + round(5 * took)


def judged(file: str, tree: ast.Module, target: Target) -> Iterator[tuple[Change, Verdict]]:
    """Yield each change with what became of it. Those that the fast tests miss go to the slow ones."""
    left = list(changes(tree))
    for tests in filter(None, (target.tests, target.slow)):
        limit = _limit(file, tree, tests)
        ends = list(zip(left, _all(file, tree, left, tests, limit), strict=True))
        left = [change for change, end in ends if end is Verdict.SURVIVES]
        yield from (found for found in ends if found[1] is not Verdict.SURVIVES)
    yield from ((change, Verdict.SURVIVES) for change in left)


def _all(
    file: str, tree: ast.Module, tried: Sequence[Change], tests: Sequence[str], limit: int
) -> list[Verdict]:
    """Try changes, as many at a time as there are workers; returns what became of each, in order."""
    waiting, running, ends = list(enumerate(tried))[::-1], dict[int, _Child](), dict[int, Verdict]()
    while waiting or running:
        while waiting and len(running) < WORKERS:
            place, change = waiting.pop()
            made = changed(tree, change)
            running[place] = start(partial(run_tests, file, made, tests), limit)
        for place, child in list(running.items()):
            end = ended(child)
            if end is not None:
                ends[place] = end[0]
                del running[place]
        time.sleep(0.02)
    return [ends[place] for place in range(len(tried))]


def check(file: str, target: Target) -> bool:
    """Try all changes of a module and print the result; returns whether it is what is known."""
    text = Path(file).read_text(encoding="utf-8")
    found = list(judged(file, ast.parse(text), target))
    count = Counter(end for _, end in found)
    _say(
        f"{file}: {count[Verdict.SURVIVES]} of {len(found)} changes survive, "
        f"{count[Verdict.ENDLESS]} come to no end, {count[Verdict.UNLOADABLE]} cannot be loaded"
    )
    lines = text.splitlines()
    listed = Counter(name for names in KNOWN.get(file, {}).values() for name in names)
    here = Counter(change.named(lines) for change, end in found if end in _LISTED)
    _tell("no verdict", (change.named(lines) for change, end in found if end is Verdict.BROKEN))
    for what in _LISTED:
        names = (change.named(lines) for change, end in found if end is what)
        _tell(what.value, (name for name in names if name not in listed))
    _tell(
        "listed more or less often than it is found", (name for name in listed if listed[name] != here[name])
    )
    return here == listed and not count[Verdict.BROKEN]


_LISTED: Final = (Verdict.SURVIVES, Verdict.ENDLESS)
"""What has to be in `mutation_known.py`, with a reason."""


def _tell(what: str, names: Iterable[str]) -> None:
    for name in names:
        _say(f"  {what}: {name}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(files: Sequence[str]) -> int:
    """Try the named modules; returns 1 if one has other survivors than are known."""
    results = [check(file, TARGETS[file]) for file in files or tuple(TARGETS)]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
