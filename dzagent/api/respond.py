"""From the bytes of a request to the bytes of its response: gunicorn's parser and WSGI side, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gunicorn.config import Config
from gunicorn.http import errors, wsgi
from gunicorn.http.parser import RequestParser

from dzagent.api.connection import Answer

_CODES = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.UnsupportedTransferCoding, 501),
)


class Sink:
    """What gunicorn's Response writes to in the place of a socket."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        """Collect a piece of the response."""
        self.data += data

    def send(self, data: bytes) -> int:
        """Swallow "100 Continue", the only thing gunicorn sends this way: the server has said that already."""
        return len(data)


@dataclass(frozen=True, slots=True)
class Responder:
    """Answers requests with a WSGI application; `closing` tells whether connections should end after this answer."""

    cfg: Config
    application: Callable[..., Any]
    closing: Callable[[], bool]

    def __call__(self, raw: bytes) -> Answer:
        """Answer one whole request; what cannot be parsed gets its refusal. For any thread."""
        sink = Sink()
        try:
            request = next(RequestParser(self.cfg, iter([raw]), ""))
            response, environ = wsgi.create(request, sink, "", "", self.cfg)
        except (errors.ParseException, StopIteration) as error:
            code = next((code for kind, code in _CODES if isinstance(error, kind)), 400)
            return refuse(code, f"the request cannot be read: {error}".rstrip(": "))
        environ["wsgi.multithread"] = True
        if self.closing():
            response.force_close()
        body = self.application(environ, response.start_response)
        try:
            for piece in body:
                response.write(piece)
            response.close()
        finally:
            if hasattr(body, "close"):
                body.close()
        return Answer(bytes(sink.data), response.should_close())


def refuse(code: int, message: str) -> Answer:
    """Make the answer to a request that does not reach the application; it ends the connection."""
    document = {"description": message, "status": "error"}
    body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    head = (
        f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return Answer(head.encode() + body, close=True)
