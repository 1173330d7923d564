"""The lines of a rendered file, once it is known to be whole and to hold nothing that hides. Pure."""

from __future__ import annotations

import re
from typing import Final

from dzagent.errors import GrammarError

MAX_LINES: Final = 65_536
MAX_LINE: Final = 512
"""Characters of one line; the longest command has about 130, the rest is for comments."""

_PRINTABLE: Final = re.compile(r"[\n\x20-\x7e]*")


def shown(text: str) -> str:
    """Quote what a file said, cut to a length that a person can read."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def whole_lines(text: str, file: str, max_bytes: int) -> list[str]:
    """Return the lines. The last one must be ended: what is cut off may be valid, and wrong.

    file: how messages name it. Raises GrammarError for a text that is too large, not printable ASCII, or cut off.
    """
    if len(text) > max_bytes:
        raise GrammarError(f"{len(text)} characters: at most {max_bytes} are allowed", file=file)
    good = _PRINTABLE.match(text)
    if good is not None and good.end() != len(text):
        number = text.count("\n", 0, good.end()) + 1
        message = f"the character {text[good.end()]!a} is not allowed: only printable ASCII is"
        raise GrammarError(message, file=file, line=number)
    lines = text.split("\n")
    if lines.pop():
        message = "the last line has no line feed: the file may be cut off"
        raise GrammarError(message, file=file, line=len(lines) + 1)
    if len(lines) > MAX_LINES:
        raise GrammarError(f"{len(lines)} lines: at most {MAX_LINES} are allowed", file=file)
    return lines
