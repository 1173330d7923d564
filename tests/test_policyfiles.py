"""A policy that changes while the agent runs, one that turns bad, and a start that finds a bad one."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dzagent import yamlfile
from dzagent.config import Config, Paths
from dzagent.daemon import Daemon, Life
from dzagent.errors import ConfigError
from dzagent.policy import Policy, load_policy, parse_policy
from dzagent.policyfiles import PolicyFiles, loader, policy_or_last_good
from dzagent.policytext import policy_text
from dzagent.render import Templates
from dzagent.share import find

POLICIES = find("policies")


class Site:
    """A policy file `site`, which may extend others beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept = directory / "state" / "last-policy.yaml"
        self.write("{}\n")

    def write(self, text: str, name: str = "site") -> None:
        (self.directory / f"{name}.yaml").write_text(text)

    def start(self) -> PolicyFiles:
        files = PolicyFiles(loader("site", (self.directory,)), self.kept)
        files.take()
        return files


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def looks(files: PolicyFiles) -> bool:
    """Look as often as a change needs to be taken."""
    return any([files.look(), files.look()])


def test_a_sound_change_is_taken_once_and_needs_everything_anew(site: Site) -> None:
    files = site.start()
    assert not looks(files)
    site.write("tunnel: {ttl: 9}\n")
    assert looks(files)
    assert files.renewed
    assert files.take().tunnel.ttl == 9
    assert (files.renewed, looks(files)) == (False, False)


def test_a_file_that_is_still_written_is_not_taken(site: Site) -> None:
    files = site.start()
    site.write("tunnel:\n")
    first = files.look()
    site.write("tunnel:\n  ttl: 9\n")
    assert (first, files.look()) == (False, False)
    assert looks(files)
    assert files.sound.tunnel.ttl == 9


def test_a_bad_change_leaves_the_policy_and_is_told_with_file_and_line(site: Site) -> None:
    site.write("tunnel: {ttl: 9}\n")
    files = site.start()
    site.write("tunnel:\n  ttl: 900\n")
    assert looks(files)
    assert not files.renewed
    assert files.sound.tunnel.ttl == 9
    assert f"{site.directory}/site.yaml:2: " in files.problem
    site.write("tunnel: {ttl: 9}\n")
    assert looks(files)
    assert not files.problem
    assert not files.renewed


def test_a_file_that_goes_is_told_and_its_return_is_seen(site: Site) -> None:
    files = site.start()
    (site.directory / "site.yaml").unlink()
    assert looks(files)
    assert "'site' was not found" in files.problem
    site.write("tunnel: {ttl: 9}\n")
    assert looks(files)
    assert files.renewed


def test_every_policy_that_is_extended_is_watched(site: Site) -> None:
    site.write("extends: base\n")
    site.write("extends: root\n", "base")
    site.write("tunnel: {ttl: 9}\n", "root")
    files = site.start()
    site.write("tunnel: {ttl: 10}\n", "root")
    assert looks(files)
    assert files.take().tunnel.ttl == 10
    site.write("extends: site\n", "base")
    assert looks(files)
    assert "in a circle" in files.problem
    assert files.sound.tunnel.ttl == 10


def test_a_policy_that_hides_another_of_its_name_is_seen(tmp_path: Path) -> None:
    files = PolicyFiles(loader("strict", (tmp_path, POLICIES)))
    assert files.sound.nftables.inbound == "listed"
    (tmp_path / "strict.yaml").write_text("{}\n")
    assert looks(files)
    assert files.sound == Policy()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("protocol: 210\ntunnel: \x1b\n", "site.yaml:2: not valid YAML"),
        (
            "protocol: 210\nextends: /nowhere/x.yaml\n",
            "site.yaml:2: extends: /nowhere/x.yaml: cannot be read",
        ),
    ],
)
def test_whatever_is_wrong_has_a_line(site: Site, text: str, where: str) -> None:
    files = site.start()
    site.write(text)
    assert looks(files)
    assert where in files.problem


def test_the_exclude_list_alone_needs_nothing_anew(site: Site) -> None:
    files = site.start()
    site.write("bgp: {exclude: [192.0.2.1]}\n")
    assert looks(files)
    assert not files.renewed
    assert PolicyFiles(loader("nowhere", ()), site.kept).sound.bgp.exclude == ("192.0.2.1",)


