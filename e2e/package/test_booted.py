"""The package on a running system: systemd, sockets, users, privileges. No tunnel: the kernel here may have no GRE.

There is no ledger either, so that everything here also shows what works while the ledger is down.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from e2e.lab.wait import SLOW, wait_for
from e2e.package import debs
from e2e.package.box import Box
from e2e.package.test_lifecycle import KEEP

SOCKET = "/run/dzagent/dzagent.sock"
CONFIG = "network: localnet\nrpc: http://127.0.0.1:9\nclient_ip: 198.51.100.7\n"
"""Nobody listens at port 9."""
SERVICES = ("dzagentd.service", "dzagent-bird.service", "dzagent-api.service")
PSS_LIMIT = 110_000
"""Kilobytes, all processes together."""
FORBIDDEN = re.compile(
    r"seccomp|SIGSYS|status=31|ended with -31|bad system call|not permitted|Traceback|permission denied",
    re.IGNORECASE,
)
"""What a sandbox that is too tight, or a bug, leaves in the journal."""
NETWORK = (
    *("addr show", "-4 rule show", "-6 rule show", "-4 route show table all", "-6 route show table all"),
    "nexthop show",
)


@pytest.fixture
def running(box: Box) -> Box:
    """A configured agent, nobody has enabled it."""
    configure(box)
    return box


def configure(box: Box) -> None:
    """Do what the installation tells the operator to do."""
    box.tree.put("/etc/dzagent/config.yaml", CONFIG, 0o640)
    box.must("systemctl", "restart", "dzagentd")


def get(box: Box, path: str, user: str = "member") -> subprocess.CompletedProcess[str]:
    """Ask the API as a user."""
    return box.as_user(
        user, "curl", "--silent", "--show-error", "--fail", "--unix-socket", SOCKET, f"http://dzagent{path}"
    )


def network(box: Box) -> dict[str, list[str]]:
    """Return all that the kernel has; by numbers, for the package gives names to some."""
    seen = {words: box.must("ip", "-N", "-d", *words.split()).splitlines() for words in NETWORK}
    return {**seen, "nft": box.must("nft", "list", "ruleset").splitlines()}


def make_foreign(box: Box) -> None:
    """Make somebody else's objects of every kind that we have, too."""
    for words in (
        "link add other0 type veth peer name other1",
        # Without it the kernel adds IPv6 addresses of its own, which change for some seconds.
        "link set other0 addrgenmode none",
        "link set other1 addrgenmode none",
        "addr add 192.0.2.65/27 dev other0",
        "link set other0 up",
        "link set other1 up",
        "route add 192.0.2.128/26 via 192.0.2.66 dev other0 proto bgp",
        "route add default via 192.0.2.66 dev other0 table 77",
        "rule add from 192.0.2.64/27 lookup 77 priority 5000",
    ):
        box.must("ip", *words.split())
    box.must("nft", "add", "table", "inet", "other")


def test_the_package_disturbs_nothing_until_it_is_enabled(box: Box, deb: Path) -> None:
    make_foreign(box)
    box.must("dpkg", "--purge", "dzagent")
    before = network(box)
    said = box.must("dpkg", "--install", box.tree.bring(deb))
    assert "Traceback" not in said
    configure(box)
    wait_for("dzagentd is ready", lambda: box.active("dzagentd"), 30)
    assert network(box) == before
    box.must("dpkg", "--purge", "dzagent")
    assert network(box) == before


def test_a_fresh_installation_says_how_to_go_on(box: Box) -> None:
    told = box.as_user("member", "dzagent", "status")
    assert "dzagent enable" in told.stdout, told.stdout + told.stderr
    assert box.as_user("member", "dzagent", "enable").returncode == 0
    said = wait_for("what is missing", lambda: _named(box, "rpc is not set"), 30)
    assert "/etc/dzagent/config.yaml" in said, said


def _named(box: Box, what: str) -> str:
    said = box.as_user("member", "dzagent", "status").stdout
    return said if what in " ".join(said.split()) else ""


