"""From the queue to computed batches: files read ahead, and the model never without work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice, takewhile

from imgsortd.config.model import Config
from imgsortd.networks.model_thread import BusyShare, Computed, ModelThread
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.line import Way, end
from imgsortd.pipeline.suspects import MAX_DEATHS, Suspects
from imgsortd.records import BatchReport, Candidate, ReadResult

_AHEAD = 2  # batches read ahead of the model, and handed to it ahead of its need
_FEW = 4  # one picture alone takes the model nearly as long as these


@dataclass(frozen=True, slots=True)
class _Read:
    candidate: Candidate
    result: Future[ReadResult]
    since_s: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that the model has, or has done."""

    candidates: list[Candidate]
    way: Way
    computed: Future[Computed]
    since_s: float

    def end(self) -> BatchReport:
        """Take its files the rest of their way; what the model raised comes out."""
        return end(self.way, self.computed.result())


class Flow:
    """Keeps the decode pool ahead of the model, and the model ahead of the moves.

    Parameters
    ----------
    way_of
        Begins the way of files that were read (:meth:`~imgsortd.pipeline.line.Line.way`).
    on_computed
        Called in the model's thread when a batch is done, to wake whoever waits for it.
    """

    def __init__(
        self,
        way_of: Callable[[Sequence[ReadResult]], Way],
        reader: PictureReader,
        extractor: FeatureExtractor,
        config: Config,
        on_computed: Callable[[], None] = lambda: None,
    ) -> None:
        self._way_of, self._reader = way_of, reader
        wanted, self._max_wait_s = config.batch.max_images, config.batch.max_wait_s
        self._max_images = extractor.batch_images if wanted == "auto" else wanted
        self._reads: deque[_Read] = deque()
        self._batches: deque[Batch] = deque()
        self._suspects = Suspects(config.state_dir / "reading.json")
        self._alone: _Read | None = None
        self.model = ModelThread(extractor, on_computed)  # others may hand it pictures, too
        self.busy = BusyShare(self.model)  # of the time with files

    @property
    def images(self) -> int:
        """Files that are being read or computed."""
        return len(self._reads) + sum(len(batch.candidates) for batch in self._batches)

    def would_take(self, queue: deque[Candidate]) -> bool:
        """Tell whether :meth:`fill` would take more files from the queue."""
        return bool(self._next_files(queue))

    @property
    def is_decoding(self) -> bool:
        """Whether the model is idle until a file is decoded."""
        return bool(self._reads) and not self._batches

    def fill(self, queue: deque[Candidate], now_s: float, next_due_s: float | None) -> None:
        """Begin to read files, and hand the model what is due.

        The next file may settle at ``next_due_s``, None where none is settling.
        """
        self._begin_reads(queue, now_s)
        soon = next_due_s is not None and next_due_s - now_s < self._max_wait_s
        while self._reads and len(self._batches) < _AHEAD:
            size = self._next_size(now_s, soon)
            if size == 0:
                break
            reads = list(islice(self._reads, size))
            candidates = [read.candidate for read in reads]
            way = self._way_of([read.result.result() for read in reads])
            pixels = next(way)
            for _ in reads:  # not before: the store may have been locked
                self._reads.popleft()
            self._suspects.end(candidates)
            self._batches.append(Batch(candidates, way, self.model.submit(pixels), now_s))
        self.busy.note(files_wait=self.images > 0)

    def _begin_reads(self, queue: deque[Candidate], now_s: float) -> None:
        if self._alone is not None and self._alone.result.done():
            self._suspects.end([self._alone.candidate])
            self._alone = None
        candidates = self._next_files(queue)
        if not candidates:
            return
        self._suspects.begin(candidates)
        for candidate in candidates:
            queue.popleft()
            deaths = self._suspects.deaths(candidate)
            refusal = f"ended imgsortd {deaths} times while it was read"
            future = self._reader.submit(candidate, refusal if deaths >= MAX_DEATHS else "")
            self._reads.append(_Read(candidate, future, now_s))
        if self._suspects.deaths(candidates[0]):
            self._alone = self._reads[-1]

    def _next_files(self, queue: deque[Candidate]) -> list[Candidate]:
        """Return what may be read now: a file that the process died with is read alone."""
        if self._alone is not None and not self._alone.result.done():
            return []
        room = _AHEAD * self._max_images - len(self._reads)
        ahead = list(islice(queue, max(0, room)))
        if ahead and self._suspects.deaths(ahead[0]):
            return ahead[:1] if all(read.result.done() for read in self._reads) else []
        return list(takewhile(lambda candidate: not self._suspects.deaths(candidate), ahead))

    def _next_size(self, now_s: float, soon: bool) -> int:
        """Return how many files to hand on: an idle model waits for a few, not for a full batch."""
        waited_s, at_most = now_s - self._reads[0].since_s, self._max_images
        size = batch_size(len(self._reads), waited_s, soon, at_most, self._max_wait_s)
        decoded = sum(1 for _ in takewhile(lambda read: read.result.done(), self._reads))
        needed = at_most if self._batches else min(_FEW, size)
        return min(size, decoded) if decoded >= needed else 0

    def take_done(self) -> Batch | None:
        """Take the oldest batch if it is computed."""
        if self._batches and self._batches[0].computed.done():
            return self._batches.popleft()
        return None

    def wait(self) -> None:
        """Wait until :meth:`take_done` or :meth:`fill` has something to do."""
        if self._batches:
            wait([self._batches[0].computed])
        elif self._reads:
            wait([read.result for read in islice(self._reads, _FEW)])

    def close(self) -> None:
        """Stop reading and computing; files on the way are left where they are."""
        self._reader.close()
        self._suspects.close()
        self.model.close()


def batch_size(
    waiting: int, oldest_wait_s: float, more_coming: bool, max_images: int, max_wait_s: float
) -> int:
    """Tell how many of the waiting files to take now; 0 means wait for others that can join."""
    if waiting < max_images and more_coming and oldest_wait_s < max_wait_s:
        return 0
    return min(waiting, max_images)
