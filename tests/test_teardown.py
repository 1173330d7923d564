"""Everything of ours goes, nothing else does, whatever the configuration looks like."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from dzagent.config import Config, Links, Paths
from dzagent.errors import KernelError, StateError
from dzagent.files import write_json
from dzagent.journal import Journal, here
from dzagent.maintain import check_files, remove_all
from dzagent.marks import NAME, ownership, read_marks, write_marks
from dzagent.model import Address, Link, Result, Route, Rule, SeenLink
from dzagent.nftmodel import MARKED, NftChain, NftSeen, NftTable
from dzagent.ownership import Ownership
from dzagent.policy import Policy
from dzagent.share import places
from dzagent.state import Intent, read_intent, write_intent
from dzagent.teardown import MAX_ROUNDS, owners, tear_down
from tests.fake_kernel import FakeKernel, Fault
from tests.nft_fakes import with_table

POLICIES = places("policies")
OURS = Link("doublezero0", IPv4Address("192.0.2.1"), IPv4Address("198.51.100.1"), 64, 1476, "dzagent:unicast")
UPLINK = SeenLink("eth0", 2, "", up=True, mtu=1500)
FOREIGN_LINK = replace(OURS, name="gre7", remote=IPv4Address("198.51.100.7"), alias="somebody's")
NET = IPv4Network("203.0.113.0/24")
FOREIGN_RULE = Rule(99, IPv4Network("0.0.0.0/0"), NET, 100, 4)
OUR_RULE = Rule(100, IPv4Network("0.0.0.0/0"), NET, 100, 210)
OVERLAY = Address("doublezero0", IPv4Interface("169.254.0.1/31"), "link")


def a_route(dev: str, protocol: int, dst: IPv4Network = NET) -> Route:
    return Route(dst, IPv4Address("169.254.0.0") if dev == OURS.name else None, dev, 254, protocol)


def a_host(link: Link = OURS, protocol: int = 210) -> FakeKernel:
    kernel = FakeKernel(links={"eth0": UPLINK})
    kernel.add_link(link)
    kernel.add_link(FOREIGN_LINK)
    kernel.addresses += [
        replace(OVERLAY, dev=link.name),
        Address("gre7", IPv4Interface("10.7.0.1/30"), "global"),
    ]
    foreign = a_route("eth0", 4, IPv4Network("10.0.0.0/8"))
    kernel.routes += [replace(a_route(link.name, protocol)), foreign]
    kernel.rules += [FOREIGN_RULE, replace(OUR_RULE, protocol=protocol)]
    return kernel


def is_clean(kernel: FakeKernel) -> bool:
    """Tell whether exactly the foreign part of `a_host` is there."""
    return (
        set(kernel.links) == {"eth0", "gre7"}
        and [a.dev for a in kernel.addresses] == ["gre7"]
        and [r.protocol for r in kernel.routes] == [4]
        and kernel.rules == [FOREIGN_RULE]
    )


def no_lock(_path: Path) -> int:
    return os.open(os.devnull, os.O_RDONLY)


def configured(tmp_path: Path, text: str = "") -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(f"directories: {{state: {tmp_path}/state, run: {tmp_path}/run}}\n{text}")
    return file


def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state", tmp_path / "run")


def test_what_is_ours_goes_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = a_host()
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 0
    assert is_clean(kernel)
    assert "took down" in capsys.readouterr().out


def test_what_was_taken_down_is_not_brought_back_by_a_rollback(tmp_path: Path) -> None:
    checkpoint = paths(tmp_path).checkpoint
    write_json(checkpoint, {"plan_id": "ab12"})
    assert remove_all(configured(tmp_path), POLICIES, kernel=a_host(), lock=no_lock) == 0
    assert not checkpoint.exists()
    (checkpoint / "x").mkdir(parents=True)
    kernel = a_host()
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 0
    assert is_clean(kernel)


def test_where_nothing_is_ours_nothing_is_written_or_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = FakeKernel(links={"eth0": UPLINK}, rules=[FOREIGN_RULE])
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 0
    assert kernel.applied == []
    assert capsys.readouterr() == ("", "")


def test_a_broken_configuration_leaves_the_marks_of_the_last_start(tmp_path: Path) -> None:
    config = Config(links=Links(unicast="dz-uni", multicast="dz-multi"), paths=paths(tmp_path))
    write_marks(config, ownership(config, replace(Policy(), protocol=186)))
    link = replace(OURS, name="dz-uni")
    kernel = a_host(link, protocol=186)
    (whose,) = owners(config, None)
    assert tear_down(kernel, [whose]).problems == ()
    assert is_clean(kernel)


def test_a_broken_configuration_without_a_record_goes_by_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel, file = a_host(), configured(tmp_path, "policy: [\n")
    opened: list[Path] = []

    def lock(path: Path) -> int:
        opened.append(path)
        raise StateError("not this host's")  # without directories of its own it would be the real one

    assert remove_all(file, POLICIES, kernel=kernel, lock=lock) == 1
    assert opened == [Paths().lock]
    assert f"{file}:" in capsys.readouterr().err
    assert tear_down(kernel, owners(Config(paths=paths(tmp_path)), None)).problems == ()
    assert is_clean(kernel)


def test_marks_that_were_changed_after_the_start_are_both_taken_down(tmp_path: Path) -> None:
    config = Config(paths=paths(tmp_path))
    write_marks(config, ownership(config, replace(Policy(), protocol=186)))
    kernel = a_host()
    kernel.routes.append(a_route("doublezero0", 186, IPv4Network("198.18.0.0/15")))
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 0
    assert is_clean(kernel)


def test_a_link_that_lost_its_mark_is_known_by_the_journal(tmp_path: Path) -> None:
    kernel, config = a_host(), Config(paths=paths(tmp_path))
    seen = kernel.links[OURS.name]
    Journal(config.paths.journal, here()).settle(ownership(config, Policy()), [seen])
    kernel.links[OURS.name] = replace(seen, alias="", tunnel=replace(OURS, alias=""))
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 0
    assert is_clean(kernel)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", '{"protocol": 4, "links": {}}', '{"protocol": true, "links": {}}',
        '{"protocol": 210, "links": {"eth0": ""}}', '{"protocol": 210, "links": {"eth0": "uplink"}}',
        '{"protocol": 210, "links": []}', '{"protocol": 300, "links": {}}',
    ],
)  # fmt: skip
def test_a_damaged_record_proves_nothing(tmp_path: Path, text: str) -> None:
    config = Config(paths=paths(tmp_path))
    config.paths.agent.mkdir(parents=True)
    (config.paths.agent / NAME).write_text(text)
    assert read_marks(config) is None
    assert owners(config, None) == (ownership(config, Policy()),)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = Config(paths=paths(tmp_path))
    owner = Ownership(186, {"a": "dzagent:unicast", "b": "dzagent:multicast"})
    write_marks(config, owner)
    assert read_marks(config) == owner


def test_what_cannot_be_taken_down_is_named_and_the_rest_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = a_host()
    refused = Fault(lambda step: isinstance(step.target, Rule), Result.PERMANENT)
    kernel.faults += [refused] * MAX_ROUNDS
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 1
    said = capsys.readouterr()
    assert "dzagentd: rule" in said.err
    assert set(kernel.links) == {"eth0", "gre7"}
    assert OUR_RULE in kernel.rules


def test_a_kernel_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = replace(a_host(), observe_error=KernelError("The program ip was not found"))
    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 1
    assert "ip was not found" in capsys.readouterr().err


def test_a_reconciler_that_runs_is_not_worked_against(tmp_path: Path) -> None:
    kernel = a_host()

    def held(path: Path) -> int:
        raise StateError(f"another dzagentd runs already: it holds {path}")

    assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=held) == 1
    assert kernel.applied == []


def test_the_wish_is_to_be_disabled_from_then_on(tmp_path: Path) -> None:
    where = paths(tmp_path)
    write_intent(where.intent, Intent(enabled=True, client_ip=IPv4Address("192.0.2.1")))
    where.sessions.parent.mkdir(parents=True)
    where.sessions.write_text("protocol bgp dz_unicast { }\n")
    where.peers.write_text("{}")
    where.agent.mkdir(parents=True)
    where.checkpoint.write_text("{}")
    assert remove_all(configured(tmp_path), POLICIES, kernel=a_host(), lock=no_lock) == 0
    assert read_intent(where.intent) == Intent(enabled=False, client_ip=IPv4Address("192.0.2.1"))
    assert not where.sessions.exists()
    assert not where.peers.exists()
    assert not where.checkpoint.exists()


def test_a_wish_that_nobody_had_is_not_made_up(tmp_path: Path) -> None:
    assert remove_all(configured(tmp_path), POLICIES, kernel=a_host(), lock=no_lock) == 0
    assert not paths(tmp_path).intent.parent.exists()


@pytest.mark.parametrize(
    ("text", "status"), [("", 0), ("netwrok: testnet\n", 2), ("policy: nothing-like-this\n", 2)]
)
def test_check_tells_whether_the_files_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int
) -> None:
    assert check_files(configured(tmp_path, text), POLICIES) == status
    said = capsys.readouterr()
    assert said.out == ("" if status else "configuration, policy and templates can be used\n")
    assert bool(said.err) is bool(status)


def test_the_table_goes_with_the_rest_and_another_s_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = NftTable((NftChain("input"),))
    for table, left in ((MARKED, None), (theirs, theirs)):
        kernel = with_table(a_host())
        kernel.table = table
        assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == 0
        assert kernel.table == left
    assert "1 nft table" in capsys.readouterr().out


def test_a_table_that_may_be_left_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for reason, status in (("NftMissing", 0), ("NftFailed", 1)):
        kernel = with_table(a_host())
        kernel.broken = NftSeen(reason=reason, message="nft says so")
        assert remove_all(configured(tmp_path), POLICIES, kernel=kernel, lock=no_lock) == status
    assert "nft table inet dzagent may be left: nft says so" in capsys.readouterr().err
