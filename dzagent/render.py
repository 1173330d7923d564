"""A service -> the text of its files, by Jinja templates; and those texts -> the desired objects.

Templates see typed values only: addresses, numbers, and words of our own. They run in a sandbox, an undefined name is
an error, and no value may bring a line feed: one that did could add a command. Whatever they render, the operator's
overrides too, passes the closed grammar and the ownership check before it means anything.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final, TypeAlias

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dzagent.errors import GrammarError, TemplateError
from dzagent.grammar import FILES, MAX_BYTES, NFT_FILE, parse
from dzagent.ipvalues import mark
from dzagent.model import Desired, KernelObject, Link, Origin, Rule, Service, ServiceName, Wanted
from dzagent.nftgrammar import parse as parse_nft
from dzagent.nftmodel import NftTable
from dzagent.nftrender import nft_values
from dzagent.nftrules import refusal
from dzagent.ownership import Ownership
from dzagent.policy import Policy

MAX_SOURCE: Final = 256 * 1024
"""Bytes of one template; ours have at most a thousand."""

VOLATILE: Final = ("# slot: ", "# generation: ")
"""Header lines that say when a text was rendered: two texts that differ only here are the same."""

_TEMPLATES: Final = {file: f"{file.partition('.')[0]}.j2" for file in FILES}
_PLAIN: Final = (str, int, IPv4Address, IPv4Interface, IPv4Network)
_BROKEN: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What an expression of a template can raise beside jinja2.TemplateError, such as `1 / 0`."""

_Stamp: TypeAlias = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One template as it was when its file had this stamp (path, inode, size, modification time)."""

    stamp: _Stamp
    source: str
    template: jinja2.Template


class Templates:
    """The templates of some directories: a file in an earlier one replaces that of the same name in a later one.

    Edits are seen at the next rendering. Nothing is read before that.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)
        self._loaded: dict[str, _Loaded] = {}
        self._rendered: dict[str, tuple[object, Mapping[str, str]]] = {}
        self._environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined,
            finalize=_plain,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # commands, not HTML: _plain and the grammar check what is written
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that could be a template, there or not."""
        return tuple(directory / name for directory in self._directories for name in _TEMPLATES.values())

    def digest(self) -> str:
        """Return a short hash of all templates' sources. Raises TemplateError if one cannot be read."""
        sources = "\0".join(self._load(name).source for name in _TEMPLATES.values())
        return hashlib.sha256(sources.encode()).hexdigest()[:12]

    def rendered(
        self, name: str, inputs: object, render: Callable[[], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """Return what was rendered under a name for equal inputs the last time, else what `render` makes of them now.

        inputs: everything that the text depends on. Thousands of prefixes take a template 0.2 s in every pass.
        """
        known = self._rendered.get(name)
        if known is None or known[0] != inputs:
            known = (inputs, render())
            self._rendered[name] = known
        return known[1]

    def render(self, name: str, values: Mapping[str, object]) -> str:
        """Render one template. Raises TemplateError with its file and line."""
        loaded = self._load(name)
        path = loaded.stamp[0]
        parts: list[str] = []
        size = 0
        try:
            for part in loaded.template.generate(**values):
                size += len(part)
                if size > MAX_BYTES:
                    raise TemplateError(f"rendered more than {MAX_BYTES} bytes", file=path)
                parts.append(part)
        except (jinja2.TemplateError, *_BROKEN) as error:
            raise _template_error(error, path) from error
        return "".join(parts)

    def _load(self, name: str) -> _Loaded:
        stamp = self._find(name)
        known = self._loaded.get(name)
        if known is not None and known.stamp == stamp:
            return known
        source = _read(Path(stamp[0]))
        try:
            code = self._environment.compile(source, name, stamp[0])
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(error.message or "syntax error", file=stamp[0], line=error.lineno) from error
        except (SyntaxError, RecursionError) as error:
            raise TemplateError(f"cannot be compiled ({error})", file=stamp[0]) from error
        template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))
        self._loaded[name] = _Loaded(stamp, source, template)
        return self._loaded[name]

    def _find(self, name: str) -> _Stamp:
        for directory in self._directories:
            path = directory / name
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise TemplateError(f"cannot be read ({error.strerror})", file=str(path)) from error
            return str(path), found.st_ino, found.st_size, found.st_mtime_ns
        places = ", ".join(map(str, self._directories))
        raise TemplateError(f"the template {name} is in none of: {places}; reinstall dzagent")


