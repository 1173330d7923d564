"""Writes the completions for bash from what the program itself says of its commands; they start no Python.

Usage: python packaging/completion.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from verbs import DZAGENT, DZAGENTD, Verb, walk

TEMPLATE = """\
# bash completion for @NAME@, made by packaging/completion.py
_@NAME@() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} path=@NAME@ word i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case "$path $word" in
@VERBS@
        esac
    done
    case "$path $prev" in
@VALUES@
    esac
    case $path in
@WORDS@
    esac
}
complete -F _@NAME@ @NAME@
"""


def values(verb: Verb) -> list[str]:
    """Return what completes the value of an option, one line an option that takes one."""
    lines = []
    for option in verb.options:
        if option.is_flag or option.count:
            continue
        names = " | ".join(f'"{verb.name} {name}"' for name in option.opts)
        lines.append(f"    {names}) {_value(option.type)}; return ;;")
    return lines


def _value(kind: click.ParamType) -> str:
    if isinstance(kind, click.Choice):
        return f'COMPREPLY=($(compgen -W "{" ".join(map(str, kind.choices))}" -- "$cur"))'
    if isinstance(kind, (click.Path, click.File)):
        return 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur"))'
    return ":"


def words(verb: Verb) -> str:
    """Return what may follow a command."""
    names = [name for option in verb.options for name in option.opts]
    known = " ".join([*verb.children, *names, "--help"])
    return f'    "{verb.name}") COMPREPLY=($(compgen -W "{known}" -- "$cur")) ;;'


def script(root: Verb) -> str:
    """Return the completion of one program."""
    verbs = list(walk(root))
    below = [f'        "{verb.name}") path="{verb.name}" ;;' for verb in verbs if len(verb.words) > 1]
    parts = {
        "@NAME@": root.name,
        "@VERBS@": "\n".join(below) or "        *) ;;",
        "@VALUES@": "\n".join(line for verb in verbs for line in values(verb)) or "    *) ;;",
        "@WORDS@": "\n".join(words(verb) for verb in verbs),
    }
    text = TEMPLATE
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def main() -> int:
    """Write one file a program, named as bash-completion looks for it."""
    if len(sys.argv) != 2:
        sys.stderr.write((__doc__ or "") + "\n")
        return 2
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for root in (DZAGENT, DZAGENTD):
        (directory / root.name).write_text(script(root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
