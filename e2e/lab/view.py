"""What the kernel of the host holds of the agent, in a form that tests can compare exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from e2e.lab.netns import Namespace
from e2e.lab.topology import PEER_DZ_IP

PROTOCOL = "210"
LINKS = ("doublezero0", "doublezero1")
MAIN_TABLE = "254"


@dataclass(frozen=True, slots=True)
class LinkView:
    """A GRE link: every attribute that upstream sets, and the two that are ours (alias; protocol numbers)."""

    name: str
    kind: str
    local: str
    remote: str
    ttl: int
    mtu: int
    pmtudisc: bool
    alias: str
    up: bool
    plain: bool
    """Whether it has no key, checksum, sequence number or fixed TOS."""


@dataclass(frozen=True, slots=True)
class View:
    """The agent's objects. Texts are short forms of what `ip` would take."""

    links: tuple[LinkView, ...] = ()
    addresses: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()


NOTHING = View()


def gre(name: str, service: str, local: str, remote: str) -> LinkView:
    """Return the link that a service must have (upstream.md: TTL 64, MTU 1476, no path MTU discovery)."""
    return LinkView(name, "gre", local, remote, 64, 1476, False, f"dzagent:{service}", True, True)


def view(host: Namespace) -> View:
    """Read the agent's links, all IPv4 addresses on them, and all routes and rules of its protocol."""
    listed = [item for item in host.json("addr show") if item["ifname"] in LINKS]
    return View(
        tuple(sorted((_link(item) for item in listed), key=lambda link: link.name)),
        frozenset(
            f"{a['local']}/{a['prefixlen']} dev {item['ifname']} scope {_scope(a)}"
            for item in listed
            for a in item.get("addr_info", [])
            if a.get("family") == "inet"
        ),
        frozenset(
            _route(r)
            for r in host.json(f"-4 route show table all proto {PROTOCOL}")
            if r.get("type", "1") != "local" and not _learned(r)
        ),
        frozenset(_rule(r) for r in host.json("-4 rule show") if str(r.get("protocol")) == PROTOCOL),
    )


def ifindex(host: Namespace, name: str) -> int:
    """Return the index of a link, 0 if it is not there."""
    found = host.json(f"link show dev {name}")
    return int(found[0]["ifindex"]) if found else 0


def learned(host: Namespace) -> frozenset[str]:
    """Read the routes that BGP taught; they come and go with a session, so that `view` leaves them out."""
    listed = host.json(f"-4 route show table all proto {PROTOCOL}")
    return frozenset(_route(r) for r in listed if _learned(r))


def _learned(item: dict[str, Any]) -> bool:
    """Tell whether a route leads to the other user of the lab: nothing else is announced."""
    return _full(str(item.get("dst"))) == f"{PEER_DZ_IP}/32"


def _link(item: dict[str, Any]) -> LinkView:
    info = item.get("linkinfo", {})
    data = info.get("info_data", {})
    odd = {"ikey", "okey", "iseq", "oseq", "icsum", "ocsum", "tos"} & set(data)
    return LinkView(
        item["ifname"],
        info.get("info_kind", ""),
        data.get("local", ""),
        data.get("remote", ""),
        int(data.get("ttl", 0)),
        item["mtu"],
        bool(data.get("pmtudisc", False)),
        item.get("ifalias", ""),
        "UP" in item["flags"],
        not odd,
    )


def _scope(address: dict[str, Any]) -> str:
    return {"0": "global", "253": "link", "254": "host"}.get(str(address["scope"]), str(address["scope"]))


def _full(prefix: str) -> str:
    if prefix == "default":
        return "0.0.0.0/0"
    return prefix if "/" in prefix else f"{prefix}/32"


def _route(item: dict[str, Any]) -> str:
    source = f" src {item['prefsrc']}" if "prefsrc" in item else ""
    table = item.get("table", MAIN_TABLE)
    metric = f" metric {item['metric']}" if item.get("metric") else ""
    return (
        f"{_full(item['dst'])} via {item.get('gateway')} dev {item.get('dev')}{source} table {table}{metric}"
    )


def _rule(item: dict[str, Any]) -> str:
    def end(name: str, length: str) -> str:
        address = item.get(name, "all")
        if address == "all":
            return "all"
        return f"{address}/{item[length]}" if length in item else _full(address)

    return f"{item['priority']}: from {end('src', 'srclen')} to {end('dst', 'dstlen')} lookup {item['table']}"
