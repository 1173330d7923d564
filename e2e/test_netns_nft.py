"""The nftables table against real packets, real nft and other firewalls, in namespaces of the running kernel."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings

from dzagent.kernel.nft import Nft
from dzagent.kernel.nftscript import script
from dzagent.model import Action, Desired, Observed, Result, Step
from dzagent.nftmodel import MARKED, NftTable, combine
from dzagent.plan import make_plan
from dzagent.policy import Policy, load_policy
from dzagent.policynft import Nftables
from dzagent.share import find
from e2e.lab.errors import LabError
from e2e.lab.packets import ACK, GRE, PATIENCE, SYN, Packet, icmp, mss_of, received, tcp, token, udp
from e2e.lab.walls import (
    DZ_IP,
    FAR,
    MULTICAST,
    OWN,
    OWNER,
    PEER,
    UNICAST,
    UPLINK,
    Walls,
    walls,
    wanted,
)
from tests.nft_strategies import tables

DEFAULT = Policy()
STRICT = load_policy(find("policies") / "strict.yaml")
LISTED = Policy(nftables=Nftables(inbound="listed", tcp_ports=((8000, 8010),)))
USER = "203.0.113.200"
MARK = token()


@pytest.fixture(scope="module")
def made() -> Iterator[Walls]:
    try:
        with walls() as found:
            yield found
    except LabError as error:
        pytest.skip(f"NOT TESTED: the firewall against real packets. {error}")


@pytest.fixture
def host(made: Walls) -> Iterator[Walls]:
    yield made
    made.load(DEFAULT, ())


BGP_PASSES = [
    tcp(PEER, OWN, (179, 40000), ACK, token=MARK),
    tcp(PEER, OWN, (40000, 11179), SYN, token=MARK),
    tcp(PEER, OWN, (40000, 179), SYN, token=MARK),
]
OTHERS_PASS = [
    udp(USER, DZ_IP, (44880, 44880), MARK),
    udp("10.1.2.3", DZ_IP, (44880, 44880), MARK),
    icmp("192.168.3.4", DZ_IP, 3, 4, MARK),
    icmp("10.0.0.1", OWN, 3, 4, MARK),
    icmp("100.64.0.9", DZ_IP, 11, 0, MARK),
    icmp(PEER, DZ_IP, 11, 0, MARK),
    tcp("10.20.30.40", DZ_IP, (40000, 8899), token=MARK),
    tcp("172.16.0.1", DZ_IP, (40000, 22), token=MARK),
    udp("192.0.2.77", DZ_IP, (8001, 8001), MARK),
    udp("198.18.0.5", DZ_IP, (8001, 8001), MARK),
    Packet(PEER, "224.0.0.13", 103, b"\x20\0" + MARK),
]
DROPPED = [
    tcp(USER, DZ_IP, (40000, 179), token=MARK),
    tcp(USER, OWN, (40000, 179), token=MARK),
    tcp(USER, OWN, (179, 40000), ACK, token=MARK),
    tcp(USER, DZ_IP, (40000, 11179), token=MARK),
    tcp(USER, DZ_IP, (11179, 40000), token=MARK),
    tcp(PEER, DZ_IP, (40000, 179), token=MARK),
    udp(DZ_IP, OWN, (1, 8001), MARK),
    udp(UPLINK, DZ_IP, (1, 8001), MARK),
    udp(OWN, DZ_IP, (1, 8001), MARK),
    udp("127.0.0.1", DZ_IP, (1, 8001), MARK),
    udp("127.9.9.9", "127.0.0.1", (1, 8001), MARK),
    udp("0.0.0.1", DZ_IP, (1, 8001), MARK),
    udp("169.254.7.7", DZ_IP, (1, 8001), MARK),
    udp("169.254.0.2", DZ_IP, (1, 8001), MARK),
]


@pytest.mark.parametrize("packet", [*BGP_PASSES, *OTHERS_PASS], ids=lambda p: f"{p.src}-{p.dst}-{p.protocol}")
def test_what_must_pass_passes(host: Walls, packet: Packet) -> None:
    host.load(DEFAULT)
    with host.joined("224.0.0.13", "doublezero0"):
        assert host.comes_in(packet, MARK)


@pytest.mark.parametrize("packet", DROPPED, ids=lambda p: f"{p.src}-{p.dst}-{p.protocol}")
def test_what_must_drop_drops(host: Walls, packet: Packet) -> None:
    assert host.comes_in(packet, MARK), "without the table this host takes it"
    host.load(DEFAULT)
    assert not host.comes_in(packet, MARK)
    host.load(STRICT)
    assert not host.comes_in(packet, MARK)


@pytest.mark.parametrize("policy", [DEFAULT, STRICT], ids=["default", "strict"])
def test_other_interfaces_are_left_alone(host: Walls, policy: Policy) -> None:
    host.load(policy)
    for packet in (
        tcp(FAR, UPLINK, (40000, 179), token=MARK),
        tcp(FAR, UPLINK, (40000, 9999), token=MARK),
        udp(UPLINK, UPLINK, (1, 8001), MARK),
        Packet(FAR, UPLINK, GRE, b"\0\0\x08\0" + MARK),
    ):
        assert host.comes_in(packet, MARK, "eth0"), packet


@pytest.mark.parametrize("policy", [DEFAULT, STRICT], ids=["default", "strict"])
def test_the_host_reaches_its_own_dz_ip(host: Walls, policy: Policy) -> None:
    host.load(policy)
    host.run("host", "ping", "-c", "1", "-W", "5", DZ_IP)
    host.run("host", "ping", "-c", "1", "-W", "5", "-I", DZ_IP, DZ_IP)


def test_counters_say_what_was_dropped(host: Walls) -> None:
    host.load(DEFAULT)
    before = host.nft.observe().counts
    assert before["unicast_bgp"] == (0, 0)
    host.comes_in(DROPPED[0], MARK)
    host.comes_in(udp(DZ_IP, OWN, (1, 8001), MARK), MARK)
    host.comes_in(udp("169.254.9.9", DZ_IP, (1, 8001), MARK), MARK)
    after = host.nft.observe().counts
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"unicast_bgp", "unicast_spoofed", "unicast_martian"}
    assert after["unicast_bgp"] == (1, len(DROPPED[0].raw()))


# ---- out -----------------------------------------------------------------------------------------------------


def test_doublezero_packets_do_not_leak_by_the_uplink(host: Walls) -> None:
    packet = udp(DZ_IP, FAR, (1, 8001), MARK)
    assert host.goes_out(packet, MARK, "eth0")
    host.load(DEFAULT)
    assert not host.goes_out(packet, MARK, "eth0")
    assert host.goes_out(udp(UPLINK, FAR, (1, 8001), MARK), MARK, "eth0")
    assert host.goes_out(udp(DZ_IP, "192.0.2.200", (1, 8001), MARK), MARK, "doublezero0")
    assert host.nft.observe().counts["unicast_leak"][0] == 1


def test_forwarded_packets_do_not_leak_either(host: Walls) -> None:
    packet = udp("203.0.113.77", FAR, (1, 8001), MARK)
    assert host.goes_through(packet, MARK, "doublezero0", "eth0")
    host.load(DEFAULT)
    host.nft.observe()
    with host.wire("eth0") as watching, host.wire("doublezero0") as sending:
        last = token()
        hardware = bytes.fromhex("020000000010")
        sending.send(packet.frame(hardware))
        sending.send(udp("192.0.2.222", FAR, (1, 8001), last).frame(hardware))
        assert not any(MARK in frame for frame in received(watching, last))


def test_a_publisher_sends_by_its_tunnel(host: Walls) -> None:
    host.load(DEFAULT)
    packet = udp("203.0.113.10", "233.84.178.1", (1, 5765), MARK)
    assert host.goes_out(packet, MARK, "doublezero1")


@pytest.mark.parametrize("policy", [DEFAULT, STRICT], ids=["default", "strict"])
def test_the_mss_is_clamped(host: Walls, policy: Policy) -> None:
    out = tcp(DZ_IP, "192.0.2.200", (40000, 80), SYN, 1460, MARK)
    into = tcp("198.51.100.50", "192.0.2.200", (40000, 80), SYN, 1460, MARK)
    back = tcp("192.0.2.200", "198.51.100.50", (80, 40000), SYN | ACK, 1460, MARK)
    small = tcp("192.0.2.200", "198.51.100.50", (80, 40000), SYN | ACK, 900, MARK)
    host.run(
        "host", *["ip", "neigh", "replace", "198.51.100.50", "lladdr", "02:00:00:00:00:aa", "dev", "eth0"]
    )
    (plain,) = host.goes_out(out, MARK, "doublezero0")
    assert mss_of(plain) == 1460
    host.load(policy)
    assert [mss_of(one) for one in host.goes_out(out, MARK, "doublezero0")] == [1436]
    assert [mss_of(one) for one in host.goes_through(into, MARK, "eth0", "doublezero0")] == [1436]
    assert [mss_of(one) for one in host.goes_through(back, MARK, "doublezero0", "eth0")] == [1436]
    assert [mss_of(one) for one in host.goes_through(small, MARK, "doublezero0", "eth0")] == [900]


# ---- strict ------------------------------------------------------------------------------------------------------

LISTED_PASSES = [
    udp(USER, DZ_IP, (5000, 44880), MARK),
    icmp("192.168.3.4", DZ_IP, 3, 4, MARK),
    tcp(USER, DZ_IP, (40000, 8005), token=MARK),
    tcp(USER, DZ_IP, (80, 40000), ACK, token=MARK),
    *BGP_PASSES,
]
LISTED_DROPS = [
    tcp(USER, DZ_IP, (40000, 8011), token=MARK),
    udp(USER, DZ_IP, (5000, 8005), MARK),
]


def test_listed_lets_in_what_is_listed(host: Walls) -> None:
    host.load(LISTED)
    for packet in LISTED_PASSES:
        assert host.comes_in(packet, MARK), packet
    for packet in LISTED_DROPS:
        assert not host.comes_in(packet, MARK), packet


def test_listed_lets_in_the_groups_that_are_subscribed(host: Walls) -> None:
    host.load(LISTED)
    for group, comes in (("233.84.178.2", True), ("233.84.178.9", False)):
        with host.joined(group, "doublezero1"):
            packet = udp("203.0.113.55", group, (1, 5765), MARK)
            assert host.comes_in(packet, MARK, "doublezero1") is comes


def test_connection_tracking_lets_in_answers_over_udp(host: Walls) -> None:
    answer = udp("192.0.2.200", DZ_IP, (53, 40000), MARK)
    host.load(STRICT)
    assert not host.comes_in(answer, MARK)
    host.goes_out(udp(DZ_IP, "192.0.2.200", (40000, 53), MARK), MARK, "doublezero0")
    assert host.comes_in(answer, MARK)


# ---- what must not be disturbed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "tracked"), [(DEFAULT, False), (STRICT, True)], ids=["default", "strict"])
def test_only_the_strict_policy_tracks_connections(policy: Policy, tracked: bool) -> None:
    try:
        with walls("t") as host:
            host.load(policy)
            host.run("host", "ping", "-c", "1", "-W", "5", DZ_IP)
            host.comes_in(udp(USER, DZ_IP, (44880, 44880), MARK), MARK)
            host.goes_out(udp(UPLINK, FAR, (1, 8001), MARK), MARK, "eth0")
            count = int(host.run("host", "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))
            assert (count > 0) is tracked
    except LabError as error:
        pytest.skip(f"NOT TESTED: connection tracking. {error}")


def _another_user(host: Walls) -> None:
    """Give the far side of the tunnel the address of another user, which the host reaches over it."""
    host.run("dz", "ip", "addr", "replace", f"{USER}/32", "dev", "dz0")
    host.run("dz", "ip", "addr", "replace", f"{PEER}/31", "dev", "dz0")
    host.run("dz", "ip", "route", "replace", DZ_IP, "via", OWN, "dev", "dz0", "src", USER)
    host.run("host", "ip", "route", "replace", USER, "via", PEER, "dev", "doublezero0", "src", DZ_IP)


def test_no_load_and_no_change_interrupts_a_connection(host: Walls) -> None:
    _another_user(host)
    with (
        host.open("host", socket.SOCK_STREAM, 0) as server,
        host.open("dz", socket.SOCK_STREAM, 0) as client,
    ):
        server.bind((DZ_IP, 9000))
        server.listen()
        client.connect((DZ_IP, 9000))
        inside, _ = server.accept()
        with inside:
            inside.settimeout(PATIENCE)
            for policy in (DEFAULT, STRICT, LISTED, DEFAULT, STRICT):
                host.load(policy)
                for one, other in ((client, inside), (inside, client)):
                    one.sendall(MARK)
                    assert other.recv(len(MARK), socket.MSG_WAITALL) == MARK, policy
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert int.from_bytes(info[100:104], "little") == 0, "something had to be sent twice"


def test_no_packet_is_lost_while_the_table_changes(host: Walls) -> None:
    _another_user(host)
    command = ["ip", "netns", "exec", f"{host.tag}dz", "ping", "-q", "-i", "0.002", "-I", USER, DZ_IP]
    ping = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for number in range(12):
        host.load((DEFAULT, LISTED)[number % 2], (UNICAST, MULTICAST)[: 1 + number % 2])
        host.load(DEFAULT, ())
    ping.send_signal(signal.SIGINT)
    said = ping.communicate(timeout=PATIENCE)[0]
    assert ", 0% packet loss" in said, said


_IPTABLES = """
iptables -A INPUT -p tcp --dport 22 -j ACCEPT
iptables -A INPUT -m comment --comment hello -j DROP
ip6tables -P FORWARD DROP
iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
"""
_UFW = """
copy=$(mktemp -d)
cp -a /etc/ufw/. "$copy/"
mount --bind "$copy" /etc/ufw
ufw --force enable
ufw allow 22/tcp
"""
_FIREWALLD = """
/usr/bin/python3 -c 'from firewall.core.fw import Firewall; Firewall().start()'
"""
_NFT = """
nft -f - <<'END'
table inet filter {
  comment "theirs"
  set dzagent { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 203.0.113.0/24 } }
  chain input { type filter hook input priority 0; policy drop; ip saddr @dzagent counter accept comment "dzagent"; }
}
table ip dzagent {
  chain unicast_input { type filter hook input priority 5; counter; }
}
END
"""


@pytest.mark.parametrize(
    ("tool", "script_of_theirs"),
    [("iptables", _IPTABLES), ("ufw", _UFW), ("firewalld", _FIREWALLD), ("nft", _NFT)],
    ids=["iptables-nft", "ufw", "firewalld", "nft"],
)
def test_the_rules_of_others_stay_byte_for_byte(host: Walls, tool: str, script_of_theirs: str) -> None:
    if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip(f"NOT TESTED beside {tool}: it is not installed (e2e/lab/setup firewalls)")
    host.run("host", "sh", "-ec", script_of_theirs)
    try:
        before = _foreign(host)
        assert len(before) > 100
        for policy in (DEFAULT, STRICT, LISTED):
            host.load(policy)
            assert _foreign(host) == before
        host.run("host", "nft", "flush", "table", "inet", "dzagent")
        host.load(DEFAULT)
        host.load(DEFAULT, ())
        assert _foreign(host) == before
    finally:
        host.run("host", "nft", "flush", "ruleset")


def _foreign(host: Walls) -> str:
    """Return everything that is not ours, with handles, and without counters, which move by themselves."""
    listed = [line.split()[1:] for line in host.run("host", "nft", "list", "tables").splitlines()]
    others = [words for words in listed if words != ["inet", "dzagent"]]
    return "".join(host.run("host", "nft", "-s", "-a", "list", "table", *words) for words in others)


# ---- the table as an object ------------------------------------------------------------------------------------------


def _lines(host: Walls) -> list[str]:
    """Return the lines of the table as people see it, in any order: what is made anew comes last."""
    return sorted(host.run("host", "nft", "-s", "list", "table", "inet", "dzagent").splitlines())


EDITS = [
    "flush table T",
    "flush chain T unicast_input",
    "flush set T unicast_prefixes",
    "delete element T unicast_prefixes { 203.0.113.0/24 }",
    "add element T unicast_prefixes { 10.0.0.0/8, 192.0.2.1 }",
    "add rule T unicast_input drop",
    "insert rule T unicast_input accept",
    'add rule T unicast_leak ip saddr 10.0.0.1 log prefix "x" drop',
    "add chain T other\nadd rule T other counter\nadd rule T unicast_input jump other",
    "add chain T late { type filter hook input priority 300; policy drop; }",
    "add chain T unicast_input { policy drop; }",
    "delete chain T dzagent_mark_v1",
    "delete counter T dzagent_mark_v1",
    "delete chain T dzagent_mark_v1\ndelete counter T dzagent_mark_v1",
    "add map T odd { type ipv4_addr : verdict; }",
    "add set T more { type ether_addr; }",
    "add set T more { type ipv4_addr; timeout 1h; }",
    "add quota T q { over 1 mbytes }",
    "add counter T extra",
    "add table T { flags dormant; }",
    "flush chain T unicast_leak\ndelete set T unicast_prefixes",
    *(
        f"flush chain T unicast_leak\ndelete set T unicast_prefixes\nadd {other}"
        for other in (
            "set T unicast_prefixes { type ipv4_addr; }",
            "set T unicast_prefixes { type inet_service; flags interval; elements = { 7-9 }; }",
            "map T unicast_prefixes { type ipv4_addr : verdict; }",
        )
    ),
    "flush chain T unicast_mss_out\ndelete chain T unicast_mss_out",
    "delete table T",
]


def _edit(host: Walls, *edits: str) -> None:
    lines = "\n".join(edits).replace(" T", " inet dzagent")
    host.run("host", "nft", "-f", "-", stdin=f"{lines}\n")


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_by_somebody_else_is_put_right(host: Walls, edit: str) -> None:
    host.load(DEFAULT)
    good = _lines(host)
    _edit(host, edit)
    assert host.load(DEFAULT), "the edit was not seen"
    assert _lines(host) == good


def test_pairs_of_edits_are_put_right(host: Walls) -> None:
    host.load(DEFAULT)
    good = _lines(host)
    done = 0
    chance = random.Random(1)  # noqa: S311 chance with a seed
    for first, second in chance.sample(list(combinations(EDITS[:-1], 2)), 40):
        try:
            _edit(host, first, second)
        except AssertionError:
            continue  # these two cannot be done together
        assert host.load(DEFAULT), (first, second)
        assert _lines(host) == good, (first, second)
        done += 1
    assert done > 20


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("11179", "11180"),
        ("169.254.0.0 ", "169.254.0.9 "),
        ("doublezero0", "doublezero9"),
        ("drop", "accept"),
    ],
)
def test_an_edit_that_keeps_handle_and_comment_is_seen(host: Walls, old: str, new: str) -> None:
    """Whatever a rule's comment says, what it does is compared."""
    host.load(DEFAULT)
    text = host.run("host", "nft", "-a", "list", "chain", "inet", "dzagent", "unicast_input")
    line = next(line for line in text.splitlines() if old in line and "# handle" in line)
    rule, handle = line.strip().split(" # handle ")
    command = f'replace rule T unicast_input handle {handle} {rule.replace(old, new)} comment "ours"'
    _edit(host, command)
    assert host.load(DEFAULT)
    assert new.strip() not in host.run(
        "host", "nft", "list", "chain", "inet", "dzagent", "unicast_input"
    ) or (new == "accept")


