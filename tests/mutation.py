"""Does a test notice when a decision is wrong? Changes one place of a module at a time, and runs its tests.

    python -m tests.mutation [MODULE...]        such as dzagent/guard.py; all of TARGETS by default

Prints what survives: a change that no test notices. Exits with 1 if a module has more survivors than it is known to
have (TARGETS; CONTRIBUTING says why they are there). Each change is made in a process of its own, in memory; no
file is written.
"""

from __future__ import annotations

import ast
import copy
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Final, TypeAlias

import hypothesis  # noqa: F401 - loaded once, here, and not in every process again
import pytest
import sh  # noqa: F401 - as above

TIMEOUT: Final = 120
"""Seconds for the tests of one change: one that makes a loop endless is noticed as well."""

WORKERS: Final = int(os.environ.get("WORKERS", "2"))


@dataclass(frozen=True)
class Target:
    """A module, the tests that are to notice a change, slower ones for what those miss.

    known: how many changes all of them miss; None where nobody has counted yet.
    """

    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()
    known: int | None = None


TARGETS: Final = {
    "dzagent/plan.py": Target(("test_plan", "test_execute", "test_ownership"), ("test_converge",), known=13),
    "dzagent/plan_links.py": Target(
        ("test_plan", "test_execute", "test_ownership"), ("test_converge",), known=12
    ),
    "dzagent/guard.py": Target(("test_guard", "test_protect"), ("test_reconcile",), known=0),
    "dzagent/capture.py": Target(("test_capture",), ("test_guard",), known=21),
    "dzagent/routing.py": Target(("test_routing", "test_capture")),
    "dzagent/volume.py": Target(("test_volume", "test_losses"), known=0),
    "dzagent/losses.py": Target(("test_losses",), known=0),
    "dzagent/undo.py": Target(("test_undo",), known=4),
    "dzagent/ownership.py": Target(
        ("test_ownership",), ("test_plan", "test_journal", "test_fights"), known=2
    ),
    "dzagent/owned.py": Target(("test_ownership", "test_plan"), known=0),
    "dzagent/journal.py": Target(("test_journal",), ("test_fights",), known=18),
    "dzagent/contested.py": Target(("test_contested",), ("test_fights",), known=11),
    "dzagent/kernel/failures.py": Target(("test_failures",), ("test_iproute",), known=0),
}


# ---- changes -----------------------------------------------------------------------------------------------

_SWAPS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}


@dataclass(frozen=True)
class Change:
    """One change of a module's tree: which node (in the order of `ast.walk`), and what is done to it."""

    number: int
    line: int
    what: str
    do: Callable[[ast.AST], ast.AST | None]


def changes(tree: ast.Module) -> Iterator[Change]:
    """Yield every change that is tried. How a type is declared (frozen, slots, compare) is no decision."""
    declared = [
        said for node in ast.walk(tree) for said in (*getattr(node, "decorator_list", ()), *_declares(node))
    ]
    skipped = {id(part) for said in declared for part in ast.walk(said)}
    for number, node in enumerate(ast.walk(tree)):
        tried = None if id(node) in skipped else (_of_expression(node) or _of_statement(node))
        if tried is not None:
            what, do = tried
            yield Change(number, _line(node), what, do)


def _declares(node: ast.AST) -> Sequence[ast.AST]:
    named = (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"field", "TypeVar"}
    )
    return (node,) if named else ()


_Tried: TypeAlias = tuple[str, Callable[[ast.AST], ast.AST | None]]


def _of_expression(node: ast.AST) -> _Tried | None:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
        return _named(node.ops[0]), _swap_compare
    if isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in _SWAPS:
        return _named(node.op), _swap_op
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return "not X -> X", _without_not
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        return f"{node.value} -> {_other(node.value)}", _another
    return None


def _of_statement(node: ast.AST) -> _Tried | None:
    if isinstance(node, ast.If | ast.IfExp):
        return "if X -> if not X", _negate
    if isinstance(node, ast.comprehension) and node.ifs:
        return "filter left out", _unfiltered
    if isinstance(node, ast.Continue | ast.Break | ast.AugAssign):
        return f"{type(node).__name__} left out", _nothing
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return "call left out", _nothing
    return None


