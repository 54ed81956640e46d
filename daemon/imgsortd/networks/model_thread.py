"""The thread that computes features, so that files are stored and moved meanwhile."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeVar

import numpy as np

from imgsortd.errors import NoMemoryError
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.records import Pixels, Vectors
from imgsortd.system.resources import give_back, is_out_of_memory

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# A first piece loads or compiles the model, on a machine that may swap; later ones are measured.
_PIECE_S = 600.0
_TIMES_SLOWEST = 20.0


@dataclass(frozen=True, slots=True)
class Computed:
    """Features, float32 [n, d], and the seconds they took.

    There is a row for each picture that was handed in, but for those at the positions
    ``failed``: for them there was not memory enough, also alone.
    """

    vectors: Vectors
    extract_s: float
    failed: frozenset[int] = frozenset()

    def computed(self, items: Sequence[Item]) -> list[Item]:
        """Return those of the items, one a picture handed in, that have a row."""
        return [item for at, item in enumerate(items) if at not in self.failed]


class ModelThread:
    """Runs one extraction after another in the order they were handed in.

    The extractor is used by this thread alone from now on, and ``on_done`` called in it after
    each extraction. By ``clock``, monotonic seconds, a piece is found to take too long.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        on_done: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._extractor = extractor
        self._on_done = on_done
        self._now_s = clock
        self._piece: tuple[float, float] | None = None  # since when, and for how long at most
        self._slowest_s = 0.0  # for one picture
        self._jobs: SimpleQueue[tuple[Sequence[Pixels], Future[Computed]] | None] = SimpleQueue()
        self._stopping = Event()
        # Together: read between the two, a batch would be counted twice, or not at all.
        self._clock = Lock()
        self._at_most = sys.maxsize  # pictures in a piece: less once memory ran out
        self._lacked_memory = False
        self._busy_s = 0.0
        self._since_s: float | None = None
        self._thread: Thread | None = None

    def submit(self, pixels: Sequence[Pixels]) -> Future[Computed]:
        """Hand pictures in; their features come out, or what the model raised.

        CancelledError comes out of what a close gave up.
        """
        future: Future[Computed] = Future()
        if not pixels:
            nothing = np.empty((0, self._extractor.id.dims), dtype=np.float32)
            future.set_result(Computed(nothing, 0.0))
            return future
        if self._stopping.is_set():
            future.set_exception(CancelledError())
            return future
        if self._thread is None:
            self._thread = Thread(target=self._run, name="model", daemon=True)
            self._thread.start()
        self._jobs.put((pixels, future))
        return future

    @property
    def busy_s(self) -> float:
        """Seconds spent computing, up to now."""
        with self._clock:
            since_s = self._since_s
            return self._busy_s + (0.0 if since_s is None else time.perf_counter() - since_s)

    @property
    def is_stuck(self) -> bool:
        """Whether the pictures in hand take longer than slowness can explain.

        Ten minutes are allowed, and twenty times what the slowest took so far.
        """
        piece = self._piece
        return piece is not None and self._now_s() - piece[0] > piece[1]

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty while nothing is."""
        piece = self._piece
        if piece is None or not self.is_stuck:
            return ""
        return f"the model has not answered for over {piece[1]:.0f} s; restart the daemon"

    def close(self) -> None:
        """Stop after the few pictures in hand; what was handed in is given up."""
        self._stopping.set()
        self._jobs.put(None)
        if self._thread is not None and not self.is_stuck:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            pixels, future = job
            with self._clock:
                self._since_s = started_s = time.perf_counter()
            try:
                vectors, failed = self._extract(pixels)
            except BaseException as error:  # raised again where the result is taken
                future.set_exception(error)
            else:
                future.set_result(Computed(vectors, time.perf_counter() - started_s, failed))
            with self._clock:
                self._busy_s += time.perf_counter() - started_s
                self._since_s = None
            self._on_done()

    def _extract(self, pixels: Sequence[Pixels]) -> tuple[Vectors, frozenset[int]]:
        """Compute in pieces, so that a stop waits for a piece and not for a great batch.

        Where memory runs out, pieces are halved, down to one picture, and stay so.
        """
        parts: list[Vectors] = [np.empty((0, self._extractor.id.dims), dtype=np.float32)]
        failed: list[int] = []
        at = 0
        while at < len(pixels):
            if self._stopping.is_set():
                raise CancelledError
            piece = pixels[at : at + min(self._at_most, self._extractor.batch_images)]
            try:
                parts.append(self._extract_piece(piece))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self._go_on_smaller(len(piece), error):
                    continue
                failed.append(at)
            else:
                self._lacked_memory = False
            at += len(piece)
        return np.concatenate(parts), frozenset(failed)

    def _extract_piece(self, piece: Sequence[Pixels]) -> Vectors:
        since_s = self._now_s()
        self._piece = since_s, _PIECE_S + _TIMES_SLOWEST * self._slowest_s * len(piece)
        try:
            return self._extractor.extract(piece)
        finally:
            self._piece = None
            self._slowest_s = max(self._slowest_s, (self._now_s() - since_s) / len(piece))

    def _go_on_smaller(self, images: int, error: Exception) -> bool:
        """Halve the pieces; return whether a piece was one picture, to be left out.

        Two in a row are an error: they all need the same, so no picture is at fault.
        """
        give_back()
        if images > 1:
            self._at_most = images // 2
            log.warning("model out of memory images=%d next=%d", images, self._at_most)
            return False
        if self._lacked_memory:
            raise NoMemoryError(
                "the model runs out of memory on every single picture; end other programs or "
                "take model.backbone: efficientnet_lite0, which needs a third of the memory"
            ) from error
        self._lacked_memory = True
        return True


class BusyShare:
    """How much of the time in which files wait does the model compute?

    ``last`` is its share (0 to 1) of the burst under way, or of the last one; None before
    the first.
    """

    def __init__(self, model: ModelThread) -> None:
        self._model = model
        self._since: tuple[float, float] | None = None
        self.last: float | None = None

    def note(self, *, files_wait: bool) -> None:
        """Learn, at least whenever it changes, whether there are files to compute for."""
        now_s = time.perf_counter()
        if self._since is not None:
            started_s, busy_s = self._since
            if (span_s := now_s - started_s) > 0:
                self.last = min(1.0, (self._model.busy_s - busy_s) / span_s)
        if not files_wait:
            self._since = None
        elif self._since is None:
            self._since = (now_s, self._model.busy_s)
