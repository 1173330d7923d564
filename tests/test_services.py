"""Decisions: upstream's cases of matching (M) and building (D), and everything hostile beside them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dzagent.errors import Unusable
from dzagent.ledger.snapshot import build_snapshot
from dzagent.model import Keep, Provide, Service, ServiceName, UserType, Withdraw
from dzagent.policy import Policy
from dzagent.prefixes import MAX_PREFIXES, MAX_REPORTED
from dzagent.protect import captured, protect
from dzagent.services import MAX_GROUPS, decide, problems, tunnel_destinations
from tests.service_fakes import (
    ALLOCATED,
    CLIENT,
    CONFIG,
    DEVICE,
    DEVICE2,
    DEVICE_IP,
    EDGE,
    GATEWAY,
    GROUP,
    GROUP2,
    IBRL,
    LINKS,
    PUBLISHER,
    RPC,
    SOURCE,
    SSH_FROM,
    STRANGER,
    SUBSCRIBER,
    USER,
    USER2,
    USER3,
    UserSpec,
    config,
    device,
    group,
    host,
    kept,
    key,
    protected,
    run,
    service,
    snapshot,
)

ELSEWHERE = "198.51.100.8"
NAMES: tuple[ServiceName, ...] = ("unicast", "multicast")


def nets(*texts: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, texts))


# ---- matching: M1 to M11 -----------------------------------------------------------------------------------


def test_m1_an_activated_user_of_this_client_ip_is_served() -> None:
    decisions = run(IBRL)
    assert decisions.unicast == Provide(
        Service(
            name="unicast",
            user_type=UserType.IBRL,
            link="doublezero0",
            tunnel_src=CLIENT,
            tunnel_dst=IPv4Address(DEVICE_IP),
            overlay=IPv4Network("169.254.0.4/31"),
            dz_ip=CLIENT,
            local_asn=65000,
            remote_asn=65342,
            account=USER,
            device=DEVICE,
        )
    )
    assert decisions.multicast == Withdraw(f"no user for client IP {CLIENT}")
    assert decisions.problems == ()


@pytest.mark.parametrize("status", [0, 2, 3, 4, 5, 6, 7, 8])
def test_m2_no_other_status_is_served_and_it_says_which(status: int) -> None:
    for complete in (True, False):
        decision = run(replace(IBRL, status=status), complete=complete).unicast
        assert isinstance(decision, Withdraw)
        assert decision.reason.startswith(f"user {USER} is ")
        assert (status == 6) == decision.reason.endswith(" is banned")


@pytest.mark.parametrize("status", [9, 99, 255])
def test_m2_a_status_that_is_not_known_proves_nothing(status: int) -> None:
    assert kept(run(replace(IBRL, status=status)), "unicast") == "UnknownUserStatus"


def test_m2_another_activated_user_of_the_service_counts() -> None:
    for other in (replace(EDGE, status=6), replace(EDGE, status=77)):
        assert service(run({USER: other, USER2: IBRL}), "unicast").account == USER2


def test_m3_no_user_withdraws_only_where_absence_is_proven() -> None:
    assert run().unicast == Withdraw(f"no user for client IP {CLIENT}")
    decisions = run(replace(IBRL, ip=ELSEWHERE), complete=False)
    assert [kept(decisions, name) for name in NAMES] == ["AbsenceNotProven"] * 2


def test_m3_users_of_other_client_ips_do_not_matter() -> None:
    decisions = run({USER: replace(IBRL, ip=ELSEWHERE), USER2: replace(SUBSCRIBER, ip=ELSEWHERE, kind=99)})
    assert isinstance(decisions.unicast, Withdraw)
    assert isinstance(decisions.multicast, Withdraw)
    assert decisions.problems == ()


@pytest.mark.parametrize("kind", [4, 99, 255])
def test_m4_an_unknown_user_type_is_left_out_and_reported(kind: int) -> None:
    decisions = run({USER: replace(IBRL, kind=kind), USER2: IBRL})
    assert service(decisions, "unicast").account == USER2
    assert [(p.code, p.account) for p in decisions.problems] == [("UnknownUserType", USER)]


def test_m4_all_four_types_are_known() -> None:
    for spec in (IBRL, ALLOCATED, EDGE, SUBSCRIBER):
        kind = UserType(spec.kind)
        made = service(run(spec), kind.service)
        assert (made.user_type, made.link) == (kind, LINKS[kind.service])


def test_m5_both_services_of_one_client_ip_are_independent() -> None:
    both = run({USER: IBRL, USER2: SUBSCRIBER})
    assert (service(both, "unicast").account, service(both, "multicast").account) == (USER, USER2)
    for users in (
        {USER: replace(IBRL, status=6), USER2: SUBSCRIBER},
        {USER: replace(IBRL, net="10.0.0.0/31"), USER2: SUBSCRIBER},
    ):
        half = run(users)
        assert not isinstance(half.unicast, Provide)
        assert half.multicast == both.multicast


@pytest.mark.parametrize(
    ("one", "two", "name"), [(IBRL, EDGE, "unicast"), (SUBSCRIBER, PUBLISHER, "multicast")]
)
def test_m6_m7_of_two_users_the_first_counts_and_the_other_is_reported(
    one: UserSpec, two: UserSpec, name: ServiceName
) -> None:
    for first, second in ((one, two), (two, one)):
        decisions = run({USER2: first, USER: second})
        made = service(decisions, name)
        assert (made.account, made.user_type) == (USER2, UserType(first.kind))
        assert [(p.code, p.account, p.service) for p in decisions.problems] == [("DuplicateUser", USER, name)]
        assert decisions.problems == problems(snapshot({USER2: first, USER: second}), CLIENT)


def test_m8_an_unknown_device_keeps_what_works_even_with_an_endpoint() -> None:
    for spec in (replace(IBRL, device=DEVICE2), replace(IBRL, device=DEVICE2, endpoint="192.0.2.9")):
        assert kept(run(spec), "unicast") == "UnknownDevice"
    assert kept(run(IBRL, device=device()[:60]), "unicast") == "UnknownDevice"


@pytest.mark.parametrize(
    "overlay",
    [
        "169.254.0.0/30",
        "169.254.0.0/24",
        "169.254.0.4/32",
        "169.254.0.4/33",
        "169.254.0.4/255",
        "0.0.0.0/0",
        "10.0.0.0/31",
    ],
)
def test_m9_a_tunnel_net_that_is_no_31_of_the_blocks_keeps_what_works(overlay: str) -> None:
    decision = run(replace(IBRL, net=overlay)).unicast
    assert isinstance(decision, Keep)
    assert decision.problem.code == "InvalidOverlay"
    assert USER in decision.problem.message
    assert "tunnel_net" in decision.problem.message
    assert "kept" in decision.problem.message


def test_m9_host_bits_are_masked_and_both_blocks_hold() -> None:
    assert service(run(replace(IBRL, net="169.254.0.5/31")), "unicast").overlay == IPv4Network(
        "169.254.0.4/31"
    )
    narrow = Policy(overlay_block=IPv4Network("169.254.128.0/17"))
    assert kept(run(IBRL, policy=narrow), "unicast") == "InvalidOverlay"
    assert kept(run(IBRL, config=config(block="169.254.128.0/17")), "unicast") == "InvalidOverlay"
    assert kept(run(IBRL, config=config(block="169.254.0.0/40")), "unicast") == "InvalidOverlay"


def test_m9_an_overlay_does_not_take_a_gateway() -> None:
    at = replace(host(), protected=protect(gateways=[IPv4Address("169.254.0.5")]))
    assert kept(run(IBRL, at=at), "unicast") == "InvalidOverlay"


@pytest.mark.parametrize("status", [0, 1, 3, 5, 99])
def test_m10_the_status_of_the_device_is_not_asked_for(status: int) -> None:
    assert service(run(IBRL, device=device(status=status)), "unicast").tunnel_dst == IPv4Address(DEVICE_IP)


def test_m11_a_group_that_is_not_known_keeps_the_service_as_it_is() -> None:
    for spec in (replace(SUBSCRIBER, sub=(GROUP, STRANGER)), replace(PUBLISHER, pub=(STRANGER,))):
        assert kept(run(spec), "multicast") == "UnknownGroup"
    assert kept(run(SUBSCRIBER, group=group()[:50]), "multicast") == "UnknownGroup"


@pytest.mark.parametrize("status", [0, 2, 3, 99])
def test_m11_the_status_of_a_group_is_not_asked_for(status: int) -> None:
    assert service(run(SUBSCRIBER, group=group(status=status)), "multicast").subscribe == (
        IPv4Address("233.84.178.1"),
    )


# ---- building: D1 to D11 -----------------------------------------------------------------------------------


def test_d1_d2_the_endpoint_of_the_user_or_else_of_the_device() -> None:
    assert str(service(run(replace(IBRL, endpoint="10.0.0.99")), "unicast").tunnel_dst) == "10.0.0.99"
    assert str(service(run(IBRL), "unicast").tunnel_dst) == DEVICE_IP


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1",
        "0.1.2.3",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "169.254.7.7",
        str(CLIENT),
        "203.0.113.5",
    ],
)
def test_d1_an_endpoint_that_is_not_unicast_or_is_ours_is_refused(endpoint: str) -> None:
    at = replace(host(), addresses=frozenset({CLIENT, IPv4Address("203.0.113.5")}))
    assert kept(run(replace(IBRL, endpoint=endpoint), at=at), "unicast") == "InvalidEndpoint"
    at_device = run(IBRL, at=at, device=device(public_ip=endpoint))
    assert kept(at_device, "unicast") == "InvalidEndpoint"
    inside = Policy(overlay_block=IPv4Network("169.254.0.0/16"))
    assert isinstance(run(replace(IBRL, endpoint=endpoint), at=at, policy=inside).unicast, Keep)


def test_d2_a_device_without_an_address_is_refused() -> None:
    assert kept(run(IBRL, device=device(public_ip="0.0.0.0")), "unicast") == "InvalidEndpoint"  # noqa: S104 - an address in data


def test_d3_ibrl_and_edge_use_the_client_ip_without_a_look_up() -> None:
    for spec in (IBRL, EDGE):
        assert service(run(spec, at=host(sources={})), "unicast").tunnel_src == CLIENT
        assert tunnel_destinations(snapshot(spec), CLIENT) == ()


def test_d4_the_others_use_the_source_that_the_kernel_would_use() -> None:
    source = IPv4Address("10.1.1.7")
    at = host(sources={DEVICE_IP: source, "192.0.2.2": source})
    both = {USER: ALLOCATED, USER2: SUBSCRIBER}
    assert {service(run(both, at=at), name).tunnel_src for name in NAMES} == {source}
    assert tunnel_destinations(snapshot(both), CLIENT) == (IPv4Address(DEVICE_IP), IPv4Address("192.0.2.2"))


@pytest.mark.parametrize("source", [None, "169.254.0.5", "127.0.0.1", "0.0.0.0"])  # noqa: S104 - an address in data
def test_d5_a_source_that_is_not_resolved_waits_and_is_never_guessed(source: str | None) -> None:
    sources = {} if source is None else {DEVICE_IP: IPv4Address(source), "192.0.2.2": IPv4Address(source)}
    decisions = run({USER: ALLOCATED, USER2: SUBSCRIBER}, at=host(sources=sources))
    assert [kept(decisions, name) for name in NAMES] == ["TunnelSourceUnresolved"] * 2


def test_d4_only_users_that_are_served_are_looked_up() -> None:
    users = {USER: replace(ALLOCATED, status=6), USER2: replace(SUBSCRIBER, device=DEVICE2)}
    assert tunnel_destinations(snapshot(users), CLIENT) == ()


@pytest.mark.parametrize(
    ("asns", "expected"),
    [((0, 0), (65000, 65001)), ((64512, 0), (64512, 65001)), ((4200000000, 1), (4200000000, 1))],
)
def test_d7_asn_zero_has_upstream_s_default(asns: tuple[int, int], expected: tuple[int, int]) -> None:
    made = service(run(IBRL, config=config(*asns)), "unicast")
    assert (made.local_asn, made.remote_asn) == expected


@pytest.mark.parametrize("asn", [23456, 65535, 4294967295])
def test_d7_a_reserved_asn_is_refused(asn: int) -> None:
    for bad in (config(local=asn), config(remote=asn)):
        assert kept(run(IBRL, config=bad), "unicast") == "InvalidAsn"


def test_d8_edge_routes_the_prefixes_of_all_devices_whatever_their_status() -> None:
    accounts = {
        CONFIG: config(),
        DEVICE: device(prefixes=["148.51.9.0/24", "148.51.0.0/24"]),
        DEVICE2: device("192.0.2.3", ["148.51.0.7/24", "148.50.0.0/16"], status=5),
        USER: EDGE.data(),
    }
    decision = decide(build_snapshot(accounts.items()), host(), Policy(), LINKS).unicast
    assert isinstance(decision, Provide)
    assert decision.service.prefixes == nets("148.50.0.0/16", "148.51.0.0/24", "148.51.9.0/24")
    assert decision.problems == ()


@pytest.mark.parametrize("spec", [IBRL, ALLOCATED])
def test_d8_e6_no_other_type_depends_on_prefixes(spec: UserSpec) -> None:
    assert run(spec, device=device(prefixes=["0.0.0.0/0", "9.9.9.0/24"])) == run(spec)
    assert service(run(spec), "unicast").prefixes == ()


def test_d10_groups_keep_their_order_and_are_there_once() -> None:
    spec = replace(PUBLISHER, pub=(GROUP2, GROUP, GROUP2), sub=(GROUP, GROUP))
    made = service(run(spec), "multicast")
    assert [str(g) for g in made.publish] == ["233.84.178.2", "233.84.178.1"]
    assert [str(g) for g in made.subscribe] == ["233.84.178.1"]


def test_d11_without_a_global_config_there_is_nothing_to_decide() -> None:
    with pytest.raises(Unusable):
        build_snapshot([(USER, IBRL.data())])


# ---- multicast ----------------------------------------------------------------------------------------------


def test_a_multicast_user_without_groups_has_an_idle_tunnel() -> None:
    made = service(run(replace(SUBSCRIBER, sub=())), "multicast")
    assert (made.publish, made.subscribe, made.dz_ip) == ((), (), None)


def test_e4_a_publisher_needs_a_dz_ip_and_a_subscriber_none() -> None:
    assert service(run(PUBLISHER), "multicast").dz_ip == IPv4Address("148.51.120.3")
    for dz_ip in ("0.0.0.0", "148.51.120.3", "255.255.255.255"):  # noqa: S104 - an address in data
        assert service(run(replace(SUBSCRIBER, dz_ip=dz_ip)), "multicast").dz_ip is None
    assert kept(run(replace(PUBLISHER, dz_ip="0.0.0.0")), "multicast") == "InvalidDzIp"  # noqa: S104 - as above


@pytest.mark.parametrize("ip", ["10.0.0.1", "0.0.0.0", "240.0.0.1", "223.255.255.255", "224.0.0.5"])  # noqa: S104 - as above
def test_a_group_outside_multicast_or_of_the_link_keeps_the_service(ip: str) -> None:
    assert kept(run(SUBSCRIBER, group=group(ip)), "multicast") == "InvalidGroup"


def test_a_flood_of_groups_is_refused() -> None:
    many = tuple(key(1000 + n) for n in range(MAX_GROUPS + 1))
    assert kept(run(replace(SUBSCRIBER, sub=many)), "multicast") == "TooManyGroups"


def test_two_tunnels_do_not_share_their_addresses() -> None:
    decisions = run({USER: IBRL, USER2: replace(SUBSCRIBER, endpoint=DEVICE_IP)})
    assert isinstance(decisions.unicast, Provide)
    assert kept(decisions, "multicast") == "TunnelEndpointInUse"


def test_two_tunnels_do_not_share_a_31() -> None:
    decisions = run({USER: IBRL, USER2: replace(SUBSCRIBER, net=IBRL.net)})
    assert isinstance(decisions.unicast, Provide)
    assert kept(decisions, "multicast") == "OverlayInUse"


def test_one_service_s_address_is_not_the_other_s_destination() -> None:
    crossed = {USER: ALLOCATED, USER2: replace(SUBSCRIBER, endpoint="148.51.0.9")}
    at = host(sources={DEVICE_IP: SOURCE, "148.51.0.9": SOURCE})
    assert kept(run(crossed, at=at), "multicast") == "InvalidEndpoint"
    assert kept(run({USER: IBRL, USER2: replace(PUBLISHER, dz_ip=DEVICE_IP)}), "multicast") == "InvalidDzIp"


# ---- dz_ip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [IBRL, ALLOCATED, EDGE, PUBLISHER])
@pytest.mark.parametrize("dz_ip", ["0.0.0.0", "127.0.0.1", "169.254.0.9", "233.84.178.1", "255.255.255.255"])  # noqa: S104 - as above
def test_a_dz_ip_that_is_not_unicast_is_refused(spec: UserSpec, dz_ip: str) -> None:
    assert kept(run(replace(spec, dz_ip=dz_ip)), UserType(spec.kind).service) == "InvalidDzIp"


@pytest.mark.parametrize("spec", [ALLOCATED, EDGE, PUBLISHER])
@pytest.mark.parametrize("dz_ip", [str(GATEWAY), str(RPC), str(SSH_FROM), "198.51.100.99"])
def test_a_dz_ip_does_not_hijack_what_the_host_talks_to(spec: UserSpec, dz_ip: str) -> None:
    assert kept(run(replace(spec, dz_ip=dz_ip)), UserType(spec.kind).service) == "InvalidDzIp"


def test_the_client_ip_may_be_the_dz_ip_except_where_another_was_allocated() -> None:
    for spec in (IBRL, EDGE, PUBLISHER):
        name = UserType(spec.kind).service
        assert service(run(replace(spec, dz_ip=str(CLIENT))), name).dz_ip == CLIENT
    assert kept(run(replace(ALLOCATED, dz_ip=str(CLIENT))), "unicast") == "InvalidDzIp"


def test_a_dz_ip_equal_to_the_tunnel_s_own_destination_is_refused() -> None:
    assert kept(run(replace(ALLOCATED, dz_ip=DEVICE_IP)), "unicast") == "InvalidDzIp"


def test_an_ssh_session_to_the_dz_ip_itself_is_no_objection() -> None:
    at = replace(host(), protected=protect(ssh=[(IPv4Address("148.51.0.9"), IPv4Address("203.0.113.1"))]))
    assert service(run(ALLOCATED, at=at), "unicast").dz_ip == IPv4Address("148.51.0.9")


def test_ibrl_with_another_dz_ip_is_served_and_reported() -> None:
    decision = run(replace(IBRL, dz_ip="148.51.0.9")).unicast
    assert isinstance(decision, Provide)
    assert [p.code for p in decision.problems] == ["DzIpDiffers"]


# ---- hostile prefixes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("0.0.0.0/0", "shorter than /16"),
        ("128.0.0.0/1", "shorter than /16"),
        ("198.51.0.0/16", "gateway"),
        (f"{GATEWAY}/32", "gateway"),
        ("198.51.100.0/24", "198.51.100"),
        ("198.51.100.192/26", "connected"),
        (f"{RPC}/32", "RPC"),
        (f"{SSH_FROM}/32", "SSH"),
        (f"{DEVICE_IP}/32", "tunnel"),
        ("192.0.2.2/32", "tunnel"),
        (f"{CLIENT}/32", "tunnel"),
        ("127.0.0.0/16", "loopback"),
        ("0.0.0.0/16", "this network"),
        ("224.0.0.0/24", "multicast"),
        ("169.254.169.254/32", "link-local"),
        ("250.0.0.0/24", "reserved"),
        ("148.51.5.0/33", "over 32"),
    ],
)
def test_a_hostile_prefix_is_left_out_with_its_reason_and_the_others_go_on(prefix: str, why: str) -> None:
    users = {USER: EDGE, USER2: SUBSCRIBER}
    decision = run(users, device=device(prefixes=[prefix, "148.51.0.0/24"])).unicast
    assert isinstance(decision, Provide)
    assert decision.service.prefixes == nets("148.51.0.0/24")
    (problem,) = decision.problems
    assert (problem.code, problem.service, problem.account) == ("PrefixRefused", "unicast", DEVICE)
    assert why in problem.message


def test_a_prefix_with_the_client_ip_is_refused_though_it_is_the_dz_ip() -> None:
    bare = replace(host(), protected=protect(gateways=[GATEWAY]))
    decision = run(
        replace(EDGE, dz_ip=str(CLIENT)), at=bare, device=device(prefixes=[f"{CLIENT}/32"])
    ).unicast
    assert isinstance(decision, Provide)
    assert decision.service.prefixes == ()


def test_an_ssh_session_does_not_remove_an_installed_prefix_but_a_gateway_does() -> None:
    offered = device(prefixes=[f"{SSH_FROM}/32", f"{GATEWAY}/32"])
    at = host(installed=[f"{SSH_FROM}/32", f"{GATEWAY}/32"])
    assert service(run(EDGE, at=at, device=offered), "unicast").prefixes == nets(f"{SSH_FROM}/32")


def test_prefixes_of_a_device_that_cannot_be_read_stay_if_they_are_installed() -> None:
    accounts = {CONFIG: config(), DEVICE: device(prefixes=["148.51.0.0/24"]), USER: EDGE.data()}
    at = host(installed=["148.51.7.0/24"])
    whole = decide(build_snapshot(accounts.items()), at, Policy(), LINKS)
    assert service(whole, "unicast").prefixes == nets("148.51.0.0/24")
    cut = decide(build_snapshot([*accounts.items(), (DEVICE2, device()[:90])]), at, Policy(), LINKS)
    assert service(cut, "unicast").prefixes == nets("148.51.0.0/24", "148.51.7.0/24")


def test_a_flood_of_prefixes_is_bounded_and_does_not_push_out_what_works() -> None:
    many = [f"{60 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(MAX_PREFIXES + 50)]
    last = "149.0.0.0/24"
    decision = run(EDGE, at=host(installed=[last]), device=device(prefixes=[*many, last])).unicast
    assert isinstance(decision, Provide)
    assert len(decision.service.prefixes) == MAX_PREFIXES
    assert IPv4Network(last) in decision.service.prefixes
    assert [p.code for p in decision.problems] == ["TooManyPrefixes"]
    hostile = run(EDGE, device=device(prefixes=[f"{n}.0.0.0/8" for n in range(1, 120)])).unicast
    assert isinstance(hostile, Provide)
    assert len(hostile.problems) == MAX_REPORTED + 1


# ---- what cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 49, 51, 116, 118, 120, 131])
def test_a_user_cut_short_withdraws_nothing(length: int) -> None:
    data = IBRL.data()[:length]
    cut = build_snapshot([(CONFIG, config()), (DEVICE, device()), (USER, data)])
    assert kept(decide(cut, host(), Policy(), LINKS), "unicast") == "UnreadableUser"


def test_every_cut_of_a_multicast_user_keeps_or_provides_and_never_loses_a_group() -> None:
    spec = replace(PUBLISHER, sub=(GROUP, GROUP2), endpoint="0.0.0.0")  # noqa: S104 - "not set"
    data = spec.data()
    whole = service(run(spec), "multicast")
    accounts = {CONFIG: config(), DEVICE: device(), GROUP: group(), GROUP2: group("233.84.178.2")}
    for length in range(len(data)):
        cut = build_snapshot([*accounts.items(), (USER, data[:length])])
        decision = decide(cut, host(), Policy(), LINKS).multicast
        assert isinstance(decision, Keep) or decision == Provide(whole), length


def test_other_unreadable_accounts_do_not_stop_a_withdrawal() -> None:
    others = [
        (DEVICE2, device()[:60]),
        (USER3, replace(IBRL, ip=ELSEWHERE).data()[:130]),
        (STRANGER, b"\x08"),
    ]
    noisy = build_snapshot([(CONFIG, config()), *others])
    assert isinstance(decide(noisy, host(), Policy(), LINKS).unicast, Withdraw)
    banned = build_snapshot(
        [(CONFIG, config()), (USER, replace(IBRL, status=6).data()), (USER2, IBRL.data()[:60])]
    )
    assert isinstance(decide(banned, host(), Policy(), LINKS).unicast, Withdraw)


def test_an_unreadable_user_of_ours_stops_even_a_ban_of_another_one() -> None:
    accounts = [(CONFIG, config()), (USER, replace(IBRL, status=6).data()), (USER2, EDGE.data()[:131])]
    assert kept(decide(build_snapshot(accounts), host(), Policy(), LINKS), "unicast") == "UnreadableUser"
    elsewhere = [*accounts[:2], (USER2, SUBSCRIBER.data()[:131])]
    decisions = decide(build_snapshot(elsewhere), host(), Policy(), LINKS)
    assert isinstance(decisions.unicast, Withdraw)
    assert kept(decisions, "multicast") == "UnreadableUser"


def test_an_unreadable_address_without_bytes_is_the_poller_s_word_that_it_is_ours() -> None:
    poller = replace(snapshot(), unreadable=frozenset({USER}))
    assert kept(decide(poller, host(), Policy(), LINKS), "unicast") == "UnreadableUser"
    named = replace(snapshot(replace(SUBSCRIBER, sub=(STRANGER,))), unreadable=frozenset({STRANGER}))
    assert isinstance(decide(named, host(), Policy(), LINKS).unicast, Withdraw)


# ---- nothing raises, nothing protected is captured ------------------------------------------------------------------

ips = st.one_of(
    st.sampled_from(["0.0.0.0", str(CLIENT), str(GATEWAY), DEVICE_IP, str(RPC), "255.255.255.255"]),  # noqa: S104 - as above
    st.integers(0, 2**32 - 1).map(lambda n: str(IPv4Address(n))),
)
raw_nets = st.builds(
    lambda ip, n: f"{ip}/{n}",
    st.one_of(ips, st.just("169.254.0.4")),
    st.one_of(st.just(31), st.integers(0, 255)),
)
accounts_of_groups = st.lists(st.sampled_from([GROUP, GROUP2, STRANGER]), max_size=3).map(tuple)
specs = st.builds(
    UserSpec,
    kind=st.one_of(st.just(2), st.integers(0, 255)),
    status=st.one_of(st.just(1), st.integers(0, 255)),
    ip=st.one_of(st.just(str(CLIENT)), ips),
    dz_ip=ips,
    net=raw_nets,
    endpoint=ips,
    device=st.sampled_from([DEVICE, DEVICE2]),
    pub=accounts_of_groups,
    sub=accounts_of_groups,
)


@settings(max_examples=200, deadline=None)
@given(
    users=st.lists(specs, max_size=3),
    prefixes=st.lists(raw_nets, max_size=6),
    public=ips,
    asn=st.integers(0, 2**32 - 1),
    cut=st.integers(0, 300),
)
def test_no_hostile_ledger_makes_it_raise_or_capture(
    users: list[UserSpec], prefixes: list[str], public: str, asn: int, cut: int
) -> None:
    accounts = {
        CONFIG: config(local=asn),
        DEVICE: device(public, prefixes),
        GROUP: group(public),
        GROUP2: group(),
    }
    accounts |= dict(zip((USER, USER2), (u.data() for u in users), strict=False))
    accounts[USER3] = (users[0] if users else IBRL).data()[:cut]
    decisions = decide(build_snapshot(accounts.items()), host(), Policy(), LINKS)
    for decision in (decisions.unicast, decisions.multicast):
        if isinstance(decision, Provide):
            check_sane(decision.service)


@given(st.lists(raw_nets, max_size=30))
def test_no_accepted_prefix_captures_anything(prefixes: list[str]) -> None:
    for prefix in service(run(EDGE, device=device(prefixes=prefixes)), "unicast").prefixes:
        assert captured(prefix, protected()) is None
        assert IPv4Address(DEVICE_IP) not in prefix
        assert prefix.prefixlen >= 16


def check_sane(made: Service) -> None:
    assert made.overlay.prefixlen == 31
    assert made.overlay.subnet_of(IPv4Network("169.254.0.0/16"))
    assert made.tunnel_dst not in {CLIENT, made.dz_ip, made.tunnel_src}
    assert not made.tunnel_dst.is_multicast
    assert not made.tunnel_dst.is_loopback
    assert not made.tunnel_dst.is_unspecified
    assert all(g.is_multicast for g in (*made.publish, *made.subscribe))
    for prefix in made.prefixes:
        assert captured(prefix, protected(), [made.dz_ip] if made.dz_ip else []) is None
        assert made.tunnel_dst not in prefix
        assert made.tunnel_src not in prefix
