"""The tool that changes modules: which changes it tries, and that no failure of its own passes for a test that bites."""

from __future__ import annotations

import ast
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mutants import changed, changes
from tests.mutation import TARGETS, Verdict, ended, run_tests, start, verdict
from tests.mutation_known import KNOWN


def texts(source: str) -> list[str]:
    """Return the source after each change."""
    tree = ast.parse(source)
    return [ast.unparse(changed(tree, change)) for change in changes(tree)]


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("x = a == b", ["x = a != b"]),
        ("x = a < b <= c", ["x = a <= b <= c", "x = a < b < c"]),
        ("x = a and b", ["x = a or b"]),
        ("x = a + 1", ["x = a - 1", "x = a + 2"]),
        ("x = not a", ["x = a"]),
        ("x = True", ["x = False"]),
        ("x = 'text'", []),
        ("x = [a for a in b if a]", ["x = [a for a in b]"]),
        ("while a:\n    break", ["while a:\n    pass"]),
        ("f(x)", ["pass"]),
        ("x = f(y)", []),
    ],
)
def test_each_decision_of_a_line_is_changed_by_itself(source: str, wrong: list[str]) -> None:
    assert texts(source) == wrong


@pytest.mark.parametrize("test", ["a == b", "a in b", "a is None", "not a"])
def test_a_condition_that_has_an_opposite_is_reversed_once(test: str) -> None:
    assert len(texts(f"x = 'yes' if {test} else 'no'")) == 1


@pytest.mark.parametrize("test", ["a", "a < b", "f(a)"])
def test_a_condition_without_one_is_negated(test: str) -> None:
    assert f"x = 'yes' if not {test} else 'no'" in texts(f"x = 'yes' if {test} else 'no'")


def test_how_a_type_is_declared_is_no_decision() -> None:
    assert texts("@dataclass(frozen=True)\nclass A:\n    x: int = field(compare=False)") == []


def test_a_change_is_named_by_what_the_source_says_there() -> None:
    lines = ["class A:", "    def f(self):", "        return self.x == 0"]
    names = [change.named(lines) for change in changes(ast.parse("\n".join(lines)))]
    assert names == ["f: Eq -> NotEq: return self.x == 0", "f: 0 -> 1: return self.x == 0"]


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (pytest.ExitCode.OK, Verdict.SURVIVES),
        (pytest.ExitCode.TESTS_FAILED, Verdict.NOTICED),
        (pytest.ExitCode.INTERRUPTED, Verdict.UNLOADABLE),
        (pytest.ExitCode.INTERNAL_ERROR, Verdict.BROKEN),
        (pytest.ExitCode.USAGE_ERROR, Verdict.BROKEN),
        (pytest.ExitCode.NO_TESTS_COLLECTED, Verdict.BROKEN),
        (-signal.SIGXCPU, Verdict.ENDLESS),
        (-signal.SIGKILL, Verdict.ENDLESS),
        (-signal.SIGSEGV, Verdict.BROKEN),
    ],
)
def test_only_a_test_that_fails_has_noticed_a_change(code: int, meaning: Verdict) -> None:
    assert verdict(code) is meaning


def end_of(run: Callable[[], int]) -> Verdict:
    child = start(run, 1)
    while (end := ended(child)) is None:
        time.sleep(0.001)
    return end[0]


def _spin() -> int:
    while True:
        pass


def _die() -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return 0


def test_a_loop_without_end_is_told_apart() -> None:
    assert end_of(_spin) is Verdict.ENDLESS


def test_a_process_that_waits_for_ever_is_told_apart() -> None:
    child = start(signal.pause, 1)  # type: ignore[arg-type]
    child.until = 0.0
    assert ended(child) == (Verdict.ENDLESS, 0.0)


def test_a_process_that_dies_gives_no_verdict() -> None:
    assert end_of(_die) is Verdict.BROKEN


def test_a_module_that_cannot_be_loaded_is_told_apart() -> None:
    broken = ast.parse("raise RuntimeError")
    assert end_of(lambda: run_tests("tests/toy_for_mutation.py", broken, ())) is Verdict.UNLOADABLE


def test_tests_that_do_not_exist_give_no_verdict() -> None:
    empty = ast.parse("")
    assert end_of(lambda: run_tests("tests/toy_for_mutation.py", empty, ["no_such"])) is Verdict.BROKEN


def test_every_module_has_tests_and_every_survivor_a_place() -> None:
    for file, target in TARGETS.items():
        assert Path(file).exists()
        assert all(Path(f"tests/{test}.py").exists() for test in (*target.tests, *target.slow))
    assert KNOWN.keys() <= TARGETS.keys()
    for file, reasons in KNOWN.items():
        source = Path(file).read_text(encoding="utf-8")
        found = {change.named(source.splitlines()) for change in changes(ast.parse(source))}
        assert {name for names in reasons.values() for name in names} <= found
