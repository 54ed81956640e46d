"""Decode strangers' pictures in a process of their own, with limits of time and memory.

What crosses the socket to :mod:`imgsortd.pictures.worker` is counted bytes, never
a pickle: a decoder that was taken over can answer with wrong pixels and a wrong size, and
no more.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from imgsortd.errors import ImgsortdError, IncompleteError, PictureError
from imgsortd.records import Pixels, SizePx

if TYPE_CHECKING:
    from imgsortd.config.model import PicturesConfig

log = logging.getLogger(__name__)

PROGRAM: tuple[str, ...] = ("-P", "-m", "imgsortd.pictures.worker")
"""What Python runs to decode; ``-P``: never a module from the working directory."""

SIDE = 224
_START_S = 60.0
_MAX_REASON_BYTES = 4096
# Its libraries would else start threads, each with memory of its own.
_QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

REQUEST = struct.Struct("<QdH")
"""Bytes of the file that follows; ``max_megapixels``; 0, or the longest side wanted."""
REPLY = struct.Struct("<BI")
"""What follows, an :class:`Answer`; its bytes."""
SIZES = struct.Struct("<HHHH")
"""Height and width of the pixels that follow, width and height of the picture in its file."""


class Answer(Enum):
    """What a reply holds."""

    READY = 0  # the measures in force, said once, before the first request
    PIXELS = 1
    REFUSED = 2  # no picture: the reason
    NO_MEMORY = 3
    INCOMPLETE = 4  # no picture yet, it seems: the reason


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one picture may take: millions of pixels, seconds, and megabytes with its file."""

    max_megapixels: float = 100.0
    max_s: float = 30.0  # until the process is killed
    max_memory_mb: int = 2048


def decode_limits(pictures: PicturesConfig) -> DecodeLimits:
    """Take the limits from the configuration."""
    return DecodeLimits(
        pictures.max_megapixels, pictures.max_decode_s, pictures.max_decode_memory_mb
    )


class NoDecoderError(ImgsortdError):
    """The decoding process cannot be had, or was closed; no picture is at fault."""


class _DiedError(Exception):
    """The process ended in the middle of a picture."""


class Decoder:
    """One worker process, started when it is needed and again when it has died.

    :meth:`decode` is for one thread; :meth:`rest` and :meth:`close` for any. The kernel
    ends the process with the thread that started it.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._worker: _Worker | None = None
        self._in_use = Lock()
        self._closed = False

    def decode(self, data: bytes) -> Pixels:
        """Decode a file's bytes, as :func:`imgsortd.pictures.pixels.decode` does.

        Raises
        ------
        PictureError
            No picture, or one that takes too long, needs too much memory, or ended the
            process twice.
        NoDecoderError
            The process cannot be started, or :meth:`close` was called.
        """
        return self.decode_sized(data)[0]

    def decode_sized(self, data: bytes, side_px: int = 0) -> tuple[Pixels, SizePx]:
        """Decode as :func:`imgsortd.pictures.pixels.decode_sized`; errors as :meth:`decode`."""
        with self._in_use:
            with suppress(_DiedError):  # it may have been the system's doing, short of memory
                return self._ask(data, side_px)
            try:
                return self._ask(data, side_px)
            except _DiedError as error:
                raise PictureError(f"crashes the decoder ({error})") from error

    def start(self) -> str:
        """Start the process now, or NoDecoderError; say, with commas, how it is confined."""
        with self._in_use:
            self._worker = self._worker or _Worker(self._limits)
            return self._worker.measures

    def _ask(self, data: bytes, side_px: int) -> tuple[Pixels, SizePx]:
        if self._closed:
            raise NoDecoderError("the decoder was closed")
        self._worker = self._worker or _Worker(self._limits)
        if self._closed:  # meanwhile
            self._drop()
            raise NoDecoderError("the decoder was closed")
        try:
            answer, payload = self._worker.ask(data, side_px)
        except TimeoutError as error:
            self._drop()
            text = f"takes over {self._limits.max_s:g} s to decode (pictures.max_decode_s)"
            raise PictureError(text) from error
        except OSError as error:
            if self._closed:
                raise NoDecoderError("the decoder was closed") from error
            ended = self._worker.how_it_ended()
            self._drop()
            raise _DiedError(ended) from error
        if answer is Answer.PIXELS:
            pixels = np.frombuffer(payload, dtype=np.uint8, offset=SIZES.size)
            height, width, *size_px = SIZES.unpack_from(payload)
            return pixels.reshape(height, width, 3), (size_px[0], size_px[1])
        if answer in (Answer.REFUSED, Answer.INCOMPLETE):
            error_type = PictureError if answer is Answer.REFUSED else IncompleteError
            raise error_type(payload.decode("utf-8", "backslashreplace"))
        self._drop()
        memory_mb = f"{self._limits.max_memory_mb:,} MB"
        raise PictureError(f"needs over {memory_mb} to decode (pictures.max_decode_memory_mb)")

    def rest(self) -> None:
        """End the process if it has nothing to do; the next picture starts another."""
        if self._in_use.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._in_use.release()

    def close(self) -> None:
        """End the process now; whoever waits for a picture gets NoDecoderError."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.process.kill()  # whoever reads from it sees its end
        with self._in_use:
            self._drop()

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


