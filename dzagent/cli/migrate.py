"""`dzagent migrate`: from doublezerod to dzagent without losing the tunnel, and back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dzagent.cli import document as doc
from dzagent.cli.client import Client, NoApi, client_of
from dzagent.cli.commands import BadInput, Failure, Options
from dzagent.cli.document import Json, mapping, text
from dzagent.cli.migrateview import GO_BACK, NOTHING, scene_document, scene_lines
from dzagent.cli.output import paper, print_json, print_lines
from dzagent.cli.waiting import Outcome, Progress, Verdict, judge_enabled, wait
from dzagent.cli.waitoptions import timeout_option
from dzagent.config import Config
from dzagent.foreign.sight import Eyes
from dzagent.kernel.iproute import IpRoute
from dzagent.kernel.protocol import Kernel
from dzagent.kernel.run import Runner, run
from dzagent.migration.ending import Ending
from dzagent.migration.move import Mover
from dzagent.migration.readiness import (
    DISABLED,
    NO_API,
    NO_ENGINE,
    NOT_RUNNING,
    engine_answers,
    knows,
    not_ready,
)
from dzagent.migration.scene import Scene, look
from dzagent.migration.units import Systemd, Units
from dzagent.policy import SITE_POLICIES, Policy, find_policy, load_policy
from dzagent.share import places
from dzagent.state import Intent, read_intent, write_intent

TIMEOUT = 120.0
PREPARE, LET_GO = 60.0, 30.0
"""Seconds until an enabled dzagentd knows what this host should have; until a disabled one has ended its sessions."""

UNDO = """This hands the tunnel, its rules and its routes back to doublezerod, disables dzagent, and lets doublezerod \
start again. doublezerod finds its tunnel as it left it and goes on with it; it dials the device anew, and what was \
learned meanwhile stays in the kernel until it announces the same. Routes that the device no longer announces are \
then nobody's: doublezerod does not look for them."""


@click.command()
@click.option("--undo", is_flag=True, help="Go back: hand everything back to doublezerod and let it start.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done, and what is in the way.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@timeout_option(TIMEOUT, "Give up waiting for the BGP session after this long; what was taken over stays so.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; needs --yes or --dry-run.")
@click.pass_context
def migrate(
    ctx: click.Context, *, undo: bool, dry_run: bool, yes: bool, timeout: float, as_json: bool
) -> None:
    """Take over from doublezerod without losing its tunnel; --undo goes back.

    dzagentd, its API and its BGP engine must run; while doublezerod runs they only look. The plan names every link,
    rule and static route, and nothing else is touched. Then doublezerod's unit is masked, its process is killed
    (a clean stop would take the tunnel down), and what it set up is marked as dzagent's. The tunnel carries packets all
    the time; the BGP session is dialled anew, which takes the device a second or two.

    doublezerod's own files are only read. Broken off at any point, the same command goes on, and --undo goes back.
    Needs root, except for --dry-run. Exit status 0: done, or nothing to do; 1: something is in the way, or the session
    is not up in time; 2: unusable input.
    """
    if as_json and not (yes or dry_run):
        raise BadInput("--json cannot ask: add --yes, or --dry-run to see the plan")
    if os.geteuid() != 0 and not dry_run:
        raise Failure("only root may do this: sudo dzagent migrate (or: dzagent migrate --dry-run)")
    config = (ctx.find_object(Options) or Options()).config()
    policy = load_policy(find_policy(config.policy, (SITE_POLICIES, *places("policies"))))
    eyes, units = Eyes(config.doublezerod, socket=not config.compat_socket), Systemd(run)
    tool = Tool(
        config, policy, client_of(ctx), eyes, Ending(eyes, units), units, IpRoute(), run, quiet=as_json
    )
    if undo:
        go_back(tool, dry_run=dry_run, yes=yes, as_json=as_json)
    else:
        take_over(tool, dry_run=dry_run, yes=yes, timeout=timeout, as_json=as_json)


@dataclass(slots=True)
class Tool:
    """What both directions use; every effect behind a type that tests replace."""

    config: Config
    policy: Policy
    client: Client
    eyes: Eyes
    ending: Ending
    units: Units
    kernel: Kernel
    runner: Runner
    quiet: bool = False
    engine: Callable[[Path], bool] = engine_answers

    def look(self) -> Scene:
        """Look at the host."""
        return look(self.config, self.policy, self.kernel, self.units, self.eyes)

    @property
    def mover(self) -> Mover:
        """Return what does it."""
        return Mover(self.config, self.policy, self.kernel, self.runner, self.units, self.ending, self.say)

    def say(self, line: str) -> None:
        """Tell about a step; a terminal that went away in the middle ends nothing."""
        if not self.quiet:
            with contextlib.suppress(OSError):
                click.echo(f"  {line}")

    def status(self) -> Json:
        """Return the status document, {} if nobody answers."""
        try:
            return self.client.status()
        except NoApi:
            return {}


# ---- there ---------------------------------------------------------------------------------------------------


def take_over(tool: Tool, *, dry_run: bool, yes: bool, timeout: float, as_json: bool) -> None:
    """Show the plan, ask, and do it. Raises Failure, BadInput, Abort, and what the mover raises."""
    scene, status = tool.look(), tool.status()
    if not scene.anything:
        _tell({"done": True, "message": NOTHING}, NOTHING, as_json=as_json)
        return
    before = doc.wanted(status)
    prepared = False
    blockers = _blockers(tool, scene, status)
    if blockers == (DISABLED,) and not dry_run:
        _ask(f"{DISABLED}. Enable it now?", yes=yes)
        tool.client.enable(None)
        prepared = True
        wait(tool.client.status, _judge_knows, PREPARE, progress=Progress())
        scene = tool.look()
        blockers = _blockers(tool, scene, tool.client.status())
    document = scene_document(scene, blockers)
    try:
        goes_on = _agreed(scene, document, blockers, dry_run=dry_run, yes=yes, as_json=as_json)
    except (click.ClickException, click.Abort):
        if prepared:
            tool.client.disable()
        raise
    if not goes_on:
        return
    with _undisturbed():
        failed = tool.mover.migrate(scene, enabled=before)
    _finish(tool, document, failed, timeout, as_json=as_json)


def _agreed(
    scene: Scene, document: Json, blockers: tuple[str, ...], *, dry_run: bool, yes: bool, as_json: bool
) -> bool:
    """Show the plan and ask; tells whether to go on. Raises Failure for what is in the way, Abort for a no."""
    if not as_json:
        sheet = paper()
        print_lines(scene_lines(scene, blockers, sheet), sheet)
    if dry_run or blockers:
        _end_early(document, blockers, as_json=as_json)
        return False
    _ask("Do this?", yes=yes)
    return True


def _blockers(tool: Tool, scene: Scene, status: Json) -> tuple[str, ...]:
    """Collect what is in the way. Nothing of the ledger's is needed where there is nothing to take over."""
    if not status:
        return (NO_API,)
    needs = bool(scene.adoption.changes or scene.adoption.blockers)
    mine = not_ready(status, running=doc.running(status), enabled=doc.wanted(status)) if needs else ()
    if not doc.running(status):
        return (NOT_RUNNING,)
    if mine == (DISABLED,):
        return mine
    engine = tool.config.paths.engine
    engineless = (NO_ENGINE.format(engine),) if needs and not tool.engine(engine) else ()
    return (*scene.blockers, *mine, *engineless)


def _judge_knows(status: Json) -> Verdict:
    if not doc.answered(status):
        return Verdict(message="dzagentd has not taken it up yet")
    return Verdict(done=knows(status), message=text(doc.condition(status, "Ready"), "message"))


def _end_early(document: Json, blockers: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"done": False, "message": "; ".join(blockers), "failed": [], "plan": document})
    if blockers:
        raise Failure("nothing has been changed: " + "; ".join(blockers))


