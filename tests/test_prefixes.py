"""Which prefixes are routed: none that captures the host's own traffic, whoever names it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent.ledger.accounts import Device, Net
from dzagent.model import Protected
from dzagent.policy import Policy
from dzagent.prefixes import MAX_PREFIXES, MAX_REPORTED, Chosen, choose_prefixes
from dzagent.protect import captured, protect

GATEWAY, RPC, ADMIN, DEVICE_IP = (
    IPv4Address(text) for text in ("198.51.100.1", "192.0.2.50", "192.0.2.77", "192.0.2.1")
)
CLIENT, DZ_IP = IPv4Address("198.51.100.7"), IPv4Address("203.0.113.9")
FACTS = protect(
    interfaces=[IPv4Interface(f"{CLIENT}/24"), IPv4Interface("10.7.7.7/32")],
    gateways=[GATEWAY],
    endpoints=[DEVICE_IP],
    rpc=[RPC],
    ssh=[(CLIENT, ADMIN)],
)
EVERYTHING = str(IPv4Network("0.0.0.0/0"))
GOOD = "203.0.113.0/24"


def device(*prefixes: str) -> Device:
    """Make a device; a prefix of "?" is one that could not be read."""
    nets = [
        None if text == "?" else Net(IPv4Address(text.split("/")[0]), int(text.split("/")[1]))
        for text in prefixes
    ]
    return Device(dz_prefixes=tuple(nets))


def choose(
    *prefixes: str,
    installed: Iterable[str] = (),
    doubtful: bool = False,
    policy: Policy | None = None,
    facts: Protected = FACTS,
    dz_ip: IPv4Address | None = DZ_IP,
) -> Chosen:
    return choose_prefixes(
        {"dev": device(*prefixes)},
        policy or Policy(),
        facts,
        dz_ip=dz_ip,
        installed=frozenset(map(IPv4Network, installed)),
        doubtful=doubtful,
    )


def nets(*texts: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, texts))


# ---- good ones -------------------------------------------------------------------------------------------------


def test_the_prefixes_of_all_devices_are_routed_sorted_and_once() -> None:
    devices = {"a": device(GOOD, "148.51.9.0/24"), "b": device("148.51.0.0/16", GOOD), "c": device()}
    chosen = choose_prefixes(devices, Policy(), FACTS, dz_ip=DZ_IP)
    assert chosen == Chosen(nets("148.51.0.0/16", "148.51.9.0/24", GOOD))


def test_host_bits_are_masked_before_anything_is_judged() -> None:
    assert choose("203.0.113.77/24").prefixes == nets(GOOD)
    assert choose("198.51.100.200/25").prefixes == ()


def test_the_own_doublezero_address_may_lie_inside() -> None:
    at_home = Protected({DZ_IP: "an address of this host"})
    assert choose(GOOD, facts=at_home).prefixes == nets(GOOD)
    assert choose(GOOD, facts=at_home, dz_ip=None).prefixes == ()


def test_the_policy_says_how_short_a_prefix_may_be() -> None:
    assert choose("148.50.0.0/15").prefixes == ()
    assert choose("148.50.0.0/15", policy=Policy(prefix_min_length=8)).prefixes == nets("148.50.0.0/15")
    assert choose(GOOD, policy=Policy(prefix_min_length=25)).prefixes == ()


# ---- hostile ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (EVERYTHING, "shorter than /16, the policy's prefix_min_length; it would capture more than it may"),
        ("0.0.0.0/1", "shorter than /16"),
        ("128.0.0.0/1", "gateway"),
        ("198.51.100.0/24", "198.51.100"),
        ("198.51.0.0/16", "gateway"),
        ("198.51.100.1/32", "gateway"),
        ("198.51.100.7/32", "an address of this host"),
        ("198.51.100.64/26", "connected"),
        ("10.7.7.0/24", "10.7.7.7, an address of this host"),
        ("192.0.2.0/24", "tunnel"),
        ("192.0.2.1/32", "tunnel"),
        ("192.0.2.48/30", "RPC"),
        ("192.0.2.76/31", "SSH"),
        ("127.0.0.0/16", "loopback"),
        ("0.1.0.0/16", "this network"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/16", "multicast"),
        ("255.255.255.255/32", "reserved"),
        ("?", "over 32"),
    ],
)
def test_each_is_left_out_with_one_reason_and_the_others_go_on(prefix: str, said: str) -> None:
    chosen = choose(prefix, GOOD)
    assert chosen.prefixes == nets(GOOD)
    (problem,) = chosen.problems
    assert said in problem.message
    assert problem.message.endswith("; the other prefixes are.") or prefix == "?"
    assert (problem.code, problem.service, problem.account) == ("PrefixRefused", "unicast", "dev")


def test_an_overlay_block_of_the_site_s_own_is_spared() -> None:
    policy = Policy(overlay_block=IPv4Network("10.0.0.0/8"))
    (problem,) = choose("10.200.0.0/16", policy=policy).problems
    assert "the overlay block 10.0.0.0/8" in problem.message


def test_an_installed_prefix_that_has_become_dangerous_goes() -> None:
    for prefix in ("198.51.100.0/24", "192.0.2.48/30", "192.0.2.1/32", "10.7.7.0/24"):
        chosen = choose(prefix, installed=[prefix])
        assert chosen.prefixes == ()
        assert len(chosen.problems) == 1


def test_an_ssh_session_removes_nothing_that_is_installed_and_lets_nothing_new_in() -> None:
    assert choose("192.0.2.76/31", installed=["192.0.2.76/31"]).prefixes == nets("192.0.2.76/31")
    assert choose("192.0.2.76/31").prefixes == ()


# ---- what cannot be read ---------------------------------------------------------------------------------------


def test_what_no_device_names_any_more_goes_unless_a_device_cannot_be_read() -> None:
    old = "148.51.7.0/24"
    assert choose(GOOD, installed=[old]).prefixes == nets(GOOD)
    assert choose(GOOD, installed=[old], doubtful=True).prefixes == nets(old, GOOD)
    assert choose(GOOD, "?", installed=[old]).prefixes == nets(old, GOOD)


def test_doubt_does_not_keep_what_is_dangerous() -> None:
    chosen = choose(installed=["198.51.100.0/24"], doubtful=True)
    assert chosen.prefixes == ()
    (problem,) = chosen.problems
    assert problem.account is None
    assert "no longer safe" in problem.message


# ---- floods ----------------------------------------------------------------------------------------------------


def flood(count: int) -> list[str]:
    return [str(IPv4Network((0x3C000000 + (n << 8), 24))) for n in range(count)]


def test_a_flood_is_cut_and_what_works_is_not_what_is_cut() -> None:
    chosen = choose(*flood(MAX_PREFIXES + 10), GOOD, installed=[GOOD])
    assert len(chosen.prefixes) == MAX_PREFIXES
    assert IPv4Network(GOOD) in chosen.prefixes
    assert [problem.code for problem in chosen.problems] == ["TooManyPrefixes"]
    assert str(MAX_PREFIXES + 11) in chosen.problems[0].message
    assert choose(*flood(MAX_PREFIXES)).problems == ()


def test_reports_are_bounded_and_count_the_rest() -> None:
    chosen = choose(*(f"198.51.100.{n}/32" for n in range(100)), *["?"] * 10)
    assert len(chosen.problems) == MAX_REPORTED + 1
    assert chosen.problems[-1].message.startswith(f"{110 - MAX_REPORTED} more dz_prefixes")


# ---- whatever the ledger says ----------------------------------------------------------------------------------

texts = st.builds(
    lambda n, length: f"{IPv4Address(n)}/{length}", st.integers(0, 2**32 - 1), st.integers(0, 32)
) | st.builds(
    lambda ip, length: f"{ip}/{length}",
    st.sampled_from([GATEWAY, RPC, ADMIN, DEVICE_IP, CLIENT, DZ_IP]),
    st.integers(0, 32),
)
good_texts = st.integers(0, 255).map(lambda n: f"203.0.{n}.0/24")


@given(st.lists(texts | good_texts, max_size=20), st.lists(texts | good_texts, max_size=5), st.booleans())
def test_no_prefix_that_is_routed_captures_anything(
    prefixes: list[str], before: list[str], doubtful: bool
) -> None:
    installed = [str(IPv4Network(text, strict=False)) for text in before]
    chosen = choose(*prefixes, installed=installed, doubtful=doubtful)
    offered = {IPv4Network(text, strict=False) for text in (*prefixes, *before)}
    assert set(chosen.prefixes) <= offered
    assert list(chosen.prefixes) == sorted(set(chosen.prefixes))
    for prefix in chosen.prefixes:
        assert prefix.prefixlen >= 16
        why = captured(prefix, FACTS, [DZ_IP])
        assert why is None or (str(prefix) in installed and "SSH" in why)
