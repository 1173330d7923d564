"""What the verbs print: text that fits a terminal and cannot command it, or one JSON document."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click

WIDTH = 80
"""Columns that text is wrapped to, unless the terminal has fewer."""
_NARROWEST = 40


@dataclass(frozen=True, slots=True)
class Paper:
    """How text is set: its width in columns, and whether colours are wanted."""

    width: int = WIDTH
    colour: bool = False

    def paint(self, text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        """Colour a text that has been wrapped already."""
        if not self.colour:
            return text
        return click.style(text, fg=colour, bold=bold or None, dim=dim or None)

    def wrap(self, text: str, first: str = "", rest: str | None = None) -> list[str]:
        """Break a text into lines: `first` stands before the first one, `rest` (blanks by default) before others.

        Words that are longer than a line are broken; what is not printable is made visible.
        """
        first = _printable(first)[: self.width // 2]
        rest = " " * len(first) if rest is None else rest
        lines = textwrap.wrap(
            visible(text), self.width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )
        return lines or [first.rstrip()]

    def pairs(self, rows: Iterable[tuple[str, str]], indent: str = "") -> list[str]:
        """Set a table of name and text; rows without text are left out."""
        shown = [(name, text) for name, text in rows if text]
        column = max((len(name) for name, _ in shown), default=0) + 2
        return [line for name, text in shown for line in self.wrap(text, f"{indent}{name:<{column}}")]


def visible(text: object) -> str:
    """Return one line of printable text: labels come from a ledger that anybody can write to."""
    return _printable(" ".join(str(text).split()))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def paper() -> Paper:
    """Describe standard output: colours only on a terminal that has them, and not with NO_COLOR."""
    if not sys.stdout.isatty():
        return Paper()
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    return Paper(max(_NARROWEST, min(WIDTH, columns)), colour)


def print_lines(lines: Iterable[str], sheet: Paper) -> None:
    """Print text."""
    click.echo("\n".join(lines), color=sheet.colour)


def print_json(document: Any) -> None:
    """Print one JSON document, in ASCII: it is safe on any terminal, and the same for every program."""
    click.echo(json.dumps(document, indent=2))


def seconds(value: float) -> str:
    """A duration for a person: 3 s, 5 min, 2 h, 4 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{int(value // size)} {unit}"
    return f"{int(value)} s"
