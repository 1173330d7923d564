"""YAML files with line numbers: every value is read through an `Item` that knows its file, line and key path.

Only plain data is accepted: one document, no anchors, aliases or tags, so a small file cannot become a large
structure. Whatever is wrong raises ConfigError with file, line and what was expected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import TypeVar

import yaml

from dzagent.errors import ConfigError
from dzagent.files import read_bytes

T = TypeVar("T")

MAX_BYTES = 64 * 1024
"""Largest configuration or policy file, in bytes: some thirty times the documented samples."""
MAX_DEPTH = 8
"""Deepest nesting of lists and mappings; our files need three."""

_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?", re.ASCII)
"""Without leading zeros: YAML takes 010 for eight."""


@dataclass(frozen=True, slots=True)
class Item:
    """One value of a YAML file with the place it came from; `path` is its dotted key, "" for the whole file."""

    node: yaml.Node
    file: str
    path: str = ""

    def error(self, message: str) -> ConfigError:
        """Make an error that points at this value."""
        where = f"{self.path}: " if self.path else ""
        return ConfigError(where + message, file=self.file, line=line_of(self.node))

    def expected(self, what: str) -> ConfigError:
        """Make an error that names what belongs here and what was found instead."""
        return self.error(f"expected {what}, found {_found(self.node)}")

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    def plain(self, what: str) -> str:
        """Return the text of a scalar value; `what` names the expectation for the error."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.expected(what)
        return str(self.node.value)


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping whose keys were checked; `read` takes its values out."""

    file: str
    entries: Mapping[str, Item] = field(default_factory=dict)

    def read(self, key: str, convert: Callable[[Item], T], default: T) -> T:
        """Return the converted value of `key`, or `default` if the file does not set it."""
        item = self.entries.get(key)
        return default if item is None else convert(item)


def line_of(node: yaml.Node) -> int:
    """Line of a node, counted from 1."""
    return int(node.start_mark.line) + 1


def load(path: Path) -> Item | None:
    """Load the whole document of a file; None if it holds nothing but comments.

    Raises ConfigError: unreadable, not a regular file, too large, not UTF-8, not YAML, or more than plain data.
    """
    return parse(_read(path), str(path))


def parse(data: bytes, file: str) -> Item | None:
    """As `load`, of bytes already read; `file` is the name for messages."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the file is larger than {MAX_BYTES} bytes", file=file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("the file is not UTF-8 text", file=file, line=line) from error
    try:
        _only_plain_data(text, file)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 0 if mark is None else mark.line + 1
        raise ConfigError(
            f"not valid YAML: {error.problem or error.context}", file=file, line=line
        ) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow; this class carries no line
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise ConfigError(f"not valid YAML: {_one_line(str(error))}", file=file, line=line) from error
    return None if node is None else Item(node, file)


def section(item: Item | None, keys: tuple[str, ...], file: str) -> Section:
    """Check that `item` is a mapping with no other keys than `keys` and none twice."""
    if item is None:
        return Section(file)
    if not isinstance(item.node, yaml.MappingNode):
        raise item.expected("a mapping of keys to values")
    entries: dict[str, Item] = {}
    for key_node, value_node in item.node.value:
        name = _key_name(Item(key_node, file, item.path), keys)
        path = f"{item.path}.{name}" if item.path else name
        if name in entries:
            first = line_of(entries[name].node)
            raise Item(key_node, file, path).error(f"this key is set twice (first on line {first})")
        entries[name] = Item(value_node, file, path)
    return Section(file, entries)


def subsection(parent: Section, key: str, keys: tuple[str, ...]) -> Section:
    """Take the mapping under `key`, checked like `section`; empty if the file does not set it."""
    return section(parent.entries.get(key), keys, parent.file)


# ---- converters: Item -> value, for Section.read ---------------------------------------------------------


def text(item: Item) -> str:
    """Read text without line breaks or control characters, at least one character."""
    value = item.plain("text")
    if item.node.tag != "tag:yaml.org,2002:str":
        raise item.expected("text (put it in quotes if it looks like a number or a word of YAML)")
    if not value or not value.isprintable():
        raise item.expected("text of printable characters")
    return value


def truth(item: Item) -> bool:
    """Read `true` or `false`; YAML's other spellings (yes, on, ...) are refused so that one form is read and written."""
    value = item.plain("true or false")
    if _is_quoted(item.node) or value not in {"true", "false"}:
        raise item.expected("true or false")
    return value == "true"


def whole(low: int, high: int) -> Callable[[Item], int]:
    """Read a decimal whole number from `low` to `high`."""

    def convert(item: Item) -> int:
        what = f"a whole number from {low} to {high}"
        value = item.plain(what)
        if _is_quoted(item.node) or not _WHOLE.fullmatch(value) or not low <= int(value) <= high:
            raise item.expected(what)
        if len(value) > 1 and value.startswith("0"):
            raise item.expected(f"{what} without leading zeros")
        return int(value)

    return convert


