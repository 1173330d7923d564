"""Which single changes of a module are tried: a comparison, a number, a condition, a call at a time. Pure.

A change that says the same as another one is tried once: "if not X" where X is one comparison that has an opposite.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

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
_OPPOSITES: Final = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_Do: TypeAlias = Callable[[ast.AST], ast.AST | None]
_Tried: TypeAlias = tuple[str, _Do]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a module's tree: which node (in the order of `ast.walk`), and what is done to it.

    place: the innermost function or class around it, "" for the module itself.
    """

    number: int
    line: int
    place: str
    what: str
    do: _Do

    def named(self, lines: Sequence[str]) -> str:
        """Name a change by what the source says there, so that its name stays when lines move."""
        return f"{self.place or 'module'}: {self.what}: {lines[self.line - 1].strip()}"


def changes(tree: ast.Module) -> Iterator[Change]:
    """Yield every change that is tried. How a type is declared (frozen, slots, compare) is no decision."""
    skipped = {id(part) for said in _declared(tree) for part in ast.walk(said)}
    places = _places(tree)
    for number, node in enumerate(ast.walk(tree)):
        if id(node) not in skipped:
            for what, do in (*_of_expression(node), *_of_statement(node)):
                yield Change(number, _line(node), places.get(id(node), ""), what, do)


def changed(tree: ast.Module, change: Change) -> ast.Module:
    """Return a copy of a tree with one change."""
    made = copy.deepcopy(tree)
    node = next(n for number, n in enumerate(ast.walk(made)) if number == change.number)
    new = change.do(node)
    if new is not None:
        _Put(node, new).visit(made)
    return ast.fix_missing_locations(made)


def _declared(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        yield from getattr(node, "decorator_list", ())
        func = node.func if isinstance(node, ast.Call) else None
        if isinstance(func, ast.Name) and func.id in {"field", "TypeVar"}:
            yield node


def _places(tree: ast.Module) -> dict[int, str]:
    """Return the innermost function or class around each node, by its identity: `ast.walk` goes from outside in."""
    return {
        id(part): around.name
        for around in ast.walk(tree)
        if isinstance(around, _FUNCTIONS)
        for part in ast.walk(around)
    }


def _of_expression(node: ast.AST) -> Iterator[_Tried]:
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            if type(op) in _SWAPS:
                yield _named(op), _swap_compare(place)
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in _SWAPS:
        yield _named(node.op), _swap_op
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and not _reversible(node.operand):
        yield "not X -> X", _without_not
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        yield f"{node.value} -> {_other(node.value)}", _another


def _of_statement(node: ast.AST) -> Iterator[_Tried]:
    if isinstance(node, ast.If | ast.IfExp) and not _reversible(node.test):
        yield "if X -> if not X", _negate
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "filter left out", _unfiltered
    elif isinstance(node, ast.Continue | ast.Break | ast.AugAssign):
        yield f"{type(node).__name__} left out", _nothing
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call left out", _nothing


def _reversible(test: ast.AST) -> bool:
    """Tell whether another change already makes the opposite of a condition."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return True
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _OPPOSITES)


def _line(node: ast.AST) -> int:
    return node.ifs[0].lineno if isinstance(node, ast.comprehension) else int(vars(node).get("lineno", 0))


def _named(op: ast.AST) -> str:
    return f"{type(op).__name__} -> {_SWAPS[type(op)].__name__}"


def _nothing(_: ast.AST) -> ast.AST:
    return ast.Pass()


def _other(value: bool | int) -> bool | int:
    return not value if isinstance(value, bool) else value + 1


def _swap_compare(place: int) -> _Do:
    def swap(node: ast.AST) -> None:
        assert isinstance(node, ast.Compare)
        swapped = _SWAPS[type(node.ops[place])]()
        assert isinstance(swapped, ast.cmpop)
        node.ops[place] = swapped

    return swap


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
