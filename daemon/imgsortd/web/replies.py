"""Answers that several handlers give: JSON that can always be sent, and errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from imgsortd.web import pages
from imgsortd.web.shown import to_json

log = logging.getLogger(__name__)

_JSON_PATHS = ("/api/", "/pictures/")
_TEXT_PATHS = ("/static/", "/healthz", "/metrics", "/parts/")


class Json(JSONResponse):
    """JSON in UTF-8; what is no character (part of a file name) becomes a question mark."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return to_json(content).encode()


def is_page(path: str) -> bool:
    """Tell whether a path is one that a person opens."""
    return not path.startswith((*_JSON_PATHS, *_TEXT_PATHS))


def error_reply(
    request: Request, status: int, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Say what went wrong in the form that the path's answers have."""
    path = str(request.scope["path"])
    response: Response
    if path.startswith(_JSON_PATHS):
        response = Json({"error": text}, status)
    elif is_page(path):
        response = _error_page(status, text)
    else:
        response = text_reply(text, status)
    response.headers.update(headers or {})
    return response


def text_reply(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a line of text."""
    body = (text + "\n").encode("utf-8", "replace")
    return PlainTextResponse(body, status, headers=dict(headers or {}))


def _error_page(status: int, text: str) -> Response:
    try:
        return pages.error_page(status, HTTPStatus(status).phrase, text)
    except Exception:
        log.exception("error page failed status=%d", status)
        return text_reply(text, status)
