"""Writes the man pages from what the program itself says of its commands, and from the comments of its YAML files.

Usage: python packaging/manpages.py DIRECTORY
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from verbs import DZAGENT, DZAGENTD, Verb, walk

from dzagent import __version__

ROOT = Path(__file__).resolve().parent.parent
DATE = "2026"

FILES = """
.SH FILES
.TP
.I /etc/dzagent/config.yaml
The configuration: see
.BR dzagent\\-config (5).
.TP
.I /etc/dzagent/policies/
Policies of your own: see
.BR dzagent\\-policy (5).
.TP
.I /etc/dzagent/templates.d/
Templates of your own, in the place of those in
.IR /usr/share/dzagent/templates .
.TP
.I /var/lib/dzagent/
What outlives a boot:
.I desired/
holds what the kernel should hold, as text that
.B ip \\-batch
could run;
.I intent/
what you asked for;
.I bgp/
the sessions;
.I ledger/
the last good answer.
.TP
.I /run/dzagent/dzagent.sock
The API. Members of the group
.B dzagent
may use it.
.TP
.I /run/dzagent/agent/
Status, plan and events, as the API shows them.
"""
SEE = """
.SH SEE ALSO
.BR dzagent (1),
.BR dzagent\\-ledger (1),
.BR dzagentd (8),
.BR dzagent\\-config (5),
.BR dzagent\\-policy (5),
.I /usr/share/doc/dzagent/README.Debian
"""
DAEMON = """
.SH SERVICES
.TP
.B dzagentd.service
This program, as the user dzagent with CAP_NET_ADMIN and CAP_NET_RAW. Restarting it leaves tunnels, routes and sessions
as they are. It says READY when it has read the kernel once, whether or not a ledger answers.
.TP
.B dzagent\\-api.socket
Starts the API for whoever connects; it has no privilege and no network.
.TP
.B dzagent\\-bird.service
A private BIRD, which keeps the BGP sessions. It is not restarted with the agent.
.SH SIGNALS
SIGTERM and SIGINT end it between two steps. SIGHUP (systemctl reload dzagentd) reads
the policy again, which happens by itself within two seconds of a change; one that cannot be used is refused with file
and line, and the old one stays. The configuration is read at a start only.
.SH EXIT STATUS
0 after a signal; 1 if
.B \\-\\-teardown
left something; 2 if configuration, policy or state cannot be used.
"""
CLIENT = """
.SH EXIT STATUS
0 it is so; 1 something is wrong, or it did not happen; 2 unusable input; 130 after Ctrl-C.
"""
CONFIG = """
A YAML file with the keys below, all of them optional. After a change:
.PP
.EX
systemctl restart dzagentd dzagent\\-api
.EE
.PP
.B dzagentd \\-\\-check
says whether it can be used, with file and line where it cannot.
"""
POLICY = """
A policy holds the numbers and limits of a site, as a YAML file. The configuration names it (\\fBpolicy\\fR): a name
stands for a file in /etc/dzagent/policies or /usr/share/dzagent/policies, a path for itself. It needs only the keys
that differ from the defaults, which are shown here.
"""


def escape(text: str) -> str:
    """Return the text as roff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def header(name: str, section: int, what: str) -> str:
    """Return the title and the line for apropos."""
    title = f'.TH {escape(name.upper())} {section} {DATE} "dzagent {__version__}" dzagent'
    return f"{title}\n.nh\n.SH NAME\n{escape(name)} \\- {escape(what)}\n"


