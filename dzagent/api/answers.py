"""The forms of an answer: JSON as doublezerod writes it, and the plain texts of Go's server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from dzagent.api.bodies import Refused
from dzagent.api.compat import compact
from dzagent.errors import StateError


def text_answer(text: str, code: int = 200) -> Response:
    """Answer with a text that is JSON already."""
    return Response(text.encode(), code, content_type="application/json")


def json_answer(document: Any, code: int = 200) -> Response:
    """Answer with a document."""
    return text_answer(compact(document), code)


def ok() -> Response:
    """Answer that it is done."""
    return json_answer({"status": "ok"})


def error_answer(code: int, message: str) -> Response:
    """Answer with an error in doublezerod's form."""
    return json_answer({"description": message, "status": "error"}, code)


def not_built() -> Response:
    """Answer to a path of doublezerod that is absent here."""
    message = f"{request.path} is not built into this version of dzagent: absent, not a guess"
    return error_answer(501, message)


def refused(error: Refused) -> Response:
    """Answer to a request that was refused."""
    return error_answer(error.code, str(error))


def state_error(error: StateError) -> Response:
    """Answer that nothing could be written."""
    return error_answer(500, str(error))


def http_error(error: HTTPException) -> Response:
    """Answer as Go's http.ServeMux does for a wrong path or method, in JSON for the rest."""
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return plain_answer(405, "Method Not Allowed\n", {"Allow": allow})
    if error.code == 404:
        return plain_answer(404, "404 page not found\n", {})
    return error_answer(error.code or 500, error.description or error.name)


def plain_answer(code: int, text: str, headers: Mapping[str, str]) -> Response:
    """Answer with a plain text, as http.Error does."""
    headers = {**headers, "X-Content-Type-Options": "nosniff"}
    return Response(text, code, headers=headers, content_type="text/plain; charset=utf-8")