def test_a_comment_alone_is_no_edit(host: Walls) -> None:
    host.load(DEFAULT)
    text = host.run("host", "nft", "-a", "list", "chain", "inet", "dzagent", "unicast_input")
    rule, handle = next(one for one in text.splitlines() if "spoofed" in one).strip().split(" # handle ")
    _edit(host, f'replace rule T unicast_input handle {handle} {rule} comment "hello"')
    assert host.load(DEFAULT) == ()


def test_counters_outlive_a_change_of_the_rules(host: Walls) -> None:
    host.load(DEFAULT)
    host.comes_in(DROPPED[0], MARK)
    before = host.nft.observe().counts
    assert before["unicast_bgp"][0] == 1
    host.load(LISTED)
    host.run("host", "nft", "flush", "table", "inet", "dzagent")
    host.load(DEFAULT)
    after = host.nft.observe().counts
    assert {name: after[name] for name in before} == before


def test_a_prefix_comes_and_goes_by_element(host: Walls) -> None:
    host.load(DEFAULT)
    handles = _handles(host)
    halves = IPv4Network("192.0.2.0/25"), IPv4Network("192.0.2.128/25")
    more = replace(UNICAST, prefixes=(*UNICAST.prefixes, *halves))
    host.load(DEFAULT, (more, MULTICAST))
    assert "192.0.2.0/24" in host.run("host", "nft", "list", "set", "inet", "dzagent", "unicast_prefixes")
    host.load(DEFAULT, (replace(more, prefixes=(UNICAST.prefixes[0], halves[0])), MULTICAST))
    assert "192.0.2.0/25" in host.run("host", "nft", "list", "set", "inet", "dzagent", "unicast_prefixes")
    assert _handles(host) == handles, "rules were loaded again"


