"""Reads and checks the configuration file of a host; `config` says what it means. One function a key."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit, urlunsplit

from dzagent import yamlfile
from dzagent.config import (
    DEFAULT_CONFIG,
    LOCALNET_RPC,
    OUTSIDE_LOOKUP,
    PROGRAM_IDS,
    ApplyMode,
    Commitment,
    Config,
    Doublezerod,
    Intervals,
    Links,
    Network,
    Paths,
    refuse_client_ip,
)
from dzagent.errors import ConfigError
from dzagent.files import absent
from dzagent.linknames import LINK_NAME, LINK_NAME_RULE
from dzagent.yamlfile import Item, Section

_TOP = (
    "network", "program_id", "rpc", "client_ip", "apply", "policy", "templates", "compat_socket",
    "log_level", "intervals", "directories", "links", "websocket", "rpc_budget", "commitment", "full_fetch",
    "outside_lookup", "doublezerod",
)  # fmt: skip
_INTERVALS = ("poll", "resync", "observe", "rpc_timeout", "search", "devices")
_DIRECTORIES = ("state", "run")
_LINKS = ("unicast", "multicast")
_DOUBLEZEROD = ("state", "socket", "unit")

_RESERVED_LINKS = frozenset({"lo", "all", "default", "gre0", "gretap0", "erspan0"})
_UNIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,200}\.service", re.ASCII)
_POLICY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", re.ASCII)
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MAX_SOCKET_PATH = (
    90  # sockaddr_un holds 107 bytes; "/dzagent.sock" and the temporary names beside it need room
)


def load_config(path: Path = DEFAULT_CONFIG, *, required: bool | None = None) -> Config:
    """Read and check a configuration file.

    required: whether the file must exist; unless said otherwise every file but the default one must. A missing
    file that need not exist gives the defaults. Raises ConfigError with file, line and what was expected.
    """
    must_exist = path != DEFAULT_CONFIG if required is None else required
    if not must_exist and absent(path):
        return Config()
    return parse_config(yamlfile.load(path), str(path))


def parse_config(item: Item | None, file: str) -> Config:
    """Check a loaded document; raises ConfigError."""
    top = yamlfile.section(item, _TOP, file)
    network = cast("Network", top.read("network", yamlfile.one_of(*PROGRAM_IDS, "custom"), "mainnet-beta"))
    apply = cast("ApplyMode", top.read("apply", yamlfile.one_of("auto", "manual", "observe"), "auto"))
    default_rpc: tuple[str, ...] = (LOCALNET_RPC,) if network == "localnet" else ()
    rpc = top.read("rpc", _urls, default_rpc)
    intervals = _intervals(top)
    return Config(
        network=network,
        program_id=_program_id(top, network),
        rpc=rpc,
        websocket=_websocket(top, rpc),
        rpc_budget=top.read("rpc_budget", yamlfile.whole(10, 6000), _budget(intervals)),
        commitment=cast(
            "Commitment",
            top.read("commitment", yamlfile.one_of("finalized", "confirmed", "processed"), "finalized"),
        ),
        full_fetch=top.read("full_fetch", yamlfile.truth, False),
        outside_lookup=_outside_lookup(top, network),
        client_ip=top.read("client_ip", yamlfile.optional(_client_ip), None),
        apply=apply,
        policy=top.read("policy", _policy, "default"),
        templates=top.read("templates", yamlfile.absolute_path, Path("/etc/dzagent/templates.d")),
        intervals=intervals,
        paths=_paths(top),
        links=_links(top),
        doublezerod=_doublezerod(top),
        compat_socket=top.read("compat_socket", yamlfile.truth, False),
        log_level=top.read("log_level", yamlfile.one_of("debug", "info", "warning", "error"), "info"),
        remarks=_remarks(top),
        file=file,
    )


# ---- one function a key that needs more than a converter --------------------------------------------------


def _program_id(top: Section, network: str) -> str:
    item = top.entries.get("program_id")
    if item is not None:
        return _pubkey(item)
    if network in PROGRAM_IDS:
        return PROGRAM_IDS[network]
    raise ConfigError(
        "program_id is not set: network custom needs the address of the serviceability program", file=top.file
    )


def _pubkey(item: Item) -> str:
    value = yamlfile.text(item)
    if not _is_pubkey(value):
        raise item.expected("the base58 address of a program (32 bytes)")
    return value


def _is_pubkey(value: str) -> bool:
    """Whether a text is base58 of exactly 32 bytes (solders would tell too, but costs 100 ms to import)."""
    if not 32 <= len(value) <= 44 or any(char not in _BASE58 for char in value):
        return False
    number = 0
    for char in value:
        number = number * 58 + _BASE58.index(char)
    zeros = len(value) - len(value.lstrip("1"))
    return zeros + (number.bit_length() + 7) // 8 == 32


def _urls(item: Item) -> tuple[str, ...]:
    if not item.is_list:
        return (_url(item),)
    return yamlfile.list_of(_url, "http or https URLs", 8)(item)


def _url(item: Item) -> str:
    return _checked_url(
        item, ("http", "https"), "an http or https URL with a host, such as https://rpc.example.net/TOKEN"
    )


def _checked_url(item: Item, schemes: tuple[str, ...], what: str) -> str:
    value = yamlfile.text(item)
    expected = item.error(f"expected {what}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise expected from error
    if parts.scheme not in schemes or not parts.hostname or port == 0 or parts.fragment:
        raise expected
    if not value.isascii() or " " in value or "\\" in value:
        raise expected
    return value


def _budget(intervals: Intervals) -> int:
    """Return requests a minute that leave room for four requests a poll, and never less than 120."""
    return max(120, int(60 + 240 / intervals.poll))


def _websocket(top: Section, rpc: tuple[str, ...]) -> tuple[str, ...]:
    item = top.entries.get("websocket")
    if item is None or (not item.is_list and item.plain("auto, none or a ws or wss URL") == "auto"):
        return tuple(websocket_url(url) for url in rpc)
    if not item.is_list and item.plain("auto, none or a ws or wss URL") == "none":
        return ()
    if not item.is_list:
        return (_ws_url(item),)
    return yamlfile.list_of(_ws_url, "ws or wss URLs", 8)(item)


def websocket_url(url: str) -> str:
    """Return where the subscriptions of an RPC URL are by Solana's convention: the same place, or the next port.

    A named port other than 443 and 80 is followed by the websocket's (Agave: rpc 8899, pubsub 8900).
    """
    parts = urlsplit(url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    place = parts.netloc
    if parts.port not in {None, 80, 443} and parts.port != 65535:
        place = f"{place.rpartition(':')[0]}:{(parts.port or 0) + 1}"
    return urlunsplit((scheme, place, parts.path, parts.query, ""))


def _ws_url(item: Item) -> str:
    return _checked_url(item, ("ws", "wss"), "auto, none or a ws or wss URL with a host")


def _outside_lookup(top: Section, network: str) -> str:
    expected = "auto, none or an http or https URL that answers with this host's address"
    item = top.entries.get("outside_lookup")
    if item is None or item.plain(expected) == "auto":
        return OUTSIDE_LOOKUP if network not in {"localnet", "custom"} else ""
    if item.plain(expected) == "none":
        return ""
    return _checked_url(item, ("http", "https"), expected)


def _client_ip(item: Item) -> IPv4Address:
    address = yamlfile.ipv4(item)
    reason = refuse_client_ip(address, "custom")
    if reason is not None:
        raise item.error(reason)
    return address


def _policy(item: Item) -> str:
    value = yamlfile.text(item)
    if value.startswith("/"):
        return str(yamlfile.absolute_path(item))
    if not _POLICY_NAME.fullmatch(value):
        raise item.expected("the name of a policy, such as default, or an absolute path")
    return value


def _intervals(top: Section) -> Intervals:
    part = yamlfile.subsection(top, "intervals", _INTERVALS)
    return Intervals(
        poll=part.read("poll", yamlfile.number(1, 3600, "seconds"), Intervals().poll),
        resync=_resync(part),
        rpc_timeout=part.read("rpc_timeout", yamlfile.number(0.5, 120, "seconds"), Intervals().rpc_timeout),
        search=part.read("search", yamlfile.number(10, 3600, "seconds"), Intervals().search),
        devices=part.read("devices", yamlfile.number(10, 86400, "seconds"), Intervals().devices),
    )


def _remarks(top: Section) -> tuple[str, ...]:
    old = yamlfile.subsection(top, "intervals", _INTERVALS).entries.get("observe")
    if old is None:
        return ()
    where = f"{top.file}:{yamlfile.line_of(old.node)}"
    return (
        f"{where}: intervals.observe is called intervals.resync now, and need not be short: the kernel is watched",
    )


def _resync(part: Section) -> float:
    """Read `resync`, or `observe`, which it was called before the kernel was watched."""
    old = part.entries.get("observe")
    if old is None or "resync" not in part.entries:
        key = "resync" if old is None else "observe"
        return part.read(key, yamlfile.number(0.1, 3600, "seconds"), Intervals().resync)
    raise old.error("this is the old name of intervals.resync, which is set too: remove this line")


def _paths(top: Section) -> Paths:
    part = yamlfile.subsection(top, "directories", _DIRECTORIES)
    paths = Paths(
        state=part.read("state", yamlfile.absolute_path, Paths().state),
        run=part.read("run", _run_directory, Paths().run),
    )
    if paths.state == paths.run or "/" in {str(paths.state), str(paths.run)}:
        raise ConfigError(
            "directories: state and run must be two directories, neither of them /",
            file=top.file,
            line=yamlfile.line_of(top.entries["directories"].node) if "directories" in top.entries else None,
        )
    return paths


def _run_directory(item: Item) -> Path:
    path = yamlfile.absolute_path(item)
    if len(str(path).encode()) > _MAX_SOCKET_PATH:
        raise item.expected(f"a path of at most {_MAX_SOCKET_PATH} bytes (it holds sockets)")
    return path


def _doublezerod(top: Section) -> Doublezerod:
    part = yamlfile.subsection(top, "doublezerod", _DOUBLEZEROD)
    return Doublezerod(
        state=part.read("state", yamlfile.absolute_path, Doublezerod().state),
        socket=part.read("socket", yamlfile.absolute_path, Doublezerod().socket),
        unit=part.read("unit", _unit_name, Doublezerod().unit),
    )


def _unit_name(item: Item) -> str:
    value = yamlfile.text(item)
    if not _UNIT_NAME.fullmatch(value):
        raise item.expected("the name of a systemd service, such as doublezerod.service")
    return value


def _links(top: Section) -> Links:
    part = yamlfile.subsection(top, "links", _LINKS)
    links = Links(
        unicast=part.read("unicast", _link_name, Links().unicast),
        multicast=part.read("multicast", _link_name, Links().multicast),
    )
    if links.unicast == links.multicast:
        item = part.entries.get("multicast", part.entries.get("unicast"))
        line = None if item is None else yamlfile.line_of(item.node)
        raise ConfigError("links: unicast and multicast need different names", file=top.file, line=line)
    return links


def _link_name(item: Item) -> str:
    value = yamlfile.text(item)
    if not LINK_NAME.fullmatch(value):
        raise item.expected(f"an interface name: {LINK_NAME_RULE}")
    if value in _RESERVED_LINKS:
        raise item.error(
            f"{value} is a name that the kernel uses itself; choose another, such as doublezero0"
        )
    return value
