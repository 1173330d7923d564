"""The journal: what the agent has begun in the kernel, and which objects it made. Kept on tmpfs, as short as it can be.

The kernel's own state is gone after a boot, and so is this file; it says for which boot and which network namespace
it is true. Each line carries a checksum. What cannot be read is left out and reported: then marks alone tell what is
ours. A file that cannot be written stops nothing.

    3b1f0c55 {"journal": 1, "place": "BOOT-ID NAMESPACE"}
    90ab12cd {"link": "doublezero0", "ifindex": 12, "kind": "gre"}        a link of ours
    0c4411fe {"table": 7}                                                 the handle of our nftables table
    77aa31b0 {"begun": "add", "commands": ["link add name ..."], ...}     a change that is not verified yet
"""

from __future__ import annotations

import json
import logging
import socket
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from dzagent.errors import StateError
from dzagent.files import read_bytes, write_atomic
from dzagent.kernel.commands import preview
from dzagent.model import Action, Link, SeenLink, Step
from dzagent.ownership import NO_CLAIMS, Claims, LinkClaim, Ownership

log = logging.getLogger(__name__)

VERSION: Final = 1
MAX_BYTES: Final = 1024 * 1024
"""No journal comes near this; a larger file was not written by us."""

MAX_BEGUN: Final = 128
"""Changes of one batch that are written one by one; of what is more, the number alone. Links come before all else."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/net")
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h; Linux 5.14
_BAD: Final = (KeyError, ValueError, TypeError, RecursionError)
"""What reading a record of the wrong shape raises."""


def here() -> str:
    """Name this boot and this network namespace. The cookie of a namespace is never given again, its inode is."""
    boot, cookie, inode = "?", 0, 0
    with suppress(OSError):
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    with suppress(OSError):
        inode = _NAMESPACE.stat().st_ino
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        cookie = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    return f"{boot} {cookie:x}.{inode:x}"


@dataclass(frozen=True, slots=True)
class Entries:
    """What a journal says.

    begun: whether it names changes that nobody has verified. problem: one sentence about what could not be read.
    """

    claims: Claims = NO_CLAIMS
    begun: bool = False
    problem: str = ""


class Journal:
    """The journal of one process. Nothing here raises for a file that cannot be read or written."""

    def __init__(self, path: Path | None = None, place: str = "") -> None:
        """Read what another process left; without a path, everything is kept in memory alone."""
        self._path = path
        self._place = place
        entries = Entries() if path is None else read(path, place)
        self._claims = entries.claims
        self._begun: tuple[bytes, ...] = ()
        finished = entries.claims != NO_CLAIMS and not (entries.begun or entries.problem)
        self._written = _text(place, entries.claims, ()) if finished else None
        self._problem: str | None = None
        if entries.problem:
            log.warning("%s", entries.problem)

    @property
    def claims(self) -> Claims:
        """What is ours whatever its mark says."""
        return self._claims

    @property
    def problem(self) -> str | None:
        """Why the last write failed, None if it did not."""
        return self._problem

    def begin(self, steps: Sequence[Step]) -> None:
        """Write down what is about to be tried, in one write however many steps there are."""
        if not steps:
            return
        making = (
            step.target for step in steps if step.action is Action.ADD and isinstance(step.target, Link)
        )
        self._claims = replace(self._claims, making=tuple(making))
        self._begun = tuple(_begun(steps))
        self._write()

    def disown(self) -> None:
        """Forget what is ours whatever its mark says: it was handed over to somebody else, mark and all."""
        self._claims = NO_CLAIMS

    def settle(self, owner: Ownership, links: Iterable[SeenLink], table: int | None = None) -> Ownership:
        """Take in what the kernel holds now: the end of whatever was begun. Returns the owner with what is known.

        table: the handle of our nftables table if it is there. Writes only if something has changed.
        """
        known = replace(owner, claims=self._claims)
        found = (LinkClaim(seen.name, seen.ifindex, seen.kind) for seen in links if known.owns(seen))
        self._claims = Claims(tuple(found), (), table)
        self._begun = ()
        self._write()
        return replace(owner, claims=self._claims)

    def _write(self) -> None:
        """Write the file if it says something new, or is gone."""
        if self._path is None:
            return
        data = _text(self._place, self._claims, self._begun)
        if data == self._written and self._path.exists():
            return
        try:
            write_atomic(self._path, data, mode=0o600, durable=False)
        except StateError as error:
            self._written, self._problem = None, str(error)
        else:
            self._written, self._problem = data, None


# ---- records -> text -------------------------------------------------------------------------------------


def _text(place: str, claims: Claims, begun: Iterable[bytes]) -> bytes:
    lines = [_line({"journal": VERSION, "place": place})]
    lines += [_line({"link": c.name, "ifindex": c.ifindex, "kind": c.kind}) for c in claims.links]
    if claims.table is not None:
        lines.append(_line({"table": claims.table}))
    return b"".join((*lines, *begun))


def _begun(steps: Sequence[Step]) -> Iterable[bytes]:
    """Links first: theirs are the only lines that somebody has to read back."""
    ordered = sorted(steps, key=lambda step: not isinstance(step.target, Link))
    for step in ordered[:MAX_BEGUN]:
        record: dict[str, Any] = {"begun": step.action.value, "commands": preview(step)}
        if step.action is Action.ADD and isinstance(step.target, Link):
            record["making"] = _link_record(step.target)
        yield _line(record)
    if len(ordered) > MAX_BEGUN:
        yield _line({"begun": "more", "count": len(ordered) - MAX_BEGUN})


def _link_record(link: Link) -> dict[str, Any]:
    return {
        "name": link.name,
        "local": str(link.local),
        "remote": str(link.remote),
        "ttl": link.ttl,
        "mtu": link.mtu,
        "alias": link.alias,
        "pmtudisc": link.pmtudisc,
    }


def _line(record: Mapping[str, Any]) -> bytes:
    data = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


# ---- text -> records -------------------------------------------------------------------------------------


def read(path: Path, place: str) -> Entries:
    """Read the journal that another process left behind; never raises.

    Of another boot or namespace nothing is taken. After the first line that is torn nothing is believed.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        return Entries()
    except OSError as error:
        return Entries(problem=f"{path} cannot be read ({error.strerror}): marks alone tell what is ours")
    if len(data) > MAX_BYTES:
        return Entries(problem=f"{path} is larger than {MAX_BYTES} bytes: it is not ours and is not read")
    return parse(data, place, str(path))


