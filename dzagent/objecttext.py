"""Any object of ours as lines of text: `grammar` has those of ip, `nftgrammar` those of nft. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dzagent.errors import GrammarError
from dzagent.grammar import format_object, parse
from dzagent.model import KernelObject
from dzagent.nftgrammar import format_table
from dzagent.nftgrammar import parse as parse_table
from dzagent.nftmodel import NftTable


def object_lines(obj: KernelObject) -> tuple[str, ...]:
    """Return the lines that make an object. Raises GrammarError for what no desired object has."""
    return format_table(obj) if isinstance(obj, NftTable) else format_object(obj)


def read_object(lines: Sequence[str], file: str) -> KernelObject:
    """Read one object back. Raises GrammarError for lines that are outside the grammar, or are not one object."""
    text = "".join(f"{line}\n" for line in lines)
    if text.startswith("add "):
        return parse_table(text, file)
    found = parse(text, file, "unicast")
    if len(found) != 1:
        raise GrammarError(f"{len(found)} objects stand where one should", file=file)
    return found[0].obj
