"""Random scripts of the lines that dzagent and its neighbours give to `ip -batch`, as hypothesis strategies.

Small pools, so that lines meet each other: keys that are taken, gateways that are gone, secondary addresses.
"""

from __future__ import annotations

from hypothesis import strategies as st

LINKS = ("doublezero0", "doublezero1")
TABLES = (254, 100, 101)
PREFIXES = ("0.0.0.0/0", "203.0.113.0/24", "203.0.113.9/32", "169.254.0.0/31", "10.0.0.0/24")
UPLINK = (
    "link set dev eth0 up",
    "addr add 198.51.100.7/24 dev eth0",
    "route add 0.0.0.0/0 via 198.51.100.1 dev eth0",
)
"""What makes the uplink of a namespace that has a link eth0."""

_ADDRESSES = (
    "169.254.0.1/31",
    "169.254.0.0/31",
    "169.254.1.1/31",
    "203.0.113.9/32",
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.0.0.1/32",
    "10.9.0.1 peer 10.9.0.2/32",
)
_GATEWAYS = (
    "169.254.0.0",
    "169.254.1.0",
    "198.51.100.1",
    "10.0.0.3",
    "169.254.0.1",
    "10.0.0.255",
    "10.9.0.2",
)
_SOURCES = ("", "", "", " src 203.0.113.9", " src 169.254.0.1", " src 198.51.100.7", " src 10.0.0.1")

names = st.sampled_from(LINKS)
devices = st.sampled_from([*LINKS, *LINKS, *LINKS, "eth0", "nodev"])
protocols = st.sampled_from([210, 210, 210, 4])
prefixes = st.sampled_from(PREFIXES)
tables = st.sampled_from(TABLES)
metrics = st.sampled_from(["", "", "", " metric 5"])


@st.composite
def link_lines(draw: st.DrawFn) -> str:
    """Draw a line about a link; each of ours has remotes of its own, as a stand-in for GRE knows no pairs."""
    name = draw(names)
    remote = f"192.0.2.{10 * LINKS.index(name) + draw(st.integers(1, 2))}"
    gre = f"type gre local 198.51.100.7 remote {remote} ttl {draw(st.sampled_from([64, 32]))} nopmtudisc"
    made, name = name, name if draw(st.integers(0, 9)) else "eth0"
    return draw(
        st.sampled_from(
            [
                f"link add name {made} mtu 1476 {gre}",
                f"link add name {made} mtu 1400 {gre}",
                f"link change dev {made} {gre}",
                f"link set dev {name} alias dzagent:unicast",
                f"link set dev {name} alias x",
                f"link set dev {name} mtu {draw(st.sampled_from([1476, 1300, 60, 70000]))}",
                f"link set dev {name} up",
                f"link set dev {name} up",
                f"link set dev {name} down",
                f"link set dev {name} nomaster",
                f"link delete dev {made}",
                "link delete dev if99",
                "link set dev if99 down",
            ]
        )
    )


@st.composite
def address_lines(draw: st.DrawFn) -> str:
    """Draw a line that makes or deletes an address."""
    address, dev = draw(st.sampled_from(_ADDRESSES)), draw(devices)
    if draw(st.integers(0, 2)) == 0:
        return f"addr del {address} dev {dev}"
    return f"addr add {address} dev {dev} scope {draw(st.sampled_from(['link', 'global', 'global', 'host']))}"


@st.composite
def route_lines(draw: st.DrawFn) -> str:
    """Draw a line that makes, replaces or deletes a route."""
    verb = draw(st.sampled_from(["add", "add", "replace", "del unicast"]))
    dst, via, dev = draw(prefixes), draw(st.sampled_from(_GATEWAYS)), draw(devices)
    table = draw(st.sampled_from([*TABLES, 109])) if verb == "del unicast" else draw(tables)
    return (
        f"route {verb} {dst} via {via} dev {dev}{draw(st.sampled_from(_SOURCES))} "
        f"table {table} proto {draw(protocols)}{draw(metrics)}"
    )


@st.composite
def rule_lines(draw: st.DrawFn) -> str:
    """Draw a line that makes or deletes a rule, now and then by its priority alone."""
    verb = draw(st.sampled_from(["add", "add", "del"]))
    priority = draw(st.sampled_from([100, 100, 101]))
    if verb == "del" and draw(st.integers(0, 4)) == 0:
        return f"rule del priority {priority}"
    sides = f"from {draw(prefixes)} to {draw(prefixes)}"
    return f"rule {verb} priority {priority} {sides} table {draw(tables)} protocol {draw(protocols)}"


def _made(name: str, number: int) -> tuple[str, ...]:
    remote = f"192.0.2.{10 * number + 1}"
    return (
        f"link add name {name} mtu 1476 type gre local 198.51.100.7 remote {remote} ttl 64 nopmtudisc",
        f"link set dev {name} up",
        f"addr add 169.254.{number}.1/31 dev {name} scope link",
    )


@st.composite
def scripts(draw: st.DrawFn) -> list[str]:
    """Draw a script; most begin with one or both tunnels up, so that later lines have something to stand on."""
    lines: list[str] = []
    for number, name in enumerate(LINKS):
        if draw(st.integers(0, 3)):
            lines += _made(name, number)
    kinds = [link_lines(), address_lines(), address_lines(), route_lines(), route_lines(), rule_lines()]
    lines += draw(st.lists(st.one_of(kinds), min_size=1, max_size=40))
    return lines