def _finish(tool: Tool, document: Json, failed: tuple[str, ...], timeout: float, *, as_json: bool) -> None:
    """Wait until dzagentd has everything, and say how it is and how to go back."""
    wanted = doc.wanted(tool.status()) is True
    if wanted:
        outcome = wait(tool.client.status, judge_enabled(None), timeout, progress=Progress())
    else:
        outcome = Outcome(True, "", 0.0)
    back = tool.eyes.look()
    troubles = [*failed, *([] if outcome.done else [outcome.message])]
    troubles += [f"doublezerod runs again ({back.how}): end what starts it"] if back else []
    message = "; ".join(troubles)
    if as_json:
        print_json({"done": not troubles, "message": message, "failed": list(failed), "plan": document})
    if troubles:
        raise Failure(f"taken over, but: {message}; {GO_BACK}")
    if not as_json:
        click.echo(f"{'ready' if wanted else 'done; dzagent is disabled'}; {GO_BACK}")


# ---- and back ------------------------------------------------------------------------------------------------


def go_back(tool: Tool, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Say what it means, ask, and do it. Raises as `take_over` does."""
    tool.mover.last()
    if not as_json:
        sheet = paper()
        print_lines(sheet.wrap(UNDO), sheet)
    if dry_run:
        if as_json:
            print_json({"done": False, "message": UNDO, "failed": []})
        return
    _ask("Do this?", yes=yes)
    with _undisturbed():
        failed = tool.mover.undo(lambda: _disable(tool))
    message = "; ".join(failed)
    if as_json:
        print_json({"done": not failed, "message": message, "failed": list(failed)})
    if failed:
        raise Failure(f"handed back, but: {message}")
    if not as_json:
        click.echo("handed back; dzagent is disabled, and changes nothing until `dzagent enable`")


def _disable(tool: Tool) -> None:
    """Disable, and see that dzagentd has ended its sessions: two agents must not dial one device."""
    try:
        tool.client.disable()
        outcome = wait(tool.client.status, _judge_let_go, LET_GO, progress=Progress())
    except NoApi:
        before = read_intent(tool.config.paths.intent)
        write_intent(tool.config.paths.intent, Intent(False, before.client_ip if before else None))
        outcome = Outcome(False, "the API does not answer", 0.0)
    if not outcome.done:
        tool.say(f"{outcome.message}; if BIRD still has a session, end it: systemctl stop dzagent-bird")


def _judge_let_go(status: Json) -> Verdict:
    if not doc.running(status):
        return Verdict(message=text(mapping(status, "agent"), "message"), away=True)
    if doc.wanted(status) is not False or not doc.answered(status):
        return Verdict(message="dzagentd has not taken up the disable yet")
    return Verdict(
        done=not doc.holds(status, "SessionUp"), message="dzagentd has not ended its BGP session yet"
    )


# ---- both ----------------------------------------------------------------------------------------------------


def _ask(question: str, *, yes: bool) -> None:
    """Ask; raises Abort for a no, BadInput where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput("nobody can be asked here (no terminal): add --yes")
    click.confirm(question, abort=True)


def _tell(document: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"failed": [], **document})
    else:
        click.echo(line)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no Ctrl-C and no lost SSH session end it half-way; it takes seconds. (SIGKILL can: it goes on when run again.)"""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
