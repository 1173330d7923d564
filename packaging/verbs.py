"""The commands of the program as click knows them, for man pages and completions. Imported by scripts beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from dzagent.cli.main import main as dzagent
from dzagent.dzagentd import main as dzagentd


@dataclass(frozen=True)
class Verb:
    """One command. `words` is how it is called, such as ("dzagent", "ledger", "serve")."""

    words: tuple[str, ...]
    command: click.Command

    @property
    def name(self) -> str:
        """Return the words as they are typed."""
        return " ".join(self.words)

    @property
    def options(self) -> list[click.Option]:
        """Return the options in the order of the help, without --help."""
        return [
            param for param in self.command.params if isinstance(param, click.Option) and not param.hidden
        ]

    @property
    def arguments(self) -> list[str]:
        """Return the arguments as usage shows them."""
        context = click.Context(self.command, info_name=self.words[-1])
        return [
            param.make_metavar(context) for param in self.command.params if isinstance(param, click.Argument)
        ]

    @property
    def children(self) -> list[str]:
        """Return the names of the commands below it."""
        if not isinstance(self.command, click.Group):
            return []
        return self.command.list_commands(click.Context(self.command))


def walk(verb: Verb) -> Iterator[Verb]:
    """Yield a command and every one below it."""
    yield verb
    if isinstance(verb.command, click.Group):
        context = click.Context(verb.command)
        for name in verb.children:
            child = verb.command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from walk(Verb((*verb.words, name), child))


DZAGENT = Verb(("dzagent",), dzagent)
DZAGENTD = Verb(("dzagentd",), dzagentd)
