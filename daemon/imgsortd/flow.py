"""From the queue to computed batches: files read ahead, and the model never without work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice, takewhile

from imgsortd.adapters.attempts import MAX_ATTEMPTS, Attempts
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
        self._attempts = Attempts(library.config.state_dir / "reading.json")
        self._alone: _Read | None = None
        self.model = ModelThread(library.extractor, on_computed)
        self.busy = BusyShare(self.model)

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

        Parameters
        ----------
        next_due_s
            When the next file may settle; None where none is settling.
        """
        self._begin_reads(queue, now_s)
        soon = next_due_s is not None and next_due_s - now_s < self._rule.max_wait_s
        while self._reads and len(self._batches) < _AHEAD:
            size = self._next_size(now_s, soon)
            if size == 0:
                break
            reads = list(islice(self._reads, size))
            candidates = [read.candidate for read in reads]
            extraction = begin_batch(self._library, [read.result.result() for read in reads])
            for _ in reads:  # not before: the store may have been locked
                self._reads.popleft()
            self._attempts.end(candidates)
            computed = self.model.submit(extraction.pixels)
            self._batches.append(Batch(candidates, extraction, computed, now_s))
        self.busy.note(files_wait=self.images > 0)

    def _begin_reads(self, queue: deque[Candidate], now_s: float) -> None:
        if self._alone is not None and self._alone.result.done():
            self._attempts.end([self._alone.candidate])
            self._alone = None
        candidates = self._next_files(queue)
        if not candidates:
            return
        self._attempts.begin(candidates)
        for candidate in candidates:
            queue.popleft()
            deaths = self._attempts.deaths(candidate)
            refusal = f"ended imgsortd {deaths} times while it was read"
            future = self._reader.submit(candidate, refusal if deaths >= MAX_ATTEMPTS else "")
            self._reads.append(_Read(candidate, future, now_s))
        if self._attempts.deaths(candidates[0]):
            self._alone = self._reads[-1]

    def _next_files(self, queue: deque[Candidate]) -> list[Candidate]:
        """Return what may be read now: a file that the process died with is read alone."""
        if self._alone is not None and not self._alone.result.done():
            return []
        room = _AHEAD * self._rule.max_images - len(self._reads)
        ahead = list(islice(queue, max(0, room)))
        if ahead and self._attempts.deaths(ahead[0]):
            return ahead[:1] if all(read.result.done() for read in self._reads) else []
        return list(takewhile(lambda candidate: not self._attempts.deaths(candidate), ahead))

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

    def rest(self) -> None:
        """Give memory back while there is nothing to read."""
        self._reader.rest()

    def close(self) -> None:
        """Stop reading and computing; files on the way are left where they are."""
        self._reader.close()
        self._attempts.close()
        self.model.close()
