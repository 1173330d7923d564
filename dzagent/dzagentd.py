"""dzagentd: the command. What it runs is in `daemon.py`, what it does instead of running in `maintain.py`.

Both are imported only when they are needed: while a change waits for its confirmation, a second dzagentd waits beside
the agent, for as long as a person takes.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from dzagent import __version__
from dzagent.bootclock import boot_seconds
from dzagent.config import DEFAULT_CONFIG, Config
from dzagent.configfile import load_config
from dzagent.due import wait_until_due
from dzagent.errors import DzagentError
from dzagent.kernel.detached import detach, reap
from dzagent.lock import take_lock

GC_THRESHOLD = (50_000, 20, 50)
"""Thousands of routes are hundreds of thousands of objects without a cycle: looking for one too often costs more."""


def helper_of(config: Config) -> Callable[[], None] | None:
    """Return what watches over an unconfirmed change from outside; None under our systemd unit, whose timer does."""
    if "NOTIFY_SOCKET" in os.environ:
        return None
    options = ("--config", config.file) if Path(config.file).exists() else ()
    started: list[int] = []

    def start() -> None:
        started[:] = [pid for pid in started if not reap(pid)]
        started.append(detach(("-m", "dzagent.dzagentd", *options, "--rollback", "--wait")))

    return start


def _run(config: Config) -> None:
    from dzagent.daemon import Daemon, Life
    from dzagent.notify import pulse_of

    lock = take_lock(config.paths.lock)
    gc.set_threshold(*GC_THRESHOLD)
    helper = helper_of(config)  # first: the pulse takes the service manager's variables away
    pulse, life = pulse_of(os.environ, os.getpid()), Life(config)
    while Daemon(config, pulse, helper, life).run():
        pass
    os.close(lock)


def _roll_back(config: Config, *, waits: bool) -> int:
    if waits and not wait_until_due(config.paths.checkpoint, boot_seconds, time.sleep):
        return 0
    from dzagent.maintain import undo_unconfirmed

    return undo_unconfirmed(config, wait=waits)


def _instead(config_file: Path | None, *, teardown: bool) -> int:
    from dzagent.kernel.host import HostKernel
    from dzagent.maintain import check_files, policy_places, remove_all

    if teardown:
        return remove_all(config_file, policy_places(), kernel=HostKernel(), lock=take_lock)
    return check_files(config_file, policy_places())


def _log(config: Config) -> None:
    logging.basicConfig(
        level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for chatty in ("sh", "httpx2", "httpcore2"):  # a line for each process and request
        logging.getLogger(chatty).setLevel(logging.WARNING)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration; without it /etc/dzagent/config.yaml, or the defaults if that does not exist.",
)
@click.option("--check", is_flag=True, help="Only say whether configuration and policy can be used.")
@click.option("--teardown", is_flag=True, help="Take down everything of ours, stay disabled, and end.")
@click.option(
    "--rollback",
    is_flag=True,
    help="Undo the change that nobody confirmed, if its time has come and no agent runs, and end.",
)
@click.option("--wait", "waits", is_flag=True, help="With --rollback: wait until its time has come.")
@click.version_option(__version__, prog_name="dzagentd")
def main(config_file: Path | None, *, check: bool, teardown: bool, rollback: bool, waits: bool) -> None:
    """Keep this host's DoubleZero tunnels equal to what the ledger says.

    Runs in the foreground and logs to standard error. Needs CAP_NET_ADMIN. SIGTERM ends it and leaves the
    tunnels as they are; `dzagent disable` takes them down. SIGHUP reads the policy again.

    --teardown needs neither a ledger nor a usable configuration; no other dzagentd may run.
    """
    if waits and not rollback:
        raise click.UsageError("--wait goes with --rollback")
    if check or teardown:
        sys.exit(_instead(config_file, teardown=not check))
    try:
        config = load_config(config_file or DEFAULT_CONFIG, required=config_file is not None)
        _log(config)
        if rollback:
            sys.exit(_roll_back(config, waits=waits))
        _run(config)
    except DzagentError as error:
        click.echo(f"dzagentd: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
