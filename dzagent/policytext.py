"""A policy as the text of a policy file in which every key is set. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dzagent.nftvalues import interval_text
from dzagent.policy import Policy

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_HEAD: Final = "# The last policy that this agent used, with every key: a start with a bad policy file goes on with it.\n"

END: Final = "# end\n"
"""The last line: a text that was cut off could be another policy."""


def policy_text(policy: Policy) -> str:
    """Return what `parse_policy` reads as the same policy."""
    return _HEAD + "".join(f"{line}\n" for line in _lines(policy, "")) + END


def _lines(part: DataclassInstance, indent: str) -> Iterator[str]:
    for item in fields(part):
        value: Any = getattr(part, item.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield f"{indent}{item.name}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, tuple):
            yield f"{indent}{item.name}: [{','.join(map(_entry, value))}]"
        else:
            yield f"{indent}{item.name}: {_scalar(value)}"


def _entry(value: Any) -> str:
    """Write what a list holds: numbers, addresses, and ranges of ports."""
    return interval_text(value, "port") if isinstance(value, tuple) else str(value)


def _scalar(value: bool | float | str | IPv4Network | Path) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.9f}"  # as many digits as are read, and never an exponent
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)  # YAML reads JSON's strings
    return str(value)
