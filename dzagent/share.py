"""Where templates and policies are installed: data files of the program, outside the Python package."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Literal

from dzagent.errors import ConfigError

Kind = Literal["templates", "policies"]


PREFIXES = (sys.prefix, sysconfig.get_path("data"), "/usr")
"""Where the data files of an installation go, with share/dzagent behind it."""


def share_dirs(prefixes: tuple[str, ...] = PREFIXES) -> tuple[Path, ...]:
    """Directories that may hold `templates/` and `policies/`, best first.

    A virtual environment or wheel puts them under sys.prefix (Debian's own pip: under /usr/local), the Debian
    package under /usr/share, and a source checkout has them beside the package. The checkout comes first so that
    it never reads an older installation.
    """
    source = Path(__file__).resolve().parent.parent
    dirs = [Path(prefix) / "share" / "dzagent" for prefix in dict.fromkeys(prefixes)]
    if (source / "setup.cfg").is_file():
        dirs.insert(0, source)
    return tuple(dirs)


def places(kind: Kind) -> tuple[Path, ...]:
    """Return the directories of `kind` that may be there, best first."""
    return tuple(directory / kind for directory in share_dirs())


def find(kind: Kind, configured: Path | None = None, dirs: tuple[Path, ...] | None = None) -> Path:
    """Find the directory of `kind`: the configured one, else the first installed one.

    Raises ConfigError if the configured path is no directory or none is installed. `dirs` replaces `share_dirs()`.
    """
    if configured is not None:
        if configured.is_dir():
            return configured
        raise ConfigError(f"the configured {kind} directory {configured} does not exist")
    searched = share_dirs() if dirs is None else dirs
    for base in searched:
        if (base / kind).is_dir():
            return base / kind
    places = ", ".join(str(base / kind) for base in searched)
    raise ConfigError(f"no {kind} are installed (looked in {places}); reinstall dzagent")
