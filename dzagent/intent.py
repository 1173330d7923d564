"""What a person wants, as the loop sees it: a wish, silence, or a file that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from dzagent.errors import StateError
from dzagent.state import Intent, read_intent


@dataclass(frozen=True, slots=True)
class IntentView:
    """The intent of this pass.

    enabled: None if unknown (nothing may change then). stamp: changes whenever the file does, so that a
    caller can tell whether a status already answers to what was written. silent: nobody has said anything.
    """

    enabled: bool | None
    client_ip: IPv4Address | None = None
    message: str = ""
    stamp: int = 0
    readable: bool = True
    silent: bool = False


class IntentReader:
    """Reads the intent file; a corrupt one leaves the last readable intent in force and is reported."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Intent | None = None

    def read(self) -> IntentView:
        """Return the present intent. Never raises: doubt is a value here."""
        stamp = intent_stamp(self._path)
        try:
            intent = read_intent(self._path)
        except StateError as error:
            return self._unreadable(str(error), stamp)
        if intent is None:
            message = "nobody has enabled or disabled the agent yet"
            return IntentView(enabled=False, message=message, stamp=stamp, silent=True)
        self._last = intent
        return IntentView(intent.enabled, intent.client_ip, stamp=stamp)

    def _unreadable(self, message: str, stamp: int) -> IntentView:
        advice = f"{message}; say what you want again with `dzagent enable` or `dzagent disable`"
        last = self._last
        if last is None:
            return IntentView(enabled=None, message=advice, stamp=stamp, readable=False)
        return IntentView(last.enabled, last.client_ip, advice, stamp, readable=False)


def intent_stamp(path: Path) -> int:
    """Return a number that changes with every write of the file, 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def settle(intent: IntentView, *, standing: bool) -> IntentView:
    """A lost intent file beside a tunnel of ours (`standing`) is doubt, not a wish to tear it down."""
    if not (intent.silent and standing):
        return intent
    message = "the intent file is gone but a tunnel of ours is up: say `dzagent enable` or `dzagent disable`"
    return replace(intent, enabled=None, message=message)
