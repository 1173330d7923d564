"""The frame of the command line: verbs that are imported late, options of all of them, errors as one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from dzagent.errors import DecodeError, DzagentError, InputError

if TYPE_CHECKING:  # `dzagent --help` needs no configuration, and half the time to import it
    from dzagent.config import Config

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


class Failure(click.ClickException):
    """An error as a person sees it: one line on standard error, and exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        text = " ".join(self.format_message().split())
        click.echo(f"dzagent: {_visible(text)}", file=file or sys.stderr)


class BadInput(Failure):
    """Unusable input: exit status 2."""

    exit_code = 2


def failure(error: DzagentError) -> Failure:
    """Return the Failure that shows this error."""
    return (BadInput if isinstance(error, (InputError, DecodeError)) else Failure)(str(error))


def _visible(text: str) -> str:
    """Control characters in a message, from a file or the ledger, must not reach a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


@dataclass(frozen=True, slots=True)
class Options:
    """The options before the verb."""

    config_file: Path | None = None
    socket: Path | None = None

    def config(self) -> Config:
        """Read the configuration. Raises ConfigError."""
        from dzagent.config import DEFAULT_CONFIG
        from dzagent.configfile import load_config

        return load_config(self.config_file or DEFAULT_CONFIG, required=self.config_file is not None)

    def api_socket(self) -> Path:
        """Where the API answers. Raises ConfigError.

        The file may hold a token in its URLs and be unreadable for the people who may use the API: then the socket
        is where it is by default.
        """
        from dzagent.config import DEFAULT_CONFIG, Config

        if self.socket is not None:
            return self.socket
        if self.config_file is None and DEFAULT_CONFIG.exists() and not os.access(DEFAULT_CONFIG, os.R_OK):
            return Config().paths.socket
        return self.config().paths.socket


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A verb, where it is ("module:attribute"), and its line of help."""

    name: str
    target: str
    help: str

    def load(self) -> click.Command:
        """Import it. Raises Failure if this installation does not have it."""
        module, _, attribute = self.target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise Failure(f"`dzagent {self.name}` is not installed: {error.name} is missing") from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return command


class LazyGroup(click.Group):
    """A group whose help needs none of its commands. Every DzagentError in them becomes a Failure."""

    def __init__(self, *args: Any, lazy: Sequence[LazyCommand] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = {command.name: command for command in lazy}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which they help a person."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        lazy = self._lazy.get(cmd_name)
        return lazy.load() if lazy is not None else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the list of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in self._lazy.values()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors become one line."""
        try:
            return super().invoke(ctx)
        except DzagentError as error:
            raise failure(error) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run as a program, or, without standalone mode, as a function that raises ClickException.

        As a program: Ctrl-C is quiet (click sees to a reader that went away).
        """
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        tolerate(sys.stdout, sys.stderr)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(code if type(code) is int else 0)


def tolerate(*streams: Any) -> None:
    """Let text that the terminal's encoding lacks be replaced rather than fail."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
