"""The peers that were wanted last, in a file: for a start at which the ledger does not answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, Final

from dzagent.bgp.engine import Peer
from dzagent.errors import StateError
from dzagent.files import read_json, write_json
from dzagent.model import SERVICE_NAMES, ServiceName

log = logging.getLogger(__name__)

_ADDRESSES: Final = ("local", "remote", "router_id", "advertise")
_NUMBERS: Final = {"local_asn": 2**32 - 1, "remote_asn": 2**32 - 1, "table": 2**32 - 1}
_FLAGS: Final = ("install", "keep")


class PeerStore:
    """Remembers peers over a restart. What cannot be read or written is logged, and no harm otherwise."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Mapping[ServiceName, Peer] | None = None

    def read(self) -> Mapping[ServiceName, Peer]:
        """Return the peers that were wanted last."""
        if self._known is None:
            self._known = self._load()
        return self._known

    def write(self, peers: Mapping[ServiceName, Peer]) -> None:
        """Remember these peers, if they are others than before."""
        if peers == self.read():
            return
        self._known = dict(peers)
        try:
            write_json(self._path, {name: peer_json(peer) for name, peer in peers.items()}, durable=True)
        except StateError as error:
            log.warning("%s", error)

    def _load(self) -> Mapping[ServiceName, Peer]:
        try:
            document = read_json(self._path)
            if document is None:
                return {}
            return {name: peer_from(name, document[name]) for name in SERVICE_NAMES if name in document}
        except (StateError, ValueError, TypeError, KeyError) as error:
            log.warning("the peers of the last run are forgotten: %s cannot be read (%s)", self._path, error)
            return {}


def peer_json(peer: Peer) -> dict[str, Any]:
    """Return a peer as JSON."""
    return {
        "link": peer.link,
        **{name: _text(getattr(peer, name)) for name in _ADDRESSES},
        **{name: getattr(peer, name) for name in (*_NUMBERS, *_FLAGS)},
    }


def _text(address: IPv4Address | None) -> str | None:
    return None if address is None else str(address)


def peer_from(service: ServiceName, document: Any) -> Peer:
    """Read a peer from JSON. Raises ValueError, TypeError or KeyError."""
    addresses = {name: _address(document[name]) for name in _ADDRESSES}
    local, remote, router_id = addresses["local"], addresses["remote"], addresses["router_id"]
    if local is None or remote is None or router_id is None:
        raise ValueError(f"the {service} peer lacks an address")
    for name, most in _NUMBERS.items():
        if type(document[name]) is not int or not 0 < document[name] <= most:
            raise ValueError(f"{name} of the {service} peer is no number from 1 to {most}")
    link = document["link"]
    if (
        not isinstance(link, str)
        or not link.isascii()
        or not link.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ):
        raise ValueError(f"the {service} peer's link is no name")
    return Peer(
        service,
        link,
        local,
        remote,
        document["local_asn"],
        document["remote_asn"],
        router_id,
        addresses["advertise"],
        document["table"],
        install=document["install"] is True,
        keep=document["keep"] is True,
    )


def _address(value: Any) -> IPv4Address | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise AddressValueError(f"{value!r} is no address")
    return IPv4Address(value)
