"""Who this host was when that was last known: a ban takes away the very user that named its address."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address
from pathlib import Path

from dzagent.errors import StateError
from dzagent.files import read_json, write_json

log = logging.getLogger(__name__)


class RememberedIp:
    """The last client IP that nobody had to name by hand, across restarts; with no path, in memory only.

    What cannot be read or written is logged, and is no error: the address is found again as at the first start.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._ip = None if path is None else _read(path)

    @property
    def ip(self) -> IPv4Address | None:
        """The address, whether the host still has it or not."""
        return self._ip

    def keep(self, ip: IPv4Address) -> None:
        """Remember it; written only if it is another one than before."""
        if ip == self._ip:
            return
        self._ip = ip
        if self._path is None:
            return
        try:
            write_json(self._path, {"version": 1, "client_ip": str(ip)}, durable=True)
        except StateError as error:
            log.warning(
                "%s: who this host is will not be known after a restart once its user is banned", error
            )


def _read(path: Path) -> IPv4Address | None:
    try:
        document = read_json(path)
    except StateError as error:
        log.warning("%s: it is written anew", error)
        return None
    text = document.get("client_ip") if isinstance(document, dict) else None
    try:
        return IPv4Address(text) if isinstance(text, str) else None
    except ValueError:
        return None
