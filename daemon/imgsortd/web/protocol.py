"""uvicorn's HTTP over h11, with a limit on how long a request may take to come."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from imgsortd.web.security import HEADERS

_REQUEST_S = 20.0
_LINGER_S = 2.0
_MOST_CONNECTIONS = 200
_NOT_HTTP = "this is no HTTP/1.1 request"
_TOO_MANY = "too many connections are open; try again later"


class Protocol(H11Protocol):
    """Closes connections that send nothing, or a request byte by byte.

    uvicorn itself only closes those that have been answered, so that a few hundred silent
    connections would shut everybody else out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self._refuse(503, b"Service Unavailable", _TOO_MANY)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        self._stop_clock()

    def data_received(self, data: bytes) -> None:
        """Start or stop the clock by whether a request is whole."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Give the rest of a body that nobody wanted a moment, rather than cut the answer off."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._stop_clock()
            self._request_timer = self.loop.call_later(_LINGER_S, self._too_slow)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, with the headers that every answer has."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its handler is not to answer any more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of another answer
        else:
            self._refuse(400, b"Bad Request", _NOT_HTTP)

    def _refuse(self, status: int, reason: bytes, text: str) -> None:
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(text)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **HEADERS,
        }
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        events = (
            h11.Response(status_code=status, headers=fields, reason=reason),
            h11.Data(data=text.encode()),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def _watch(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._stop_clock()
        elif self._request_timer is None:
            self._request_timer = self.loop.call_later(_REQUEST_S, self._too_slow)

    def _stop_clock(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _too_slow(self) -> None:
        self._request_timer = None
        if not self.transport.is_closing():
            self.transport.close()
