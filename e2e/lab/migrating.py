"""`dzagent migrate` on the BGP lab's agent, whose GRE link may be a stand-in and who has no API.

`python -m e2e.lab.migrating ROOT NAMESPACE migrate|undo`, inside that namespace.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from dzagent.foreign.sight import Eyes
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.run import run
from dzagent.migration.ending import Ending
from dzagent.migration.move import Mover
from dzagent.migration.scene import look
from dzagent.migration.units import Systemd
from dzagent.policy import Policy
from dzagent.state import Intent, write_intent
from e2e.lab.bgpagent import settings_of
from e2e.lab.standin import Namespace
from e2e.lab.wait import wait_for


def main() -> None:
    """Do it; prints what failed."""
    root, name, verb = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    netns = Namespace(name)
    probe = ["link", "add", "probe2", "type", "gre", "local", "192.0.2.8", "remote", "192.0.2.9"]
    netns.gre = netns("ip", probe).code == 0
    if netns.gre:
        netns.ip("link delete probe2")
    config = settings_of(root)
    eyes, units, kernel = Eyes(config.doublezerod), Systemd(run, running=root / "no-systemd"), IpRoute(netns)
    mover = Mover(config, Policy(), kernel, netns, units, Ending(eyes, units), print)
    if verb == "undo":

        def disable() -> None:
            write_intent(config.paths.intent, Intent(False))
            status = config.paths.status
            wait_for("a disabled agent", lambda: json.loads(status.read_text())["enabled"] is False)

        failed = mover.undo(disable)
    else:
        scene = look(config, Policy(), kernel, units, eyes)
        began = time.monotonic()
        failed = mover.migrate(scene, enabled=True)
        print(f"took {time.monotonic() - began:.3f} s for {len(scene.adoption.changes)} objects")
    print(f"failed: {failed}" if failed else "done")


if __name__ == "__main__":
    main()
