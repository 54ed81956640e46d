"""Pictures for the page, by the id of their file: small ones, which are kept, and large ones.

No byte of a stranger's file is looked at in this process but for its hash, which must be that of
the file that was sorted: what is kept under a hash is never another picture. Confined processes
decode, and what leaves here is WebP that was made here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.decoding import NoDecoderError
from imgsortd.adapters.picture_pool import GONE
from imgsortd.adapters.store_find import Finder
from imgsortd.adapters.store_sheets import ShownFile
from imgsortd.adapters.thumbnail_cache import Cached, ThumbnailCache
from imgsortd.config import Config
from imgsortd.contact_sheet import places_of
from imgsortd.core.records import FileState
from imgsortd.errors import ImgsortdError, StoreError
from imgsortd.subjects import open_for_reading
from imgsortd.web.making import (
    MAX_WAITING,
    PREVIEW,
    REST_S,
    THUMBNAIL,
    CrowdedError,
    Form,
    PictureQueue,
    Wanted,
)
from imgsortd.web.plain import key_of

_MAX_FILE_ID = 2**63 - 1
_FOREVER, _ASK_EACH_TIME = "private, max-age=31536000, immutable", "private, no-cache"


class NotShownError(ImgsortdError):
    """A file cannot be shown; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture as WebP, and the upright size in pixels of the picture in the file."""

    webp: bytes
    sha256: bytes
    width_px: int
    height_px: int


class Pictures:
    """Finds, makes and keeps pictures; for the handlers of one event loop.

    Decoding processes start with the first picture that is not kept, and end after a minute
    without work.

    Parameters
    ----------
    cache
        Where small ones are kept; whoever made it closes it.
    rest_s
        Seconds without work after which the processes end.
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
        self._config = config
        self._cache = cache
        self._queue = PictureQueue(
            decode_limits(config.pictures),
            self._keep,
            rest_s=rest_s,
            max_waiting=max_waiting,
            threads=threads,
        )

    async def thumbnail(self, file_id: int) -> Shot:
        """Return a small picture of a file, its longest side of 320 pixels.

        Raises
        ------
        NotShownError
            It is gone, no picture, or not what was sorted.
        CrowdedError
            Too many are waited for.
        NoDecoderError, StoreError
            Decoding processes cannot be started, or the app closes; the store cannot be read.
        """
        return await self.make(await self.find(file_id), THUMBNAIL)

    async def preview(self, file_id: int) -> Shot:
        """Return a large picture of a file, its longest side of 1600 pixels, as :meth:`thumbnail`.

        It is made each time.
        """
        return await self.make(await self.find(file_id), PREVIEW)

    async def find(self, file_id: int) -> Wanted:
        """Look up a file that may be shown; it is not opened.

        Raises
        ------
        NotShownError, StoreError
            As :meth:`thumbnail`.
        """
        return await asyncio.to_thread(_find, self._config, file_id)

    async def make(self, wanted: Wanted, form: Form) -> Shot:
        """Return a picture of a file that was found.

        Raises
        ------
        NotShownError, CrowdedError, NoDecoderError
            As :meth:`thumbnail`.
        """
        made: Cached | str | None = None
        if form.is_kept:
            made = await asyncio.to_thread(self._cache.get, wanted.sha256)
        if made is None:
            made = await self._queue.made(wanted, form)
        if isinstance(made, str):
            raise NotShownError(made)
        return Shot(made.webp, wanted.sha256, *made.size_px)

    async def close(self) -> None:
        """End the decoding processes; whoever waits for a picture gets NoDecoderError."""
        await self._queue.close()

    def _keep(self, sha256: bytes, form: Form, made: Cached) -> None:
        if form.is_kept:
            self._cache.put(sha256, made)


def _find(config: Config, file_id: int) -> Wanted:
    if not 0 < file_id <= _MAX_FILE_ID:
        raise NotShownError(GONE)
    with open_for_reading(config) as store:
        row = Finder(store).by_id(file_id)
    if row is None or row.state is FileState.GONE:
        raise NotShownError(GONE)
    if row.state is FileState.SET_ASIDE:
        raise NotShownError(f"set aside: {row.reason}")
    if row.state is FileState.COMPANION:
        raise NotShownError("goes along with a picture, and is none itself")
    if row.sha256 is None:
        raise NotShownError("not read yet")
    stays = row.stays or row.in_target is None
    places = places_of(config, ShownFile(row.file_id, row.src, row.in_target, stays))
    return Wanted(row.sha256, places)


async def thumbnail(request: Request) -> Response:
    """Answer ``/pictures/{id}/thumbnail`` from ``app.state.site.pictures``."""
    return await _answer(request, THUMBNAIL)


async def preview(request: Request) -> Response:
    """Answer ``/pictures/{id}/preview`` from ``app.state.site.pictures``."""
    return await _answer(request, PREVIEW)


async def _answer(request: Request, form: Form) -> Response:
    pictures: Pictures = request.app.state.site.pictures
    try:
        wanted = await pictures.find(_file_id(request))
        headers = _headers(request, wanted, form)
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


def _file_id(request: Request) -> int:
    text = str(request.path_params["id"])
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _headers(request: Request, wanted: Wanted, form: Form) -> dict[str, str]:
    is_right = request.query_params.get("v") == key_of(wanted.sha256)
    return {
        "ETag": f'"{wanted.sha256.hex()}-{form.name}-{form.side_px}"',
        "Cache-Control": _FOREVER if is_right else _ASK_EACH_TIME,
        "X-Content-Type-Options": "nosniff",
    }


def _is_known(request: Request, etag: str) -> bool:
    """Tell whether the browser has this very picture (RFC 9110, 13.1.2: compared weakly)."""
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known)


def _refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    always = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return JSONResponse({"error": text}, status, {**always, **(headers or {})})


async def _unless_left(request: Request, making: Coroutine[Any, Any, Shot]) -> Shot | None:
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
