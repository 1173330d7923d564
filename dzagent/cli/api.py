"""`dzagent api`."""

from __future__ import annotations

import click

from dzagent.cli.commands import Options


@click.command()
@click.pass_context
def api(ctx: click.Context) -> None:
    """Serve the HTTP API on /run/dzagent/dzagent.sock, in the foreground, until SIGTERM or Ctrl-C.

    It reads what dzagentd publishes and writes what you want; it needs no privilege. The socket is for the group
    dzagent (mode 0660). A socket that systemd passes is served as it is.
    """
    from dzagent.api.serve import serve  # Flask and gunicorn: only here

    serve((ctx.find_object(Options) or Options()).config())
