"""What doublezerod's state file says a person wanted. Pure, but for the reading.

state.json holds {"reconciler_enabled": bool} and, of late, a pinned "client_ip" (manager/state.go). Older releases
had doublezerod.json, a list of what was provisioned: a host with an entry was connected. As doublezerod does, a
state.json, readable or not, settles it (its list of cases: S1 to S7); unlike it, nothing is written or deleted, and
what cannot be read is told instead of being taken for "disabled".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Final

from dzagent.config import refuse_client_ip
from dzagent.errors import StateError
from dzagent.files import read_bytes
from dzagent.state import Intent

FILES: Final = ("state.json", "doublezerod.json")
"""Newer first: it wins wherever it is."""

MAX_BYTES: Final = 1024 * 1024
"""Real ones have a few hundred bytes."""


@dataclass(frozen=True, slots=True)
class OldState:
    """What was found: the file, the SHA-256 of its bytes, what it means, and what of it could not be used ("")."""

    file: Path
    digest: str
    intent: Intent
    remark: str = ""


def read_old_state(directory: Path) -> OldState | None:
    """Return doublezerod's last wish, None if it has left none. Raises StateError for a file that cannot be read."""
    for name in FILES:
        path = directory / name
        try:
            data = read_bytes(path, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StateError(f"{path} cannot be read ({error.strerror})") from error
        if len(data) > MAX_BYTES:
            raise StateError(f"{path} is larger than {MAX_BYTES} bytes: not a state of doublezerod")
        intent, remark = _meaning(path, data)
        return OldState(path, hashlib.sha256(data).hexdigest(), intent, remark)
    return None


def _meaning(path: Path, data: bytes) -> tuple[Intent, str]:
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is not valid JSON ({error})") from error
    return _from_list(path, document) if path.name == FILES[1] else _from_state(path, document)


def _from_state(path: Path, document: Any) -> tuple[Intent, str]:
    """A missing key is false, as in Go; a value of another type is no state."""
    enabled = document.get("reconciler_enabled", False) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(enabled, bool):
        raise StateError(f'{path} holds no object with "reconciler_enabled": true or false')
    pinned, remark = _pinned(path, document)
    return Intent(enabled, pinned), remark


def _pinned(path: Path, document: Mapping[str, Any]) -> tuple[IPv4Address | None, str]:
    """Return the pinned address; one that nobody can use is left out and told."""
    text = document.get("client_ip")
    if text is None or text == "":
        return None, ""
    try:
        address = IPv4Address(text if isinstance(text, str) else "")
    except AddressValueError:
        return None, f'{path}: "client_ip" is {text!r:.80}, not an IPv4 address: it is left out'
    refused = refuse_client_ip(address, "custom")
    return (address, "") if refused is None else (None, f"{path}: {refused}: it is left out")


def _from_list(path: Path, document: Any) -> tuple[Intent, str]:
    """Whoever had a tunnel wants one. An empty list, or an empty object, is nobody's wish."""
    if document in ([], {}):
        return Intent(False), ""
    if not isinstance(document, list) or not any(map(_is_entry, document)):
        raise StateError(f"{path} holds no list of provisioned tunnels")
    return Intent(True), ""


def _is_entry(item: Any) -> bool:
    """Tell whether an entry names a tunnel's network; its length does not matter (older ones had a /30)."""
    found = item.get("tunnel_net") if isinstance(item, dict) else None
    try:
        return isinstance(found, str) and "/" in found and bool(IPv4Interface(found))
    except ValueError:
        return False
