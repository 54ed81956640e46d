"""Server-sent events: what the daemon is at, read once for all pages that are open."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from imgsortd.config.model import Config
from imgsortd.errors import StoreError
from imgsortd.records import Phase
from imgsortd.reports.status import look_alive
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.files import file_groups
from imgsortd.store.health import foreign_errors
from imgsortd.web.review import count_to_review
from imgsortd.web.shown import digest_of, to_json

log = logging.getLogger(__name__)

MOST_LISTENERS = 40
EVERY_S = 1.0
QUIET_S = 15.0
LONGEST_S = 3600.0
"""A stream ends after so long; the page asks for another one, and is checked again."""
AT_IT = ("daemon", "phase", "note", "queue", "images_per_s")
"""What tells of the daemon, under the names that it has in the status too."""


@dataclass(frozen=True, slots=True)
class Live:
    """What open pages are told; the rest as in :class:`imgsortd.reports.status.StatusReport`.

    Attributes
    ----------
    stamp
        Another one when clusters, files or names are others.
    seen, sorted, pending, set_aside, review
        Files by state; ``review`` are those that wait for a person's word.
    waiting, fit
        The proposal that waits, and the fit in force.
    lamp, text
        ``fine``, ``working`` or ``wrong``; and what the daemon is at, in a few words.
    """

    stamp: str = ""
    seen: int = 0
    sorted: int = 0
    pending: int = 0
    set_aside: int = 0
    review: int = 0
    waiting: int | None = None
    fit: int | None = None
    daemon: str = "not running"
    phase: str = ""
    note: str = ""
    queue: int = 0
    images_per_s: float | None = None
    lamp: str = ""
    text: str = ""


class LiveReader:
    """Looks at the tables only when SQLite says that some commit came.

    Not for several threads: its connection belongs to the one that reads.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store: Store | None = None
        self._inode = 0
        self._data_version = -1
        self._facts = Live()

    def read(self) -> Live:
        """Return the state of daemon and library; what cannot be read is said in ``note``."""
        try:
            with foreign_errors(self._config.database):
                found = self._read()
        except StoreError as error:
            self.close()
            found = Live(note=str(error).splitlines()[0])
        return in_words(found)

    def close(self) -> None:
        """Close the connection; the next look opens another."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _read(self) -> Live:
        store = self._open()
        if store is None:
            return Live(phase="never started")
        with store.snapshot():
            alive = look_alive(self._config, store)
            (version,) = store.connection.execute("PRAGMA data_version").fetchone()
            if version != self._data_version:
                self._facts = _facts(store)
                self._data_version = version
        return replace(self._facts, **{name: getattr(alive, name) for name in AT_IT})

    def _open(self) -> Store | None:
        path = self._config.database
        try:
            inode = os.stat(path).st_ino
        except OSError:
            self.close()
            return None
        if self._store is None or inode != self._inode:
            self.close()
            self._store = open_for_reading(path, any_schema=True)
            self._inode, self._data_version = inode, -1
        return self._store if self._store.has_tables() else None


def read_live(config: Config) -> Live:
    """Look once, as for the first answer of a page."""
    with closing(LiveReader(config)) as reader:
        return reader.read()


def _facts(store: Store) -> Live:
    counts = store.files.counts()
    proposal = store.records.waiting() if store.records.is_kept() else None
    waiting = proposal.fit_id if proposal else None
    # Other where files, fits or names are others, or read.
    state = (
        sorted(
            (g.state, -1 if g.cluster_id is None else g.cluster_id, g.is_read, g.files)
            for g in file_groups(store.connection)
        ),
        store.connection.execute(
            "SELECT (SELECT max(id) FROM moves), (SELECT max(done_at) FROM files), "
            "(SELECT max(id) FROM fits WHERE is_current = 1)"
        ).fetchone(),
        sorted(store.records.named_folders().items()),
        waiting,
    )
    return Live(
        stamp=digest_of(repr(state)),
        seen=counts.seen,
        sorted=counts.sorted,
        pending=counts.pending,
        set_aside=counts.set_aside,
        review=count_to_review(store),
        waiting=waiting,
        fit=store.records.current_id(),
    )


# --- in words ---------------------------------------------------------------------------------

_WRONG = (Phase.PAUSED, Phase.INBOX_LOST)


def in_words(now: Live) -> Live:
    """Return it with ``lamp`` and ``text``, by what the daemon is at and whether there is a fit."""
    if now.daemon != "running":
        return replace(now, lamp="wrong", text=f"The daemon is {now.daemon}")
    if now.note or now.phase in _WRONG:
        lamp = "wrong" if now.phase in _WRONG else "working"
        return replace(now, lamp=lamp, text=now.note or now.phase)
    if now.phase == Phase.SORTING:
        # Before the first fit pictures are looked at, and none is sorted.
        text, speed = "Looking" if now.fit is None else "Sorting", now.images_per_s
        if speed is not None:
            text += f" {speed:.0f}/s" if speed >= 10 else f" {speed:.1f}/s"
        if now.queue:
            text += f", {now.queue:,} waiting"
        return replace(now, lamp="working", text=text)
    return replace(now, lamp="fine", text=_CALM.get(now.phase, now.phase))


_CALM: dict[str, str] = {
    Phase.STARTING: "Starting",
    Phase.WAITING: "Waiting for the first fit",
    Phase.IDLE: "Watching the inbox",
    Phase.REEXTRACTING: "Extracting features anew",
    Phase.STOPPED: "Stopped",
}


# --- to all who listen ------------------------------------------------------------------------


class Reader(Protocol):
    """Where the facts come from; called in a thread of its own, always the same."""

    def read(self) -> object:
        """Return what listeners are told, for JSON."""

    def close(self) -> None:
        """Let go of what is held open."""


class Broadcast:
    """Reads while somebody listens, each ``every_s``, and tells all who do when it changed."""

    def __init__(self, reader: Reader, every_s: float = EVERY_S) -> None:
        self._reader, self._every_s = reader, every_s
        self._listeners: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._text, self._version = "", 0
        self._closed = self._failed = False

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
                    text = await loop.run_in_executor(thread, self._read)
                    if text != self._text:
                        self._text, self._version = text, self._version + 1
                        self._wake()
                    await asyncio.sleep(self._every_s)
            finally:
                self._text = ""  # who listens next is not told of then
                thread.submit(self._reader.close)

    def _read(self) -> str:
        """Look, in a thread; where that fails, listeners keep what they have until the next."""
        try:
            text = to_json(self._reader.read())
        except Exception:
            if not self._failed:
                log.exception("pulse failed")
            self._failed = True
            return self._text
        self._failed = False
        return text


class EventStream(StreamingResponse):
    """An answer that goes on; who asked for it has left when it ends, begun or not."""

    def __init__(self, pulse: Broadcast) -> None:
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
    return EventStream(request.app.state.site.broadcast)
