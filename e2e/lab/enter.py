"""Entering the lab: which kind it is here, what is installed for it, and the environment inside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import click

from e2e.lab import machine, native
from e2e.lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".lab"
PASSED_ON = ("TERM", "KEEP", "NO_COLOR", "PYTEST_ADDOPTS", "LANG", "DEB", "SUITES")


def say(text: str) -> None:
    """Tell what takes time."""
    click.echo(f"==> lab: {text}")


def inside_env(kind: str) -> dict[str, str]:
    """Return the environment of a command in the lab; `kind` is "native" or "vm"."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    path = f"{ROOT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    fixed = {"PATH": path, "HOME": "/root", "PYTHONUNBUFFERED": "1", "LAB_INSIDE": kind, "LC_ALL": "C.UTF-8"}
    return {**kept, **fixed}


def install(group: str) -> None:
    """Install a group of packages. Raises LabError."""
    if subprocess.run([ROOT / "e2e/lab/setup", group], check=False, cwd=ROOT).returncode != 0:
        raise LabError(f"'e2e/lab/setup {group}' failed")


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave as on an error, so that everything is taken down."""
    sys.exit(128 + number)


def run_inside(command: list[str], kind: str, accel: str, limit: float, *, interactive: bool) -> int:
    """Run the command in the lab; returns its exit status. Raises LabError."""
    signal.signal(signal.SIGTERM, _end)
    install("net")
    install("bgp")
    reason = native.why_not() if kind in {"auto", "native"} else "the virtual machine was asked for"
    if reason is None:
        say("the running kernel has what the lab needs: using network namespaces")
        return native.run(command, inside_env("native"), limit)
    if kind == "native":
        raise LabError(f"the running kernel cannot be the lab: {reason}")
    say(f"not in namespaces of the running kernel ({reason}): starting a small virtual machine")
    install("vm")
    prepared = machine.prepare(CACHE, say)
    accels = machine.accelerators(CACHE) if accel == "auto" else (accel,)
    job = machine.Job(command, inside_env("vm"), ROOT, limit, interactive)
    return machine.run(prepared, job, say, accels, CACHE)
