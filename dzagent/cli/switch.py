"""`dzagent enable` and `dzagent disable`."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

import click

from dzagent.cli import document as doc
from dzagent.cli.client import Client, client_of
from dzagent.cli.commands import Failure
from dzagent.cli.document import mapping, text
from dzagent.cli.output import print_json
from dzagent.cli.waiting import (
    Judge,
    Outcome,
    Progress,
    judge_disabled,
    judge_enabled,
    outcome_json,
    unless_beside_another,
    wait,
)
from dzagent.cli.waitoptions import result_as_json, timeout_option

TIMEOUT = 120.0
"""Seconds that --wait waits unless told otherwise: two polls of a slow ledger and a slow machine."""

_WAIT = click.option("--wait", "waits", is_flag=True, help="Return only when it is really so.")
_TIMEOUT = timeout_option(TIMEOUT, "With --wait: give up after this long, with exit status 1.")


def _ipv4(_ctx: click.Context, _parameter: click.Parameter, text_: str | None) -> str | None:
    if text_ is None:
        return None
    try:
        return str(IPv4Address(text_))
    except AddressValueError as error:
        raise click.BadParameter(f"{text_!r} is not an IPv4 address such as 198.51.100.7") from error


@click.command()
@click.option(
    "--client-ip",
    callback=_ipv4,
    metavar="IP",
    help="This host's address as its user account has it; kept until another enable names another.",
)
@_WAIT
@_TIMEOUT
@result_as_json
@click.pass_context
def enable(ctx: click.Context, *, client_ip: str | None, waits: bool, timeout: float, as_json: bool) -> None:
    """Set up what the ledger grants, and keep it that way, also after a reboot.

    With --wait, exit status 0 means that everything granted is provisioned; 1 that it is not, and why. What was
    asked for stays asked for: dzagentd goes on trying.
    """
    client = client_of(ctx)
    client.enable(client_ip)
    outcome = wait_for(client, unless_beside_another(judge_enabled(client_ip)), timeout) if waits else None
    _tell(client, outcome, enabled=True, as_json=as_json)


@click.command()
@_WAIT
@_TIMEOUT
@result_as_json
@click.pass_context
def disable(ctx: click.Context, *, waits: bool, timeout: float, as_json: bool) -> None:
    """Take down everything that dzagent has set up, and keep it down, also after a reboot.

    With --wait, exit status 0 means that nothing of it is left in the kernel; 1 that something is, and why. It
    needs no answer of the ledger.
    """
    client = client_of(ctx)
    client.disable()
    outcome = wait_for(client, unless_beside_another(judge_disabled), timeout) if waits else None
    _tell(client, outcome, enabled=False, as_json=as_json)


def wait_for(client: Client, judge: Judge, timeout: float) -> Outcome:
    """Wait on the terminal that this runs on."""
    return wait(client.status, judge, timeout, progress=Progress())


def _tell(client: Client, outcome: Outcome | None, *, enabled: bool, as_json: bool) -> None:
    """Say how it went. Raises Failure if it was waited for in vain."""
    if outcome is None:
        _tell_next(client, enabled=enabled, as_json=as_json)
        return
    if as_json:
        print_json({"done": outcome.done, "enabled": enabled, **outcome_json(outcome)})
    if not outcome.done:
        wish = "enabled; not ready" if enabled else "disabled; not torn down"
        raise Failure(f"{wish} after {outcome.seconds:.0f} s: {outcome.message}")
    if not as_json:
        click.echo("enabled and ready" if enabled else "disabled; nothing of dzagent is left in the kernel")


def _tell_next(client: Client, *, enabled: bool, as_json: bool) -> None:
    """Nobody waited: say what happens next, and warn if nothing will."""
    status = client.status()
    runs = doc.running(status)
    if as_json:
        message = "" if runs else text(mapping(status, "agent"), "message")
        print_json({"done": None, "enabled": enabled, **outcome_json(None), "message": message})
    elif enabled:
        click.echo("enabled: dzagentd asks the ledger and sets up what it grants; see `dzagent status`")
    else:
        click.echo("disabled: dzagentd takes everything down now; see `dzagent status`")
    if not runs:
        click.echo(
            f"warning: {text(mapping(status, 'agent'), 'message')}; until then nothing changes", err=True
        )
