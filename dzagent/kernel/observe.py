"""The reader of iproute2's JSON: pure functions from the text of one process to an `Observed`.

`ip -4 -N -d -j -force -batch -` prints one JSON array a line, in the order of the batch (measured with
iproute2 6.1). `link show` is needed beside `addr show`: with -4 the latter leaves out links without an
IPv4 address, and without -4 an IPv6 default route could not be told from an IPv4 one. With -N numbers stay
numbers, whatever the files in /etc/iproute2 call them.

Whatever cannot be read raises ObservationError: it is never taken for "empty".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Final, TypeAlias

from dzagent.errors import ObservationError
from dzagent.kernel import tokens
from dzagent.model import MAIN_TABLE, Address, Interest, Link, Observed, Route, Rule, SeenLink

FORMAT: Final = ("-4", "-N", "-d", "-j")
"""Arguments of `ip` that make it print what is read here."""

OPTIONS: Final = (*FORMAT, "-force", "-batch", "-")
"""Arguments of `ip` that make it read `batch(interest)` and print what `decode` reads."""

Record: TypeAlias = Mapping[str, Any]

ANY: Final = IPv4Network("0.0.0.0/0")
_NOWHERE: Final = IPv4Address(0)
_QUOTE: Final = re.compile(r"\\(.)", re.DOTALL)
_READABLE: Final = ("link", "addr", "rule", "routes of our protocol")


def reads(interest: Interest) -> tuple[tuple[int, IPv4Network], ...]:
    """Return the keys whose holders are read, whoever they are: main's default routes first (the gateways)."""
    return tuple(dict.fromkeys(((MAIN_TABLE, ANY), *interest.exact)))


def batch(interest: Interest) -> str:
    """Return the batch text that reads everything `interest` covers."""
    lines = ["link show", "addr show", "rule show", f"route show table all proto {interest.protocol}"]
    lines += [f"route show exact {dst} table {table}" for table, dst in reads(interest)]
    return "\n".join(lines) + "\n"


class Known:
    """Routes by the text that `ip` prints for them: of thousands that have not changed, none is decoded again.

    The same route is the same object from one observation to the next.
    """

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._line = ""
        self._read: tuple[Route, ...] = ()
        self._protocol: int | None = None

    def read(self, line: str, protocol: int) -> tuple[Route, ...]:
        """Return the routes of one array. Raises ObservationError.

        The protocol that was asked for is not in the text: routes of two protocols may read alike.
        """
        if protocol != self._protocol:
            self._protocol, self._routes, self._line, self._read = protocol, {}, "", ()
        if line != self._line:
            self._read = self._read_parts(line, protocol)
            self._line = line
        return self._read

    def _read_parts(self, line: str, protocol: int) -> tuple[Route, ...]:
        parts = line.strip().removeprefix("[{").removesuffix("}]").split("},{")
        new = [part for part in dict.fromkeys(parts) if part not in self._routes]
        try:
            records = _array(f"[{{{'},{'.join(new)}}}]") if new else []
        except ObservationError:
            records = []
        if len(records) != len(new):  # empty, or an array inside a route: then all of it is read as one
            return tuple(_each(_array(line), partial(_route, table=None, protocol=protocol)))
        found = dict(zip(new, _each(records, partial(_route, table=None, protocol=protocol)), strict=True))
        self._routes = {part: found.get(part) or self._routes[part] for part in parts}
        return tuple(map(self._routes.__getitem__, parts))


def decode(stdout: bytes, interest: Interest, known: Known | None = None) -> Observed:
    """Decode the answer to `batch(interest)`. Raises ObservationError if any part of it is unreadable.

    known: what was decoded before, for a caller that observes again and again.
    """
    keys = reads(interest)
    lines = answers(stdout, len(_READABLE) + len(keys))
    owned = (known or Known()).read(lines[3], interest.protocol)
    others: list[Route] = []
    for (table, _), line in zip(keys, lines[4:], strict=True):
        others += read_routes(line, table)
    # those of ours are among the owned ones
    foreign = dict.fromkeys(route for route in others if route.protocol != interest.protocol)
    return Observed(read_links(lines[0]), read_addresses(lines[1]), (*owned, *foreign), read_rules(lines[2]))


def read_links(line: str) -> tuple[SeenLink, ...]:
    """Read the answer to `link show`. Raises ObservationError, as all of these do."""
    return tuple(_each(_array(line), _link))


def read_addresses(line: str) -> tuple[Address, ...]:
    """Read the answer to `addr show`."""
    return tuple(address for record in _array(line) for address in _guarded(record, _addresses))


def read_rules(line: str) -> tuple[Rule, ...]:
    """Read the answer to `rule show`."""
    return tuple(_each(_array(line), _rule))


def read_routes(line: str, table: int, protocol: int | None = None) -> tuple[Route, ...]:
    """Read routes of one table; of one protocol, if that was asked for: it is not printed then."""
    return tuple(_each(_array(line), partial(_route, table=table, protocol=protocol)))


def decode_source(stdout: bytes) -> IPv4Address | None:
    """Return the source address in the answer of `ip -j route get`; None if it names none."""
    records = _array(answers(stdout, 1)[0])
    for record in records:
        if "prefsrc" in record:
            source: IPv4Address = _guarded(record, lambda r: IPv4Address(r["prefsrc"]))
            return source
    return None


# ---- JSON ------------------------------------------------------------------------------------------------


