"""Policies about nftables, and policies that extend each other."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from dzagent.errors import ConfigError
from dzagent.policy import MAX_EXTENDS, Policy, load_policy
from dzagent.policynft import ChainNames, Nftables
from dzagent.share import find

POLICIES = find("policies")


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / f"{name}.yaml"
    path.write_text(text)
    return path


def load(tmp_path: Path, text: str) -> Nftables:
    return load_policy(write(tmp_path, "p", text), (POLICIES,)).nftables


def test_the_shipped_policies_say_what_they_are() -> None:
    assert load_policy(POLICIES / "default.yaml") == Policy()
    strict = load_policy(POLICIES / "strict.yaml")
    assert strict.nftables == Nftables(inbound="listed", conntrack=True)
    assert strict == Policy(nftables=strict.nftables)


@pytest.mark.parametrize("name", ["default", "strict"])
def test_every_key_is_explained(name: str) -> None:
    """A line of comment stands above each key."""
    lines = (POLICIES / f"{name}.yaml").read_text().splitlines()
    names = {item.name for item in fields(Nftables)}
    shown = {line.strip().partition(":")[0]: n for n, line in enumerate(lines) if line.startswith("  ")}
    assert names <= shown.keys() or name == "strict"
    told = [
        key for key, n in shown.items() if key in names and not any("#" in line for line in lines[n - 2 : n])
    ]
    assert told == []


def test_every_key_is_read(tmp_path: Path) -> None:
    text = """
nftables:
  enabled: false
  inbound: listed
  tcp_ports: [22, 8000-10000]
  udp_ports: []
  conntrack: true
  leak_guard: false
  clamp_mss: false
  chains: {input: in_1, leak: l}
"""
    assert load(tmp_path, text) == Nftables(
        enabled=False,
        inbound="listed",
        tcp_ports=((22, 22), (8000, 10000)),
        udp_ports=(),
        conntrack=True,
        leak_guard=False,
        clamp_mss=False,
        chains=ChainNames(input="in_1", leak="l"),
    )


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("nftables:\n  tcp_ports: [70000]\n", 2, "a port from 1 to 65535"),
        ("nftables:\n  tcp_ports:\n    - 22\n    - 0\n", 4, "a port from 1 to 65535"),
        ("nftables:\n  tcp_ports: [ssh]\n", 2, "a port from 1 to 65535"),
        ("nftables:\n  tcp_ports: [-1]\n", 2, "a port from 1 to 65535"),
        ("nftables:\n  tcp_ports: [022]\n", 2, "a port from 1 to 65535"),
        ("nftables:\n  tcp_ports: [9-8]\n", 2, "a port from 1 to 65535"),
        ("nftables:\n  tcp_ports: 22\n", 2, "a list of ports"),
        ("nftables:\n  udp_ports: [1, 1]\n", 2, "twice"),
        (f"nftables:\n  udp_ports: [{', '.join(str(n) for n in range(1, 99))}]\n", 2, "at most 64"),
        ("nftables:\n  chains:\n    input: 'x\"y'\n", 3, "chain name"),
        ('nftables:\n  chains:\n    input: "x; flush ruleset"\n', 3, "chain name"),
        ("nftables:\n  chains:\n    input: 7\n", 3, "expected text"),
        (f"nftables:\n  chains:\n    input: {'x' * 33}\n", 3, "at most 32"),
        ("nftables:\n  chains:\n    input: leak\n", 3, "each needs its own"),
        ("nftables:\n  chain: {}\n", 2, "did you mean chains"),
        ("nftables:\n  inbound: closed\n", 2, "one of open, listed"),
        ("nftables:\n  conntrack: true\n", 2, "inbound: listed"),
        ("nftables:\n  enabled: yes\n", 2, "true or false"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, line: int, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "p.yaml"), line)
    assert why in str(caught.value)


# ---- extends ---------------------------------------------------------------------------------------------------


def test_a_policy_changes_the_one_that_it_extends(tmp_path: Path) -> None:
    write(
        tmp_path, "base", "extends: strict\nprotocol: 186\nnftables:\n  tcp_ports: [22]\ntunnel:\n  ttl: 9\n"
    )
    path = write(tmp_path, "site", "extends: base\nnftables:\n  udp_ports: [7]\ntunnel:\n  mtu: 1400\n")
    policy = load_policy(path, (POLICIES,))
    assert policy.nftables == Nftables(
        inbound="listed", conntrack=True, tcp_ports=((22, 22),), udp_ports=((7, 7),)
    )
    assert (policy.protocol, policy.tunnel.ttl, policy.tunnel.mtu) == (186, 9, 1400)


def test_an_absolute_path_can_be_extended(tmp_path: Path) -> None:
    path = write(tmp_path, "site", f"extends: {POLICIES / 'strict.yaml'}\nnftables:\n  conntrack: false\n")
    assert load_policy(path, (POLICIES,)).nftables == Nftables(inbound="listed")


def test_the_shipped_policies_are_found_by_default(tmp_path: Path) -> None:
    assert load_policy(write(tmp_path, "site", "extends: strict\n")) == load_policy(POLICIES / "strict.yaml")


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_refused_with_file_and_line(tmp_path: Path, length: int) -> None:
    for n in range(length):
        write(tmp_path, f"p{n}", f"# a comment\nextends: p{(n + 1) % length}\n")
    with pytest.raises(ConfigError, match="in a circle") as caught:
        load_policy(tmp_path / "p0.yaml", (POLICIES,))
    assert (caught.value.file, caught.value.line) == (str(tmp_path / f"p{length - 1}.yaml"), 2)


def test_a_circle_by_links_is_one_too(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "extends: b\n")
    (tmp_path / "b.yaml").symlink_to(path)
    with pytest.raises(ConfigError, match="in a circle"):
        load_policy(path, (POLICIES,))


def test_a_long_row_is_refused(tmp_path: Path) -> None:
    for n in range(MAX_EXTENDS + 2):
        write(tmp_path, f"p{n}", f"extends: p{n + 1}\n")
    with pytest.raises(ConfigError, match=f"more than {MAX_EXTENDS}"):
        load_policy(tmp_path / "p0.yaml", (POLICIES,))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("extends: nobody\n", "was not found"),
        ("extends: [a]\n", "expected text"),
        ("extends: ''\n", "expected text"),
    ],
)
def test_a_base_that_is_not_there_is_said_where_it_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = write(tmp_path, "p", text)
    with pytest.raises(ConfigError, match=why) as caught:
        load_policy(path, (POLICIES,))
    assert (caught.value.file, caught.value.line) == (str(path), 1)


def test_an_error_of_the_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, "base", "protocol: 0\n")
    path = write(tmp_path, "site", "extends: base\n")
    with pytest.raises(ConfigError) as caught:
        load_policy(path, (POLICIES,))
    assert caught.value.file == str(tmp_path / "base.yaml")


def test_a_whole_must_still_make_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inbound: listed"):
        load(tmp_path, "extends: strict\nnftables:\n  inbound: open\n")
