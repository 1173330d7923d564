"""The learned routes as a file that a person can read, and `ip -batch` could run: desired/learned/SERVICE.routes.

Lines of `grammar.format_object`. Routes that are kept although nobody announces them any more come last, each group
under a comment that says since when.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dzagent.errors import InputError
from dzagent.grammar import format_object, parse
from dzagent.guard import LEARNED
from dzagent.model import Route, ServiceName

_STALE: Final = re.compile(r"# stale since (\d{1,12})\b")
_HEADER: Final = "# Learned over BGP, written by dzagent: an edit here is lost. What is refused, and why: `dzagent routes`.\n"


def file_of(service: ServiceName) -> str:
    """Return how messages and origins name the file of a service."""
    return f"{LEARNED}{service}.routes"


class Lines:
    """Formats routes; what has not changed since the last time is not formatted again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Route, str]] = {}

    def text(self, routes: Mapping[str, Route], stale: Mapping[str, float]) -> str:
        """Return the whole file: current routes in order, then stale ones by age."""
        lines = {prefix: self._line(prefix, route) for prefix, route in routes.items()}
        if len(self._known) > len(routes):
            self._known = {prefix: self._known[prefix] for prefix in routes}
        current = sorted(line for prefix, line in lines.items() if prefix not in stale)
        groups: dict[int, list[str]] = {}
        for prefix, since in stale.items():
            if prefix in lines:
                groups.setdefault(int(since), []).append(lines[prefix])
        parts = [_HEADER, *current]
        for since, old in sorted(groups.items()):
            parts.append(f"# stale since {since}: no longer announced, and kept for a while\n")
            parts.extend(sorted(old))
        return "".join(parts)

    def _line(self, prefix: str, route: Route) -> str:
        known = self._known.get(prefix)
        if known is not None and known[0] is route:
            return known[1]
        line = "".join(f"{text}\n" for text in format_object(route))
        self._known[prefix] = (route, line)
        return line


def read_stale(text: str, service: ServiceName) -> Mapping[str, float]:
    """Return since when which prefixes are stale; nothing from a text that is not in the grammar."""
    try:
        wanted = parse(text, file_of(service), service)
    except InputError:
        return {}
    since_of: dict[int, float] = {}
    since: float | None = None
    for number, line in enumerate(text.splitlines(), 1):
        match = _STALE.match(line)
        if match is not None:
            since = float(match[1])
        elif since is not None:
            since_of[number] = since
    return {
        str(item.obj.dst): since_of[item.origin.line]
        for item in wanted
        if isinstance(item.obj, Route) and item.origin.line in since_of
    }