def test_it_is_ready_without_a_ledger(running: Box) -> None:
    assert running.active("dzagentd")
    began = int(running.show("dzagentd", "ExecMainStartTimestampMonotonic"))
    ready = int(running.show("dzagentd", "ActiveEnterTimestampMonotonic"))
    print(f"{running.tree.suite}: dzagentd is ready after {(ready - began) / 1e6:.2f} s")
    assert ready - began < 30e6 * SLOW
    assert running.show("dzagentd", "StatusText")
    failed = running.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "dzagent*").stdout
    assert failed == ""


def test_memory_of_all_processes(running: Box) -> None:
    """Also of the one that waits beside them, for as long as a change is not confirmed."""
    assert get(running, "/v3/status").returncode == 0
    running.must("sh", "-c", "echo '{\"deadline\": 1e9}' > /run/dzagent/agent/rollback.json")
    wait_for("somebody waits", lambda: running.pids("dzagent-rollback.service"), 30)
    time.sleep(1)  # it is there before it has loaded what it waits with
    units = (*SERVICES, "dzagent-rollback.service")
    kilobytes = {unit: sum(_pss(running, pid) for pid in running.pids(unit)) for unit in units}
    print(f"{running.tree.suite}: PSS {kilobytes} kB, together {sum(kilobytes.values())}")
    assert all(kilobytes.values())
    assert sum(kilobytes.values()) <= PSS_LIMIT


def _pss(box: Box, pid: int) -> int:
    text = box.run("cat", f"/proc/{pid}/smaps_rollup").stdout
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_the_group_may_use_the_api_and_nobody_else(running: Box) -> None:
    socket = running.host().file(SOCKET)
    assert (socket.user, socket.group, socket.mode) == ("root", "dzagent", 0o660)
    assert not running.active("dzagent-api.service"), "it starts with the first request"
    answer = get(running, "/v3/status")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["enabled"] is False
    assert running.active("dzagent-api.service")
    assert get(running, "/v3/status", "stranger").returncode == 7  # curl: cannot connect
    refused = running.as_user("stranger", "dzagent", "status")
    assert refused.returncode != 0
    assert "group" in refused.stderr, refused.stderr
    assert "dzagent" in refused.stderr


def test_only_the_network_privileges_are_kept(running: Box) -> None:
    assert get(running, "/v3/status").returncode == 0
    for unit in SERVICES:
        for pid in running.pids(unit):
            text = running.run("cat", f"/proc/{pid}/status").stdout
            found = dict(re.findall(r"^(\w+):\s+(\S+)", text, re.MULTILINE))
            allowed = 1 << 12 | 1 << 13 if unit == "dzagentd.service" else 0  # CAP_NET_ADMIN, CAP_NET_RAW
            assert int(found["CapEff"], 16) & ~allowed == 0, f"{unit}: {found['CapEff']}"
            assert int(found["CapBnd"], 16) & ~allowed == 0, f"{unit}: {found['CapBnd']}"
            assert found["NoNewPrivs"] == "1"
            assert found["Seccomp"] == "2", "no filter of system calls"
            assert found["Uid"] != "0"


def test_enable_and_disable_by_an_operator(running: Box) -> None:
    assert running.as_user("member", "dzagent", "enable").returncode == 0
    wait_for("it is enabled", lambda: json.loads(get(running, "/v3/status").stdout)["enabled"], 30)
    running.must("systemctl", "restart", "dzagentd")
    assert json.loads(get(running, "/v3/status").stdout)["enabled"]
    done = running.as_user("member", "dzagent", "disable", "--wait")
    assert done.returncode == 0, done.stderr
    wait_for("it is disabled", lambda: not json.loads(get(running, "/v3/status").stdout)["enabled"], 30)
    assert running.as_user("stranger", "dzagent", "enable").returncode != 0


