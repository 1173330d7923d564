"""Which source address this host uses towards a destination. Nothing is sent, and no right is needed."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Address


def source_towards(dst: IPv4Address) -> IPv4Address | None:
    """Return the source that the kernel chooses towards `dst`; None if it has no route. Raises OSError otherwise."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((str(dst), 9))
        except OSError as error:
            if error.errno in _NO_ROUTE:
                return None
            raise
        return IPv4Address(probe.getsockname()[0])


_NO_ROUTE = frozenset({101, 113, 13, 22})
"""ENETUNREACH, EHOSTUNREACH, EACCES (broadcast or prohibited), EINVAL: linux/errno.h."""
