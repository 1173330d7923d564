"""Which names of links are accepted: those that no shell, file name or rule could misread."""

from __future__ import annotations

import re
from typing import Final

LINK_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
LINK_NAME_RULE: Final = "1 to 15 letters, digits, '_', '.', '-', not starting with . or -"