def parse(data: bytes, place: str, name: str = "the journal") -> Entries:
    """Read the text of a journal; `name` stands for it in messages."""
    links: list[LinkClaim] = []
    making: list[Link] = []
    table: int | None = None
    number, begun, problem = 0, False, ""
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            record = _record(line)
            if number == 1 and (record["journal"], record["place"]) != (VERSION, place):
                return Entries()
            begun |= "begun" in record
            if "link" in record:
                links.append(_claim(record))
            elif "table" in record:
                table = _whole(record["table"])
            elif "making" in record:
                making.append(_making(record["making"]))
        except _BAD:
            problem = f"{name}, line {number}: it is torn; this line and what follows is left out"
            break
    if not problem and not data.endswith(b"\n"):
        problem = f"{name}, line {number + 1}: it is torn; it is left out"
    return Entries(Claims(tuple(links), tuple(making), table), begun, problem)


def _record(line: bytes) -> Mapping[str, Any]:
    checksum, _, data = line.partition(b" ")
    if int(checksum, 16) != zlib.crc32(data):
        raise ValueError("wrong checksum")
    record = json.loads(data)
    if not isinstance(record, dict):
        raise TypeError("not an object")
    return record


def _claim(record: Mapping[str, Any]) -> LinkClaim:
    return LinkClaim(_word(record["link"]), _whole(record["ifindex"]), _word(record["kind"]))


def _making(record: Mapping[str, Any]) -> Link:
    return Link(
        _word(record["name"]),
        IPv4Address(_word(record["local"])),
        IPv4Address(_word(record["remote"])),
        _whole(record["ttl"]),
        _whole(record["mtu"]),
        _word(record["alias"]),
        pmtudisc=record["pmtudisc"] is True,
    )


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("not a number")
    return value
