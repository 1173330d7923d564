"""The running kernel as the lab, where it has GRE: own network, mount and process namespaces for one command.

The process namespace ends every process with the command, and the mount namespace takes the names of network
namespaces and the temporary directory with it: nothing is left behind, whatever ends the lab.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from e2e.lab.errors import LabError

_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_PREPARE = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/tmp && mount -t sysfs sys /sys && ip link set lo up && exec "
)


def _unshare() -> tuple[str, ...]:
    return _UNSHARE if os.geteuid() == 0 else (*_UNSHARE, "--map-root-user")


def why_not() -> str | None:
    """Say why the running kernel cannot be the lab; None if it can."""
    probe = (
        "mount -t tmpfs tmpfs /run && ip netns add probe && ip link add probe0 type veth peer name probe1 && "
        "ip link add probe2 type gre local 192.0.2.1 remote 192.0.2.2 && ip link add probe3 type dummy"
    )
    try:
        done = subprocess.run(
            [*_unshare(), "sh", "-c", probe],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return f"unshare cannot be started: {error.strerror}"
    return None if done.returncode == 0 else " ".join(done.stderr.split()) or f"status {done.returncode}"


def run(command: Sequence[str], env: Mapping[str, str], limit: float) -> int:
    """Run the command in fresh namespaces with this environment; returns its exit status."""
    argv = [*_unshare(), "sh", "-c", _PREPARE + shlex.join(command)]
    process = subprocess.Popen(argv, env={**env, "TMPDIR": "/run/tmp", "LAB_SLOW": "1"})
    try:
        return process.wait(None if math.isinf(limit) else limit)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"the command did not end within {limit:.0f} s") from error
    finally:
        process.kill()
        process.wait()
