"""Pictures in the making: each once, the urgent first, by confined processes that rest again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from imgsortd.adapters.decode_limits import DecodeLimits
from imgsortd.adapters.decoding import Decoder, NoDecoderError
from imgsortd.adapters.picture_pool import PicturePool, Place
from imgsortd.adapters.thumbnail_cache import Cached
from imgsortd.adapters.thumbnails import QUALITY, SIDE_PX, compress
from imgsortd.errors import ImgsortdError

REST_S = 60.0
MAX_WAITING = 512
PREVIEW_SIDE_PX = 1600
_CLOSING = "the page is being closed"


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
    places: tuple[Place, ...]


@dataclass(slots=True, eq=False)
class _Job:
    """A picture to be made, for as many as wait for it."""

    wanted: Wanted
    form: Form
    made: asyncio.Future[Cached | str]
    waiters: int = 0
    is_begun: bool = False


class PictureQueue:
    """Makes pictures for whoever asks; for the handlers of one event loop.

    One that several ask for is made once, and one for which nobody waits any more, before it
    was begun, not at all. Decoding processes start with the first picture.

    Parameters
    ----------
    on_made
        Told of each picture, in a thread, before those who wait for it.
    rest_s
        Seconds without work after which the decoding processes end.
    max_waiting
        Pictures that may be asked for, and not be made, at a time.
    threads
        Pictures made at a time; where None, as many as this process may use CPUs.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        on_made: Callable[[bytes, Form, Cached], None],
        *,
        rest_s: float = REST_S,
        max_waiting: int = MAX_WAITING,
        threads: int | None = None,
    ) -> None:
        self._on_made = on_made
        self._rest_s, self._max_waiting = rest_s, max_waiting
        self._pool = PicturePool(limits, threads)
        self._jobs: dict[tuple[Wanted, Form], _Job] = {}
        # A person looks at a large one, and waits for it alone.
        self._waiting: dict[Form, deque[_Job]] = {PREVIEW: deque(), THUMBNAIL: deque()}
        self._running = 0
        self._resting: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def made(self, wanted: Wanted, form: Form) -> Cached | str:
        """Make a picture, or say why it cannot be.

        Raises
        ------
        CrowdedError
            Too many are waited for.
        NoDecoderError
            Decoding processes cannot be started, or the queue was closed.
        """
        job = self._jobs.get((wanted, form)) or self._add(wanted, form)
        job.waiters += 1
        try:
            return await asyncio.shield(job.made)
        finally:
            job.waiters -= 1
            if not job.waiters and not job.is_begun and not job.made.done():
                self._waiting[form].remove(job)
                del self._jobs[wanted, form]

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
        while self._running < self._pool.threads:
            job = next((waiting.popleft() for waiting in self._waiting.values() if waiting), None)
            if job is None:
                return
            job.is_begun = True
            self._running += 1
            make = partial(self._make, job.wanted.sha256, job.form)
            begun = self._pool.submit(make, job.wanted.places, job.wanted.sha256)
            asyncio.wrap_future(begun).add_done_callback(partial(self._ended, job))

    def _make(self, sha256: bytes, form: Form, decoder: Decoder, data: bytes) -> Cached:
        """Make a picture, in a thread of the pool."""
        pixels, size_px = decoder.decode_sized(data, form.side_px)
        made = Cached(compress(pixels, form.quality, form.effort), size_px)
        self._on_made(sha256, form, made)
        return made

    def _ended(self, job: _Job, begun: asyncio.Future[Cached | str]) -> None:
        self._running -= 1
        del self._jobs[job.wanted, job.form]
        if begun.cancelled():
            _fail(job, NoDecoderError(_CLOSING))
        elif (error := begun.exception()) is not None:
            _fail(job, error)
        else:
            job.made.set_result(begun.result())
        if self._is_closed:
            return
        self._begin()
        if not self._jobs:
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(
                self._rest_s, loop.run_in_executor, None, self._pool.rest
            )


def _fail(job: _Job, error: BaseException) -> None:
    job.made.set_exception(error)
    job.made.exception()  # nobody may wait for it any more, and that is no error
