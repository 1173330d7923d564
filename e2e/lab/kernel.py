"""The kernel of the virtual machine: the distribution's package, unpacked into a cache, nothing installed."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError

META_PACKAGES = ("linux-image-amd64", "linux-image-generic")
"""Debian's and Ubuntu's. Debian's cloud kernel has no 9p, so it is not among them."""

BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What the first stage needs to mount the root filesystem; their dependencies come from modules.dep."""

_PACKAGE = re.compile(r"\b(linux-(?:image|modules)-\d\S*)")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel: the image and its modules (`modules` is a lib/modules/VERSION directory)."""

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        """The release, as `uname -r` says it."""
        return self.modules.name


def _output(argv: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise LabError(f"'{' '.join(argv)}' failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def find_kernel(cache: Path) -> Kernel | None:
    """Return the newest kernel that was unpacked completely, None if there is none."""
    found = sorted(cache.glob("tree/*/lib/modules/*/ready"))
    for mark in reversed(found):
        modules = mark.parent
        tree = modules.parents[2]
        image = tree / "boot" / f"vmlinuz-{modules.name}"
        if image.exists():
            return Kernel(image, modules)
    return None


def fetch_kernel(cache: Path, say: Callable[[str], None]) -> Kernel:
    """Return the cached kernel, or download and unpack the distribution's. Raises LabError."""
    cached = find_kernel(cache)
    if cached:
        return cached
    for program in ("apt-get", "dpkg", "depmod"):
        if not shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin"):
            raise LabError(f"a kernel for the virtual machine cannot be unpacked: no {program} here")
    packages = list(_packages())
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    say(f"downloading {' '.join(packages)} (once, into {cache})")
    _output(["apt-get", "download", *packages], cwd=debs)
    tree = cache / "tree" / packages[0]
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    say("unpacking it")
    for deb in sorted(debs.glob("*.deb")):
        _output(["dpkg", "-x", str(deb), str(tree)])
        deb.unlink()
    if not (tree / "lib").exists():  # packages of a merged-/usr distribution
        (tree / "lib").symlink_to("usr/lib")
    for modules in (tree / "lib" / "modules").iterdir():
        _output(["/sbin/depmod", "-b", str(tree), modules.name])
        (modules / "ready").touch()
    kernel = find_kernel(cache)
    if kernel is None:
        raise LabError(f"the packages {packages} hold no kernel image with modules of the same version")
    return kernel


def _packages() -> Iterator[str]:
    """Yield the packages of the newest kernel: the image, and on Ubuntu the modules beside it."""
    for meta in META_PACKAGES:
        done = subprocess.run(
            ["apt-cache", "depends", "--important", meta], capture_output=True, text=True, check=False
        )
        images = [name for name in _PACKAGE.findall(done.stdout) if name.startswith("linux-image-")]
        if images:
            yield images[0]
            modules = images[0].replace("linux-image-", "linux-modules-")
            if _PACKAGE.search(_show(modules)):
                yield modules
            return
    raise LabError("apt knows no kernel package: run 'apt-get update' (as root) and try again")


def _show(package: str) -> str:
    done = subprocess.run(["apt-cache", "show", package], capture_output=True, text=True, check=False)
    return done.stdout


def fetch_busybox(cache: Path, say: Callable[[str], None]) -> Path:
    """Return a static busybox from the distribution's package, unpacked. Raises LabError."""
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (cache / "busybox" / place).exists():
            return cache / "busybox" / place
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    say("downloading busybox-static")
    _output(["apt-get", "download", "busybox-static"], cwd=debs)
    for deb in debs.glob("busybox-static_*.deb"):
        _output(["dpkg", "-x", str(deb), str(cache / "busybox")])
        deb.unlink()
    found = next((cache / "busybox").glob("**/bin/busybox"), None)
    if found is None:
        raise LabError("the package busybox-static holds no busybox")
    return found


def boot_modules(kernel: Kernel) -> tuple[tuple[str, bytes], ...]:
    """Return (file name, content) of the modules that the first stage loads, in the order to load them."""
    depends: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        depends[path] = rest.split()
    by_name = {_module_name(path): path for path in depends}
    order: dict[str, None] = {}
    # A module that is not in the list is built into the kernel. A line names the innermost dependency last.
    for path in (by_name[name] for name in BOOT_MODULES if name in by_name):
        order.update(dict.fromkeys([*reversed(depends[path]), path]))
    return tuple((f"{_module_name(path)}.ko", _module(kernel.modules / path)) for path in order)


def _module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data
