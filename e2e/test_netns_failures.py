"""The table of failures against the real `ip`: each message is provoked in a namespace, not remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dzagent.kernel.failures import classify
from dzagent.kernel.iproute import failures
from dzagent.kernel.run import run
from dzagent.model import Action, Result
from e2e.lab.errors import LabError
from e2e.lab.standin import Namespace, namespace

LINK = "link add name dz9 type vxlan id 9 local 198.51.100.7 remote 192.0.2.9 dstport 4789"
UP = (LINK, "link set dev dz9 up", "addr add 169.254.9.1/31 dev dz9 scope link")
ROUTE = "10.1.0.0/16 via 169.254.9.0 dev dz9 table 100 proto 210"
RULE = "priority 100 from 0.0.0.0/0 to 10.1.0.0/16 table 100 protocol 210"


@dataclass(frozen=True)
class Case:
    """A line that fails after the lines before it, for a step that does `action`."""

    action: Action
    line: str
    says: str
    means: Result
    before: tuple[str, ...] = UP


ADD, CHANGE, DELETE = Action.ADD, Action.CHANGE, Action.DELETE
CASES = (
    # a delete that finds nothing
    Case(DELETE, "link delete dev nodev", "Cannot find device", Result.GONE),
    Case(DELETE, "link delete dev if9999", "No such device", Result.GONE),
    Case(DELETE, "addr del 10.9.9.9/24 dev dz9", "Address not found", Result.GONE),
    Case(DELETE, "addr del 10.9.9.9/24 dev nodev", "Cannot find device", Result.GONE),
    Case(DELETE, "addr del 10.9.9.9/24 dev if9999", "Device not found", Result.GONE),
    Case(DELETE, f"route del unicast {ROUTE}", "FIB table does not exist", Result.GONE),
    Case(DELETE, f"route del unicast {ROUTE}", "No such process", Result.GONE, (*UP, f"route add {ROUTE}9")),
    Case(DELETE, f"rule del {RULE}", "No such file or directory", Result.GONE),
    Case(DELETE, f"rule del {RULE}", "No such file or directory", Result.GONE, (*UP, f"rule add {RULE}9")),
    # a change of what is gone
    Case(CHANGE, "link set dev nodev mtu 1400", "Cannot find device", Result.RACED),
    Case(CHANGE, "link set dev if9999 mtu 1400", "No such device", Result.RACED),
    Case(CHANGE, "link change dev eth0 type gre ttl 64 nopmtudisc", "Failed to get existing", Result.RACED),
    # somebody has it already
    Case(ADD, LINK, "File exists", Result.RACED),
    Case(ADD, "addr add 169.254.9.1/31 dev dz9 scope link", "Address already assigned", Result.RACED),
    Case(ADD, "addr add 169.254.9.0/31 dev dz9 scope global", "Invalid scope value", Result.RACED),
    Case(ADD, f"route add {ROUTE}", "File exists", Result.RACED, (*UP, f"route add {ROUTE}9")),
    Case(ADD, f"rule add {RULE}", "File exists", Result.RACED, (*UP, f"rule add {RULE}")),
    Case(
        ADD,
        f"rule add {RULE}",
        "File exists",
        Result.RACED,
        ("rule add priority 100 from 10.2.0.0/16 to 10.1.0.0/16 table 100 protocol 210",),
    ),
    # what it stands on is missing
    Case(ADD, "addr add 10.9.9.9/24 dev nodev scope link", "Cannot find device", Result.TRANSIENT),
    Case(ADD, "addr add 10.9.9.9/24 dev if9999 scope link", "Device not found", Result.TRANSIENT),
    Case(
        ADD, "route add 10.1.0.0/16 via 10.2.0.1 dev nodev table 100", "Cannot find device", Result.TRANSIENT
    ),
    Case(ADD, f"route add {ROUTE}", "Nexthop has invalid gateway", Result.TRANSIENT, UP[:2]),
    Case(ADD, f"route add {ROUTE} src 10.8.8.8", "Invalid prefsrc address", Result.TRANSIENT),
    Case(
        ADD,
        "route add 10.1.0.0/16 via 169.254.9.1 dev dz9 table 100",
        "Network is down",
        Result.TRANSIENT,
        (*UP, "link set dev dz9 down"),
    ),
    Case(
        ADD,
        "route add 10.1.0.0/16 dev dz9 table 100",
        "Device for nexthop is not up",
        Result.TRANSIENT,
        (LINK,),
    ),
    # what will not work by itself
    Case(ADD, "link add name dz8 type nosuchkind", "Unknown device type", Result.PERMANENT),
    Case(CHANGE, "link set dev dz9 mtu 70000", "mtu greater than device maximum", Result.PERMANENT),
    Case(CHANGE, "link set dev dz9 mtu 60", "mtu less than device minimum", Result.PERMANENT),
    Case(ADD, "route add 10.1.0.1/16 via 169.254.9.0 dev dz9", "Invalid prefix", Result.PERMANENT),
)


@pytest.fixture
def netns() -> Iterator[Namespace]:
    try:
        with namespace(f"dzagent-says-{os.getpid()}") as made:
            yield made
    except LabError as error:
        pytest.skip(f"NOT TESTED: the messages of the real ip. {error}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.action.value}: {case.says}")
def test_a_message_means_what_the_table_says(netns: Namespace, case: Case) -> None:
    for line in case.before:
        # a protocol, or table, with a digit more than that of the case: what is in the way is somebody else's
        netns.ip(line.replace("2109", "209"))
    done = netns("ip", ("-force", "-batch", "-"), case.line + "\n")
    message = failures(done, 1)[1]
    assert case.says in message
    assert classify("ip", done.code, case.action, message) is case.means


def test_without_the_right_to_it_every_change_is_refused_for_good(netns: Namespace) -> None:
    for line in UP:
        netns.ip(line)
    for line in (
        "link delete dev dz9",
        "addr del 169.254.9.1/31 dev dz9",
        f"route add {ROUTE}",
        f"rule add {RULE}",
    ):
        command = [
            "netns",
            "exec",
            netns.name,
            "setpriv",
            "--bounding-set=-net_admin",
            "--inh-caps=-all",
            "ip",
        ]
        done = run("ip", [*command, "-force", "-batch", "-"], line + "\n")
        message = failures(done, 1)[1]
        assert "Operation not permitted" in message
        assert {classify("ip", done.code, action, message) for action in Action} == {Result.PERMANENT}
