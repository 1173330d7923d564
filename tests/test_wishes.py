"""What is granted is rendered, what is withdrawn goes, what is in doubt stays."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from dzagent.errors import TemplateError
from dzagent.model import Keep, Problem, Provide, Service, UserType, Withdraw
from dzagent.wishes import Texts, keep_all, nothing, wish

SERVICE = Service(
    name="unicast",
    user_type=UserType.IBRL,
    link="doublezero0",
    tunnel_src=IPv4Address("198.51.100.7"),
    tunnel_dst=IPv4Address("192.0.2.1"),
    overlay=IPv4Network("169.254.0.0/31"),
    dz_ip=IPv4Address("198.51.100.7"),
    local_asn=65000,
    remote_asn=65342,
    account="user",
    device="device",
)
OLD: Texts = {"unicast": {"tunnel.ip": "old"}, "multicast": {"tunnel.ip": "old too"}}
PROBLEM = Problem("Bad", "it is bad", "unicast")


def render(service: Service) -> Mapping[str, str]:
    return {"tunnel.ip": f"new {service.name}"}


def fail(_service: Service) -> Mapping[str, str]:
    raise TemplateError("nothing is called 'x'", file="tunnel.j2", line=3)


def test_a_granted_service_is_rendered_and_its_problems_are_told() -> None:
    result = wish({"unicast": Provide(SERVICE, (PROBLEM,))}, {}, render)
    assert result.texts == {"unicast": {"tunnel.ip": "new unicast"}}
    assert result.granted == {"unicast": SERVICE}
    assert result.problems == (PROBLEM,)


def test_a_withdrawn_service_goes_though_the_other_is_in_doubt() -> None:
    result = wish({"unicast": Withdraw("banned"), "multicast": Keep(PROBLEM)}, OLD, render)
    assert result.texts == {"multicast": OLD["multicast"]}
    assert result.withdrawn == {"unicast": "banned"}
    assert result.kept == {"multicast": PROBLEM}


def test_a_service_in_doubt_that_never_was_is_not_invented() -> None:
    assert wish({"unicast": Keep(PROBLEM)}, {}, render).texts == {}


def test_a_service_that_does_not_render_keeps_its_old_text() -> None:
    result = wish({"unicast": Provide(SERVICE)}, OLD, fail)
    assert result.texts == {"unicast": OLD["unicast"]}
    assert result.granted == {}
    assert "tunnel.j2:3" in result.kept["unicast"].message


def test_doubt_about_everything_keeps_everything_and_disabled_keeps_nothing() -> None:
    assert keep_all(OLD, PROBLEM).texts == OLD
    assert nothing("disabled").texts == {}
