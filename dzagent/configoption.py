"""The option that both commands have: which configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

CONFIG_OPTION: Final = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration; without it /etc/dzagent/config.yaml, or the defaults if that does not exist.",
)
