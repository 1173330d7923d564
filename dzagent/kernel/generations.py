"""The watch over nftables: the kernel says that a ruleset has a new generation, and of what it was made nothing.

`nft monitor` prints every element of every set: rewriting one of 50,000 elements costs it half a second and 100 MB
(1.0.6, measured). A socket of our own with a filter in the kernel gets one message a transaction, whoever made it, and
costs nothing. What has changed, if anything of ours, is read with `nft` then.

linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES, NFNL_SUBSYS_NFTABLES; nf_tables.h: NFT_MSG_NEWGEN.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import struct
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

_NETLINK_NETFILTER: Final = 12
_GROUPS: Final = 1 << (7 - 1)
_NEWGEN: Final = (10 << 8) | 15
_SO_ATTACH_FILTER: Final = 26
_LDH, _JEQ, _RET = 0x28, 0x15, 0x06
"""Classic BPF: load a half word, compare, return (linux/filter.h)."""

PAUSE: Final = 0.02
"""Seconds between two looks at the socket: many generations in a row are one piece of news."""

MESSAGE: Final = 4096
"""Bytes that are read of a message; it is 44 bytes long, and nobody looks into it."""

MOST: Final = 1000
"""Messages that are taken in one go."""

CHECK: Final = 1.0
"""Seconds after which a waiting thread sees that it is to stop."""


def open_generations() -> socket.socket:
    """Return a socket of this network namespace that gets a message for each new generation. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        kind = int.from_bytes(struct.pack("=H", _NEWGEN), "big")  # the filter reads as from a network
        steps = ((_LDH, 0, 0, 4), (_JEQ, 0, 1, kind), (_RET, 0, 0, 0xFFFFFFFF), (_RET, 0, 0, 0))
        program = array("B", b"".join(struct.pack("=HBBI", *step) for step in steps))
        sock.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HL", len(steps), program.buffer_info()[0]),
        )
        sock.bind((0, _GROUPS))
    except BaseException:  # re-raised: nothing is left open
        sock.close()
        raise
    return sock


class GenerationWatch:
    """Calls `on_news` in a thread of its own after each new generation, and whenever some may have been missed."""

    def __init__(
        self, on_news: Callable[[], None], opener: Callable[[], socket.socket] = open_generations
    ) -> None:
        self._on_news = on_news
        self._opener = opener
        self._socket: socket.socket | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generations", daemon=True)

    @property
    def healthy(self) -> bool:
        """Whether every change since it was started is told."""
        return self._socket is not None

    def start(self) -> None:
        """Begin, where this kernel and our rights allow it; else nothing is told, and `healthy` stays False."""
        try:
            self._socket = self._opener()
        except OSError as error:
            log.info("changes of nftables are not seen at once: %s", error.strerror or error)
            return
        self._socket.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * CHECK)

    def _run(self) -> None:
        sock = self._socket
        if sock is None:
            return
        self._on_news()
        try:
            while not self._stopping.is_set():
                if self._heard(sock):
                    self._on_news()
                    self._stopping.wait(PAUSE)
        except OSError as error:
            log.warning("changes of nftables are not seen at once any more: %s", error.strerror or error)
        finally:
            self._socket = None
            self._on_news()
            with suppress(OSError):
                sock.close()

    @staticmethod
    def _heard(sock: socket.socket) -> bool:
        """Wait for a message and take all that are there. Raises OSError if the socket is of no use any more."""
        ready = select.poll()
        ready.register(sock, select.POLLIN)
        if not ready.poll(CHECK * 1000):
            return False
        for _ in range(MOST):
            try:
                sock.recv(MESSAGE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some were lost: that is news, too
                    raise
        return True