def _handles(host: Walls) -> list[str]:
    text = host.run("host", "nft", "-a", "list", "table", "inet", "dzagent")
    return [line.rpartition("# handle ")[2] for line in text.splitlines() if "# handle" in line]


# ---- a table of somebody else ----------------------------------------------------------------------------------------


@pytest.fixture
def foreign(host: Walls) -> Iterator[Nft]:
    """Return the agent's part as it is after a start: it remembers nothing."""
    yield Nft(host.runner)
    host.run("host", "nft", "delete", "table", "inet", "dzagent")


def test_a_foreign_table_of_our_name_is_left_alone(host: Walls, foreign: Nft) -> None:
    host.run("host", "nft", "add table inet dzagent; add chain inet dzagent unicast_input")
    before = host.run("host", "nft", "-a", "list", "table", "inet", "dzagent")
    plan = make_plan(wanted(DEFAULT), Observed(nft=foreign.observe()), OWNER)
    assert not plan.steps
    assert "without our mark" in plan.conflicts[0].owner
    assert not make_plan(Desired(), Observed(nft=foreign.observe()), OWNER).steps
    assert host.run("host", "nft", "-a", "list", "table", "inet", "dzagent") == before


def test_a_table_that_somebody_makes_meanwhile_is_not_taken_over(host: Walls, foreign: Nft) -> None:
    (step,) = make_plan(wanted(DEFAULT), Observed(nft=foreign.observe()), OWNER).steps
    host.run("host", "nft", "add", "table", "inet", "dzagent")
    assert foreign.apply(step).result is Result.RACED
    assert not foreign.observe().table.marked


