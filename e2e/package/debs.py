"""The package under test: built by `make deb`, and the same under other version numbers, for upgrades."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.package.trees import must

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = "usr/lib/dzagent"
OLDER, NEWER = "0.0.1", "99.0"
"""Versions below and above every real one."""


def architecture() -> str:
    """Return this machine's architecture, as Debian calls it."""
    return must("dpkg", "--print-architecture").strip()


def find(root: Path = ROOT) -> Path | None:
    """Return the newest package that was built for this machine; $DEB names another. None if there is none."""
    named = os.environ.get("DEB")
    if named:
        return Path(named)
    built = root.glob(f"dist/dzagent_*_{architecture()}.deb")
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def stale(deb: Path, root: Path = ROOT) -> bool:
    """Whether a source is newer than the package that was built from it."""
    built = deb.stat().st_mtime
    places = (root / name for name in ("dzagent", "templates", "policies", "packaging", "debian"))
    return any(
        path.stat().st_mtime > built
        for place in places
        for path in place.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "wheels" not in path.parts
    )


def build(root: Path = ROOT) -> Path:
    """Run `make deb` in a source tree; returns the package. Raises LabError."""
    must("make", "--no-print-directory", "-C", str(root), "deb", f"ARCH={architecture()}")
    found = find(root)
    if found is None:
        raise LabError(f"'make deb' has left no dist/dzagent_*_{architecture()}.deb")
    return found


def field(deb: Path, name: str) -> str:
    """Return a field of the control file."""
    return must("dpkg-deb", "--field", str(deb), name).strip()


def contents(deb: Path) -> list[str]:
    """Return the names of all files in the package, without the leading dot."""
    # mode owner/group size date time ./name [-> target]
    lines = must("dpkg-deb", "--contents", str(deb)).splitlines()
    return [line.split(maxsplit=5)[5].split(" -> ")[0].removeprefix(".") for line in lines]


def renumber(deb: Path, version: str, into: Path, conffile: str = "") -> Path:
    """Build the same package under another version, which its program says too.

    conffile: a line that this version's /etc/dzagent/config.yaml has more, "" leaves that file as it is.
    """
    target = into / f"dzagent_{version}_{field(deb, 'Architecture')}.deb"
    with tempfile.TemporaryDirectory(dir=into) as name:
        tree = Path(name) / "tree"
        must("dpkg-deb", "--raw-extract", str(deb), str(tree))
        control = tree / "DEBIAN" / "control"
        control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
        own = tree / INSTALLED / "dzagent" / "__init__.py"
        own.write_text(re.sub(r'__version__ = ".*?"', f'__version__ = "{version}"', own.read_text()))
        _sum(tree, own)
        if conffile:
            config = tree / "etc/dzagent/config.yaml"
            config.write_text(config.read_text() + conffile + "\n")
        must("dpkg-deb", "-Zgzip", "-z1", "--build", str(tree), str(target))
    return target


def _sum(tree: Path, changed: Path) -> None:
    """Correct the sum of a changed file, by which `dpkg --verify` looks."""
    sums = tree / "DEBIAN" / "md5sums"
    name = str(changed.relative_to(tree))
    digest = hashlib.md5(changed.read_bytes(), usedforsecurity=False).hexdigest()
    sums.write_text(re.sub(rf"(?m)^\w+  {re.escape(name)}$", f"{digest}  {name}", sums.read_text()))
