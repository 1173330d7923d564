"""The expressions of a rule: their text in a rendered line <-> typed values. Pure.

What is not among them (jump, log, nat, queue) is refused: a rule matches, counts, and ends with a verdict or a clamp.
"""

from __future__ import annotations

import re
from typing import Final

from dzagent.errors import GrammarError
from dzagent.nftmodel import (
    NftClamp,
    NftCount,
    NftExpression,
    NftMatch,
    NftRule,
    NftVerdict,
)
from dzagent.nftvalues import (
    BITS,
    KINDS,
    ValueRefused,
    canonical,
    name,
    set_reference,
)
from dzagent.renderedlines import shown

MIN_MSS, MAX_MSS = 64, 65_495
MAX_EXPRESSIONS: Final = 8

_DIGITS: Final = re.compile(r"0|[1-9][0-9]{0,5}")


def rule_text(rule: NftRule) -> str:
    """Return a rule's expressions. Raises GrammarError for one that is not known."""
    return " ".join(map(_expression_text, rule.expressions))


def _expression_text(expression: NftExpression) -> str:
    if isinstance(expression, NftMatch):
        op = f"{expression.op} " if expression.op == "!=" else ""
        return f"{expression.left} {op}{expression.right}"
    if isinstance(expression, NftCount):
        return f'counter name "{expression.name}"'
    if isinstance(expression, NftClamp):
        size = "rt mtu" if expression.size is None else str(expression.size)
        return f"tcp option maxseg size set {size}"
    if isinstance(expression, NftVerdict):
        return expression.word
    raise GrammarError(f"the expression {shown(expression.text)} is not known here")


_CANDIDATES: Final = "|".join(KINDS)
_VALUE: Final = r'\{ [^{}"]*(?:"[^{}"]*"[^{}"]*)* \}|"[^" ]*"|[^ {}"]+'
_EXPRESSION: Final = re.compile(
    rf"(?P<match>(?P<left>{_CANDIDATES}) (?P<op>!= )?(?P<right>{_VALUE}))"
    r'|counter name "(?P<counter>[^" ]*)"'
    r"|tcp option maxseg size set (?P<size>rt mtu|[0-9]+)"
    r"|(?P<verdict>accept|drop)"
)
_LAST: Final = (NftVerdict, NftClamp)


def parse_rule(text: str) -> NftRule:
    """Read the expressions of a rule. Raises ValueRefused."""
    found: list[NftExpression] = []
    at = 0
    while at < len(text):
        match = _EXPRESSION.match(text, at)
        if match is None or text[match.end() : match.end() + 1] not in {"", " "}:
            raise ValueRefused(f"{shown(text[at:])} is no expression that is known here: {_KNOWN}")
        if found and isinstance(found[-1], _LAST):
            raise ValueRefused(f"{shown(text[at:])} comes after the end of the rule")
        found.append(_expression(match))
        at = match.end() + 1
    if text.endswith(" ") or not found or not isinstance(found[-1], _LAST):
        raise ValueRefused("a rule ends with accept, drop or a maxseg size")
    if len(found) > MAX_EXPRESSIONS:
        raise ValueRefused(f"{len(found)} expressions: at most {MAX_EXPRESSIONS} are allowed")
    if isinstance(found[-1], NftClamp) and NftMatch("tcp flags", "==", "syn") not in found:
        raise ValueRefused("a maxseg size needs `tcp flags syn` before it: only a SYN has one")
    return NftRule(tuple(found))


_KNOWN: Final = (
    f'{", ".join(KINDS)} with [!=] and a value, counter name "NAME", '
    "tcp option maxseg size set (rt mtu or a number), accept, drop"
)


def _expression(match: re.Match[str]) -> NftExpression:
    if match["match"]:
        return _match(match["left"], match["op"], match["right"])
    if match["counter"] is not None:
        return NftCount(name(match["counter"]))
    if match["size"]:
        return NftClamp(None if match["size"] == "rt mtu" else within(match["size"], MIN_MSS, MAX_MSS))
    return NftVerdict(match["verdict"])


def _match(left: str, op: str | None, right: str) -> NftMatch:
    kind = KINDS[left]
    if op and kind in BITS:
        raise ValueRefused(f"{left} has no !=")
    value = set_reference(right) if right.startswith("@") else canonical(kind, _parts(kind, right))
    if value != right:
        raise ValueRefused(f"{shown(right)} is written {value}")
    if right.startswith("@") and kind not in {"address", "port"}:
        raise ValueRefused(f"{left} takes no set by name")
    return NftMatch(left, "!=" if op else "==", value)


def _parts(kind: str, text: str) -> list[str]:
    if kind in BITS:
        return text.split(",")
    parts = text[2:-2].split(", ") if text.startswith("{ ") else [text]
    if kind != "name":
        return parts
    if not all(len(part) > 1 and part[0] == part[-1] == '"' for part in parts):
        raise ValueRefused(f"{shown(text)}: the name of a link stands in double quotes")
    return [part[1:-1] for part in parts]


def within(text: str, low: int, high: int) -> int:
    """Read a number. Raises ValueRefused."""
    if _DIGITS.fullmatch(text) is None or not low <= int(text) <= high:
        raise ValueRefused(f"{shown(text)} is not a number from {low} to {high}")
    return int(text)
