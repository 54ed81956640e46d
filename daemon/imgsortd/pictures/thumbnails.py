"""Small pictures for a page, decoded by confined processes and kept as WebP.

Only pixels leave the decoding process; they are compressed here, by us, so that nothing of
a stranger's file gets into a page: no metadata, and no bytes that it chose.
"""

from __future__ import annotations

import base64
import io
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from PIL import Image

from imgsortd.pictures.decoder import DecodeLimits, Decoder
from imgsortd.pictures.reading import PicturePool, RootedName
from imgsortd.records import Pixels

SIDE_PX = 320
QUALITY = 72
_AHEAD = 4  # pictures in hand for each thread: enough to keep it busy, little to throw away

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a ``data:`` URI, and its sides in pixels."""

    uri: str
    width_px: int
    height_px: int


@dataclass(slots=True)
class Thumbnails(Generic[Key]):
    """What became of the pictures that were asked for."""

    found: dict[Key, Thumbnail] = field(default_factory=dict)
    unread: dict[Key, str] = field(default_factory=dict)
    """Why others cannot be shown: gone meanwhile, or no longer readable."""
    left_out: int = 0
    """How many more there was no room for."""


def make_thumbnails(
    wanted: Sequence[tuple[Key, Sequence[RootedName]]],
    limits: DecodeLimits,
    max_bytes: int,
    on_done: Callable[[int], None] = lambda done: None,
) -> Thumbnails[Key]:
    """Make small pictures of files, several at a time, until ``max_bytes`` of URIs are made.

    The most important first; each with the places where it may stand, which are tried in
    turn. From the first that does not fit on, none is made.

    Raises
    ------
    NoDecoderError
        A decoding process cannot be started.
    """
    made: Thumbnails[Key] = Thumbnails()
    room, rest = max_bytes, deque(wanted)
    begun: deque[tuple[Key, Future[Thumbnail | str]]] = deque()
    with PicturePool(limits) as pool:
        while rest or begun:
            while rest and len(begun) < _AHEAD * pool.threads:
                key, places = rest.popleft()
                begun.append((key, pool.submit(_make, places)))
            key, future = begun.popleft()
            result = future.result()
            if isinstance(result, str):
                made.unread[key] = result
            elif len(result.uri) > room:
                made.left_out = 1 + len(begun) + len(rest)
                break
            else:
                room -= len(result.uri)
                made.found[key] = result
            on_done(len(made.found) + len(made.unread))
    return made


def compress(pixels: Pixels, quality: int = QUALITY, effort: int = 4) -> bytes:
    """Return pixels as WebP; ``effort``, 0 to 6, makes it smaller and takes longer."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=effort)
    return file.getvalue()


def _make(decoder: Decoder, data: bytes) -> Thumbnail:
    pixels = decoder.decode_sized(data, SIDE_PX)[0]
    height_px, width_px = pixels.shape[:2]
    text = base64.b64encode(compress(pixels)).decode("ascii")
    return Thumbnail(f"data:image/webp;base64,{text}", width_px, height_px)
