"""Bounds on what a request may bring."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsortd.web.replies import error_reply

MOST_BODY_BYTES = 1_000_000
_TOO_LARGE = f"a request may bring {MOST_BODY_BYTES:,} bytes"
_CLOSE = {"Connection": "close"}  # the rest of the body is not read


class BodyLimit:
    """Ends a request whose body is too large, announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 15 or int(announced) > MOST_BODY_BYTES:
            reply = error_reply(Request(scope), 413, _TOO_LARGE, _CLOSE)
            await reply(scope, receive, send)
            return
        came_bytes = 0

        async def receive_some() -> Message:
            nonlocal came_bytes
            message = await receive()
            came_bytes += len(message.get("body", b""))
            if came_bytes > MOST_BODY_BYTES:
                raise HTTPException(413, _TOO_LARGE, _CLOSE)
            return message

        await self._app(scope, receive_some, send)