class _Worker:
    """The process and the socket to it."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:  # no descriptor is left
            raise NoDecoderError(f"cannot start a decoding process ({error.strerror})") from error
        arguments = (theirs.fileno(), os.getpid(), limits.max_memory_mb * 10**6)
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, *PROGRAM, *map(str, arguments)],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **_QUIET},
                    start_new_session=True,  # Ctrl-C is the parent's affair
                )
        except OSError as error:
            self._socket.close()
            raise NoDecoderError(f"cannot start a decoding process ({error.strerror})") from error
        try:
            answer, measures = self._reply(time.monotonic() + _START_S)
        except OSError as error:
            ended = self.how_it_ended()
            raise NoDecoderError(f"a decoding process did not start ({ended})") from error
        assert answer is Answer.READY
        self.measures = measures.decode("ascii", "replace")
        log.debug("decoder started pid=%d measures=%s", self.process.pid, self.measures)

    def ask(self, data: bytes, side_px: int) -> tuple[Answer, bytearray]:
        """Send a file; return the answer, its pixels as large as was asked for.

        TimeoutError: it took too long. Any other OSError: the process died.
        """
        until_s = time.monotonic() + self._limits.max_s
        self._socket.settimeout(self._limits.max_s)
        self._socket.sendall(REQUEST.pack(len(data), self._limits.max_megapixels, side_px))
        self._socket.sendall(data)
        most, least = (
            SIZES.size + 3 * side**2 for side in (side_px or SIDE, 1 if side_px else SIDE)
        )
        answer, payload = self._reply(until_s, range(least, most + 1))
        if answer is Answer.PIXELS and not _is_of_size(payload, side_px):
            raise ConnectionError(f"not an answer: {answer} of {len(payload)} bytes")
        return answer, payload

    def _reply(self, until_s: float, pixels_bytes: range = range(0)) -> tuple[Answer, bytearray]:
        kind, size_bytes = REPLY.unpack(self._receive(REPLY.size, until_s))
        try:
            answer = Answer(kind)
        except ValueError as error:
            raise ConnectionError(f"not an answer: {kind}") from error
        expected = size_bytes in pixels_bytes
        if not expected if answer is Answer.PIXELS else size_bytes > _MAX_REASON_BYTES:
            raise ConnectionError(f"not an answer: {answer} of {size_bytes} bytes")
        return answer, self._receive(size_bytes, until_s)

    def _receive(self, size_bytes: int, until_s: float) -> bytearray:
        buffer = bytearray(size_bytes)
        view = memoryview(buffer)
        while view:
            self._socket.settimeout(max(0.001, until_s - time.monotonic()))
            count = self._socket.recv_into(view)
            if count == 0:
                raise ConnectionError("closed")
            view = view[count:]
        return buffer

    def how_it_ended(self) -> str:
        """Say by which signal or with which exit code; it is ended if it has not."""
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None  # it closed its socket, or answers nonsense, and lives
        self.kill()
        if code is None:
            return "it no longer answers"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End it and forget it."""
        self.process.kill()
        self.process.wait()
        self._socket.close()


def _is_of_size(payload: bytearray, side_px: int) -> bool:
    """Tell whether pixels fill the size they come with, and it is one that was asked for.

    The size of the picture itself can only be checked for being one at all.
    """
    height, width, *size_px = SIZES.unpack_from(payload)
    exact = len(payload) == SIZES.size + 3 * height * width
    sides = range(1, side_px + 1) if side_px else (SIDE,)
    return exact and height in sides and width in sides and 0 not in size_px
