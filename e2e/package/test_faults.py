"""Package operations on a host in trouble: they end clean, or say what to do, and can be repeated afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.lab.wait import wait_for
from e2e.package import debs
from e2e.package.test_lifecycle import KEEP, install, status, version
from e2e.package.trees import Tree, must, run

MEGABYTE = 1024 * 1024


@contextlib.contextmanager
def full(tree: Tree, left: int) -> Iterator[None]:
    """Leave this many bytes on the tree's disk for a while."""
    filler = tree.path("/root/filler")
    free = os.statvfs(tree.root)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.parametrize("left", [1, 10, 30, 46], ids=lambda left: f"{left}MB")
def test_a_full_disk_at_install(tree: Tree, deb: Path, left: int) -> None:
    file = tree.bring(deb)
    with full(tree, left * MEGABYTE):
        done = tree.run("dpkg", "--install", file)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        if done.returncode != 0:
            assert "No space left" in said
    tree.run("dpkg", "--configure", "-a")
    install(tree, deb)
    assert (status(tree), version(tree)) == ("installed", debs.field(deb, "Version"))


@pytest.mark.parametrize("left", [1, 10, 30, 46], ids=lambda left: f"{left}MB")
def test_a_full_disk_at_upgrade_leaves_a_version_that_works(
    tree: Tree, deb: Path, newer: Path, left: int
) -> None:
    install(tree, deb)
    file = tree.bring(newer)
    with full(tree, left * MEGABYTE):
        done = tree.run("dpkg", *KEEP, "--install", file)
        assert "Traceback" not in done.stdout + done.stderr
        expected = debs.NEWER if done.returncode == 0 else debs.field(deb, "Version")
        assert version(tree) == expected, done.stderr
        assert status(tree) == "installed", done.stderr
    tree.must("dpkg", *KEEP, "--install", file)
    assert version(tree) == debs.NEWER


def test_a_full_disk_at_purge(tree: Tree, deb: Path) -> None:
    install(tree, deb)
    with full(tree, 0):
        tree.run("dpkg", "--purge", "dzagent")
    if status(tree):
        tree.must("dpkg", "--purge", "dzagent")
    assert not tree.path("/usr/lib/dzagent").exists()


@contextlib.contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Let nobody change a directory, not even root: immutable where the file system can, else mounted read-only."""
    if run("chattr", "+i", str(path)).returncode == 0:
        try:
            yield
        finally:
            must("chattr", "-i", str(path))
        return
    must("mount", "--bind", str(path), str(path))
    must("mount", "-o", "remount,bind,ro", str(path))
    try:
        yield
    finally:
        must("umount", str(path))


def test_an_immutable_state_directory(tree: Tree, deb: Path, newer: Path) -> None:
    state = tree.path("/var/lib/dzagent")
    state.mkdir()
    with frozen(state):
        said = install(tree, deb)
        assert "Traceback" not in said
        install(tree, newer, *KEEP)
        assert (status(tree), version(tree)) == ("installed", debs.NEWER)
        said = tree.must("dpkg", "--purge", "dzagent")
        assert "/var/lib/dzagent" in said, said
    assert state.exists()


# ---- dpkg is killed in the middle -------------------------------------------------------------------------------


def unpacking(tree: Tree) -> bool:
    """Whether some files are unpacked and some are not. `os.walk` does not mind folders that dpkg has just removed."""
    found = (name for _, _, names in os.walk(tree.path("/usr/lib/dzagent")) for name in names)
    return any(name.endswith(".dpkg-new") for name in found)


def configuring(tree: Tree) -> bool:
    """Whether the new version's postinst has begun."""
    return _state(tree) == f"half-configured {debs.NEWER}"


def leaving(tree: Tree) -> bool:
    """Whether the old version's prerm has begun, and has not ended."""
    return _state(tree).startswith("half-configured") and not configuring(tree)


def _state(tree: Tree) -> str:
    return tree.run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", "dzagent").stdout


def _kill_when(tree: Tree, file: str, moment: Callable[[Tree], bool]) -> None:
    """Install, and kill dpkg with all its children at a moment."""
    dpkg = subprocess.Popen(
        tree.argv(["dpkg", *KEEP, "--install", file]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(f"the moment {moment.__name__}", lambda: moment(tree) or dpkg.poll() is not None, 60)
    os.killpg(dpkg.pid, signal.SIGKILL)
    dpkg.wait()


@pytest.mark.parametrize(
    ("operation", "moment"),
    [
        ("install", unpacking),
        ("install", configuring),
        ("upgrade", leaving),
        ("upgrade", unpacking),
        ("upgrade", configuring),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_killed_dpkg_can_go_on(
    tree: Tree, deb: Path, newer: Path, operation: str, moment: Callable[[Tree], bool]
) -> None:
    if operation == "upgrade":
        install(tree, deb)
    file = tree.bring(newer)
    _kill_when(tree, file, moment)
    assert status(tree) != "installed", "it came too late: nothing was tested"
    if moment is configuring:
        tree.must("dpkg", "--configure", "-a")
    else:
        # dpkg itself says that it must be installed again; whatever is there must not stand in the way.
        tree.run("dpkg", "--configure", "-a")
        tree.must("dpkg", *KEEP, "--install", file)
    assert (status(tree), version(tree)) == ("installed", debs.NEWER)
    assert tree.run("dpkg", "--verify", "dzagent").stdout == ""
    assert not list(tree.path("/usr/lib/dzagent").rglob("*.dpkg-*"))


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5])
def test_a_killed_purge_can_go_on(tree: Tree, deb: Path, seconds: float) -> None:
    install(tree, deb)
    dpkg = subprocess.Popen(
        tree.argv(["dpkg", "--purge", "dzagent"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(dpkg.pid, signal.SIGKILL)
    dpkg.wait()
    if status(tree):
        tree.must("dpkg", "--purge", "--force-remove-reinstreq", "dzagent")
    assert status(tree) == ""
    assert not tree.path("/usr/lib/dzagent").exists()
    assert not tree.path("/etc/dzagent").exists()
