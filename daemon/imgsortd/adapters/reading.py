"""Read files: once, for the hash and the pixels together, several at a time.

The pool decodes while the model computes, each thread in a process of its own. Nothing
here touches the store.
"""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import local

from imgsortd.adapters import fsops, leases
from imgsortd.adapters.cpus import usable_cpus
from imgsortd.adapters.decode_limits import DecodeLimits
from imgsortd.adapters.decoding import Decoder, NoDecoderError
from imgsortd.adapters.unfinished import looks_unfinished
from imgsortd.core.records import (
    Candidate,
    Hashed,
    NotRead,
    Picture,
    ReadResult,
    Skipped,
    Unreadable,
)
from imgsortd.errors import IncompleteError, PictureError

MAX_FILE_BYTES = 512 << 20
# Each holds a file and a picture in memory, and shares the CPUs with the model it feeds.
_MAX_THREADS_BESIDE_MODEL = 8
_GONE = (errno.ENOENT, errno.ENOTDIR)


class PictureReader:
    """A small pool of threads that read and decode.

    Parameters
    ----------
    inbox
        Root of the candidates' names.
    limits
        What one picture may take; where None, the defaults.
    threads
        Pictures decoded at a time; where None, as many as this process may use CPUs
        (:func:`imgsortd.adapters.cpus.usable_cpus`), but not above 8 where the model
        needs them, too.
    model_on_cpu
        Whether it does.
    """

    def __init__(
        self,
        inbox: Path,
        limits: DecodeLimits | None = None,
        threads: int | None = None,
        *,
        model_on_cpu: bool = True,
    ) -> None:
        self._inbox = inbox
        self._limits = limits or DecodeLimits()
        self._is_closing = False
        self._of_thread = local()
        self._decoders: list[Decoder] = []
        cpus = usable_cpus()
        count = threads or (min(_MAX_THREADS_BESIDE_MODEL, cpus) if model_on_cpu else cpus)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decode")

    def submit(self, candidate: Candidate, refusal: str = "") -> Future[ReadResult]:
        """Begin to read one file; it is not decoded where a reason to refuse it is given."""
        return self._pool.submit(self.read, candidate, refusal)

    def submit_hash(self, candidate: Candidate) -> Future[Hashed | Skipped]:
        """Begin to hash one file, which need be no picture, nor fit into memory."""
        return self._pool.submit(self.hash, candidate)

    def rest(self) -> None:
        """End the idle processes but one; they are started again when they are needed."""
        for decoder in self._decoders[1:]:
            decoder.rest()

    def close(self) -> None:
        """Stop the pool; files that were not begun, and those being decoded, are not read."""
        self._is_closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
        self._pool.shutdown(wait=True)

    @property
    def _decoder(self) -> Decoder:
        if not hasattr(self._of_thread, "decoder"):
            self._of_thread.decoder = Decoder(self._limits)
            self._decoders.append(self._of_thread.decoder)
        decoder: Decoder = self._of_thread.decoder
        return decoder

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
            pixels, size_px = self._decoder.decode_sized(data)
            return Picture(candidate, sha256, pixels, size_px)
        except IncompleteError as error:
            if candidate.patience_s > 0:
                return Skipped(candidate, NotRead.INCOMPLETE, str(error))
            return Unreadable(candidate, sha256, str(error))
        except PictureError as error:
            return Unreadable(candidate, sha256, str(error))
        except NoDecoderError as error:
            return Skipped(candidate, NotRead.DENIED, str(error))

    def hash(self, candidate: Candidate) -> Hashed | Skipped:
        """Hash one file, piece by piece; one that is gone, changed or written is skipped."""
        try:
            with fsops.closing(self._open(candidate)) as fd:
                if skipped := self._not_now(fd, candidate):
                    return skipped
                digest = hashlib.sha256()
                for chunk in fsops.read_chunks(fd):
                    if self._is_closing:
                        return Skipped(candidate, NotRead.BUSY)
                    digest.update(chunk)
                return self._not_now(fd, candidate) or Hashed(candidate, digest.digest())
        except OSError as error:
            return Skipped(candidate, _why(error), str(error.strerror or error))

    def _open(self, candidate: Candidate) -> int:
        folder, base = fsops.split(candidate.name)
        with fsops.Folders(self._inbox) as folders:
            return fsops.open_regular(folders.fd(folder), base)

    def _not_now(self, fd: int, candidate: Candidate) -> Skipped | None:
        writer = leases.writer_of(fd)
        if writer is leases.Writer.SOME:
            return Skipped(candidate, NotRead.BUSY)
        if writer is leases.Writer.UNKNOWN and not candidate.is_patient:
            return Skipped(candidate, NotRead.UNASKED)
        if not self._unchanged(fd, candidate):
            return Skipped(candidate, NotRead.CHANGED)
        return None

    def _read_bytes(self, candidate: Candidate) -> bytes | Skipped | Unreadable:
        with fsops.closing(self._open(candidate)) as fd:
            if skipped := self._not_now(fd, candidate):
                return skipped
            if candidate.stamp.size_bytes > MAX_FILE_BYTES:
                size_mb, limit_mb = candidate.stamp.size_bytes >> 20, MAX_FILE_BYTES >> 20
                reason = f"too large: {size_mb} MiB, pictures up to {limit_mb} MiB are read"
                return Unreadable(candidate, fsops.sha256_of(fd), reason)
            data = b"".join(fsops.read_chunks(fd))
            if not self._unchanged(fd, candidate):
                return Skipped(candidate, NotRead.CHANGED)
        return data

    def _unchanged(self, fd: int, candidate: Candidate) -> bool:
        return fsops.stamp_of(os.fstat(fd)).same_content(candidate.stamp)


def _why(error: OSError) -> NotRead:
    if error.errno in _GONE:
        return NotRead.GONE
    if error.errno in (errno.EACCES, errno.EPERM, errno.EIO):
        return NotRead.DENIED
    return NotRead.CHANGED
