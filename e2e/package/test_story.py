"""The whole story, as a user plays it on a booted host with real tunnels: install to purge, and what goes wrong between.

Each test leaves an installed and connected host to the next one, as time does; the last ones take it down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dzagent.model import UserType
from e2e.lab.netns import Monitor, Namespace, Pinger
from e2e.lab.topology import PEER_DZ_IP, build_network
from e2e.lab.view import NOTHING, ifindex, learned
from e2e.lab.wait import SLOW, wait_for
from e2e.lab.world import Granted
from e2e.package import conftest, debs, trees
from e2e.package.host import CONFIG, NAME, Host
from e2e.package.test_booted import SERVICES, get, make_foreign
from e2e.package.test_lifecycle import KEEP

LINK = "doublezero0"
ONE_SUITE = True
"""The first distribution only: everything here takes long where it is emulated."""


@dataclass(frozen=True, slots=True)
class Story:
    """A host with the package, and the user that the ledger has for it."""

    host: Host
    user: Granted
    root: Path


@pytest.fixture(scope="module")
def story(base: Path, suite: str, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A booted host with everything around it; the package is installed while it runs, as a user does it."""
    if os.environ.get("LAB_INSIDE") is None:
        conftest.missing(os.environ.get("LAB_MISSING", "the lab is not around this process: run `make e2e`"))
    conftest.need("systemd-nspawn", "nsenter", "setpriv")
    if not Path("/sys/fs/cgroup/cgroup.procs").exists() and not Path("/sys/fs/cgroup/systemd").exists():
        trees.must("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    root = tmp_path_factory.mktemp("story")
    with ExitStack() as stack:
        tree = conftest.copied(stack, base, suite, boots=True)
        host = Host(build_network(Namespace(NAME)), tree, root)
        stack.callback(host.ledger.stop)
        stack.callback(host.stop)
        host.ledger.start()
        host.start()
        user = host.grant()
        host.box.must("dpkg", "--install", tree.bring(deb), limit=180)
        conftest.make_users(host.box)
        host.put()
        host.box.must("systemctl", "restart", "dzagentd")
        # The API starts with the first request; emulated, that takes longer than a person's command waits.
        host.says("the API answers", lambda s: s["network"] == "localnet")
        done = host.box.as_user("member", "dzagent", "enable", "--wait")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{host.report()}"
        assert host.view() == user.view, "enable --wait returned before it was so"
        host.connected(user)
        yield Story(host, user, root)


@contextmanager
def undisturbed(story: Story, name: str) -> Iterator[None]:
    """See to it that a block loses no packet, and that nothing of ours changes in the kernel."""
    host, user = story.host, story.user
    index, routes = ifindex(host.space, LINK), learned(host.space)
    pinger = Pinger(host.space, user.far, story.root / f"ping-{name}")
    wait_for("the first answers", lambda: len(pinger.answered) >= 5)
    with Monitor(host.space, story.root / f"monitor-{name}") as monitor:
        yield
        changes = [line for line in monitor.changes() if "doublezero" in line]
    answered = len(pinger.answered)
    wait_for("answers afterwards", lambda: len(pinger.answered) >= answered + 5)
    assert pinger.stop() == ()
    assert changes == []
    assert (host.view(), ifindex(host.space, LINK), learned(host.space)) == (user.view, index, routes)


def test_tunnel_session_and_routes_are_there(story: Story) -> None:
    host, user = story.host, story.user
    assert host.space.pings(user.far)
    assert any(PEER_DZ_IP in route for route in learned(host.space))
    shown = host.box.as_user("member", "dzagent", "status")
    assert shown.returncode == 0
    assert LINK in shown.stdout


def test_the_api_is_for_the_group(story: Story) -> None:
    box = story.host.box
    answer = get(box, "/status", "member")
    assert answer.returncode == 0, answer.stderr
    assert "BGP Session Up" in answer.stdout
    assert get(box, "/status", "stranger").returncode == 7


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_upgrade_loses_nothing(story: Story, direction: str, newer: Path, deb: Path) -> None:
    host = story.host
    box = host.box
    bird, agent = box.main_pid("dzagent-bird"), box.main_pid("dzagentd")
    file, version = (newer, debs.NEWER) if direction == "up" else (deb, debs.field(deb, "Version"))
    with undisturbed(story, f"upgrade-{direction}"):
        box.must("dpkg", *KEEP, "--install", box.tree.bring(file), limit=180)
        host.says("the other version runs", lambda s: s["agent_version"] == version and s["pid"] != agent)
        host.connected(story.user)
    assert box.main_pid("dzagent-bird") == bird


def test_a_broken_configuration_at_upgrade_keeps_the_tunnel(story: Story, deb: Path) -> None:
    host = story.host
    with undisturbed(story, "broken"):
        host.put("network: [\n")
        said = host.box.must("dpkg", *KEEP, "--install", host.box.tree.bring(deb), limit=180)
        assert "/etc/dzagent/config.yaml" in said
        host.put(CONFIG)
        host.box.must("systemctl", "restart", "dzagentd", "dzagent-api.service")
        host.connected(story.user)


@pytest.mark.parametrize("unit", SERVICES)
def test_a_killed_process_is_back(story: Story, unit: str) -> None:
    host = story.host
    index = ifindex(host.space, LINK)
    pinger = Pinger(host.space, story.user.far, story.root / f"ping-{unit}")
    wait_for("the first answers", lambda: len(pinger.answered) >= 5)
    host.status()  # the API runs from its first request on
    killed = host.box.main_pid(unit)
    host.box.must("kill", "-KILL", str(killed))
    wait_for(
        f"{unit} is back", lambda: host.box.active(unit) and host.box.main_pid(unit) not in {0, killed}, 30
    )
    host.connected(story.user)
    assert pinger.stop() == ()
    assert ifindex(host.space, LINK) == index


def test_a_hang_is_ended_by_the_watchdog(story: Story) -> None:
    host = story.host
    limit = f"[Service]\nWatchdogSec={4 if SLOW == 1 else 20}\n"
    drop_in = host.box.tree.put("/etc/systemd/system/dzagentd.service.d/test.conf", limit)
    host.box.must("systemctl", "daemon-reload")
    host.box.must("systemctl", "restart", "dzagentd")
    with undisturbed(story, "hang"):
        hung = host.box.main_pid("dzagentd")
        host.box.must("kill", "-STOP", str(hung))
        wait_for(
            "dzagentd is back",
            lambda: host.box.active("dzagentd") and host.box.main_pid("dzagentd") not in {0, hung},
            60,
        )
        host.connected(story.user)
    drop_in.unlink()
    host.box.must("systemctl", "daemon-reload")


def test_stop_is_not_disable(story: Story) -> None:
    with undisturbed(story, "stop"):
        story.host.box.must("systemctl", "stop", "dzagentd")
        story.host.box.must("systemctl", "start", "dzagentd")
        story.host.connected(story.user)


@pytest.mark.parametrize("ledger", ["up", "down"])
def test_a_reboot_brings_it_back_by_itself(story: Story, ledger: str) -> None:
    host = story.host
    if ledger == "down":
        host.ledger.stop_proxy()
    try:
        host.reboot()
        host.connected(story.user, limit=90)
        assert host.space.pings(story.user.far)
    finally:
        if ledger == "down":
            host.ledger.start_proxy()


def test_disable_and_enable(story: Story) -> None:
    host = story.host
    done = host.box.as_user("member", "dzagent", "disable", "--wait")
    assert (done.returncode, host.view(), learned(host.space)) == (0, NOTHING, frozenset()), done.stderr
    done = host.box.as_user("member", "dzagent", "enable", "--wait")
    assert done.returncode == 0, f"{done.stderr}{host.report()}"
    host.connected(story.user)


def test_another_kind_of_user(story: Story) -> None:
    host = story.host
    host.ledger.delete_all()
    host.becomes(NOTHING, 60)
    user = host.grant(UserType.EDGE_FILTERING)
    host.connected(user, UserType.EDGE_FILTERING)
    assert user.view.rules


def test_remove_takes_down_what_is_ours_and_nothing_else(story: Story) -> None:
    host = story.host
    make_foreign(host.box)
    foreign = host.space.ip("-4 rule show priority 5000") + host.space.ip("-4 route show table 77 dev other0")
    assert foreign
    said = host.box.must("dpkg", "--remove", "dzagent", limit=180)
    assert (host.view(), learned(host.space)) == (NOTHING, frozenset()), said
    left = host.space.ip("-4 rule show priority 5000") + host.space.ip("-4 route show table 77 dev other0")
    assert left == foreign
    assert host.space.json("link show dev other0")


def test_purge_leaves_no_file(story: Story) -> None:
    box = story.host.box
    box.must("dpkg", "--purge", "dzagent", limit=180)
    found = box.run(
        "find", "/etc", "/var/lib", "/var/log", "/run", "/usr", "-name", "*dzagent*"
    ).stdout.split()
    assert [name for name in found if "deb-systemd-helper" not in name and "/dpkg/" not in name] == []
