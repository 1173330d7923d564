"""Conditions and errors of a service, from what a pass saw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dzagent.contested import Fight
from dzagent.feed import LedgerView
from dzagent.held import Held
from dzagent.hostfacts import Facts, Identity
from dzagent.intent import IntentView
from dzagent.judge import complaints, judge
from dzagent.model import (
    SERVICE_NAMES,
    Action,
    Conflict,
    Desired,
    Link,
    Observed,
    Origin,
    Outcome,
    Plan,
    Problem,
    Protected,
    Result,
    Rule,
    SeenLink,
    Step,
)
from dzagent.ownership import Ownership
from dzagent.passreport import PassReport
from dzagent.policy import Policy
from dzagent.render import Templates, parse_texts, render_service
from dzagent.services import Host
from dzagent.serviceview import error_of, kind_of_change, view
from dzagent.share import find
from dzagent.status import ServiceView
from dzagent.wishes import Wishes, keep_all, nothing
from tests.owning import ours
from tests.service_fakes import CLIENT, EDGE, run, service, snapshot

SERVICE = service(run(EDGE), "unicast")
OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
TEXT = render_service(SERVICE, Policy(), Templates((find("templates"),)))
DESIRED = parse_texts({"unicast": TEXT}, OWNER)
LINK = next(obj for obj in DESIRED.objects if isinstance(obj, Link))
RULE = next(obj for obj in DESIRED.objects if isinstance(obj, Rule))
WANTED = next(w for w in DESIRED.wanted if isinstance(w.obj, Link))
SEEN = SeenLink("doublezero0", 7, "gre", up=True, mtu=1476, alias="dzagent:unicast", tunnel=LINK)
MAKE = Step(Action.ADD, None, LINK, "missing", WANTED.origin)
PROBLEM = Problem("InvalidEndpoint", "endpoint 127.0.0.1: a unicast address is needed.", "unicast")


def report(**changes: object) -> PassReport:
    """Return the report of a quiet pass with one provisioned service, changed as told."""
    quiet = PassReport(
        intent=IntentView(True),
        view=LedgerView(snapshot(EDGE), frozenset({CLIENT}), 1.0, 1.0),
        facts=Facts(Identity(CLIENT, "pinned", Host(CLIENT)), Protected()),
        wishes=Wishes({"unicast": TEXT}, {"unicast": SERVICE}, {}, {"multicast": "no user"}),
        desired=DESIRED,
        generation=3,
        render_problem=None,
        before=Observed((SEEN,)),
        after=Observed((SEEN,)),
        plan=Plan("id"),
        held=(),
        outcomes=(),
        failing=(),
    )
    return replace(quiet, **changes)  # type: ignore[arg-type] # fields by name, as the tests give them


def services(seen: PassReport) -> list[ServiceView]:
    return [shown for name in SERVICE_NAMES if (shown := view(name, seen)) is not None]


def conditions(seen: PassReport, mode: str = "auto") -> dict[str, tuple[str, str, str]]:
    return {kind: (status, why, text) for kind, status, why, text in judge(seen, services(seen), mode)}


def test_a_quiet_pass_is_ready() -> None:
    found = conditions(report())
    assert {kind: status for kind, (status, _, _) in found.items()} == {
        "IntentReadable": "True",
        "IdentityKnown": "True",
        "LedgerReachable": "True",
        "LedgerStale": "False",
        "LedgerChanged": "False",
        "ClockRight": "Unknown",
        "Rendered": "True",
        "Journaled": "True",
        "InSync": "True",
        "SessionUp": "Unknown",
        "Conflict": "False",
        "Contested": "False",
        "Held": "False",
        "ForeignDaemon": "False",
        "StateMigrated": "Unknown",
        "ConfirmPending": "False",
        "Firewall": "Unknown",
        "Ready": "True",
    }
    assert complaints(report()) == []


CONFLICT = Conflict(WANTED, "link doublezero0 of kind dummy", "Remove it.")
FIGHT = Fight(MAKE, 7, "a link of somebody is in its place")
BESIDE = Wishes(
    {"unicast": TEXT},
    {"unicast": SERVICE},
    {},
    {"multicast": "no user"},
    problems=(Problem("TableShared", "table 100 is shared"),),
)
HELD = Held(
    Step(Action.ADD, None, RULE, "missing", Origin("unicast", "unicast/rule.ip", 3)), "it holds a gateway."
)


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"intent": IntentView(False)}, "Ready", ("False", "Disabled")),
        ({"intent": IntentView(False)}, "LedgerReachable", ("Unknown", "Disabled")),
        (
            {"intent": IntentView(None, message="corrupt", readable=False)},
            "IntentReadable",
            ("False", "Corrupt"),
        ),
        (
            {"intent": IntentView(None), "plan": Plan("id", ((MAKE,),))},
            "InSync",
            ("Unknown", "IntentUnknown"),
        ),
        ({"view": LedgerView()}, "LedgerReachable", ("Unknown", "Waiting")),
        (
            {"view": LedgerView(error="no", error_code="Unreachable")},
            "LedgerReachable",
            ("False", "Unreachable"),
        ),
        ({"facts": Facts(PROBLEM, Protected())}, "IdentityKnown", ("False", "InvalidEndpoint")),
        ({"render_problem": "the disk is full"}, "Rendered", ("False", "Failed")),
        ({"plan": Plan("id", (), (CONFLICT,))}, "Conflict", ("True", "ForeignObject")),
        ({"plan": Plan("id", (), (CONFLICT,))}, "InSync", ("False", "Conflict")),
        ({"plan": Plan("id", ((MAKE,),))}, "InSync", ("False", "StepsLeft")),
        ({"plan": Plan("id", ((MAKE,),))}, "Ready", ("False", "StepsLeft")),
        ({"wishes": BESIDE}, "Conflict", ("True", "ForeignNeighbour")),
        ({"wishes": BESIDE}, "Ready", ("True", "Provisioned")),
        ({"fights": (FIGHT,)}, "Contested", ("True", "Undone")),
        ({"fights": (FIGHT,)}, "Ready", ("True", "Provisioned")),
        ({"journal_problem": "the disk is full"}, "Journaled", ("False", "Failed")),
        ({"journal_problem": "the disk is full"}, "Ready", ("True", "Provisioned")),
        ({"held": (HELD,)}, "Held", ("True", "WouldCapture")),
        ({"held": (HELD,)}, "Ready", ("False", "Held")),
        ({"wishes": keep_all({"unicast": TEXT}, PROBLEM)}, "Ready", ("False", "InvalidEndpoint")),
        (
            {"wishes": Wishes({}, {}, {}, {"unicast": "banned"}), "desired": Desired()},
            "Ready",
            ("False", "NoService"),
        ),
    ],
)
def test_each_trouble_has_its_condition(
    changes: dict[str, object], kind: str, expected: tuple[str, str]
) -> None:
    assert conditions(report(**changes))[kind][:2] == expected


def test_what_is_left_says_why_also_where_somebody_was_faster() -> None:
    left, raced = Plan("id", ((MAKE,),)), Outcome(MAKE, Result.RACED, "File exists")
    assert conditions(report(plan=left))["InSync"][2].endswith("they are retried")
    assert conditions(report(plan=left, outcomes=(raced,)))["InSync"][2].endswith("left: File exists")
    failed = Outcome(MAKE, Result.TRANSIENT, "busy")
    assert conditions(report(plan=left, outcomes=(raced,), failing=(failed,)))["InSync"][2].endswith("busy")


def test_in_manual_mode_the_condition_says_what_to_type() -> None:
    status, why, text = conditions(report(plan=Plan("abcd", ((MAKE,),))), "manual")["InSync"]
    assert (status, why) == ("False", "Waiting")
    assert "dzagent apply abcd" in text
    assert "never writes" in conditions(report(plan=Plan("abcd", ((MAKE,),))), "observe")["InSync"][2]


def test_a_fight_is_told_with_object_count_and_suspects_each_once() -> None:
    many = tuple(replace(FIGHT, count=n) for n in range(8))
    text = conditions(report(fights=many, suspects=("zebra runs",)))["Contested"][2]
    assert text.count("link doublezero0") == 5
    assert "and 3 more" in text
    assert "repairs of late: 4" in text
    assert text.endswith("a link of somebody is in its place; zebra runs")
    first, second = complaints(report(fights=(FIGHT, replace(FIGHT, count=9)), suspects=("zebra runs",)))
    assert first == second, "a count that moves is no news"
    assert first.startswith("Contested: somebody keeps undoing link doublezero0")
    extra = Step(Action.DELETE, ours(RULE), None, "not wanted any more")
    assert "keeps adding rule" in complaints(report(fights=(Fight(extra, 7),)))[0]


def test_a_kept_service_is_shown_from_its_text() -> None:
    kept = view("unicast", report(wishes=keep_all({"unicast": TEXT}, PROBLEM)))
    granted = view("unicast", report())
    assert kept == granted
    assert kept is not None
    assert (kept.user_type, kept.dz_ip, kept.overlay) == ("EdgeFiltering", "148.51.0.9", "169.254.0.4/31")
    assert view("multicast", report()) is None


def test_the_most_telling_error_of_a_service_is_shown() -> None:
    failed = Outcome(MAKE, Result.PERMANENT, "Operation not permitted")
    assert error_of("unicast", report(), "doublezero0") is None
    code, text = error_of("unicast", report(failing=(failed,)), "doublezero0") or ("", "")
    assert (code, "Operation not permitted" in text) == ("Permanent", True)
    assert error_of("multicast", report(failing=(failed,)), "doublezero1") is None
    conflicting = report(failing=(failed,), plan=Plan("id", (), (CONFLICT,)))
    assert (error_of("unicast", conflicting, "doublezero0") or ("",))[0] == "Conflict"
    keeping = replace(conflicting, wishes=keep_all({"unicast": TEXT}, PROBLEM))
    assert error_of("unicast", keeping, "doublezero0") == (PROBLEM.code, PROBLEM.message)


def test_changes_are_counted_as_upstream_names_them() -> None:
    assert kind_of_change("doublezero0", report(before=Observed())) == "provisions"
    assert kind_of_change("doublezero0", report()) == "updates"
    gone = report(desired=Desired(), wishes=nothing("disabled"))
    assert kind_of_change("doublezero0", gone) == "removals"


def test_everything_wrong_is_a_complaint() -> None:
    seen = report(
        wishes=keep_all({"unicast": TEXT}, PROBLEM),
        plan=Plan("id", (), (CONFLICT,)),
        held=(HELD,),
        render_problem="the disk is full",
        fights=(FIGHT,),
        journal_problem="no room",
        intent=IntentView(True, message="corrupt", readable=False),
        facts=Facts(Problem("ClientIpUnknown", "set client_ip."), Protected()),
    )
    assert [text.partition(":")[0] for text in complaints(seen)] == [
        "InvalidEndpoint",
        "Conflict",
        "Contested",
        "Held",
        "Rendered",
        "Journaled",
        "Intent",
        "ClientIpUnknown",
    ]