def answers(stdout: bytes, expected: int) -> list[str]:
    """Split the output into its arrays of objects, one a line. Raises ObservationError for another number of them.

    Names and aliases may hold any bytes: those that are not UTF-8 become U+FFFD. Names of ours are ASCII.
    """
    text = stdout.decode(errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) != expected:
        raise ObservationError(f"ip printed {len(lines)} answers where {expected} were asked for.")
    return lines


def _array(line: str) -> list[Record]:
    try:
        value = _loads(line)
    except (ValueError, RecursionError) as error:
        raise ObservationError(f"ip printed JSON that cannot be read: {error}.") from error
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise ObservationError("ip printed JSON that is not an array of objects.")
    return [record for record in value if record]


def _loads(line: str) -> Any:
    r"""Read one line of iproute2's JSON.

    Its writer has two oddities: some releases escape an apostrophe as \', which JSON does not know
    (an interface alias can hold one), and a route with an encapsulation has the key "dst" twice, where the
    first is the destination.
    """
    if "\\'" in line:
        line = _QUOTE.sub(lambda match: "'" if match[1] == "'" else match[0], line)
    hook = _first_wins if '"encap"' in line else None
    return json.loads(line, strict=False, object_pairs_hook=hook)


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        result.setdefault(name, value)
    return result


def _guarded(record: Record, read: Callable[[Record], Any]) -> Any:
    """Turn every way in which a record can have the wrong shape into an ObservationError."""
    try:
        return read(record)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        text = json.dumps(record)[:200]
        raise ObservationError(f"ip printed an object that cannot be read ({error!r}): {text}") from error


def _each(records: Iterable[Record], read: Callable[[Record], Any]) -> Iterable[Any]:
    return (_guarded(record, read) for record in records)


# ---- objects ---------------------------------------------------------------------------------------------


def _int(value: Any) -> int:
    """Read a number that may be JSON's own, decimal text or 0x text."""
    return int(value, 0) if isinstance(value, str) else int(value)


def _network(text: str) -> IPv4Network:
    """Read a prefix; "default" and "all" are everything, and a bare address is a /32."""
    return ANY if text in {"default", "all", "any"} else IPv4Network(text)


def _link(record: Record) -> SeenLink:
    info = record.get("linkinfo") or {}
    kind = str(info.get("info_kind", ""))
    name, alias = str(record["ifname"]), str(record.get("ifalias", ""))
    up, mtu = "UP" in record["flags"], int(record["mtu"])
    data = info.get("info_data") or {}
    tunnel = None
    if kind == "gre":
        extra = (*tokens.gre(data), *tokens.link(record))
        tunnel = Link(
            name,
            local=_endpoint(data.get("local")),
            remote=_endpoint(data.get("remote")),
            ttl=_ttl(data.get("ttl", 0)),
            mtu=mtu,
            alias=alias,
            pmtudisc=bool(data.get("pmtudisc", False)),
            up=up,
            extra=tuple(sorted(extra)),
        )
    altnames = tuple(map(str, record.get("altnames", ())))
    return SeenLink(name, int(record["ifindex"]), kind, up, mtu, alias, tunnel, altnames)


def _endpoint(value: Any) -> IPv4Address:
    """Read a tunnel endpoint; "any" (or none at all) is the wildcard."""
    return _NOWHERE if value in {None, "", "any"} else IPv4Address(value)


def _ttl(value: Any) -> int:
    return 0 if value == "inherit" else _int(value)


def _addresses(record: Record) -> list[Address]:
    dev = str(record["ifname"])
    return [_address(item, dev) for item in record["addr_info"] if item and item["family"] == "inet"]


def _address(item: Record, dev: str) -> Address:
    interface = IPv4Interface(f"{item['local']}/{item['prefixlen']}")
    return Address(dev, interface, tokens.scope(item["scope"]), tokens.address(item, dev))


def _route(record: Record, table: int | None, protocol: int | None) -> Route:
    """Read a route. What was asked for is not printed again: `table` or `protocol`, if not None."""
    gateway, src = record.get("gateway"), record.get("prefsrc")
    dev = record.get("dev")
    return Route(
        _network(record["dst"]),
        via=None if gateway is None else _shared(gateway),
        dev=None if dev is None else str(dev),
        table=_int(record.get("table", MAIN_TABLE)) if table is None else table,
        protocol=_int(record["protocol"]) if protocol is None else protocol,
        src=None if src is None else _shared(src),
        metric=_int(record.get("metric", 0)),
        extra=tokens.route(record),
    )


@lru_cache(maxsize=64)
def _shared(text: str) -> IPv4Address:
    """Read an address that thousands of routes have in common."""
    return IPv4Address(text)


def _rule(record: Record) -> Rule:
    return Rule(
        int(record["priority"]),
        _selector(record, "src", "srclen"),
        _selector(record, "dst", "dstlen"),
        table=_int(record.get("table", 0)),
        protocol=_int(record.get("protocol", 0)),
        extra=tokens.rule(record),
    )


def _selector(record: Record, address: str, length: str) -> IPv4Network:
    """Read one side of a rule: absent or "all" is everything, without a length it is one address.

    The kernel keeps host bits ("from 10.1.2.3/8") and ignores them; `tokens.rule` remembers them.
    """
    value = record.get(address, "all")
    if value in {"all", "any"}:
        return ANY
    return IPv4Network(f"{value}/{record.get(length, 32)}", strict=False)
