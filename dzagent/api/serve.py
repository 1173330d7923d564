"""`dzagent api`: gunicorn, embedded. One arbiter that only watches, one worker that serves; no capability needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.sock import UnixSocket

from dzagent.api.app import create_app
from dzagent.api.listeners import BACKLOG, Listener, listen, passed_by_systemd
from dzagent.api.worker import PatientWorker
from dzagent.config import COMPAT_SOCKET, Config

SHM = Path("/dev/shm")  # noqa: S108 - where gunicorn advises to keep its heartbeat file: never on a slow disk

_NOT_BY_SIGNAL = "%s is ignored: restart the service to change its configuration"
_NO_COMPAT = "compat_socket is on, but systemd passes no %s: add ListenStream=%s to dzagent-api.socket"


def settings(config: Config) -> Mapping[str, Any]:
    """Return gunicorn's settings; whatever it would take from its own environment is set here."""
    return {
        "bind": [f"unix:{config.paths.socket}"],
        "workers": 1,  # two could not keep the order of two wishes
        "worker_class": PatientWorker,
        "worker_tmp_dir": str(SHM) if os.access(SHM, os.W_OK) else None,
        "control_socket_disable": True,  # gunicorn >= 25.1 opens one in a home directory otherwise
        "preload_app": False,
        "max_requests": 0,
        "timeout": 30,
        "graceful_timeout": 5,
        "backlog": BACKLOG,
        "umask": 0o117,
        "proc_name": "dzagent-api",
        "loglevel": config.log_level,
        "accesslog": None,
        # a client on a unix socket counts as a trusted proxy for gunicorn; ours is nobody's proxy
        "forwarder_headers": "",
        "secure_scheme_headers": {},
    }


class Application(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """The API as gunicorn loads it: in the worker, after the fork."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(prog="dzagent api")

    def load_config(self) -> None:
        """Set what gunicorn would read from files and the command line."""
        for name, value in settings(self._config).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the WSGI application."""
        return create_app(self._config)


class OneWorkerArbiter(Arbiter):  # type: ignore[misc] # gunicorn has no types
    """An arbiter that no signal can talk into more workers, a second arbiter, or a reload."""

    def handle_hup(self) -> None:
        """Refuse to reload: the new worker would start beside the old one."""
        self.log.warning(_NOT_BY_SIGNAL, "SIGHUP")

    def handle_ttin(self) -> None:
        """Refuse another worker."""
        self.log.warning(_NOT_BY_SIGNAL, "SIGTTIN")

    def handle_ttou(self) -> None:
        """Refuse to end the worker."""
        self.log.warning(_NOT_BY_SIGNAL, "SIGTTOU")

    def handle_usr2(self) -> None:
        """Refuse a second arbiter."""
        self.log.warning(_NOT_BY_SIGNAL, "SIGUSR2")


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then leave by SystemExit. Raises StateError if there is no socket to serve.

    Sockets that systemd passes are served as they are; else `config.paths.socket` is made, and with `compat_socket`
    the one of doublezerod.
    """
    owner = os.getpid()
    listeners = passed_by_systemd(os.environ, owner) or listen(socket_paths(config))
    arbiter = OneWorkerArbiter(Application(config))
    arbiter.systemd = True  # the files of the sockets are ours to remove, not gunicorn's
    if config.compat_socket and str(COMPAT_SOCKET) not in {listener.path for listener in listeners}:
        arbiter.log.warning(_NO_COMPAT, COMPAT_SOCKET, COMPAT_SOCKET)
    arbiter.LISTENERS = [_wrap(listener, arbiter) for listener in listeners]
    try:
        arbiter.run()
    finally:
        if os.getpid() == owner:  # a worker leaves through here too
            for listener in listeners:
                listener.remove()


def socket_paths(config: Config) -> list[Path]:
    """Where the API listens unless systemd says otherwise."""
    return [config.paths.socket, *([COMPAT_SOCKET] if config.compat_socket else [])]


def _wrap(listener: Listener, arbiter: Arbiter) -> UnixSocket:
    return UnixSocket(listener.path, arbiter.cfg, arbiter.log, fd=listener.sock.detach())
