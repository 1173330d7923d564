"""A small initial filesystem for the virtual machine: busybox, a few modules, one script."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

from e2e.lab.kernel import Kernel, boot_modules

INIT = """#!/bin/busybox sh
# First stage: mount the root filesystem of the machine outside, read-only, with a writable layer in memory.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "lab: $module not loaded"; done < /modules.list
share="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "ro,cache=loose,$share" root /lower || { echo "lab: no root filesystem"; reboot -f; }
mount -t tmpfs -o size=75% tmpfs /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /new \\
    || { echo "lab: no overlay"; reboot -f; }
mkdir -p /new/.lab-shared
mount -t 9p -o "cache=none,$share" shared /new/.lab-shared || { echo "lab: no shared directory"; reboot -f; }
umount /proc
exec switch_root /new /bin/sh /.lab-shared/guest
"""
"""cache=none on the shared directory: what is written there is seen outside at once."""

_DIRECTORIES = ("bin", "dev", "layer", "lower", "modules", "new", "proc")
_DIRECTORY, _FILE = 0o040755, 0o100755


def _entry(name: str, mode: int, data: bytes, number: int) -> bytes:
    """Return one entry of a cpio archive in the `newc` form (kernel: driver-api/early-userspace)."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _archive(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    parts = [_entry(name, mode, data, number) for number, (name, mode, data) in enumerate(files, 1)]
    return b"".join([*parts, _entry("TRAILER!!!", 0, b"", 0)])


def make_initramfs(kernel: Kernel, busybox: Path, target: Path) -> Path:
    """Write the initial filesystem for this kernel to `target` and return it."""
    modules = boot_modules(kernel)
    files = [(name, _DIRECTORY, b"") for name in _DIRECTORIES]
    files.append(("bin/busybox", _FILE, busybox.read_bytes()))
    files.extend((f"modules/{name}", _FILE, data) for name, data in modules)
    files.append(("modules.list", _FILE, "".join(f"{name}\n" for name, _ in modules).encode()))
    files.append(("init", _FILE, INIT.encode()))
    target.write_bytes(gzip.compress(_archive(files), 1, mtime=0))
    return target
