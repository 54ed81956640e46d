"""Server-sent events: pages are told when something changed, by one reader for all of them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)

MOST_LISTENERS = 40
EVERY_S = 1.0
QUIET_S = 15.0
LONGEST_S = 3600.0
"""A stream ends after so long; the page asks for another one, and is checked again."""


class Reader(Protocol):
    """Where the facts come from; called in a thread of its own, always the same."""

    def read(self) -> dict[str, Any]:
        """Return what listeners are told."""
        ...

    def close(self) -> None:
        """Let go of what is held open."""
        ...


class Pulse:
    """Reads once a second while somebody listens, and tells all who do when it changed.

    Parameters
    ----------
    reader
        What is read.
    every_s
        Seconds between two looks.
    """

    def __init__(self, reader: Reader, every_s: float = EVERY_S) -> None:
        self._reader, self._every_s = reader, every_s
        self._listeners: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._text, self._version, self._closed = "", 0, False
        self._failed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def join(self) -> asyncio.Event:
        """Begin to listen; `leave` must follow.

        Raises
        ------
        HTTPException
            503: too many listen, or the process is ending.
        """
        if self._closed or len(self._listeners) >= MOST_LISTENERS:
            raise HTTPException(503, "too many pages are open; close some", {"Retry-After": "10"})
        listener = asyncio.Event()
        self._listeners.add(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return listener

    def leave(self, listener: asyncio.Event) -> None:
        """Listen no longer."""
        self._listeners.discard(listener)

    async def listen(self, listener: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield an event at once and at every change, and a comment when nothing happens."""
        seen, until_s = 0, time.monotonic() + LONGEST_S
        while not self._closed and time.monotonic() < until_s:
            listener.clear()  # before the look: what comes after it sets the event again
            if self._version != seen and self._text:
                seen = self._version
                yield f"event: pulse\ndata: {self._text}\n\n".encode()
                continue
            try:
                await asyncio.wait_for(listener.wait(), QUIET_S)
            except TimeoutError:
                yield b": nothing new\n\n"

    def close(self) -> None:
        """End every stream; nobody may join any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "pulse") as thread:  # SQLite's connection stays in one thread
            try:
                while self._listeners and not self._closed:
                    self._tell(await loop.run_in_executor(thread, self._read))
                    await asyncio.sleep(self._every_s)
            finally:
                self._text = ""  # who listens next is not told of then
                thread.submit(self._reader.close)

    def _read(self) -> str | None:
        try:
            text = json.dumps(self._reader.read(), separators=(",", ":"))
        except Exception:  # the next look may do better; listeners keep what they have
            if not self._failed:
                log.exception("pulse failed")
            self._failed = True
            return None
        self._failed = False
        return text

    def _tell(self, text: str | None) -> None:
        if text is not None and text != self._text:
            self._text, self._version = text, self._version + 1
            self._wake()


class EventStream(StreamingResponse):
    """An answer that goes on; who asked for it has left when it ends, begun or not."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse, self._listener = pulse, pulse.join()
        super().__init__(
            pulse.listen(self._listener),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pulse.leave(self._listener)


async def events(request: Request) -> Response:
    """Answer ``GET /api/events``."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    return EventStream(request.app.state.site.pulse)
