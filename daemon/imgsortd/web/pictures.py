"""Pictures for the page, by the id of their file: small ones, which are kept, and large ones.

No byte of a stranger's file is looked at in this process but for its hash, which must be that of
the file that was sorted: what is kept under a hash is never another picture. Confined processes
decode, and what leaves here is WebP that was made here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgsortd.config.model import Config
from imgsortd.errors import ImgsortdError, StoreError
from imgsortd.pictures.decoder import Decoder, NoDecoderError, decode_limits
from imgsortd.pictures.reading import GONE, PicturePool, RootedName
from imgsortd.pictures.thumbnail_cache import Cached, ThumbnailCache
from imgsortd.pictures.thumbnails import QUALITY, SIDE_PX, compress
from imgsortd.records import FileState
from imgsortd.reports.subjects import places_of
from imgsortd.store.database import open_for_reading
from imgsortd.web.shown import key_of

REST_S = 60.0
MAX_WAITING = 512
PREVIEW_SIDE_PX = 1600
_CLOSING = "the page is being closed"
_NO_SNIFF = {"X-Content-Type-Options": "nosniff"}
_FOREVER, _ASK_EACH_TIME = "private, max-age=31536000, immutable", "private, no-cache"


class NotShownError(ImgsortdError):
    """A file cannot be shown; the text is the reason."""


class CrowdedError(ImgsortdError):
    """More pictures were asked for than can wait."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is made of a picture: its longest side, and how it is packed."""

    name: str
    side_px: int
    quality: int
    effort: int
    is_kept: bool


