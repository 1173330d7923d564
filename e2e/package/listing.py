"""What a tree holds: every file with owner, mode and content, so that two moments can be compared exactly."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

VOLATILE = (
    *("/proc", "/sys", "/dev", "/root"),
    *(
        "/var/lib/dpkg",
        "/var/lib/apt",
        "/var/cache",
        "/var/log/apt",
        "/var/log/dpkg.log",
        "/var/log/alternatives.log",
    ),
    "/etc/ld.so.cache",
)
"""What dpkg and apt themselves write, and what is no file of the tree."""


def listing(root: Path) -> Mapping[str, str]:
    """Return every path of a tree with a short text that changes when anything about it does, but not its times."""
    return dict(_walk(root, root))


def _walk(root: Path, directory: Path) -> Iterator[tuple[str, str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            path = Path(entry.path)
            name = f"/{path.relative_to(root)}"
            if name.startswith(VOLATILE):
                continue
            yield name, _describe(path)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, path)


def _describe(path: Path) -> str:
    info = path.lstat()
    about = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
    if stat.S_ISLNK(info.st_mode):
        return f"{about} -> {path.readlink()}"
    if stat.S_ISREG(info.st_mode):
        return f"{about} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return about


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return every path that is new, gone or changed, with what happened to it."""
    return {
        name: "gone"
        if name not in after
        else "new"
        if name not in before
        else f"{before[name]} => {after[name]}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
