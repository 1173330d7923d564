"""What dzagentd does instead of running: check the files that it would read, take everything of ours down, undo a change.

Maintainer scripts and units call these; each prints what a person should know and returns an exit status.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from dzagent.bootclock import boot_seconds
from dzagent.checkpoint import CheckpointFile, UndoneFile
from dzagent.config import DEFAULT_CONFIG, Config
from dzagent.configfile import load_config
from dzagent.errors import DzagentError
from dzagent.journal import Journal, here, read
from dzagent.kernel.host import HostKernel
from dzagent.kernel.protocol import Kernel
from dzagent.lock import take_lock
from dzagent.marks import ownership
from dzagent.model import SERVICE_NAMES
from dzagent.policy import SITE_POLICIES, Policy, find_policy, load_policy
from dzagent.policyfiles import loader, policy_or_last_good
from dzagent.render import Templates
from dzagent.rollback import Rollback
from dzagent.share import places
from dzagent.teardown import forget_wish, owners, tear_down

UNUSABLE, INCOMPLETE = 2, 1
"""Exit status: files that cannot be used; things that are still there."""


def policy_places() -> tuple[Path, ...]:
    """Return the directories in which a named policy is looked for, the site's own first."""
    return (SITE_POLICIES, *places("policies"))


def check_files(config_file: Path | None, policies: tuple[Path, ...]) -> int:
    """Say whether configuration, policy and templates can be used: 0, else 2 and what to correct.

    policies: where named policies are looked for.
    """
    try:
        config = _config(config_file)
        load_policy(find_policy(config.policy, policies))
        Templates([config.templates, *places("templates")])
    except DzagentError as error:
        _say(str(error))
        return UNUSABLE
    click.echo("configuration, policy and templates can be used")
    return 0


def remove_all(
    config_file: Path | None, policies: tuple[Path, ...], *, kernel: Kernel, lock: Callable[[Path], int]
) -> int:
    """Take down everything of ours and leave the wish to be disabled: 0 if nothing is left, else 1.

    lock: becomes the only writer of the kernel, or raises StateError.
    """
    config, policy = _known(config_file, policies)
    try:
        held = lock(config.paths.lock)
        _close_checkpoint(config)
        torn = tear_down(kernel, owners(config, policy, read(config.paths.journal, here()).claims))
        _keep_disabled(config)
        os.close(held)
    except DzagentError as error:
        _say(str(error))
        return INCOMPLETE
    if torn.summary:
        click.echo(torn.summary)
    for problem in torn.problems:
        _say(problem)
    return INCOMPLETE if torn.problems else 0


def undo_unconfirmed(config: Config, *, wait: bool) -> int:
    """Undo the change that nobody has confirmed, without the rest of the agent; see `Rollback.run`.

    Goes by the last good policy if the present one cannot be used; raises DzagentError if there is none.
    """
    load = loader(config.policy, policy_places())
    owner = ownership(config, policy_or_last_good(load, config.paths.last_policy))
    return Rollback(
        file=CheckpointFile(config.paths.checkpoint, owner, here()),
        undone=UndoneFile(config.paths.undone, owner),
        kernel=HostKernel(),
        owner=owner,
        journal=Journal(config.paths.journal, here()),
        links={name: config.links.of(name) for name in SERVICE_NAMES},
        take_lock=lambda: take_lock(config.paths.lock),
        give_back=os.close,
        now=boot_seconds,
        unix=time.time,
    ).run(wait=wait)


def _config(config_file: Path | None) -> Config:
    return load_config(config_file or DEFAULT_CONFIG, required=config_file is not None)


def _known(config_file: Path | None, policies: tuple[Path, ...]) -> tuple[Config, Policy | None]:
    """Return what can be read; the marks of the last start replace what cannot."""
    config = Config()
    try:
        config = _config(config_file)
        return config, load_policy(find_policy(config.policy, policies))
    except DzagentError as error:
        _say(f"{error}; going by the marks of the last start")
        return config, None


def _close_checkpoint(config: Config) -> None:
    """A change that waits for its confirmation is not undone any more: that would bring something back after this."""
    try:
        config.paths.checkpoint.unlink(missing_ok=True)
    except OSError as error:
        _say(f"{config.paths.checkpoint} cannot be removed ({error.strerror}): remove it")


def _keep_disabled(config: Config) -> None:
    try:
        forget_wish(config.paths)
    except DzagentError as error:
        _say(f"the wish to be enabled stays on disk: {error}")


def _say(text: str) -> None:
    click.echo(f"dzagentd: {text}", err=True)