def _line(node: ast.AST) -> int:
    return node.ifs[0].lineno if isinstance(node, ast.comprehension) else int(vars(node).get("lineno", 0))


def _nothing(_: ast.AST) -> ast.AST:
    return ast.Pass()


def _named(op: ast.AST) -> str:
    return f"{type(op).__name__} -> {_SWAPS[type(op)].__name__}"


def _other(value: bool | int) -> bool | int:
    return not value if isinstance(value, bool) else value + 1


def _swap_compare(node: ast.AST) -> None:
    assert isinstance(node, ast.Compare)
    swapped = _SWAPS[type(node.ops[0])]()
    assert isinstance(swapped, ast.cmpop)
    node.ops[0] = swapped


def _swap_op(node: ast.AST) -> None:
    swapped = _SWAPS[type(vars(node)["op"])]()
    vars(node)["op"] = swapped


def _without_not(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.UnaryOp)
    return node.operand


def _another(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, bool | int)
    node.value = _other(node.value)


def _negate(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _unfiltered(node: ast.AST) -> None:
    assert isinstance(node, ast.comprehension)
    node.ifs = []


class _Put(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._old:
            return ast.copy_location(self._new, node)
        self.generic_visit(node)
        return node


def changed(tree: ast.Module, change: Change) -> ast.Module:
    """Return a copy of a tree with one change."""
    made = copy.deepcopy(tree)
    node = next(n for number, n in enumerate(ast.walk(made)) if number == change.number)
    new = change.do(node)
    if new is not None:
        _Put(node, new).visit(made)
    return ast.fix_missing_locations(made)


# ---- running -----------------------------------------------------------------------------------------------


class _Changed(MetaPathFinder, Loader):
    """Gives the changed module to whoever imports it."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path = name, path
        self._code = compile(tree, str(path), "exec")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))  # noqa: S102 - our own module, with one change


def survives(file: str, tree: ast.Module, tests: Sequence[str]) -> bool:
    """Run the tests on a tree in a process of its own; returns whether all of them pass."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            code = _run_tests(file, tree, tests)
        finally:
            os._exit(code)
    deadline = time.monotonic() + TIMEOUT
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.02)


def _run_tests(file: str, tree: ast.Module, tests: Sequence[str]) -> int:
    """Be the process: imports nothing of ours before the changed module stands ready."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    name = file.removesuffix(".py").replace("/", ".")
    sys.meta_path.insert(0, _Changed(name, Path(file), tree))
    options = [
        "-x",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--show-capture=no",
        "--tb=no",
    ]
    return int(pytest.main([*options, *(f"tests/{test}.py" for test in tests)]))


def _lives(file: str, tree: ast.Module, target: Target) -> bool:
    return survives(file, tree, target.tests) and (not target.slow or survives(file, tree, target.slow))


def survivors(file: str, target: Target) -> list[Change]:
    """Return the changes of a module that its tests do not notice."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    if not survives(file, tree, target.tests):
        raise SystemExit(f"{file}: its tests fail without any change")
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(changes(tree))
        alive = pool.map(lambda change: _lives(file, changed(tree, change), target), found)
        left = [change for change, lives in zip(found, alive, strict=True) if lives]
    _say(f"{file}: {len(left)} of {len(found)} changes survive ({_known(target)})")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    for change in left:
        _say(f"  {file}:{change.line}: {change.what}:  {lines[change.line - 1].strip()}")
    return left


def _known(target: Target) -> str:
    return "nobody has counted yet" if target.known is None else f"{target.known} are known"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(files: Sequence[str]) -> int:
    """Try the named modules; returns 1 if one has more survivors than are known."""
    worse = False
    for file in files or tuple(TARGETS):
        known = TARGETS[file].known
        worse |= len(survivors(file, TARGETS[file])) > (sys.maxsize if known is None else known)
    return int(worse)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