def test_a_table_that_took_the_place_of_ours_is_not_deleted(host: Walls, foreign: Nft) -> None:
    host.load(DEFAULT)
    (step,) = make_plan(Desired(), Observed(nft=foreign.observe()), OWNER).steps
    host.run("host", "nft", "delete table inet dzagent; add table inet dzagent")
    assert foreign.apply(step).result is Result.GONE
    assert "inet dzagent" in host.run("host", "nft", "list", "tables")


def test_a_table_that_took_the_place_of_ours_is_not_changed(host: Walls, foreign: Nft) -> None:
    """It has chains and sets of the same names, and is not ours all the same."""
    host.load(DEFAULT)
    host.run("host", "nft", "flush chain inet dzagent unicast_input")
    (step,) = make_plan(wanted(DEFAULT), Observed(nft=foreign.observe()), OWNER).steps
    assert step.action is Action.CHANGE
    theirs = "add chain inet dzagent unicast_input; add rule inet dzagent unicast_input tcp dport 7 drop"
    host.run("host", "nft", f"delete table inet dzagent; add table inet dzagent; {theirs}")
    before = host.run("host", "nft", "-a", "list", "table", "inet", "dzagent")
    assert foreign.apply(step).result is Result.RACED
    assert host.run("host", "nft", "-a", "list", "table", "inet", "dzagent") == before


@settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(part=tables())
def test_what_is_loaded_is_what_is_listed(made: Walls, part: NftTable) -> None:
    """The text grammar and nft's JSON meet in equal objects, also after a change from any table to any other."""
    seen, after = made.nft.observe(), combine((MARKED, part))
    if seen.table == after:
        return
    held = None if seen.state == "absent" else OWNER.table(seen.table, marked=True, handle=None)
    step = Step(Action.CHANGE if held else Action.ADD, held, after, "test")
    lines = "".join(f"{line}\n" for line in script(step))
    made.run("host", "nft", "-f", "-", stdin=lines)
    assert made.nft.observe().table == after
