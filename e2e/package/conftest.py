"""Fixtures of the package's tests. What cannot be had here is skipped and says so, or fails with LAB_REQUIRED=1."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from e2e.lab.errors import LabError
from e2e.package import debs, trees
from e2e.package.box import Box
from e2e.package.trees import SUITES, Tree

CACHE = debs.ROOT / ".lab"
QUICK = os.environ.get("PACKAGE") == "quick"
"""Whether only what takes minutes shall run: one distribution, nothing that needs an archive or a virtual machine."""


def missing(why: str) -> NoReturn:
    """Skip a test that cannot be run here; on a machine where everything must run, fail."""
    if os.environ.get("LAB_REQUIRED"):
        pytest.fail(f"NOT TESTED, and LAB_REQUIRED is set: {why}")
    pytest.skip(f"NOT TESTED: {why}")


def need(*programs: str) -> None:
    """Skip unless these are installed and this is root."""
    lacking = [name for name in programs if not shutil.which(name, path=trees.ENV["PATH"])]
    if lacking:
        missing(f"not installed: {', '.join(lacking)}; 'e2e/lab/setup package' does that")
    if os.geteuid() != 0:
        missing("only root can make trees and boot them")


def _say(text: str) -> None:
    sys.stderr.write(f"==> {text}\n")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a suite once for each; $SUITES names fewer of them."""
    if "suite" in metafunc.fixturenames:
        chosen = os.environ.get("SUITES", " ".join(SUITES)).split()
        chosen = chosen[:1] if QUICK else chosen
        fewer = chosen[:1] if getattr(metafunc.module, "ONE_SUITE", False) else chosen
        metafunc.parametrize("suite", fewer, scope="session")


@pytest.fixture(scope="session")
def deb() -> Path:
    """The package under test: what `make deb` has left in dist/, or leaves there now; $DEB names another."""
    need("dpkg-deb")
    found = debs.find()
    # In the lab nothing can be built; what is there comes from outside, where it was built a moment ago.
    old = found is None or ("DEB" not in os.environ and "LAB_INSIDE" not in os.environ and debs.stale(found))
    if found is None or old:
        _say("make deb")
        found = debs.build()
    return found


@pytest.fixture(scope="session")
def older(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same under a lower version."""
    return debs.renumber(deb, debs.OLDER, tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="session")
def newer(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same under a higher version, with one more line in its configuration file."""
    return debs.renumber(deb, debs.NEWER, tmp_path_factory.mktemp("newer"), "# A line of the newer version.")


@pytest.fixture(scope="session")
def base(suite: str) -> Path:
    """The tree of a suite; nothing may be written to it."""
    need("mmdebstrap", "chroot", "mount")
    try:
        return trees.fetch(CACHE, suite, _say)
    except LabError as error:
        missing(str(error))


def copied(stack: ExitStack, base: Path, suite: str, *, boots: bool = False) -> Tree:
    """Copy a tree, until the stack is left; skips where this machine does not let us mount."""
    try:
        return stack.enter_context(trees.copy(base, suite, boots=boots))
    except LabError as error:
        missing(f"no copy of a tree can be mounted here: {error}")


@pytest.fixture
def tree(base: Path, suite: str) -> Iterator[Tree]:
    """A fresh copy of the tree of a suite."""
    with ExitStack() as stack:
        yield copied(stack, base, suite)


@pytest.fixture(scope="session")
def installed(base: Path, suite: str, deb: Path) -> Iterator[Tree]:
    """A tree with the package in it, for tests that only look."""
    with ExitStack() as stack:
        found = copied(stack, base, suite)
        found.must("dpkg", "--install", found.bring(deb))
        yield found


@pytest.fixture
def box(installed: Tree, suite: str, tmp_path: Path) -> Iterator[Box]:
    """A booted tree with the package, an operator and a stranger."""
    need("systemd-nspawn", "nsenter", "setpriv")
    with ExitStack() as stack:
        found = copied(stack, installed.root, suite, boots=True)
        make_users(found)
        booted = Box(found, tmp_path / "box.log")
        stack.callback(booted.stop)
        try:
            booted.start()
        except LabError as error:
            missing(f"no container can be booted here: {error}")
        yield booted


def make_users(host: Tree | Box) -> None:
    """Make a user of the group dzagent, and one who is not in it."""
    host.must("useradd", "--create-home", "--groups", "dzagent", "member")
    host.must("useradd", "--create-home", "stranger")
