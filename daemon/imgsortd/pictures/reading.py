"""Threads that read files once, for hash and pixels together, each with a decoding process.

They decode while the model computes. Nothing here touches the store.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import local
from typing import TypeVar

from imgsortd.errors import IncompleteError, PictureError
from imgsortd.pictures.decoder import DecodeLimits, Decoder, NoDecoderError
from imgsortd.pictures.formats import HEAD_BYTES, looks_unfinished, sniff
from imgsortd.records import Candidate, Hashed, NotRead, Picture, ReadResult, Skipped, Unreadable
from imgsortd.system import filesystem
from imgsortd.system.resources import usable_cpus

MAX_FILE_BYTES = 512 << 20
# Each holds a file and a picture in memory, and shares the CPUs with the model it feeds.
_MAX_THREADS_BESIDE_MODEL = 8
_GONE = (errno.ENOENT, errno.ENOTDIR)

Result = TypeVar("Result")
Made = TypeVar("Made")
RootedName = tuple[Path, bytes]
"""A root, and a name below it."""
Make = Callable[[Decoder, bytes], Made]
"""What is made of a file's bytes; its PictureErrors are reasons, not failures."""

CHANGED = "changed since it was sorted"
GONE = "gone"


class _DecodingThreads:
    """Threads, each with a decoding process of its own; they start when they are needed."""

    _kept_processes = 0

    def __init__(self, count: int, limits: DecodeLimits, name: str) -> None:
        self._limits = limits
        self._of_thread = local()
        self._decoders: list[Decoder] = []
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    def _decoder(self) -> Decoder:
        """Return the decoder of the thread that asks."""
        if not hasattr(self._of_thread, "decoder"):
            self._of_thread.decoder = Decoder(self._limits)
            self._decoders.append(self._of_thread.decoder)
        decoder: Decoder = self._of_thread.decoder
        return decoder

    def rest(self) -> None:
        """End the processes that have nothing to do; they are started again when needed."""
        for decoder in self._decoders[self._kept_processes :]:
            decoder.rest()

    def close(self) -> None:
        """End threads and processes; what was not begun is cancelled, what is decoded given up."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
        self._pool.shutdown(wait=True)


class PictureReader(_DecodingThreads):
    """Threads that read and decode the files of one folder; one process stays while they rest.

    Parameters
    ----------
    threads
        Pictures decoded at a time; where None, as many as this process may use CPUs, but
        not above 8 where the model needs them, too (``model_on_cpu``).
    """

    _kept_processes = 1

    def __init__(
        self,
        inbox: Path,
        limits: DecodeLimits | None = None,
        threads: int | None = None,
        *,
        model_on_cpu: bool = True,
    ) -> None:
        self._inbox = inbox
        self._is_closing = False
        cpus = usable_cpus()
        count = threads or (min(_MAX_THREADS_BESIDE_MODEL, cpus) if model_on_cpu else cpus)
        super().__init__(count, limits or DecodeLimits(), "decode")

    def submit(self, candidate: Candidate, refusal: str = "") -> Future[ReadResult]:
        """Begin to read one file; it is not decoded where a reason to refuse it is given."""
        return self._pool.submit(self.read, candidate, refusal)

    def submit_hash(self, candidate: Candidate) -> Future[Hashed | Skipped]:
        """Begin to hash one file, which need be no picture, nor fit into memory."""
        return self._pool.submit(self.hash, candidate)

    def close(self) -> None:
        """Stop the pool; files that were not begun, and those being decoded, are not read."""
        self._is_closing = True
        super().close()

    def read(self, candidate: Candidate, refusal: str = "") -> ReadResult:
        """Read one file: its hash and pixels are of the same bytes.

        A file that is gone, changed since it settled, still open for writing, or
        unfinished as it seems, is :class:`Skipped`; one that is no picture is
        :class:`Unreadable`.
        """
        try:
            data = self._read_bytes(candidate)
        except OSError as error:
            return Skipped(candidate, _why(error), str(error.strerror or error))
        if not isinstance(data, bytes):
            return data
        sha256 = hashlib.sha256(data).digest()
        if refusal:
            return Unreadable(candidate, sha256, refusal)
        if candidate.patience_s > 0 and (reason := looks_unfinished(data)):
            return Skipped(candidate, NotRead.INCOMPLETE, reason)
        try:
            pixels, size_px = self._decoder().decode_sized(data)
            return Picture(candidate, sha256, pixels, size_px)
        except PictureError as error:
            if isinstance(error, IncompleteError) and candidate.patience_s > 0:
                return Skipped(candidate, NotRead.INCOMPLETE, str(error))
            return Unreadable(candidate, sha256, str(error))
        except NoDecoderError as error:
            return Skipped(candidate, NotRead.DENIED, str(error))

    def hash(self, candidate: Candidate) -> Hashed | Skipped:
        """Hash one file, piece by piece; one that is gone, changed or written is skipped."""
        try:
            with _opened(self._inbox, candidate.name) as fd:
                if skipped := self._not_now(fd, candidate):
                    return skipped
                digest = hashlib.sha256()
                for chunk in filesystem.read_chunks(fd):
                    if self._is_closing:
                        return Skipped(candidate, NotRead.BUSY)
                    digest.update(chunk)
                return self._not_now(fd, candidate) or Hashed(candidate, digest.digest())
        except OSError as error:
            return Skipped(candidate, _why(error), str(error.strerror or error))

    def _not_now(self, fd: int, candidate: Candidate) -> Skipped | None:
        writer = filesystem.writer_of(fd)
        if writer is filesystem.Writer.SOME:
            return Skipped(candidate, NotRead.BUSY)
        if writer is filesystem.Writer.UNKNOWN and not candidate.is_patient:
            return Skipped(candidate, NotRead.UNASKED)
        if not self._unchanged(fd, candidate):
            return Skipped(candidate, NotRead.CHANGED)
        return None

    def _read_bytes(self, candidate: Candidate) -> bytes | Skipped | Unreadable:
        with _opened(self._inbox, candidate.name) as fd:
            if skipped := self._not_now(fd, candidate):
                return skipped
            if candidate.stamp.size_bytes > MAX_FILE_BYTES:
                size_mb, limit_mb = candidate.stamp.size_bytes >> 20, MAX_FILE_BYTES >> 20
                reason = f"too large: {size_mb} MiB, pictures up to {limit_mb} MiB are read"
                return Unreadable(candidate, filesystem.sha256_of(fd), reason)
            data = b"".join(filesystem.read_chunks(fd))
            if not self._unchanged(fd, candidate):
                return Skipped(candidate, NotRead.CHANGED)
        return data

    def _unchanged(self, fd: int, candidate: Candidate) -> bool:
        return filesystem.stamp_of(os.fstat(fd)).same_content(candidate.stamp)


def _why(error: OSError) -> NotRead:
    if error.errno in _GONE:
        return NotRead.GONE
    if error.errno in (errno.EACCES, errno.EPERM, errno.EIO):
        return NotRead.DENIED
    return NotRead.CHANGED


class PicturePool(_DecodingThreads):
    """Threads that read files for a page or a list.

    Use as a context manager, or close: at its end nothing is decoded any more. Decoded at a
    time are as many pictures as there are ``threads``, or CPUs that this process may use.
    """

    def __init__(self, limits: DecodeLimits, threads: int | None = None) -> None:
        self.threads = threads or usable_cpus()
        super().__init__(self.threads, limits, "pictures")

    def __enter__(self) -> PicturePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self, make: Make[Made], places: Sequence[RootedName], sha256: bytes | None = None
    ) -> Future[Made | str]:
        """Begin with a file, at the first of its places that holds one; a reason where none does.

        The file must have the SHA-256, where one is given. RuntimeError: the pool was closed.
        The future raises NoDecoderError where a decoding process cannot be started.
        """
        return self._pool.submit(self._make, make, places, sha256)

    def _make(
        self, make: Make[Made], places: Sequence[RootedName], sha256: bytes | None
    ) -> Made | str:
        why = GONE
        for root, name in places:
            try:
                data = _read(root, name)
                if sha256 is None or hashlib.sha256(data).digest() == sha256:
                    return make(self._decoder(), data)
                why = CHANGED
            except OSError as error:
                if error.errno not in filesystem.NO_FILE:
                    why = error.strerror or str(error)
            except PictureError as error:
                why = str(error)
        return why


def is_there(places: Iterable[RootedName]) -> bool:
    """Tell whether one of the places holds a regular file; it is not opened."""
    for root, name in places:
        with suppress(OSError):
            if stat.S_ISREG(os.lstat(os.path.join(os.fsencode(root), name)).st_mode):
                return True
    return False


@contextmanager
def _opened(root: Path, name: bytes) -> Iterator[int]:
    folder, base = filesystem.split(name)
    with filesystem.Folders(root) as folders:
        fd = filesystem.open_regular(folders.fd(folder), base)
    with filesystem.closing(fd):
        yield fd


def _read(root: Path, name: bytes) -> bytes:
    with _opened(root, name) as fd:
        size_bytes = os.fstat(fd).st_size
        if size_bytes > MAX_FILE_BYTES:
            raise PictureError(f"too large: {size_bytes >> 20} MiB")
        return b"".join(filesystem.read_chunks(fd))


def is_picture_by_content(folders: filesystem.Folders, name: bytes) -> bool:
    """Tell whether a file's first bytes are a picture's, or may be: where it cannot be read."""
    folder, base = filesystem.split(name)
    try:
        fd = filesystem.open_regular(folders.fd(folder), base)
        with filesystem.closing(fd):
            return sniff(os.pread(fd, HEAD_BYTES, 0)) is not None
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)  # let the reader say so