def test_nothing_is_kept_from_working_by_the_sandbox(running: Box) -> None:
    running.as_user("member", "dzagent", "enable")
    for path in ("/v3/status", "/status", "/metrics", "/v3/plan", "/v3/events", "/v3/routes"):
        assert get(running, path).returncode == 0, path
    running.must("systemctl", "restart", *SERVICES)
    wait_for("everything runs", lambda: all(map(running.active, SERVICES)), 30)
    listens = ("pgrep", "--full", "/ip .* monitor ")
    wait_for("the kernel is listened to", lambda: running.run(*listens).returncode == 0, 30)
    journal = running.journal("--unit=dzagent*")
    wrong = [line for line in journal.splitlines() if FORBIDDEN.search(line)]
    assert wrong == []
    for unit in SERVICES:
        assert running.show(unit, "Result") == "success"
        assert running.show(unit, "NRestarts") == "0"


@pytest.mark.parametrize("unit", SERVICES)
def test_a_killed_process_is_back(running: Box, unit: str) -> None:
    assert get(running, "/v3/status").returncode == 0
    killed = running.main_pid(unit)
    running.must("kill", "-KILL", str(killed))
    wait_for(
        f"{unit} is back", lambda: running.active(unit) and running.main_pid(unit) not in {0, killed}, 30
    )
    answer = wait_for("the API answers", lambda: get(running, "/v3/status").stdout, 30)
    assert json.loads(answer)["conditions"]


def test_a_killed_worker_of_the_api_is_back(running: Box) -> None:
    assert get(running, "/v3/status").returncode == 0
    master = running.main_pid("dzagent-api.service")
    workers = set(running.pids("dzagent-api.service")) - {master}
    assert workers
    running.must("kill", "-KILL", *map(str, workers))
    wait_for("another worker", lambda: set(running.pids("dzagent-api.service")) - {master} - workers, 30)
    wait_for("the API answers", lambda: get(running, "/v3/status").returncode == 0, 30)


def test_the_watchdog_ends_a_hang(running: Box) -> None:
    running.tree.put("/etc/systemd/system/dzagentd.service.d/test.conf", "[Service]\nWatchdogSec=4\n")
    running.must("systemctl", "daemon-reload")
    running.must("systemctl", "restart", "dzagentd")
    hung = running.main_pid("dzagentd")
    # It lives well with so short a limit as long as nothing hangs.
    assert subprocess.run(["sleep", str(8 * SLOW)], check=False).returncode == 0
    assert running.main_pid("dzagentd") == hung
    running.must("kill", "-STOP", str(hung))
    wait_for(
        "it is back", lambda: running.active("dzagentd") and running.main_pid("dzagentd") not in {0, hung}, 60
    )
    assert "watchdog" in running.journal("--unit=dzagentd").lower()


def test_stop_and_start(running: Box) -> None:
    bird = running.main_pid("dzagent-bird")
    running.must("systemctl", "stop", "dzagentd", limit=15)
    assert running.show("dzagentd", "Result") == "success"
    status = json.loads(get(running, "/v3/status").stdout)
    assert status, "the API answers for a reconciler that does not run"
    running.must("systemctl", "start", "dzagentd")
    assert running.active("dzagentd")
    assert running.main_pid("dzagent-bird") == bird


def test_lost_directories_are_made_again(running: Box) -> None:
    running.must("systemctl", "stop", *SERVICES, "dzagent-api.socket")
    running.must("rm", "-rf", "/run/dzagent", "/var/lib/dzagent")
    running.must("systemctl", "start", "dzagent-bird", "dzagentd", "dzagent-api.socket")
    wait_for("the API answers", lambda: get(running, "/v3/status").returncode == 0, 30)
    assert running.active("dzagentd")


def test_what_root_left_behind_keeps_nothing_from_starting(running: Box) -> None:
    running.must("systemctl", "stop", "dzagentd")
    running.must("sh", "-c", "rm -f /run/dzagent/agent/*")
    running.must("dzagentd", "--teardown")
    running.must("install", "-m", "600", "/dev/null", "/var/lib/dzagent/trust.json")
    running.must("systemctl", "start", "dzagentd")
    for name in ("/run/dzagent/agent/lock", "/var/lib/dzagent/trust.json"):
        assert running.host().file(name).user == "dzagent", name


