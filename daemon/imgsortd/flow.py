"""From the queue to computed batches: files read ahead, and the model never without work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice, takewhile

from imgsortd.adapters.reading import PictureReader
from imgsortd.core.batching import BatchRule, batch_size
from imgsortd.core.records import Candidate, ReadResult
from imgsortd.library import Library
from imgsortd.model_thread import BusyShare, Computed, ModelThread
from imgsortd.pipeline import Extraction, begin_batch

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
    extraction: Extraction
    computed: Future[Computed]
    since_s: float


class Flow:
    """Keeps the decode pool ahead of the model, and the model ahead of the moves.

    Parameters
    ----------
    on_computed
        Called in the model's thread when a batch is done, to wake whoever waits for it.

    Attributes
    ----------
    model
        The thread that computes; others may hand it pictures, too.
    busy
        The share of the time with files in which it did.
    """

    def __init__(
        self,
        library: Library,
        reader: PictureReader,
        on_computed: Callable[[], None] = lambda: None,
    ) -> None:
        self._library = library
        self._reader = reader
        self._rule = BatchRule(library.max_images, library.config.batch.max_wait_s)
        self._reads: deque[_Read] = deque()
        self._batches: deque[Batch] = deque()
        self.model = ModelThread(library.extractor, on_computed)
        self.busy = BusyShare(self.model)

    @property
    def images(self) -> int:
        """Files that are being read or computed."""
        return len(self._reads) + sum(len(batch.candidates) for batch in self._batches)

    @property
    def has_room(self) -> bool:
        """Whether :meth:`fill` would take more files from the queue."""
        return len(self._reads) < _AHEAD * self._rule.max_images

    @property
    def is_decoding(self) -> bool:
        """Whether the model is idle until a file is decoded."""
        return bool(self._reads) and not self._batches

    def fill(self, queue: deque[Candidate], now_s: float, next_due_s: float | None) -> None:
        """Begin to read files, and hand the model what is due.

        Parameters
        ----------
        next_due_s
            When the next file may settle; None where none is settling.
        """
        while queue and self.has_room:
            candidate = queue.popleft()
            self._reads.append(_Read(candidate, self._reader.submit(candidate), now_s))
        soon = next_due_s is not None and next_due_s - now_s < self._rule.max_wait_s
        while self._reads and len(self._batches) < _AHEAD:
            size = self._next_size(now_s, soon)
            if size == 0:
                break
            reads = list(islice(self._reads, size))
            extraction = begin_batch(self._library, [read.result.result() for read in reads])
            for _ in reads:  # not before: the store may have been locked
                self._reads.popleft()
            computed = self.model.submit(extraction.pixels)
            candidates = [read.candidate for read in reads]
            self._batches.append(Batch(candidates, extraction, computed, now_s))
        self.busy.note(files_wait=self.images > 0)

    def _next_size(self, now_s: float, soon: bool) -> int:
        """Return how many files to hand on: an idle model waits for a few, not for a full batch."""
        waited_s = now_s - self._reads[0].since_s
        size = batch_size(self._rule, len(self._reads), waited_s, soon)
        decoded = sum(1 for _ in takewhile(lambda read: read.result.done(), self._reads))
        needed = self._rule.max_images if self._batches else min(_FEW, size)
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
        self.model.close()
