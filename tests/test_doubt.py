"""A service without text that is kept on doubt loses nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from dzagent.doubt import spare, textless
from dzagent.model import Action, Address, KernelObject, Link, Plan, Problem, Route, Rule, ServiceName, Step
from dzagent.wishes import Wishes, keep_all, nothing
from tests.owning import ours

LINKS: dict[ServiceName, str] = {"unicast": "doublezero0", "multicast": "doublezero1"}
ANY = IPv4Network("0.0.0.0/0")
LINK = Link("doublezero0", IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1"), 64, 1476, "dzagent:unicast")
OBJECTS: tuple[KernelObject, ...] = (
    LINK,
    replace(LINK, name="renamed"),
    Address("doublezero0", IPv4Interface("169.254.0.5/31"), "link"),
    Route(ANY, IPv4Address("169.254.0.4"), "doublezero0", 101, 210),
    Rule(100, ANY, IPv4Network("203.0.113.0/26"), 100, 210),
)
OTHER = Address("doublezero1", IPv4Interface("169.254.0.7/31"), "link")


def deletes(*objects: KernelObject) -> Plan:
    return Plan("id", tuple((Step(Action.DELETE, ours(obj), None, "unwanted"),) for obj in objects))


@pytest.mark.parametrize("obj", OBJECTS)
def test_no_object_of_a_doubtful_service_is_deleted(obj: KernelObject) -> None:
    assert spare(deletes(obj, OTHER), {"unicast"}, LINKS).steps == deletes(OTHER).steps


def test_what_is_made_or_changed_goes_on_and_so_does_the_other_service() -> None:
    make = Step(Action.ADD, None, OBJECTS[2], "missing")
    plan = Plan("id", ((make,), (Step(Action.DELETE, ours(OTHER), None, "unwanted"),)))
    assert spare(plan, {"unicast"}, LINKS) == plan
    assert spare(deletes(*OBJECTS), set(), LINKS) == deletes(*OBJECTS)
    assert spare(deletes(OBJECTS[-1]), {"multicast"}, LINKS) == deletes(OBJECTS[-1])


def test_only_what_is_kept_without_a_text_is_doubtful() -> None:
    problem = Problem("NoLedgerAnswer", "the ledger does not answer.")
    assert textless(keep_all({}, problem)) == {"unicast", "multicast"}
    assert textless(keep_all({"unicast": {"tunnel.ip": ""}}, problem)) == {"multicast"}
    assert textless(nothing("disabled")) == frozenset()
    assert textless(Wishes({}, {}, {}, {"unicast": "banned"})) == frozenset()
