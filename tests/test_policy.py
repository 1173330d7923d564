"""Policies: numbers in range, the documented defaults, refusals with file and line."""

from __future__ import annotations

import re
from dataclasses import fields
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from dzagent import yamlfile
from dzagent.errors import ConfigError
from dzagent.policy import (
    Contested,
    Edge,
    LedgerRules,
    Policy,
    Tunnel,
    find_policy,
    load_policy,
    parse_policy,
)

DEFAULT = Path(__file__).parent.parent / "policies" / "default.yaml"


def policy_of(text: str) -> Policy:
    return parse_policy(yamlfile.parse(text.encode(), "p.yaml"), "p.yaml")


def test_the_default_policy_is_the_programs_own() -> None:
    assert load_policy(DEFAULT) == Policy() == policy_of("")


@pytest.mark.parametrize("kind", [Policy, Tunnel, Edge, LedgerRules, Contested])
def test_the_default_policy_documents_every_key(
    kind: type[Policy | Tunnel | Edge | LedgerRules | Contested],
) -> None:
    text = DEFAULT.read_text(encoding="utf-8")
    for each in fields(kind):
        assert re.search(rf"^ *{each.name}:", text, re.MULTILINE), each.name


def test_every_key_is_read() -> None:
    policy = policy_of(
        "protocol: 186\noverlay_block: 10.0.0.0/8\nprefix_min_length: 24\nssh_ports: [22, 2222]\nabsent_polls: 3\n"
        "tunnel: {ttl: 32, mtu: 1400, pmtudisc: true}\n"
        "edge: {table_to: 4294967295, table_from: 7, priority_to: 1, priority_from: 32765}\n"
        "contested: {after: 9, within: 60, longest: 5, calm: 7}\n"
    )
    assert policy == Policy(
        protocol=186,
        overlay_block=IPv4Network("10.0.0.0/8"),
        prefix_min_length=24,
        ssh_ports=(22, 2222),
        tunnel=Tunnel(32, 1400, pmtudisc=True),
        edge=Edge(4294967295, 7, 1, 32765),
        absent_polls=3,
        contested=Contested(9, 60, 5, 7),
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("protocol: 0", 1, "from 1 to 255"),
        ("protocol: 256", 1, "from 1 to 255"),
        ("protocol: 0x10", 1, "from 1 to 255"),
        ("protocol: 0210", 1, "leading zeros"),
        ("protocol: bgp", 1, "from 1 to 255, found 'bgp'"),
        ("protocol: 2", 1, "kernel's own"),
        ("protocol: 4", 1, "kernel's own"),
        ("protocol: 12", 1, "bird"),
        ("protocol: 196", 1, "FRR"),
        ("edge: {table_to: 254}", 1, "kernel's own tables"),
        ("edge:\n  table_from: 255", 2, "kernel's own tables"),
        ("edge: {table_to: 253}", 1, "kernel's own tables"),
        ("edge: {table_to: 0}", 1, "from 1 to 4294967295"),
        ("edge: {table_to: 4294967296}", 1, "from 1 to 4294967295"),
        ("edge: {table_to: 101}", 1, "two different tables"),
        ("edge: {priority_to: 0}", 1, "from 1 to 32765"),
        ("edge: {priority_from: 32766}", 1, "from 1 to 32765"),
        ("overlay_block: 169.254.0.1/16", 1, "without host bits"),
        ("overlay_block: 169.254.0.0", 1, "IPv4 network"),
        ("overlay_block: 0.0.0.0/0", 1, "prefix length from 8"),
        ("overlay_block: 169.254.0.0/255.255.0.0.0", 1, "IPv4 network"),
        ("overlay_block: 169.254.0.0/255.255.0.0", 1, "IPv4 network"),
        ("overlay_block: 169.254.0.0/0.0.255.255", 1, "IPv4 network"),
        ("overlay_block: fe80::/10", 1, "IPv4 network"),
        ("overlay_block: 127.0.0.0/16", 1, "overlaps 127.0.0.0/8"),
        ("overlay_block: 224.1.0.0/16", 1, "overlaps 224.0.0.0/4"),
        ("overlay_block: 0.0.0.0/8", 1, "overlaps 0.0.0.0/8"),
        ("overlay_block: 255.255.255.254/31", 1, "overlaps 240.0.0.0/4"),
        ("prefix_min_length: 0", 1, "from 8 to 32"),
        ("ssh_ports: 22", 1, "a list of TCP ports"),
        ("ssh_ports: [22, 0]", 1, "ssh_ports[1]: expected a whole number from 1 to 65535"),
        ("ssh_ports: [22, 22]", 1, "twice"),
        ("tunnel:\n  mtu: 100", 2, "from 576 to 65511"),
        ("tunnel: {pmtudisc: on}", 1, "true or false"),
        ("tunnel: {tttl: 1}", 1, "did you mean ttl?"),
        ("absent_polls: 0", 1, "from 1 to 100"),
        ("force: true", 1, "unknown key 'force'"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_of(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"p.yaml:{line}: ")


def test_policies_are_found_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text("", encoding="utf-8")
    assert find_policy("strict", (tmp_path / "none", tmp_path)) == tmp_path / "strict.yaml"
    assert find_policy("/x/y.yaml", ()) == Path("/x/y.yaml")
    with pytest.raises(ConfigError, match=r"policy 'stict' was not found .*; there are: strict"):
        find_policy("stict", (tmp_path,))


def test_ledger_rules() -> None:
    rules = policy_of(
        "ledger: {stale_after: 60, stale: teardown, restore_max_age: 0, changed: accept}"
    ).ledger
    assert rules == LedgerRules(60.0, "teardown", 0.0, "accept")
    assert policy_of("").ledger == LedgerRules()
    for bad in ("stale: drop", "stale_after: 1", "changed: yes", "restore_max_age: -1", "other: 1"):
        with pytest.raises(ConfigError, match=r"ledger|stale|changed|restore"):
            policy_of(f"ledger: {{{bad}}}")