def test_who_asks_is_answered_at_once_and_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = site.start()
    files.again()
    assert not files.look()
    assert "read again" in caplog.text
    site.write("tunnel: {ttl: 9}\n")
    files.again()
    assert files.look()


def test_a_start_with_a_bad_policy_goes_on_with_the_last_good_one(site: Site) -> None:
    site.write("tunnel: {ttl: 9}\nprotocol: 186\n")
    site.start()
    site.write("tunnel: {ttl: 9\n")
    files = site.start()
    assert (files.sound.tunnel.ttl, files.sound.protocol) == (9, 186)
    assert "site.yaml:" in files.problem
    assert "last good" in files.problem
    site.write("tunnel: {ttl: 9}\nprotocol: 186\n")
    assert looks(files)
    assert not files.problem
    assert not files.renewed
    site.write("oops: 1\n")
    assert policy_or_last_good(loader("site", (site.directory,)), site.kept).protocol == 186


@pytest.mark.parametrize("kept", [None, b"", b"tunnel: {ttl: 900}\n", b"\xff\n", b"{" * 70_000])
def test_without_a_good_one_a_bad_policy_stops_the_start(site: Site, kept: bytes | None) -> None:
    site.write("tunnel: {ttl: 900}\n")
    if kept is not None:
        site.kept.parent.mkdir()
        site.kept.write_bytes(kept)
    with pytest.raises(ConfigError, match=r"site\.yaml:1: "):
        site.start()


def test_a_disk_that_takes_nothing_ends_no_start(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.kept.parent.write_text("no directory")
    assert site.start().sound == Policy()
    assert "would find no good one" in caplog.text


def test_every_policy_is_kept_as_it_is() -> None:
    for path in sorted(POLICIES.glob("*.yaml")):
        policy = load_policy(path, (POLICIES,))
        assert parse_policy(yamlfile.parse(policy_text(policy).encode(), "kept"), "kept") == policy


_ports = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: (min(pair), max(pair)))


@given(
    st.lists(_ports, unique=True, max_size=64).map(tuple),
    st.integers(0, 10**11).map(lambda n: round(n * 1e-9, 9)),
    st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20),
)
def test_odd_values_are_kept_as_they_are(ports: tuple[tuple[int, int], ...], share: float, name: str) -> None:
    policy = Policy()
    policy = dataclasses.replace(
        policy,
        ssh_ports=(),
        bgp=dataclasses.replace(policy.bgp, route_config=Path("/x") / f"a{name}".replace("/", "")),
        guard=dataclasses.replace(policy.guard, share=share),
        nftables=dataclasses.replace(policy.nftables, tcp_ports=ports, inbound="listed", conntrack=True),
    )
    assert parse_policy(yamlfile.parse(policy_text(policy).encode(), "kept"), "kept") == policy


def test_the_agent_runs_again_for_another_policy_and_says_nothing_of_an_end(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("{}\n")
    config = Config(paths=Paths(tmp_path / "state", tmp_path / "run"), policy=str(tmp_path / "p.yaml"))
    config.paths.agent.mkdir(parents=True)
    life = Life(config)
    daemon = Daemon(config, life=life)
    assert not daemon._ends()
    (tmp_path / "p.yaml").write_text("protocol: 186\n")
    daemon._bgp.look()
    assert not daemon._ends()
    daemon._reload(1, None)
    daemon._bgp._slowly()
    assert daemon._ends()
    assert daemon._renewed
    assert "policy" in daemon.wake.wait(0)
    daemon._socket.stop()
    again = Daemon(config, life=life)
    again._socket.stop()
    assert again._marks.protocol == 186
    life.stopping.set()
    assert again._ends()
    assert not again._renewed


def test_the_loop_looks_at_every_place_of_a_template(tmp_path: Path) -> None:
    templates = Templates((tmp_path / "mine", find("templates")))
    assert tmp_path / "mine" / "nftables.j2" in templates.files
    assert find("templates") / "nftables.j2" in templates.files
    assert all(path.suffix == ".j2" for path in templates.files)
