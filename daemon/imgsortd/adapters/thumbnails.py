"""Small pictures for a page, decoded by confined processes and kept as WebP.

Only pixels leave the decoding process; they are compressed here, by us, so that nothing of
a stranger's file gets into a page: no metadata, and no bytes that it chose.
"""

from __future__ import annotations

import base64
import io
import os
import stat
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import Generic, TypeVar

from PIL import Image

from imgsortd.adapters import fsops
from imgsortd.adapters.cpus import usable_cpus
from imgsortd.adapters.decoding import DecodeLimits, Decoder
from imgsortd.adapters.reading import MAX_FILE_BYTES
from imgsortd.core.records import Pixels
from imgsortd.errors import PictureError

SIDE_PX = 320
_QUALITY = 72
_AHEAD = 4  # pictures in hand for each thread: enough to keep it busy, little to throw away

Key = TypeVar("Key", bound=Hashable)
Place = tuple[Path, bytes]
"""A root, and a name below it."""
OnDone = Callable[[int], None]
"""Told how many pictures are done."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a ``data:`` URI, and its sides in pixels."""

    uri: str
    width_px: int
    height_px: int


@dataclass(slots=True)
class Thumbnails(Generic[Key]):
    """What became of the pictures that were asked for.

    Attributes
    ----------
    found
        The small pictures.
    unread
        Why others cannot be shown: gone meanwhile, or no longer readable.
    left_out
        How many more there was no room for.
    """

    found: dict[Key, Thumbnail] = field(default_factory=dict)
    unread: dict[Key, str] = field(default_factory=dict)
    left_out: int = 0


def is_there(places: Iterable[Place]) -> bool:
    """Tell whether one of the places holds a regular file; it is not opened."""
    return any(_is_file(os.path.join(os.fsencode(root), name)) for root, name in places)


def make_thumbnails(
    wanted: Sequence[tuple[Key, Sequence[Place]]],
    limits: DecodeLimits,
    max_bytes: int,
    on_done: OnDone = lambda done: None,
) -> Thumbnails[Key]:
    """Make small pictures of files, several at a time, until ``max_bytes`` of them are made.

    Parameters
    ----------
    wanted
        The most important first; each with the places where it may stand, which are tried
        in turn.
    max_bytes
        Of all URIs together. From the first that does not fit on, none is made.

    Raises
    ------
    NoDecoderError
        A decoding process cannot be started.
    """
    made: Thumbnails[Key] = Thumbnails()
    room, rest = max_bytes, deque(wanted)
    begun: deque[tuple[Key, Future[Thumbnail | str]]] = deque()
    with _Pool(limits) as pool:
        while rest or begun:
            while rest and len(begun) < _AHEAD * pool.threads:
                key, places = rest.popleft()
                begun.append((key, pool.submit(places)))
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


class _Pool:
    """Threads that read and compress, each with a decoding process of its own."""

    def __init__(self, limits: DecodeLimits) -> None:
        self.threads = usable_cpus()
        self._limits = limits
        self._of_thread = local()
        self._decoders: list[Decoder] = []
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="thumbnail")

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
        self._pool.shutdown(wait=True)

    def submit(self, places: Sequence[Place]) -> Future[Thumbnail | str]:
        return self._pool.submit(self._make, places)

    def _make(self, places: Sequence[Place]) -> Thumbnail | str:
        if not hasattr(self._of_thread, "decoder"):
            self._of_thread.decoder = Decoder(self._limits)
            self._decoders.append(self._of_thread.decoder)
        decoder: Decoder = self._of_thread.decoder
        why = "gone"
        for root, name in places:
            try:
                return _compress(decoder.decode_whole(_read(root, name), SIDE_PX))
            except OSError as error:
                why = "gone" if error.errno in fsops.NO_FILE else error.strerror or str(error)
            except PictureError as error:
                why = str(error)
        return why


def _is_file(path: bytes) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _read(root: Path, name: bytes) -> bytes:
    folder, base = fsops.split(name)
    with fsops.Folders(root) as folders:
        fd = fsops.open_regular(folders.fd(folder), base)
    with fsops.closing(fd):
        size_bytes = os.fstat(fd).st_size
        if size_bytes > MAX_FILE_BYTES:
            raise PictureError(f"too large: {size_bytes >> 20} MiB")
        return b"".join(fsops.read_chunks(fd))


def _compress(pixels: Pixels) -> Thumbnail:
    height_px, width_px = pixels.shape[:2]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/webp;base64,{text}", width_px, height_px)
