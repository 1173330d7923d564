"""The status document: everything as JSON for people, whatever the ledger or another owner calls things."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.conditions import Condition
from dzagent.held import Held
from dzagent.ledger.accounts import NO_KEY, Device, Exchange, GlobalConfig, MulticastGroup, Tenant, User
from dzagent.ledger.snapshot import Snapshot
from dzagent.model import (
    Action,
    Address,
    Conflict,
    KernelObject,
    Link,
    Origin,
    Plan,
    Problem,
    Route,
    Rule,
    Service,
    Step,
    UserType,
    Wanted,
)
from dzagent.status import (
    PENDING,
    LastError,
    ServiceView,
    condition_json,
    conflict_json,
    describe,
    overlay_of,
    plan_json,
    problem_json,
    service_json,
    view_kept,
    view_service,
)
from tests.owning import ours

ANY = IPv4Network("0.0.0.0/0")
CLIENT, FAR, DZ_IP = (IPv4Address(text) for text in ("198.51.100.7", "192.0.2.1", "203.0.113.9"))
LINK = Link("doublezero0", CLIENT, FAR, 64, 1476, "dzagent:unicast")
ADDRESS = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")
ROUTE = Route(ANY, IPv4Address("169.254.0.0"), "doublezero0", 101, 210, DZ_IP)
RULE = Rule(100, ANY, IPv4Network("203.0.113.0/24"), 100, 210)
ORIGIN = Origin("unicast", "unicast/rule.ip", 7)
SERVICE = Service(
    name="multicast",
    user_type=UserType.MULTICAST,
    link="doublezero1",
    tunnel_src=CLIENT,
    tunnel_dst=FAR,
    overlay=IPv4Network("169.254.0.0/31"),
    dz_ip=DZ_IP,
    local_asn=65000,
    remote_asn=65342,
    account="user",
    device="device",
)
GROUPS = {
    "g1": MulticastGroup(code="mg01", multicast_ip=IPv4Address("233.84.178.1"), max_bandwidth=10**9),
    "g2": MulticastGroup(code="mg02", multicast_ip=IPv4Address("233.84.178.2")),
}
USER = User(device_pk="device", tenant_pk="tenant", publishers=("g1", "g1", "gone"), subscribers=("g2", "g1"))
SNAPSHOT = Snapshot(
    7,
    "genesis",
    GlobalConfig(),
    users={"user": USER},
    devices={"device": Device(code="fra-dz001", exchange_pk="exchange")},
    groups=GROUPS,
    tenants={"tenant": Tenant(code="acme")},
    exchanges={"exchange": Exchange(name="Frankfurt", code="fra")},
)


# ---- services ------------------------------------------------------------------------------------------------


def test_a_granted_service_is_shown_with_the_ledger_s_labels() -> None:
    assert service_json(view_service(SERVICE), SNAPSHOT) == {
        "name": "multicast",
        "user_type": "Multicast",
        "tunnel_name": "doublezero1",
        "tunnel_src": "198.51.100.7",
        "tunnel_dst": "192.0.2.1",
        "doublezero_ip": "203.0.113.9",
        "overlay": "169.254.0.0/31",
        "account": "user",
        "device_pk": "device",
        "current_device": "fra-dz001",
        "metro": "Frankfurt",
        "tenant": "acme",
        "multicast_groups": {"publisher": ["mg01"], "subscriber": ["mg02", "mg01"]},
        "subscriptions": [
            {
                "pubkey": "g1",
                "code": "mg01",
                "multicast_ip": "233.84.178.1",
                "max_bandwidth": 10**9,
                "publisher": True,
                "subscriber": True,
            },
            {
                "pubkey": "g2",
                "code": "mg02",
                "multicast_ip": "233.84.178.2",
                "max_bandwidth": 0,
                "publisher": False,
                "subscriber": True,
            },
        ],
        "provisioned": False,
        "session": {"status": "Pending BGP Session", "last_update": 0},
        "last_error": None,
    }


@pytest.mark.parametrize(
    "snapshot",
    [
        None,
        replace(SNAPSHOT, users={}, devices={}),
        replace(SNAPSHOT, users={"user": User(tenant_pk=NO_KEY)}, devices={}),
        replace(SNAPSHOT, users={"user": User(tenant_pk="gone")}, devices={}),
    ],
)
def test_labels_that_the_ledger_does_not_have_are_empty(snapshot: Snapshot | None) -> None:
    shown = service_json(view_service(SERVICE), snapshot)
    assert (shown["current_device"], shown["metro"], shown["tenant"]) == ("", "", "")
    assert shown["multicast_groups"] == {"publisher": [], "subscriber": []}
    assert shown["subscriptions"] == []
    assert shown.keys() == service_json(view_service(SERVICE), SNAPSHOT).keys()


def test_a_device_whose_metro_is_not_known_has_a_code_all_the_same() -> None:
    shown = service_json(view_service(SERVICE), replace(SNAPSHOT, exchanges={}))
    assert (shown["current_device"], shown["metro"]) == ("fra-dz001", "")


def test_a_subscriber_has_no_address_of_its_own() -> None:
    assert view_service(replace(SERVICE, dz_ip=None)).dz_ip == ""


def test_a_kept_service_is_shown_from_its_text() -> None:
    labels = {"user type": "IBRL", "user": "user", "device": "device", "slot": "7"}
    assert view_kept("unicast", LINK, labels, "198.51.100.7", "169.254.0.0/31") == ServiceView(
        name="unicast",
        link="doublezero0",
        user_type="IBRL",
        tunnel_src="198.51.100.7",
        tunnel_dst="192.0.2.1",
        dz_ip="198.51.100.7",
        overlay="169.254.0.0/31",
        account="user",
        device="device",
    )
    assert view_kept("unicast", LINK, {}, "", "").user_type == ""


def test_the_last_error_and_what_is_in_the_kernel_are_shown() -> None:
    error = LastError("InvalidOverlay", "it is not a /31", 12.5)
    shown = service_json(replace(view_service(SERVICE), provisioned=True, last_error=error), None)
    assert shown["provisioned"] is True
    assert shown["last_error"] == {"code": "InvalidOverlay", "message": "it is not a /31", "since": 12.5}
    assert shown["session"]["status"] == PENDING


# ---- conditions, problems, conflicts ---------------------------------------------------------------------------


def test_conditions_have_the_keys_of_kubernetes() -> None:
    assert condition_json(Condition("Ready", "False", "Disabled", "it is disabled", 5.0, 3)) == {
        "type": "Ready",
        "status": "False",
        "reason": "Disabled",
        "message": "it is disabled",
        "last_transition": 5.0,
        "observed_generation": 3,
    }


def test_problems_name_their_service_and_account() -> None:
    assert problem_json(Problem("X", "it is.", "unicast", "abc")) == {
        "code": "X",
        "message": "it is.",
        "service": "unicast",
        "account": "abc",
    }
    assert problem_json(Problem("X", "it is."))["service"] is None


def test_a_conflict_names_owner_and_advice() -> None:
    shown = conflict_json(Conflict(Wanted(RULE, ORIGIN), "somebody", "do something"))
    assert shown == {
        "object": describe(RULE),
        "origin": "unicast/rule.ip:7",
        "owner": "somebody",
        "advice": "do something",
    }


# ---- the plan --------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_with_reasons_and_the_commands_as_they_would_run() -> None:
    moved = replace(LINK, remote=IPv4Address("192.0.2.9"))
    change = Step(
        Action.CHANGE, ours(moved), LINK, "differs: remote", Origin("unicast", "unicast/tunnel.ip", 3)
    )
    gone = Step(Action.DELETE, ours(RULE), None, "not wanted any more")
    held = Held(Step(Action.ADD, None, ROUTE, "missing", ORIGIN), "it would capture the gateway.")
    plan = Plan("abc123", ((change,), (gone,)), (Conflict(Wanted(ROUTE, ORIGIN), "x", "y"),))
    shown = plan_json(plan, (held,), "manual", 9.0)
    assert (shown["id"], shown["mode"], shown["made_at"]) == ("abc123", "manual", 9.0)
    first, second = shown["steps"]
    assert (first["phase"], first["action"], first["reason"], first["cause"]) == (
        0,
        "change",
        "differs: remote",
        "unicast/tunnel.ip:3",
    )
    assert (first["before"], first["after"], first["object"]) == (
        describe(moved),
        describe(LINK),
        describe(LINK),
    )
    assert (second["phase"], second["after"], second["cause"]) == (1, None, "")
    assert shown["held"][0]["why"] == "it would capture the gateway."
    assert shown["commands"] == [
        "link change dev doublezero0 type gre local 198.51.100.7 remote 192.0.2.1 ttl 64 nopmtudisc",
        "rule del priority 100 from 0.0.0.0/0 to 203.0.113.0/24 table 100 protocol 210",
    ]
    assert len(shown["conflicts"]) == 1
    json.dumps(shown)


def test_a_step_that_has_no_safe_command_does_not_hide_the_others() -> None:
    odd = Step(Action.DELETE, ours(replace(RULE, extra=("iif a#b",))), None, "not wanted any more")
    fine = Step(Action.ADD, None, RULE, "missing")
    shown = plan_json(Plan("x", ((odd, fine),)), (), "auto", 0.0)
    assert shown["commands"][0].startswith("# No safe command")
    assert shown["commands"][1].startswith("rule add ")
    assert len(shown["steps"]) == 2


# ---- words for objects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (
            LINK,
            "link doublezero0 gre local 198.51.100.7 remote 192.0.2.1 ttl 64 mtu 1476 alias dzagent:unicast up",
        ),
        (
            replace(LINK, alias="", up=False, extra=("ikey 0.0.0.5",)),
            "link doublezero0 gre local 198.51.100.7 remote 192.0.2.1 ttl 64 mtu 1476 alias - down ikey 0.0.0.5",
        ),
        (ADDRESS, "address dev doublezero0 169.254.0.1/31 scope link"),
        (
            ROUTE,
            "route 0.0.0.0/0 via 169.254.0.0 dev doublezero0 table 101 proto 210 src 203.0.113.9 metric 0",
        ),
        (
            Route(ANY, None, None, 7, 210, extra=("type blackhole",)),
            "route 0.0.0.0/0 table 7 proto 210 metric 0 type blackhole",
        ),
        (
            replace(RULE, extra=("iif eth0",)),
            "rule priority 100 src 0.0.0.0/0 dst 203.0.113.0/24 table 100 proto 210 iif eth0",
        ),
    ],
)
def test_one_line_names_an_object(obj: KernelObject, text: str) -> None:
    assert describe(obj) == text


@given(st.text(max_size=30))
def test_no_name_or_alias_of_others_can_forge_a_line(text: str) -> None:
    for obj in (
        replace(LINK, name=text, alias=text, extra=(text,)),
        replace(ADDRESS, dev=text),
        replace(RULE, extra=(text,)),
    ):
        assert describe(obj).isprintable()


def test_only_a_31_is_an_overlay() -> None:
    assert overlay_of(IPv4Interface("169.254.0.1/31")) == "169.254.0.0/31"
    assert [overlay_of(IPv4Interface(text)) for text in ("203.0.113.9/32", "10.0.0.1/30")] == ["", ""]
