"""The gunicorn worker: one process whose connections are served by `dzagent.api.server`."""

from __future__ import annotations

import os
import resource
import signal
import time
from types import FrameType

from gunicorn.workers.base import Worker

from dzagent.api.bodies import MAX_BODY
from dzagent.api.connection import Limits
from dzagent.api.respond import Responder, refuse
from dzagent.api.server import Server

SPARE_FILES = 64
"""Descriptors kept for files that are read, pipes and logs while connections take the rest."""


class PatientWorker(Worker):  # type: ignore[misc] # gunicorn has no types
    """Serves the API."""

    server: Server | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        responder = Responder(self.cfg, self.wsgi, lambda: not self.alive)
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = Limits(connections=most_connections(open_files), body=MAX_BODY)
        sockets = [listener.sock for listener in self.sockets]
        self.server = Server(sockets, responder, refuse, limits, time.monotonic)
        self.server.run(lambda: not self.alive, self._beat, grace=self.cfg.graceful_timeout - 1)

    def _beat(self) -> None:
        self.notify()
        if self.ppid != os.getppid():
            self.log.info("the parent process is gone, shutting down")
            self.alive = False

    def init_signals(self) -> None:
        """As gunicorn sets them, but a hang-up ends nothing: the arbiter ignores it too."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: finish what is being answered, then end."""
        super().handle_exit(sig, frame)
        if self.server is not None:
            self.server.wake()


def most_connections(open_files: int) -> int:
    """How many clients may be connected at once: what the limit on open files leaves, at most 1000."""
    most = Limits().connections
    return most if open_files == resource.RLIM_INFINITY else max(8, min(most, open_files - SPARE_FILES))
