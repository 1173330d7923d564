"""`python -m e2e.lab run -- COMMAND`: run a command in the lab, in namespaces or in a virtual machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click

from e2e.lab.enter import ROOT, run_inside
from e2e.lab.errors import LabError

UNAVAILABLE = 69
"""Exit status without a lab (sysexits.h, EX_UNAVAILABLE)."""


@click.group()
def main() -> None:
    """Run things on a real kernel with GRE."""


@main.command()
@click.option("--kind", type=click.Choice(["auto", "native", "vm"]), default="auto", envvar="LAB_KIND")
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", envvar="LAB_ACCEL")
@click.option("--limit", default=2100.0, show_default=True, help="Seconds that the command may take.")
@click.option("--interactive", is_flag=True, help="Join the command to this terminal.")
@click.option(
    "--else-run", "otherwise", is_flag=True, help="Without a lab, run it here, LAB_MISSING says why."
)
@click.argument("command", nargs=-1, required=True)
def run(
    command: tuple[str, ...], kind: str, accel: str, limit: float, *, interactive: bool, otherwise: bool
) -> None:
    """Run COMMAND as root in the lab, from the project's directory, with the project's .venv on PATH."""
    began = time.monotonic()
    try:
        sys.exit(run_inside(list(command), kind, accel, limit, interactive=interactive))
    except LabError as error:
        click.echo(f"==> lab: NOT AVAILABLE: {error} (after {time.monotonic() - began:.0f} s)", err=True)
        if not otherwise or os.environ.get("LAB_REQUIRED"):
            sys.exit(UNAVAILABLE)
        env = {**os.environ, "LAB_MISSING": str(error)}
        sys.exit(subprocess.run(command, env=env, check=False, cwd=ROOT).returncode)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
