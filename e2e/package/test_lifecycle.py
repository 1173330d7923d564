"""Install, upgrade, downgrade, remove, purge in a tree without a running system: what is there afterwards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from e2e.package import debs
from e2e.package.listing import difference, listing
from e2e.package.trees import Tree, must

CONFIG = "/etc/dzagent/config.yaml"
KEEP = ("--force-confdef", "--force-confold")
"""What unattended upgrades give to dpkg: an edited configuration file stays."""

USERS = re.compile(r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$")
LEFT_BY_DEBIAN = re.compile(
    r"/var/lib/systemd/deb-systemd-helper-(enabled|masked)(/|$)|/etc/\.pwd\.lock$|/var/lib/systemd$"
)
"""What the distribution's own helpers leave behind after every package."""


def install(tree: Tree, deb: Path, *options: str) -> str:
    """Install a package file; returns all that was said."""
    return tree.must("dpkg", *options, "--install", tree.bring(deb))


def version(tree: Tree) -> str:
    """Return the version that the program says."""
    return tree.must("dzagent", "--version").split()[-1]


def status(tree: Tree) -> str:
    """Return dpkg's word for the state of the package, "" if it has none."""
    return tree.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "dzagent").stdout


def ours(tree: Tree, changes: dict[str, str]) -> dict[str, str]:
    """Return the changes that are neither users, nor left by the distribution's helpers."""
    assert tree
    return {
        name: how for name, how in changes.items() if not USERS.match(name) and not LEFT_BY_DEBIAN.match(name)
    }


def test_purge_leaves_the_tree_as_it_was(tree: Tree, deb: Path) -> None:
    before = listing(tree.root)
    install(tree, deb)
    tree.must("systemd-tmpfiles", "--create", "dzagent.conf")
    tree.put("/var/lib/dzagent/desired/generations/000001/unicast/tunnel.ip", "# state\n")
    tree.put("/etc/dzagent/templates.d/tunnel.j2", "# an operator's own\n")
    tree.must("dpkg", "--purge", "dzagent")
    assert ours(tree, difference(before, listing(tree.root))) == {}
    assert status(tree) == ""


def test_install_adds_and_changes_nothing_that_is_there(tree: Tree, deb: Path) -> None:
    before = listing(tree.root)
    install(tree, deb)
    changes = ours(tree, difference(before, listing(tree.root)))
    assert {name: how for name, how in changes.items() if how != "new"} == {}
    packed = {name.rstrip("/") for name in debs.contents(deb)}
    resolved = {
        name.replace("/lib/systemd", "/usr/lib/systemd") if name.startswith("/lib/") else name
        for name in packed
    }
    extra = {name for name in changes if name not in packed | resolved and "__pycache__" not in name}
    extra -= {"/etc/apparmor.d/local"}  # dh_apparmor makes a file in there, for the operator's own rules
    links = {name for name in extra if re.match(r"/etc/systemd/system/.*\.wants(/dzagent.*)?$", name)}
    rest = {name for name in extra - links if "dzagent" not in name}
    assert rest == set()


def test_remove_keeps_configuration_and_state(tree: Tree, deb: Path) -> None:
    install(tree, deb)
    tree.must("systemd-tmpfiles", "--create", "dzagent.conf")
    tree.put("/var/lib/dzagent/intent/state.json", "{}\n")
    tree.put(CONFIG, "network: testnet\nrpc: https://rpc.example.net\n")
    tree.must("dpkg", "--remove", "dzagent")
    assert status(tree) == "config-files"
    assert tree.path(CONFIG).read_text().startswith("network: testnet")
    assert tree.path("/var/lib/dzagent/intent/state.json").exists()
    left = [str(path) for path in tree.path("/usr").rglob("*dzagent*")]
    assert left == []


def test_upgrade_keeps_what_the_operator_edited(tree: Tree, deb: Path, newer: Path) -> None:
    install(tree, deb)
    edited = "network: testnet\nrpc: https://rpc.example.net/TOKEN\n"
    config = tree.put(CONFIG, edited, 0o600)
    install(tree, newer, *KEEP)
    assert (version(tree), config.read_text(), config.stat().st_mode & 0o777) == (debs.NEWER, edited, 0o600)
    assert "# A line of the newer version." in tree.path(f"{CONFIG}.dpkg-dist").read_text()
    tree.must("dpkg", "--purge", "dzagent")
    assert not tree.path("/etc/dzagent").exists()


