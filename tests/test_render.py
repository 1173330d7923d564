"""Templates: what they may see and say, and that every service comes out in the grammar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from dzagent.errors import GrammarError, TemplateError
from dzagent.grammar import FILES
from dzagent.model import Address, Link, Route, Rule, Service, UserType
from dzagent.nftmodel import NftTable
from dzagent.ownership import Ownership
from dzagent.policy import Edge, Policy, Tunnel
from dzagent.render import Templates, parse_texts, render_service, stable
from dzagent.share import find

OWNER = Ownership(210, {"doublezero0": "dzagent:unicast", "doublezero1": "dzagent:multicast"})
DZ_IP = IPv4Address("203.0.113.9")
IBRL = Service(
    name="unicast",
    user_type=UserType.IBRL,
    link="doublezero0",
    tunnel_src=IPv4Address("198.51.100.7"),
    tunnel_dst=IPv4Address("192.0.2.1"),
    overlay=IPv4Network("169.254.0.4/31"),
    dz_ip=IPv4Address("198.51.100.7"),
    local_asn=65000,
    remote_asn=65342,
    account="User1111111111111111111111111111",
    device="Dev11111111111111111111111111111",
)
EDGE = replace(
    IBRL, user_type=UserType.EDGE_FILTERING, dz_ip=DZ_IP, prefixes=(IPv4Network("203.0.113.0/26"),)
)
BOTH = replace(
    IBRL,
    name="multicast",
    user_type=UserType.MULTICAST,
    link="doublezero1",
    dz_ip=DZ_IP,
    publish=(IPv4Address("233.84.178.1"),),
    subscribe=(IPv4Address("233.84.178.1"), IPv4Address("233.84.178.2")),
)
INSTALLED = find("templates")


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    return Templates((tmp_path, INSTALLED))


def objects(service: Service, templates: Templates, policy: Policy | None = None) -> tuple[object, ...]:
    text = render_service(service, policy or Policy(), templates)
    made = parse_texts({service.name: text}, OWNER).objects
    return tuple(obj for obj in made if not isinstance(obj, NftTable))


def link(service: Service) -> Link:
    return Link(
        service.link,
        service.tunnel_src,
        service.tunnel_dst,
        64,
        1476,
        f"dzagent:{service.name}",
        pmtudisc=False,
    )


def address(service: Service, text: str, scope: str) -> Address:
    from ipaddress import IPv4Interface

    return Address(service.link, IPv4Interface(text), scope)


def route(service: Service, dst: str, table: int, src: IPv4Address | None) -> Route:
    return Route(IPv4Network(dst), IPv4Address("169.254.0.4"), service.link, table, 210, src)


# ---- upstream's objects, type by type (upstream's services: Setup) ----------------------------------------


def test_ibrl_has_a_link_and_its_overlay_address(templates: Templates) -> None:
    assert objects(IBRL, templates) == (link(IBRL), address(IBRL, "169.254.0.5/31", "link"))


def test_an_allocated_address_goes_on_the_link(templates: Templates) -> None:
    service = replace(IBRL, user_type=UserType.IBRL_WITH_ALLOCATED_IP, dz_ip=DZ_IP)
    assert objects(service, templates) == (
        link(service),
        address(service, "169.254.0.5/31", "link"),
        address(service, "203.0.113.9/32", "global"),
    )


def test_edge_filtering_has_a_default_route_and_two_rules_a_prefix(templates: Templates) -> None:
    prefix, everything = IPv4Network("203.0.113.0/26"), IPv4Network("0.0.0.0/0")
    assert objects(EDGE, templates) == (
        link(EDGE),
        address(EDGE, "169.254.0.5/31", "link"),
        address(EDGE, "203.0.113.9/32", "global"),
        route(EDGE, "0.0.0.0/0", 101, DZ_IP),
        Rule(100, everything, prefix, 100, 210),
        Rule(101, prefix, everything, 101, 210),
    )


def test_a_group_that_is_published_and_subscribed_has_one_route(templates: Templates) -> None:
    assert objects(BOTH, templates)[2:] == (
        address(BOTH, "203.0.113.9/32", "global"),
        route(BOTH, "233.84.178.1/32", 254, DZ_IP),
        route(BOTH, "233.84.178.2/32", 254, None),
    )


def test_a_subscriber_without_groups_keeps_an_idle_tunnel(templates: Templates) -> None:
    idle = replace(BOTH, publish=(), subscribe=(), dz_ip=None)
    assert objects(idle, templates) == (link(idle), address(idle, "169.254.0.5/31", "link"))


def test_the_policy_s_numbers_are_used(templates: Templates) -> None:
    policy = Policy(tunnel=Tunnel(ttl=9, mtu=1400, pmtudisc=True), edge=Edge(11, 12, 13, 14))
    made = objects(EDGE, templates, policy)
    assert made[0] == replace(link(EDGE), ttl=9, mtu=1400, pmtudisc=True)
    assert [(r.priority, r.table) for r in made if isinstance(r, Rule)] == [(13, 11), (14, 12)]


# ---- headers ---------------------------------------------------------------------------------------------


def test_every_file_says_where_it_is_from(templates: Templates) -> None:
    text = render_service(IBRL, Policy(), templates, slot=77)
    assert tuple(text) == FILES
    for body in text.values():
        assert f"# user: {IBRL.account}\n# device: {IBRL.device}\n# slot: 77\n# generation: 0\n" in body
        assert f"# templates: {templates.digest()}\n" in body


def test_a_later_slot_is_the_same_text(templates: Templates) -> None:
    one, two = (render_service(IBRL, Policy(), templates, slot=n) for n in (1, 2))
    assert one != two
    assert {f: stable(t) for f, t in one.items()} == {f: stable(t) for f, t in two.items()}


# ---- an operator's own templates --------------------------------------------------------------------------


def test_an_override_replaces_one_template_and_is_seen_at_once(tmp_path: Path, templates: Templates) -> None:
    before = templates.digest()
    render_service(IBRL, Policy(), templates)
    (tmp_path / "address.j2").write_text(
        "addr add {{ service.local_overlay }}/31 dev {{ link }} scope host", encoding="utf-8"
    )
    assert objects(IBRL, templates)[1] == address(IBRL, "169.254.0.5/31", "host")
    assert templates.digest() != before


@pytest.mark.parametrize(
    ("source", "line", "why"),
    [
        ("\n{{ service.nothing }}", 2, "nothing"),
        ("{{ undefined_name }}", 1, "undefined_name"),
        ("\n\n{% if %}", 3, "Expected"),
        ("{{ 1 / 0 }}", 1, "division"),
        ("{{ none }}", 1, "NoneType"),
        ("{{ service.publish }}", 1, "tuple"),
        ("{{ true }}", 1, "bool"),
        ('{{ "a\\nlink delete eth0" }}', 1, "line feed"),
        ("{{ service.__class__.__mro__ }}", 1, "__class__"),
        ("{{ service.overlay.__init__.__globals__ }}", 1, "__init__"),
        ("{% include '/etc/hostname' %}", 1, "loader"),
        (
            "{% for a in range(99999) %}{% for b in range(99) %}{{ link }}{% endfor %}{% endfor %}",
            None,
            "bytes",
        ),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named_with_its_line(
    tmp_path: Path, templates: Templates, source: str, line: int | None, why: str
) -> None:
    path = tmp_path / "route.j2"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(TemplateError, match=why) as caught:
        render_service(IBRL, Policy(), templates)
    assert caught.value.file == str(path)
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * 300_000])
def test_a_template_that_is_no_text_is_refused(tmp_path: Path, templates: Templates, data: bytes) -> None:
    (tmp_path / "rule.j2").write_bytes(data)
    with pytest.raises(TemplateError, match=r"rule\.j2"):
        render_service(IBRL, Policy(), templates)


def test_a_directory_in_the_place_of_a_template_is_refused(tmp_path: Path, templates: Templates) -> None:
    (tmp_path / "rule.j2").mkdir()
    with pytest.raises(TemplateError, match="cannot be read"):
        render_service(IBRL, Policy(), templates)


def test_without_templates_the_error_says_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=str(tmp_path)):
        render_service(IBRL, Policy(), Templates((tmp_path,)))


# ---- what is rendered must be ours ------------------------------------------------------------------------

FOREIGN = {
    "tunnel.ip": "link add name gre9 mtu 1476 type gre local 198.51.100.7 remote 192.0.2.1 ttl 64 nopmtudisc\n"
    "link set dev gre9 alias dzagent:unicast\nlink set dev gre9 up\n",
    "address.ip": "addr add 169.254.0.5/31 dev eth0 scope link\n",
    "route.ip": "route add 0.0.0.0/0 via 169.254.0.4 dev doublezero1 table 101 proto 210\n",
    "rule.ip": "rule add priority 100 from 0.0.0.0/0 to 203.0.113.0/26 table 100 protocol 4\n",
}


@pytest.mark.parametrize("file", FOREIGN)
def test_an_object_that_would_not_be_ours_is_refused_with_its_line(file: str) -> None:
    with pytest.raises(GrammarError, match=rf"unicast/{file}:2: ") as caught:
        parse_texts({"unicast": {file: "# one line above\n" + FOREIGN[file]}}, OWNER)
    assert caught.value.line == 2


def test_a_link_with_another_alias_is_refused() -> None:
    text = FOREIGN["tunnel.ip"].replace("gre9", "doublezero0").replace("dzagent:unicast", "mine")
    with pytest.raises(GrammarError, match="dzagent:unicast"):
        parse_texts({"unicast": {"tunnel.ip": text}}, OWNER)


class Counting(Templates):
    """Counts how often a template was rendered."""

    count = 0

    def render(self, name: str, values: Mapping[str, object]) -> str:
        self.count += 1
        return super().render(name, values)


def test_nothing_is_rendered_twice_for_the_same_inputs(tmp_path: Path) -> None:
    templates = Counting((tmp_path, INSTALLED))
    first = render_service(EDGE, Policy(), templates, slot=1, links=("doublezero0",))
    rendered = templates.count
    again = render_service(replace(EDGE), Policy(), templates, slot=2, links=["doublezero0"])
    assert templates.count == rendered > 0
    assert again == {file: text.replace("slot: 1\n", "slot: 2\n") for file, text in first.items()}


@pytest.mark.parametrize("what", ["service", "policy", "links", "template", "other service"])
def test_whatever_a_text_depends_on_is_rendered_anew(tmp_path: Path, what: str) -> None:
    templates = Templates((tmp_path, INSTALLED))
    service, policy, links = EDGE, Policy(), ["doublezero0"]
    before = render_service(service, policy, templates, links=links)
    if what == "service":
        service = replace(EDGE, prefixes=(*EDGE.prefixes, IPv4Network("203.0.113.128/26")))
    elif what == "policy":
        policy = Policy(tunnel=Tunnel(mtu=1400))
    elif what == "links":
        links = ["doublezero0", "doublezero1"]
    elif what == "template":
        (tmp_path / "rule.j2").write_text("# nothing\n", encoding="ascii")
    else:
        render_service(BOTH, policy, templates, links=links)
        assert render_service(service, policy, templates, links=links) == before
        return
    after = render_service(service, policy, templates, links=links)
    assert after == render_service(service, policy, Templates((tmp_path, INSTALLED)), links=links)
    if what != "links":  # this user's text does not name them
        assert after != before