def prose(text: str) -> str:
    """Return help text: paragraphs are filled, those that start with a backspace (click's sign) are not."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":
            parts.append(".PP\n.EX\n" + "\n".join(escape(line.rstrip()) for line in lines[1:]) + "\n.EE")
        else:
            filled = re.sub(r"`([^`]+)`", "\0\\1\1", paragraph)
            shown = escape(filled).replace("\0", "\\fB").replace("\1", "\\fR")
            parts.append(".PP\n" + shown)
    return "\n".join(parts) + "\n"


def synopsis(verb: Verb) -> str:
    """Return how a command is called."""
    words = [f"\\fB{escape(verb.name)}\\fR"]
    if verb.options:
        words.append("[\\fIOPTION\\fR]...")
    words += [f"\\fI{escape(argument)}\\fR" for argument in verb.arguments]
    if verb.children:
        words.append("\\fICOMMAND\\fR")
    return " ".join(words)


def options(verb: Verb) -> str:
    """Return the options of a command."""
    context = click.Context(verb.command, info_name=verb.words[-1])
    parts = []
    for option in verb.options:
        record = option.get_help_record(context)
        if record is not None:
            parts.append(f".TP\n\\fB{escape(record[0])}\\fR\n{escape(record[1] or 'See above.')}\n")
    return "".join(parts)


def sections(verbs: Iterator[Verb]) -> str:
    """Return one subsection a command."""
    parts = []
    for verb in verbs:
        parts.append(f".SS {escape(verb.name)}\n{synopsis(verb)}\n{prose(verb.command.help or '')}")
        parts.append(options(verb))
    return "".join(parts)


def dzagent_page() -> str:
    """Return dzagent(1)."""
    children = [verb for verb in walk(DZAGENT) if len(verb.words) == 2]
    return (
        header("dzagent", 1, "ask and steer the DoubleZero agent of this host")
        + f".SH SYNOPSIS\n{synopsis(DZAGENT)}\n.SH DESCRIPTION\n{prose(DZAGENT.command.help or '')}"
        + f".SH OPTIONS\n{options(DZAGENT)}.SH COMMANDS\n{sections(iter(children))}"
        + "The verbs of \\fBdzagent ledger\\fR are in\n.BR dzagent\\-ledger (1).\n"
        + CLIENT
        + FILES
        + SEE
    )


def ledger_page() -> str:
    """Return dzagent-ledger(1)."""
    verbs = [verb for verb in walk(DZAGENT) if verb.words[1:2] == ("ledger",)]
    return (
        header("dzagent-ledger", 1, "decode accounts of the ledger, and play with a development ledger")
        + f".SH SYNOPSIS\n{synopsis(verbs[0])}\n.SH DESCRIPTION\n{prose(verbs[0].command.help or '')}"
        + f".SH COMMANDS\n{sections(iter(verbs[1:]))}"
        + SEE
    )


def daemon_page() -> str:
    """Return dzagentd(8)."""
    return (
        header("dzagentd", 8, "keeps the DoubleZero tunnels of this host equal to what the ledger says")
        + f".SH SYNOPSIS\n{synopsis(DZAGENTD)}\n.SH DESCRIPTION\n{prose(DZAGENTD.command.help or '')}"
        + f".SH OPTIONS\n{options(DZAGENTD)}"
        + DAEMON
        + FILES
        + SEE
    )


def yaml_page(name: str, what: str, intro: str, file: Path) -> str:
    """Return the page of a YAML file whose comments are its documentation; its first paragraph is about the file."""
    _, _, body = file.read_text().partition("\n\n")
    return (
        header(name, 5, what)
        + f".SH DESCRIPTION\n{intro.strip()}\n.SH KEYS\n"
        + "".join(_yaml(body.splitlines()))
        + SEE
    )


def _yaml(lines: list[str]) -> Iterator[str]:
    """Yield comments as text and keys as they are written; an indented comment is a table and stays as it is."""
    kept = False
    filled = False
    for line in lines:
        text = line.strip().removeprefix("#").removeprefix(" ")
        as_is = bool(line.strip()) and (_is_key(line) or text.startswith(("  ", "- ")))
        if as_is != kept:
            yield ".EX\n" if as_is else ".EE\n"
            kept, filled = as_is, False
        if as_is:
            yield escape(line.removeprefix("# ") if line.startswith("# ") else line) + "\n"
        elif text:
            yield ("" if filled else ".PP\n") + escape(text.removeprefix("# ")) + "\n"
            filled = True
        else:
            filled = False
    if kept:
        yield ".EE\n"


def _is_key(line: str) -> bool:
    """Tell whether a line is a key, or one that is commented out because it has its default."""
    return re.match(r"(# )?\s*([a-z_]+:( |$)|- \S)", line) is not None


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    config, policy = ROOT / "packaging" / "config.yaml", ROOT / "policies" / "default.yaml"
    return {
        "dzagent.1": dzagent_page(),
        "dzagent-ledger.1": ledger_page(),
        "dzagentd.8": daemon_page(),
        "dzagent-config.5": yaml_page("dzagent-config", "configuration of dzagent", CONFIG, config),
        "dzagent-policy.5": yaml_page("dzagent-policy", "numbers and limits of dzagent", POLICY, policy),
    }


def main() -> int:
    """Write all pages."""
    if len(sys.argv) != 2:
        sys.stderr.write((__doc__ or "") + "\n")
        return 2
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