# A person waits for a large one: at the least effort it is made in half the time, for 4 % more.
PREVIEW = Form("preview", PREVIEW_SIDE_PX, 80, 0, is_kept=False)
THUMBNAIL = Form("thumbnail", SIDE_PX, QUALITY, 4, is_kept=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that may be shown: its bytes, and where it may stand."""

    sha256: bytes
    places: tuple[RootedName, ...]


@dataclass(slots=True, eq=False)
class _Job:
    """A picture to be made, for as many as wait for it."""

    wanted: Wanted
    form: Form
    made: asyncio.Future[Cached | str]
    waiters: int = 0
    is_begun: bool = False


class Pictures:
    """Finds, makes and keeps pictures; for the handlers of one event loop.

    One that several ask for is made once, and one for which nobody waits any more, before it
    was begun, not at all. Decoding processes start with the first picture.

    Parameters
    ----------
    cache
        Where small ones are kept; whoever made it closes it.
    rest_s
        Seconds without work after which the decoding processes end.
    max_waiting
        Pictures that may be asked for, and not be made, at a time.
    threads
        Pictures made at a time; where None, as many as this process may use CPUs.
    """

    def __init__(
        self,
        config: Config,
        cache: ThumbnailCache,
        *,
        rest_s: float = REST_S,
        max_waiting: int = MAX_WAITING,
        threads: int | None = None,
    ) -> None:
        self._config, self._cache = config, cache
        self._rest_s, self._max_waiting = rest_s, max_waiting
        self._pool = PicturePool(decode_limits(config.pictures), threads)
        self._jobs: dict[tuple[Wanted, Form], _Job] = {}
        # A person looks at a large one, and waits for it alone.
        self._waiting: dict[Form, deque[_Job]] = {PREVIEW: deque(), THUMBNAIL: deque()}
        self._running = 0
        self._resting: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def find(self, file_id: int) -> Wanted:
        """Look up a file that may be shown; it is not opened.

        Raises
        ------
        NotShownError
            It is gone, no picture, or not read.
        StoreError
            The database cannot be read.
        """
        return await asyncio.to_thread(_find, self._config, file_id)

    async def make(self, wanted: Wanted, form: Form) -> Cached:
        """Return a picture of a file that was found, kept or made now.

        Raises
        ------
        NotShownError
            It is gone, no picture, or not what was sorted.
        CrowdedError
            Too many are waited for.
        NoDecoderError
            Decoding processes cannot be started, or this was closed.
        """
        kept = await asyncio.to_thread(self._cache.get, wanted.sha256) if form.is_kept else None
        if kept is not None:
            return kept
        job = self._jobs.get((wanted, form)) or self._add(wanted, form)
        job.waiters += 1
        try:
            made = await asyncio.shield(job.made)
        finally:
            job.waiters -= 1
            if not job.waiters and not job.is_begun and not job.made.done():
                self._waiting[form].remove(job)
                del self._jobs[wanted, form]
        if isinstance(made, str):
            raise NotShownError(made)
        return made

    async def close(self) -> None:
        """End the decoding processes; whoever waits for a picture gets NoDecoderError."""
        self._is_closed = True
        for waiting in self._waiting.values():
            while waiting:
                _fail(waiting.popleft(), NoDecoderError(_CLOSING))
        if self._resting is not None:
            self._resting.cancel()
        await asyncio.to_thread(self._pool.close)

    def _add(self, wanted: Wanted, form: Form) -> _Job:
        if self._is_closed:
            raise NoDecoderError(_CLOSING)
        if len(self._jobs) >= self._max_waiting:
            raise CrowdedError(f"{len(self._jobs)} pictures are being made; ask again in a second")
        if self._resting is not None:
            self._resting.cancel()
        job = _Job(wanted, form, asyncio.get_running_loop().create_future())
        self._jobs[wanted, form] = job
        self._waiting[form].append(job)
        self._begin()
        return job

    def _begin(self) -> None:
        """Hand the pool as much as it does at a time, so that what is urgent can go first."""
        while self._running < self._pool.threads and any(self._waiting.values()):
            job = next(waiting.popleft() for waiting in self._waiting.values() if waiting)
            job.is_begun = True
            self._running += 1
            make = partial(self._make, job.wanted.sha256, job.form)
            begun = self._pool.submit(make, job.wanted.places, job.wanted.sha256)
            asyncio.wrap_future(begun).add_done_callback(partial(self._ended, job))

    def _make(self, sha256: bytes, form: Form, decoder: Decoder, data: bytes) -> Cached:
        """Make a picture, in a thread of the pool."""
        pixels, size_px = decoder.decode_sized(data, form.side_px)
        made = Cached(compress(pixels, form.quality, form.effort), size_px)
        if form.is_kept:
            self._cache.put(sha256, made)
        return made

    def _ended(self, job: _Job, begun: asyncio.Future[Cached | str]) -> None:
        self._running -= 1
        del self._jobs[job.wanted, job.form]
        error = NoDecoderError(_CLOSING) if begun.cancelled() else begun.exception()
        if error is None:
            job.made.set_result(begun.result())
        else:
            _fail(job, error)
        if self._is_closed:
            return
        self._begin()
        if not self._jobs:
            loop, rest = asyncio.get_running_loop(), self._pool.rest
            self._resting = loop.call_later(self._rest_s, loop.run_in_executor, None, rest)


def _fail(job: _Job, error: BaseException) -> None:
    job.made.set_exception(error)
    job.made.exception()  # nobody may wait for it any more, and that is no error


def _find(config: Config, file_id: int) -> Wanted:
    with open_for_reading(config.database) as store:
        row = store.lookup.by_id(file_id)
    if row is None or row.state is FileState.GONE:
        raise NotShownError(GONE)
    if row.state is FileState.SET_ASIDE:
        raise NotShownError(f"set aside: {row.reason}")
    if row.state is FileState.COMPANION:
        raise NotShownError("goes along with a picture, and is none itself")
    if row.sha256 is None:
        raise NotShownError("not read yet")
    is_in_inbox = row.is_in_inbox or row.in_target is None
    places = places_of(config, replace(row, dst=row.in_target, is_in_inbox=is_in_inbox))
    return Wanted(row.sha256, places)


async def thumbnail(request: Request) -> Response:
    """Answer ``/pictures/{id}/thumbnail``."""
    return await _answer(request, THUMBNAIL)


async def preview(request: Request) -> Response:
    """Answer ``/pictures/{id}/preview``."""
    return await _answer(request, PREVIEW)


async def _answer(request: Request, form: Form) -> Response:
    pictures: Pictures = request.app.state.site.pictures
    try:
        wanted = await pictures.find(request.path_params["id"])
        is_right = request.query_params.get("v") == key_of(wanted.sha256)
        headers = _NO_SNIFF | {
            "ETag": f'"{wanted.sha256.hex()}-{form.name}-{form.side_px}"',
            "Cache-Control": _FOREVER if is_right else _ASK_EACH_TIME,
        }
        if _is_known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        shot = await _unless_left(request, pictures.make(wanted, form))
    except NotShownError as error:
        return _refusal(404, f"this picture cannot be shown: {error}")
    except (CrowdedError, NoDecoderError, StoreError) as error:
        return _refusal(503, str(error), {"Retry-After": "1"})
    if shot is None:
        return _refusal(503, "nobody waits for this picture any more")
    return Response(shot.webp, media_type="image/webp", headers=headers)


def _is_known(request: Request, etag: str) -> bool:
    """Tell whether the browser has this very picture (RFC 9110, 13.1.2: compared weakly)."""
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known)


def _refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    always = _NO_SNIFF | {"Cache-Control": "no-store"}
    return JSONResponse({"error": text}, status, always | (headers or {}))


async def _unless_left(request: Request, making: Coroutine[Any, Any, Cached]) -> Cached | None:
    """Wait for a picture as long as its reader does; None where the reader has left."""
    made, left = asyncio.create_task(making), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({made, left}, return_when=asyncio.FIRST_COMPLETED)
        return made.result() if made.done() else left.result()
    finally:
        made.cancel()
        left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
