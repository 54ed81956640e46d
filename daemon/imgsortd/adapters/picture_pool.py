"""Read files that were sorted, several at a time, to look at them once more."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import TypeVar

from imgsortd.adapters import fsops
from imgsortd.adapters.cpus import usable_cpus
from imgsortd.adapters.decode_limits import DecodeLimits
from imgsortd.adapters.decoding import Decoder
from imgsortd.adapters.reading import MAX_FILE_BYTES
from imgsortd.errors import PictureError

Made = TypeVar("Made")
Place = tuple[Path, bytes]
"""A root, and a name below it."""
Make = Callable[[Decoder, bytes], Made]
"""What is made of a file's bytes; its PictureErrors are reasons, not failures."""

CHANGED = "changed since it was sorted"
GONE = "gone"


def is_there(places: Iterable[Place]) -> bool:
    """Tell whether one of the places holds a regular file; it is not opened."""
    return any(_is_file(os.path.join(os.fsencode(root), name)) for root, name in places)


class PicturePool:
    """Threads that read files for a page or a list, each with a decoding process of its own.

    Threads and processes start when they are needed. Use as a context manager, or close: at
    its end nothing is decoded any more.

    Parameters
    ----------
    limits
        What one picture may take.
    threads
        Pictures decoded at a time; where None, as many as this process may use CPUs.
    """

    def __init__(self, limits: DecodeLimits, threads: int | None = None) -> None:
        self.threads = threads or usable_cpus()
        self._limits = limits
        self._of_thread = local()
        self._decoders: list[Decoder] = []
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="pictures")

    def __enter__(self) -> PicturePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and the processes; what was not begun is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
        self._pool.shutdown(wait=True)

    def rest(self) -> None:
        """End the processes that have nothing to do; they are started again when needed."""
        for decoder in self._decoders:
            decoder.rest()

    def submit(
        self, make: Make[Made], places: Sequence[Place], sha256: bytes | None = None
    ) -> Future[Made | str]:
        """Begin with a file, at the first of its places that holds one; a reason where none does.

        The future raises NoDecoderError where a decoding process cannot be started.

        Parameters
        ----------
        sha256
            What the file must be, byte for byte; where None, anything.

        Raises
        ------
        RuntimeError
            The pool was closed.
        """
        return self._pool.submit(self._make, make, places, sha256)

    def _make(self, make: Make[Made], places: Sequence[Place], sha256: bytes | None) -> Made | str:
        if not hasattr(self._of_thread, "decoder"):
            self._of_thread.decoder = Decoder(self._limits)
            self._decoders.append(self._of_thread.decoder)
        decoder: Decoder = self._of_thread.decoder
        why = GONE
        for root, name in places:
            try:
                data = _read(root, name)
                if sha256 is None or hashlib.sha256(data).digest() == sha256:
                    return make(decoder, data)
                why = CHANGED
            except OSError as error:
                if error.errno not in fsops.NO_FILE:
                    why = error.strerror or str(error)
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
