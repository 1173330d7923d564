"""What the package puts where: files, owners, modes, users, and that its program runs under each Python."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from e2e.package import debs
from e2e.package.trees import Tree

MEGABYTE = 1_000_000
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, {tree!r})
import dzagent
names = [m.name for m in pkgutil.walk_packages(dzagent.__path__, "dzagent.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
from solders.keypair import Keypair
key = Keypair.from_seed(bytes(range(32)))
assert key.sign_message(b"x").verify(key.pubkey(), b"x")
outside = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in
           ("solana", "flask", "jinja2", "yaml", "sh", "tenacity", "click", "gunicorn", "markupsafe")
           and not (getattr(m, "__file__", None) or {tree!r}).startswith({tree!r})]
assert not outside, outside
print(len(names), "modules under", sys.version.split()[0])
"""
"""Imports every module of ours, uses the one compiled module, and sees that nothing came from elsewhere."""

LIMITS = {"dzagentd.service": 25, "dzagent-api.service": 15, "dzagent-bird.service": 15}
"""Exposure as `systemd-analyze security` counts it, times ten."""


@pytest.fixture
def host(installed: Tree) -> Host:
    """The tree as testinfra sees it."""
    return testinfra.get_host(str(installed.root), connection="chroot")


def owned(tree: Tree) -> list[Path]:
    """Return every file and directory that belongs to no other package."""
    listed = tree.must("dpkg", "--listfiles", "dzagent").split()
    return [tree.path(name) for name in listed if "dzagent" in name]


def test_it_is_installed_in_this_version(host: Host, deb: Path) -> None:
    package = host.package("dzagent")
    assert package.is_installed
    assert package.version == debs.field(deb, "Version")


def test_sizes(deb: Path, installed: Tree) -> None:
    on_disk = sum(
        path.lstat().st_size for path in installed.path("/usr/lib/dzagent").rglob("*") if path.is_file()
    )
    packed = deb.stat().st_size
    print(f"{packed / MEGABYTE:.1f} MB packed, {on_disk / MEGABYTE:.1f} MB on disk")
    assert packed <= 12 * MEGABYTE
    assert on_disk <= 75 * MEGABYTE


def test_files_are_roots_and_nobody_else_can_write_them(installed: Tree) -> None:
    for path in owned(installed):
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode) or info.st_gid != 0:
            continue
        assert (info.st_uid, stat.S_IMODE(info.st_mode) & 0o7022) == (0, 0), path


def test_nobody_but_the_group_reads_the_configuration(host: Host) -> None:
    config = host.file("/etc/dzagent/config.yaml")
    assert (config.user, config.group, config.mode) == ("root", "dzagent", 0o640)


@pytest.mark.parametrize("name", ["dzagent", "dzagent-api", "dzagent-bird"])
def test_the_users_are_system_users_without_a_shell(host: Host, name: str) -> None:
    user = host.user(name)
    assert user.exists
    assert user.uid < 1000
    assert user.shell == "/usr/sbin/nologin"
    assert host.run("passwd --status %s", name).stdout.split()[1] == "L"


def test_the_state_belongs_to_the_agent(installed: Tree, host: Host) -> None:
    installed.must("systemd-tmpfiles", "--create", "dzagent.conf")
    assert host.file("/var/lib/dzagent").user == "dzagent"
    assert host.file("/var/lib/dzagent/intent").user == "dzagent-api", "the API alone writes what people want"
    for top in ("/var/lib/dzagent", "/run/dzagent"):
        for path in (installed.path(top), *installed.path(top).rglob("*")):
            assert path.lstat().st_mode & 0o002 == 0, f"everybody can write {path}"


def test_only_one_compiled_file_is_inside(deb: Path) -> None:
    suspects = [name for name in debs.contents(deb) if re.search(r"\.(so|pyd|a|o|pyc)(\.\d+)*$", name)]
    assert suspects == ["/usr/lib/dzagent/solders/solders.abi3.so"]


def test_every_module_can_be_imported_by_the_systems_python(installed: Tree) -> None:
    text = IMPORT_ALL.format(tree="/usr/lib/dzagent")
    done = installed.run("/usr/bin/python3", "-I", "-W", "error::SyntaxWarning", "-c", text)
    assert done.returncode == 0, done.stderr
    print(done.stdout.strip())


def test_modules_are_compiled(installed: Tree) -> None:
    sources = set(installed.path("/usr/lib/dzagent").rglob("*.py"))
    compiled = {
        path.parent.parent / f"{path.name.split('.')[0]}.py"
        for path in installed.path("/usr/lib/dzagent").rglob("__pycache__/*.pyc")
    }
    assert sources
    assert not sources - compiled


@pytest.mark.parametrize("command", [("dzagent", "--version"), ("dzagent", "--help"), ("dzagentd", "--help")])
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_commands_start_for_everybody(installed: Tree, user: str, command: tuple[str, ...]) -> None:
    done = installed.run("setpriv", f"--reuid={user}", "--clear-groups", *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr


def test_the_environment_and_the_current_directory_are_shut_out(installed: Tree) -> None:
    installed.put("/root/evil/click.py", "raise SystemExit('taken from outside')\n")
    script = "cd /root/evil && PYTHONPATH=/root/evil dzagent --version"
    done = installed.run("sh", "-c", script)
    assert done.returncode == 0, done.stderr


def test_a_command_without_a_service_says_what_to_do(installed: Tree) -> None:
    done = installed.run("dzagent", "status")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "systemctl" in done.stderr, done.stderr


def test_the_agent_starts_at_boot_and_is_disabled_itself(installed: Tree, host: Host) -> None:
    for unit in ("dzagentd.service", "dzagent-bird.service"):
        assert host.file(f"/etc/systemd/system/multi-user.target.wants/{unit}").is_symlink
    assert host.file("/etc/systemd/system/sockets.target.wants/dzagent-api.socket").is_symlink
    assert not installed.path("/var/lib/dzagent/intent/state.json").exists()


@pytest.mark.parametrize("unit", LIMITS)
def test_units_are_right_and_closed(installed: Tree, unit: str) -> None:
    place = f"/usr/lib/systemd/system/{unit}"
    checked = installed.run("systemd-analyze", "verify", "--man=no", place)
    # Keys that a later systemd brought are allowed for; everything else it complains about is a mistake.
    said = [
        line
        for line in (checked.stdout + checked.stderr).splitlines()
        if not re.search(r"Unknown key( name)? 'Restart(Steps|MaxDelaySec)'", line) and "dzagent" in line
    ]
    assert said == []
    judged = installed.run(
        "systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={LIMITS[unit]}", place
    )
    assert judged.returncode == 0, judged.stdout[-200:]
    print(judged.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "page", ["man1/dzagent.1", "man8/dzagentd.8", "man5/dzagent-config.5", "man5/dzagent-policy.5"]
)
def test_manual_pages_are_there(deb: Path, page: str) -> None:
    assert f"/usr/share/man/{page}.gz" in debs.contents(deb)


def test_documentation_is_there(deb: Path) -> None:
    there = set(debs.contents(deb))
    # README.Debian under the very name that postinst tells people to read.
    for name in ("README.Debian", "README.md", "changelog.gz", "copyright"):
        assert f"/usr/share/doc/dzagent/{name}" in there, name


def test_names_of_our_numbers_are_known_to_ip(installed: Tree) -> None:
    told = installed.must("ip", "route", "show", "table", "all", "proto", "dzagent")
    assert told.strip() == ""


def test_nothing_differs_from_what_was_packed(installed: Tree) -> None:
    assert installed.run("dpkg", "--verify", "dzagent").stdout == ""
