"""Trees of the distributions: made once, kept in `.lab/trees`, and copied by an overlay for each test.

A tree has what the package depends on, so that no test but those of apt itself needs the network. The writable layer
is in memory: nothing that a package does there is seen outside, and it is gone with the test.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError

_COMMON = (
    *("systemd", "systemd-sysv", "dbus", "python3", "ca-certificates", "kmod", "adduser"),
    *("iproute2", "nftables", "curl", "iputils-ping", "procps"),
)
SUITES = {"bookworm": (*_COMMON, "bird2"), "trixie": (*_COMMON, "bird3")}
"""What each tree has beside the minimum; one has BIRD 2, the other BIRD 3."""

OPTIONS = re.compile(r"^Acquire::(https?::.*|Check-Valid-Until|Check-Date) ")
"""Options of this machine's apt that decide whether it can reach a mirror at all."""

ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "TERM": "dumb",
}
"""The environment of every command in a tree: nothing of the machine outside."""


def run(*command: str, limit: float = 600.0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command outside, whatever its exit status; `limit` is in seconds. Raises LabError if that is over."""
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", check=False, timeout=limit
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"'{' '.join(command)}' did not end within {limit:.0f} s") from error


def must(*command: str) -> str:
    """Run a command outside; returns its output. Raises LabError if it fails."""
    try:
        done = run(*command)
    except OSError as error:
        raise LabError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise LabError(f"'{' '.join(command)}' failed: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout


def _mirror() -> tuple[str, ...]:
    """Return the Debian mirror that this machine uses; nothing if it uses none: mmdebstrap knows Debian's own."""
    listed = run(
        "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"
    )
    found = re.search(r"^Debian Debian (https?://\S+)", listed.stdout, re.MULTILINE)
    return (found[1],) if found else ()


def fetch(cache: Path, suite: str, say: Callable[[str], None]) -> Path:
    """Return the tree of a suite; it is made if it is not there. Raises LabError if it cannot be made here."""
    packages = SUITES[suite]
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    tree = cache / "trees" / f"{suite}-{digest}"
    if tree.exists():
        return tree
    if not shutil.which("mmdebstrap"):
        raise LabError("mmdebstrap is not installed: 'e2e/lab/setup package' does that")
    tree.parent.mkdir(parents=True, exist_ok=True)
    say(f"making a tree of {suite} (once, into {tree})")
    outside = run("apt-config", "dump").stdout.splitlines()
    options = [f"--aptopt={line}" for line in outside if OPTIONS.match(line)]
    new = tree.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    wanted = f"--include={','.join(packages)}"
    must(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        wanted,
        *options,
        suite,
        str(new),
        *_mirror(),
    )
    # The trees are thrown away: nobody has to wait for a disk.
    (new / "etc/dpkg/dpkg.cfg.d/lab").write_text("force-unsafe-io\n")
    new.rename(tree)
    return tree


@dataclass(frozen=True, slots=True)
class Tree:
    """A writable tree of a distribution."""

    root: Path
    suite: str

    def path(self, name: str) -> Path:
        """Return where an absolute path of the tree is, seen from outside."""
        return self.root / name.lstrip("/")

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in the tree, with nothing of this machine's environment."""
        words = [f"{name}={value}" for name, value in ENV.items()]
        return ["env", "-i", *words, "chroot", str(self.root), *command]

    def run(self, *command: str, limit: float = 600.0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the tree, whatever its exit status."""
        return run(*self.argv(command), limit=limit, stdin=stdin)

    def must(self, *command: str) -> str:
        """Run a command in the tree; returns what it writes. Raises LabError if it fails."""
        done = self.run(*command)
        if done.returncode != 0:
            raise LabError(
                f"in {self.suite}: '{' '.join(command)}' failed: {(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout + done.stderr

    def put(self, name: str, text: str | bytes, mode: int = 0o644) -> Path:
        """Write a file of the tree."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def bring(self, file: Path) -> str:
        """Copy a file from outside into the tree's /root; returns its name there."""
        shutil.copy(file, self.path("/root"))
        return f"/root/{file.name}"


@contextmanager
def copy(base: Path, suite: str, size: str = "1500m", *, boots: bool = False) -> Iterator[Tree]:
    """A copy of a tree for a while; `size` bounds what can be written to it.

    It has /proc, /sys and /dev/pts, unless it `boots` and mounts them itself. Raises LabError where this machine
    does not let us mount.
    """
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="dzagent-tree-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        _mount(stack, place, "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs")
        layers = [place / name for name in ("upper", "work", "root")]
        for layer in layers:
            layer.mkdir(mode=0o755)
        upper, work, root = layers
        _mount(
            stack, root, "-t", "overlay", "-o", f"lowerdir={base},upperdir={upper},workdir={work}", "overlay"
        )
        if not boots:
            _mount(stack, root / "proc", "-t", "proc", "proc")
            _mount(stack, root / "sys", "-t", "sysfs", "-o", "ro", "sysfs")
            _mount(stack, root / "dev/pts", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts")
        yield Tree(root, suite)


def _mount(stack: ExitStack, target: Path, *options: str) -> None:
    must("mount", *options, str(target))
    # Lazily: a test that failed may have left a process in there.
    stack.callback(run, "umount", "--lazy", str(target))
