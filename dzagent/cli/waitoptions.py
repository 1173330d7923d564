"""The options of verbs that wait for something to be really so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def timeout_option(seconds: float, text: str = "Give up waiting after this long.") -> Callable[[F], F]:
    """Return --timeout with a default of so many seconds."""
    return click.option(
        "--timeout",
        type=click.FloatRange(0.1, 86400),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


result_as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON document."
)
