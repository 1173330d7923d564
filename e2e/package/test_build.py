"""How the package is built: the same bytes each time and without the network, clean for lintian, for every Python."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.package import conftest, debs
from e2e.package.test_files import IMPORT_ALL
from e2e.package.trees import must, run

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".lab", ".*_cache", "dist", "build", "__pycache__", "*.egg-info"
)


def test_another_build_without_network_gives_the_same_bytes(deb: Path, tmp_path: Path) -> None:
    conftest.need("unshare", "dh")
    copy = tmp_path / "elsewhere"
    shutil.copytree(debs.ROOT, copy, ignore=LEFT_OUT, symlinks=True)
    # Another directory, another time zone, another language, another umask.
    other = (
        "unshare",
        "--net",
        "env",
        "TZ=Pacific/Auckland",
        "LC_ALL=C",
        f"HOME={tmp_path}",
        "sh",
        "-c",
        f"umask 077; exec make --no-print-directory -C {copy} deb ARCH={debs.architecture()}",
    )
    must(*other)
    again = copy / "dist" / deb.name
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(deb.read_bytes()).hexdigest()


def test_something_else_compiled_ends_the_build(deb: Path, tmp_path: Path) -> None:
    must("dpkg-deb", "--extract", str(deb), str(tmp_path))
    tree = tmp_path / debs.INSTALLED
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[debs.architecture()]
    check = str(debs.ROOT / "packaging" / "check-tree")
    assert run(check, str(tree), machine).returncode == 0
    shutil.copy(tree / "solders/solders.abi3.so", tree / "yaml/_yaml.so")
    refused = run(check, str(tree), machine)
    assert refused.returncode != 0
    assert "_yaml.so" in refused.stdout + refused.stderr


def test_lintian_has_nothing_to_say(deb: Path) -> None:
    conftest.need("lintian")
    done = run("lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", str(deb))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def python(version: str) -> str | None:
    """Return an interpreter of this version, None if this machine has none."""
    places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(places[-1]) if places else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", PYTHONS)
def test_it_runs_under_every_python(deb: Path, tmp_path: Path, version: str) -> None:
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"NOT TESTED: this machine has no Python {version}")
    must("dpkg-deb", "--extract", str(deb), str(tmp_path))
    text = IMPORT_ALL.format(tree=str(tmp_path / debs.INSTALLED))
    done = subprocess.run(
        [interpreter, "-I", "-B", "-c", text], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout.strip())
    launcher = (tmp_path / "usr/bin/dzagent").read_text().splitlines()
    assert launcher[0] == "#!/usr/bin/python3 -I"
