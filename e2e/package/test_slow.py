"""What takes minutes and an archive: the distribution upgraded in place, neighbours that manage networks, piuparts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from e2e.package import conftest, debs, trees
from e2e.package.listing import difference, listing
from e2e.package.test_files import IMPORT_ALL
from e2e.package.test_lifecycle import CONFIG, install, ours, status, version
from e2e.package.trees import Tree, run

ONE_SUITE = True
LIMIT = 1200.0
NEIGHBOURS = ("ufw", "firewalld", "network-manager", "frr", "apparmor", "logrotate", "needrestart")
"""Packages that manage networks, or that read files of ours."""
OTHERS = re.compile(r"/run/needrestart(/|$)|/etc/apparmor\.d/disable$")
"""What they do themselves: a note at every dpkg run; dh_apparmor removes an empty directory at every purge."""


@pytest.fixture(autouse=True)
def time_for_it() -> None:
    """Leave these out of a quick run."""
    if conftest.QUICK:
        pytest.skip("LEFT OUT of this quick run: `make e2e-package` runs it")


def apt(tree: Tree, *words: str) -> str:
    """Run apt-get in a tree; the tree has this machine's options for it already."""
    tree.path("/etc/resolv.conf").unlink(missing_ok=True)
    tree.put("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
    tree.put("/etc/hosts", Path("/etc/hosts").read_text())
    done = tree.run("apt-get", "-y", "-q", "--no-install-recommends", *words, limit=LIMIT)
    said = done.stdout + done.stderr
    if done.returncode != 0 and ("Could not resolve" in said or "Unable to connect" in said):
        conftest.missing(f"no archive can be reached from a tree: {said[-300:]}")
    assert done.returncode == 0, said[-3000:]
    return said


def test_apt_installs_it_with_what_it_depends_on(tree: Tree, deb: Path) -> None:
    tree.run("dpkg", "--purge", "--force-depends", "bird2", "bird3", "nftables", "iproute2", "kmod")
    apt(tree, "update")
    apt(tree, "install", tree.bring(deb))
    assert (status(tree), version(tree)) == ("installed", debs.field(deb, "Version"))
    assert tree.run("which", "bird", "nft", "ip").returncode == 0


def test_the_distribution_is_upgraded_in_place(tree: Tree, deb: Path) -> None:
    if tree.suite != "bookworm":
        pytest.skip("begins with Debian 12")
    install(tree, deb)
    edited = "network: testnet\nrpc: https://rpc.example.net\n"
    tree.path(CONFIG).write_text(edited)
    for sources in tree.path("/etc/apt").rglob("*.list"):
        sources.write_text(sources.read_text().replace("bookworm", "trixie"))
    for sources in tree.path("/etc/apt").rglob("*.sources"):
        sources.write_text(sources.read_text().replace("bookworm", "trixie"))
    apt(tree, "update")
    apt(tree, "-oDpkg::Options::=--force-confold", "dist-upgrade")
    assert "Python 3.13" in tree.must("python3", "--version")
    assert status(tree) == "installed"
    assert version(tree) == debs.field(deb, "Version")
    assert tree.path(CONFIG).read_text() == edited
    tree.must("/usr/bin/python3", "-I", "-c", IMPORT_ALL.format(tree="/usr/lib/dzagent"))
    compiled = {path.name.split(".")[-2] for path in tree.path("/usr/lib/dzagent").rglob("*.pyc")}
    assert compiled == {"cpython-313"}, "compiled files of the old Python are left"
    tree.must("dpkg", "--purge", "dzagent")
    assert not tree.path("/usr/lib/dzagent").exists()


def test_beside_others_that_manage_networks(tree: Tree, deb: Path) -> None:
    apt(tree, "update")
    apt(tree, "install", *NEIGHBOURS)
    before = listing(tree.root)
    install(tree, deb)
    changed = {
        name: how for name, how in ours(tree, difference(before, listing(tree.root))).items() if how != "new"
    }
    assert changed == {}
    assert tree.run("ip", "route", "show", "proto", "dzagent").returncode == 0
    tree.must("logrotate", "--debug", "/etc/logrotate.conf")
    tree.must("apparmor_parser", "--skip-kernel-load", "--skip-cache", "/etc/apparmor.d/dzagentd")
    checked = tree.run("perl", "-c", "/etc/needrestart/needrestart.conf")
    assert checked.returncode == 0, checked.stderr
    tree.must("dpkg", "--purge", "dzagent")
    left = ours(tree, difference(before, listing(tree.root)))
    assert {name: how for name, how in left.items() if not OTHERS.match(name)} == {}


def test_piuparts(base: Path, suite: str, deb: Path, tmp_path: Path) -> None:
    conftest.need("piuparts")
    tar = tmp_path / "base.tar.gz"
    trees.must("tar", "--create", "--gzip", "--file", str(tar), "-C", str(base), ".")
    mirror = (base / "etc/apt/sources.list").read_text().split()[1]
    done = run("piuparts", "--basetgz", str(tar), "--distribution", suite, "--mirror", f"{mirror} main",
               "--no-check-valid-until", "--warn-on-debsums-errors", "--skip-logrotatefiles-test", str(deb), limit=LIMIT)  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
