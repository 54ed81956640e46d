"""The thread that computes features, so that files are stored and moved meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Thread

import numpy as np

from imgsortd.core.records import Pixels, Vectors
from imgsortd.library import FeatureExtractor


@dataclass(frozen=True, slots=True)
class Computed:
    """Features, float32 [n, d], and the seconds they took."""

    vectors: Vectors
    extract_s: float


class ModelThread:
    """Runs one extraction after another in the order they were handed in.

    Parameters
    ----------
    extractor
        Used by this thread alone from now on.
    on_done
        Called, in this thread, after each extraction.
    """

    def __init__(
        self, extractor: FeatureExtractor, on_done: Callable[[], None] = lambda: None
    ) -> None:
        self._extractor = extractor
        self._on_done = on_done
        self._jobs: SimpleQueue[tuple[Sequence[Pixels], Future[Computed]] | None] = SimpleQueue()
        self._stopping = Event()
        # Together: read between the two, a batch would be counted twice, or not at all.
        self._clock = Lock()
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

    def close(self) -> None:
        """Stop after the few pictures in hand; what was handed in is given up."""
        self._stopping.set()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            pixels, future = job
            with self._clock:
                self._since_s = started_s = time.perf_counter()
            try:
                vectors = self._extract(pixels)
            except BaseException as error:  # raised again where the result is taken
                future.set_exception(error)
            else:
                future.set_result(Computed(vectors, time.perf_counter() - started_s))
            with self._clock:
                self._busy_s += time.perf_counter() - started_s
                self._since_s = None
            self._on_done()

    def _extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Compute in pieces, so that a stop waits for a piece and not for a great batch."""
        step = self._extractor.batch_images
        parts = []
        for start in range(0, len(pixels), step):
            if self._stopping.is_set():
                raise CancelledError
            parts.append(self._extractor.extract(pixels[start : start + step]))
        return np.concatenate(parts)


class BusyShare:
    """How much of the time in which files wait does the model compute?

    Attributes
    ----------
    last
        Share (0 to 1) of the burst under way, or of the last one; None before the first.
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
            span_s = now_s - started_s
            if span_s > 0:
                self.last = min(1.0, (self._model.busy_s - busy_s) / span_s)
        if not files_wait:
            self._since = None
        elif self._since is None:
            self._since = (now_s, self._model.busy_s)