def test_upgrade_refuses_no_request_and_leaves_the_engine(running: Box, newer: Path, older: Path) -> None:
    assert get(running, "/v3/status").returncode == 0
    bird, agent = running.main_pid("dzagent-bird"), running.main_pid("dzagentd")
    ask = f"curl -sSf -m 60 --unix-socket {SOCKET} http://dzagent/v3/status >/dev/null"
    script = f"cd; while [ ! -e stop ]; do {ask} || echo lost; sleep 0.05; done; echo asked until the end"
    asking = subprocess.Popen(
        running.argv(["setpriv", "--reuid=member", "--regid=member", "--init-groups", "sh", "-c",
                      f"HOME=/home/member; {script}"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    for deb, version in ((newer, debs.NEWER), (older, debs.OLDER)):
        running.must("dpkg", *KEEP, "--install", running.tree.bring(deb))
        _runs(running, version)
    running.tree.put("/home/member/stop", "")
    said, _ = asking.communicate(timeout=120 * SLOW)
    assert said.strip() == "asked until the end"
    assert running.main_pid("dzagent-bird") == bird
    assert running.main_pid("dzagentd") != agent


def _runs(box: Box, version: str) -> None:
    """Wait until the reconciler of this version has reported."""
    wait_for("it runs", lambda: json.loads(get(box, "/v3/status").stdout)["agent_version"] == version, 30)


def test_upgrade_leaves_stopped_what_was_stopped_and_disabled(running: Box, newer: Path) -> None:
    running.must("systemctl", "disable", "--now", "dzagentd", "dzagent-bird")
    running.must("dpkg", *KEEP, "--install", running.tree.bring(newer))
    enabled = running.run("systemctl", "is-enabled", "dzagentd", "dzagent-bird").stdout.split()
    assert enabled == ["disabled", "disabled"]


def test_a_broken_configuration_at_upgrade_is_repaired_by_hand(running: Box, newer: Path) -> None:
    bird = running.main_pid("dzagent-bird")
    running.tree.put("/etc/dzagent/config.yaml", "network: [\n")
    said = running.must("dpkg", *KEEP, "--install", running.tree.bring(newer))
    assert "/etc/dzagent/config.yaml" in said
    assert running.main_pid("dzagent-bird") == bird
    assert "/etc/dzagent/config.yaml" in running.journal("--unit=dzagentd")
    configure(running)
    assert running.active("dzagentd")


@pytest.mark.parametrize("state", ["running", "dead", "broken configuration"])
def test_remove_ends_everything_and_purge_leaves_nothing(running: Box, state: str) -> None:
    assert get(running, "/v3/status").returncode == 0
    if state == "dead":
        running.must("kill", "-KILL", *(str(pid) for unit in SERVICES for pid in running.pids(unit)))
    if state == "broken configuration":
        running.tree.put("/etc/dzagent/config.yaml", "network: [\n")
    said = running.must("dpkg", "--remove", "dzagent")
    assert "Traceback" not in said
    units = running.run("systemctl", "list-units", "--plain", "--no-legend", "dzagent*").stdout
    assert units == ""
    left = running.run("ps", "-eo", "args").stdout
    assert "dzagent" not in left.replace("ps -eo args", ""), left
    running.must("dpkg", "--purge", "dzagent")
    found = running.run(
        "find", "/etc", "/var/lib", "/var/log", "/run", "/usr", "-name", "*dzagent*"
    ).stdout.split()
    assert [name for name in found if "deb-systemd-helper" not in name and "/dpkg/" not in name] == []
    assert running.run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}


def test_a_reboot_brings_everything_back(running: Box) -> None:
    running.as_user("member", "dzagent", "enable")
    running.stop()
    running.start()
    wait_for("dzagentd is ready", lambda: running.active("dzagentd"), 30)
    assert running.active("dzagent-bird")
    assert json.loads(get(running, "/v3/status").stdout)["enabled"] is True