def test_upgrade_brings_a_new_configuration_where_nobody_edited_it(
    tree: Tree, deb: Path, newer: Path
) -> None:
    install(tree, deb)
    before = tree.path(CONFIG).stat()
    install(tree, newer)
    after = tree.path(CONFIG).stat()
    assert "# A line of the newer version." in tree.path(CONFIG).read_text()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_downgrade(tree: Tree, deb: Path, older: Path) -> None:
    install(tree, deb)
    install(tree, older)
    assert version(tree) == debs.OLDER
    install(tree, deb)
    assert version(tree) == debs.field(deb, "Version")
    assert tree.run("dpkg", "--verify", "dzagent").stdout == ""


def test_a_state_directory_on_another_disk(tree: Tree, deb: Path) -> None:
    tree.must("mkdir", "-p", "/srv/large")
    tree.must("ln", "-s", "/srv/large", "/var/lib/dzagent")
    install(tree, deb)
    assert tree.must("stat", "-c", "%U", "/srv/large", "/srv/large/bgp").split() == ["dzagent", "dzagent"]


def test_installing_the_same_again_changes_nothing(tree: Tree, deb: Path) -> None:
    install(tree, deb)
    before = {name: how for name, how in listing(tree.root).items() if not name.endswith(".pyc")}
    install(tree, deb)
    after = {name: how for name, how in listing(tree.root).items() if not name.endswith(".pyc")}
    assert difference(before, after) == {}


def test_install_says_how_to_go_on(tree: Tree, deb: Path) -> None:
    said = install(tree, deb)
    lines = [line for line in said.splitlines() if line.startswith("dzagent:")]
    assert any("dzagent enable --wait" in line and CONFIG in line for line in lines), said


@pytest.mark.parametrize("text", ["network: [\n", "no_such_key: 1\n", "", "\x00\xff", "- a\n- b\n"], ids=repr)
def test_a_broken_configuration_at_upgrade_ends_clean_and_is_named(
    tree: Tree, deb: Path, newer: Path, text: str
) -> None:
    install(tree, deb)
    tree.put(CONFIG, text.encode("latin-1"))
    said = install(tree, newer, *KEEP)
    assert status(tree) == "installed"
    assert tree.path(CONFIG).read_bytes() == text.encode("latin-1")
    if text:
        assert CONFIG in said, said
        assert "systemctl restart dzagentd" in said
    assert "Traceback" not in said


def test_no_configuration_at_upgrade(tree: Tree, deb: Path, newer: Path) -> None:
    install(tree, deb)
    tree.path(CONFIG).unlink()
    install(tree, newer, *KEEP)
    assert status(tree) == "installed"
    assert not tree.path(CONFIG).exists(), "deleting it is an edit too"


@pytest.mark.parametrize("python", ["gone", "broken"])
def test_python_that_does_not_run_keeps_nobody_from_removing(tree: Tree, deb: Path, python: str) -> None:
    install(tree, deb)
    tree.path("/usr/bin/python3").unlink()
    if python == "broken":
        tree.put("/usr/bin/python3", "#!/bin/sh\nexit 1\n", 0o755)
    done = tree.run("dpkg", "--force-depends", "--purge", "dzagent")
    assert done.returncode == 0, done.stderr
    assert not tree.path("/usr/lib/dzagent").exists()


# ---- others on this host ----------------------------------------------------------------------------------------


def foreign(tree: Tree, name: str, files: dict[str, str], into: Path) -> Path:
    """Build somebody else's package with these files."""
    root = into / name
    for file, text in files.items():
        path = root / file.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    control = root / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@example.net>\nDescription: other\n"
    )
    target = into / f"{name}.deb"
    must("dpkg-deb", "--root-owner-group", "--build", str(root), str(target))
    assert tree
    return target


def test_a_host_with_doublezerod(tree: Tree, deb: Path, tmp_path: Path) -> None:
    files = {
        "/usr/bin/doublezerod": "#!/bin/sh\n",
        "/usr/bin/doublezero": "#!/bin/sh\n",
        "/usr/lib/systemd/system/doublezerod.service": "[Service]\nExecStart=/usr/bin/doublezerod\n",
    }
    tree.must("dpkg", "--install", tree.bring(foreign(tree, "doublezero", files, tmp_path)))
    state = tree.put("/var/lib/doublezerod/state.json", '{"reconciler_enabled": true}\n')
    before = listing(tree.root)
    said = install(tree, deb)
    assert "dzagent migrate" in said
    tree.must("dpkg", "--purge", "dzagent")
    assert ours(tree, difference(before, listing(tree.root))) == {}
    assert state.read_text() == '{"reconciler_enabled": true}\n'
    tree.must("dpkg", "--verify", "doublezero")