def number(low: float, high: float, unit: str) -> Callable[[Item], float]:
    """Read a decimal number from `low` to `high`; `unit` is for the message."""

    def convert(item: Item) -> float:
        what = f"a number of {unit} from {low:g} to {high:g}"
        value = item.plain(what)
        if _is_quoted(item.node) or not _NUMBER.fullmatch(value) or not low <= float(value) <= high:
            raise item.expected(what)
        return float(value)

    return convert


def one_of(*choices: str) -> Callable[[Item], str]:
    """Read one of a few words."""

    def convert(item: Item) -> str:
        value = item.plain("one of " + ", ".join(choices))
        if value not in choices:
            raise item.error(
                f"expected one of {', '.join(choices)}, found {_found(item.node)}{_nearest(value, choices)}"
            )
        return value

    return convert


def ipv4(item: Item) -> IPv4Address:
    """Read an IPv4 address in dotted form."""
    what = "an IPv4 address such as 198.51.100.7"
    try:
        return IPv4Address(item.plain(what))
    except AddressValueError as error:
        raise item.expected(what) from error


def network(item: Item) -> IPv4Network:
    """Read an IPv4 network with its prefix length and no host bits set."""
    what = "an IPv4 network such as 169.254.0.0/16, without host bits"
    value = item.plain(what)
    try:
        found = IPv4Network(value)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise item.expected(what) from error
    if str(found) != value:  # a missing length, a netmask, or a wildcard mask that reads like one
        raise item.expected(what)
    return found


def absolute_path(item: Item) -> Path:
    """Read an absolute path without `..`; `//` at the start would be another root to Python."""
    value = Path(text(item))
    if not value.is_absolute() or ".." in value.parts or str(value).startswith("//"):
        raise item.expected("an absolute path without '..'")
    return value


def list_of(convert: Callable[[Item], T], what: str, most: int) -> Callable[[Item], tuple[T, ...]]:
    """Read a list of at most `most` different values."""

    def convert_all(item: Item) -> tuple[T, ...]:
        if not isinstance(item.node, yaml.SequenceNode):
            raise item.expected(f"a list of {what}")
        if len(item.node.value) > most:
            raise item.error(f"expected at most {most} {what}, found {len(item.node.value)}")
        values: list[T] = []
        for index, node in enumerate(item.node.value):
            entry = Item(node, item.file, f"{item.path}[{index}]")
            value = convert(entry)
            if value in values:
                raise entry.error("this value is in the list twice")
            values.append(value)
        return tuple(values)

    return convert_all


def optional(convert: Callable[[Item], T]) -> Callable[[Item], T | None]:
    """Read the value, or None where the file says `null` or nothing."""

    def convert_or_none(item: Item) -> T | None:
        if isinstance(item.node, yaml.ScalarNode) and item.node.tag == "tag:yaml.org,2002:null":
            return None
        return convert(item)

    return convert_or_none


# ---- inside ----------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    """Read the bytes of a regular file, at most one more than allowed."""
    try:
        return read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"cannot be read: {_reason(error)}", file=str(path)) from error


def _reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read, and what to do about it where that can be known."""
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, PermissionError):
        return f"{reason}; use sudo or join its group, and let the group dzagent read it, for the services"
    return reason


def _only_plain_data(text: str, file: str) -> None:
    """Refuse anchors, aliases, tags, a second document and deep nesting, before anything is built from them."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ConfigError("expected one YAML document, found a second", file=file, line=line)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ConfigError("anchors and aliases (& and *) are not allowed here", file=file, line=line)
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            raise ConfigError("tags (!) are not allowed here", file=file, line=line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"nested more than {MAX_DEPTH} levels deep", file=file, line=line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _key_name(key: Item, keys: tuple[str, ...]) -> str:
    name = key.plain("a key")
    if name not in keys:
        where = f" in {key.path}" if key.path else ""
        known = _nearest(name, keys) or f"; known keys: {', '.join(keys)}"
        raise ConfigError(f"unknown key {_short(name)}{where}{known}", file=key.file, line=line_of(key.node))
    return name


def _nearest(name: str, choices: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name[:64], choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _found(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return _short(node.value) if node.value or _is_quoted(node) else "nothing"


def _is_quoted(node: yaml.Node) -> bool:
    return getattr(node, "style", None) in {"'", '"', "|", ">"}


def _short(value: str) -> str:
    """Show the value as Python would quote it: one line, at most some 60 characters."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _one_line(message: str) -> str:
    return " ".join(message.split())