def render_service(
    service: Service, policy: Policy, templates: Templates, *, slot: int = 0, links: Collection[str] = ()
) -> dict[str, str]:
    """Return the text of each of a service's files, each with its header. Raises TemplateError.

    slot: of the snapshot that the service is from. links: the names of all our tunnels. The generation is filled in
    when the files are written.
    """
    digest = templates.digest()
    header, inputs = _header(service, slot, digest), (service, policy, digest, tuple(links))
    bodies = templates.rendered(service.name, inputs, lambda: _bodies(service, policy, templates, links))
    return {file: header + body for file, body in bodies.items()}


def _bodies(
    service: Service, policy: Policy, templates: Templates, links: Collection[str]
) -> Mapping[str, str]:
    """Return the text of each file without its header."""
    values: dict[str, object] = {
        "service": service,
        "policy": policy,
        "link": service.link,
        "alias": mark(service.name),
        "user_type": service.user_type.label,
        **nft_values(service, policy, links),
    }
    return {file: _ended(templates.render(name, values)) for file, name in _TEMPLATES.items()}


def _header(service: Service, slot: int, digest: str) -> str:
    lines = {
        "service": service.name,
        "user type": service.user_type.label,
        "user": service.account,
        "device": service.device,
        "slot": slot,
        "generation": 0,
        "templates": digest,
    }
    first = (
        "# What the kernel should hold, rendered by dzagent: an edit here is undone by the next generation.\n"
    )
    return first + "".join(f"# {name}: {value}\n" for name, value in lines.items())


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def stable(text: str) -> str:
    """Return a text without the header lines that say when it was rendered."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(VOLATILE))


# ---- text -> objects -------------------------------------------------------------------------------------


def parse_texts(texts: Mapping[ServiceName, Mapping[str, str]], owner: Ownership) -> Desired:
    """Parse the files of all services into the desired state.

    Raises GrammarError with file and line for what is outside the grammar, and for an object that would not be
    provably ours once it is in the kernel: of another link, alias or protocol number.
    """
    wanted: list[Wanted] = []
    for service, files in texts.items():
        for file in FILES:
            for item in _parse(files.get(file, ""), file, service):
                _require_ours(item, owner)
                wanted.append(item)
    return Desired(tuple(wanted))


def _parse(text: str, file: str, service: ServiceName) -> tuple[Wanted, ...]:
    """Parse one file; that of nftables is one object, or none."""
    name = f"{service}/{file}"
    if file != NFT_FILE:
        return parse(text, name, service)
    part = parse_nft(text, name)
    return (
        (Wanted(part, Origin(service, name, text.partition("\nadd ")[0].count("\n") + 2)),)
        if part.names
        else ()
    )


def _require_ours(item: Wanted, owner: Ownership) -> None:
    why = _foreign(item.obj, item.origin.service, owner)
    if why is not None:
        raise GrammarError(why, file=item.origin.file, line=item.origin.line)


def _foreign(obj: KernelObject, service: ServiceName, owner: Ownership) -> str | None:
    names = {name for name, alias in owner.links.items() if alias == mark(service)}
    if isinstance(obj, Link):
        if obj.name not in names:
            return f"link {obj.name} is not the {service} service's, which is {', '.join(sorted(names))}"
        return None if obj.alias == mark(service) else f"alias {obj.alias} is not our mark {mark(service)}"
    if isinstance(obj, NftTable):
        return refusal(obj, service, min(names, default=""), owner.links)
    if not isinstance(obj, Rule) and obj.dev not in names:
        return f"dev {obj.dev} is not the {service} service's link, which is {', '.join(sorted(names))}"
    protocol = getattr(obj, "protocol", owner.protocol)
    return (
        None if protocol == owner.protocol else f"protocol {protocol} is not ours, which is {owner.protocol}"
    )


# ---- parts -----------------------------------------------------------------------------------------------


def _plain(value: object) -> object:
    """Let only values through that have one harmless text: no None, no list, no line feed."""
    if isinstance(value, jinja2.Undefined):
        return value  # its own error names what is undefined
    if isinstance(value, bool) or not isinstance(value, _PLAIN):
        raise TypeError(
            f"a {type(value).__name__} cannot be written: an address, a number or a word is needed"
        )
    if isinstance(value, str) and "\n" in value:
        raise ValueError("a value holds a line feed")
    return value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE + 1)
        text = data.decode()
    except OSError as error:
        raise TemplateError(f"cannot be read ({error.strerror})", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise TemplateError("is not UTF-8 text", file=str(path)) from error
    if len(data) > MAX_SOURCE:
        raise TemplateError(f"is larger than {MAX_SOURCE} bytes", file=str(path))
    return text


def _template_error(error: Exception, path: str) -> TemplateError:
    """Say what went wrong in a template and in which line: the last frame of the traceback that is in it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    what = getattr(error, "message", None) or str(error) or type(error).__name__
    return TemplateError(str(what), file=path, line=lines[-1] if lines else None)
