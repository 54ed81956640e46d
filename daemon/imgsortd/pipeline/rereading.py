"""After a change of backbone: the library's features anew, beside everything else.

Clusters keep their numbers: when every picture that can still be read has features of
the new backbone, one fit is made of them, and its clusters take the ids of the folders
whose pictures they share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from imgsortd.config.model import Config
from imgsortd.errors import NoMemoryError
from imgsortd.networks.model_thread import Computed, ModelThread
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.hashing import look_of
from imgsortd.pictures.reading import PictureReader
from imgsortd.records import Candidate, Model, Op, Picture, ReadResult
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileRow
from imgsortd.system import filesystem

log = logging.getLogger(__name__)


_Reads = list[tuple[FileRow, Future[ReadResult]]]


@dataclass(slots=True)
class _Chunk:
    """Some pictures on their way: first they are read, then computed."""

    after_id: int
    n_rows: int
    reads: _Reads
    pictures: list[Picture] = field(default_factory=list)
    computed: Future[Computed] | None = None


class Rereading:
    """Extracts in small chunks, one at a time, whenever :meth:`step` is called.

    ``total`` pictures lacked features of the new backbone at the start; ``done`` are through.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        extractor: FeatureExtractor,
        former: Model | None,
        model: ModelThread,
    ) -> None:
        self._store, self._extractor, self._model = store, extractor, model
        self._after_id = 0
        self._chunk: _Chunk | None = None
        self._reader: SortedPictures | None = None
        self.done, self.total, self._unreadable = 0, 0, 0
        self.is_over = former is None
        if former is not None:
            self.total = store.files.count_outdated(extractor.id)
            self._reader = SortedPictures(config)
            old, new = former.extractor.backbone, extractor.id.backbone
            log.info("re-extraction started pictures=%d from=%s to=%s", self.total, old, new)

    @property
    def note(self) -> str:
        """Say how far it is; empty when there is nothing to do."""
        if self.is_over:
            return ""
        name = self._extractor.id.backbone.product_name
        return f"extracting features anew for {name}: {self.done:,} of {self.total:,}"

    @property
    def is_computing(self) -> bool:
        """Whether the model has pictures of it in hand."""
        return self._chunk is not None and self._chunk.computed is not None

    def step(self, *, may_begin: bool) -> bool:
        """Go on where a chunk has come a stage further; return whether it has.

        A new one is begun where it ``may_begin``: files in the inbox come first.
        """
        if self.is_over:
            return False
        if self._chunk is None:
            return may_begin and self._begin()
        if self._chunk.computed is None:
            return self._compute(self._chunk)
        return self._keep(self._chunk, self._chunk.computed)

    def close(self) -> None:
        """End the threads; what is stored stays, and a later start goes on from there."""
        if self._reader is not None:
            self._reader.close()

    def _begin(self) -> bool:
        assert self._reader is not None
        made_by, at_once = self._extractor.id, self._extractor.batch_images
        rows = self._store.files.outdated(made_by, self._after_id, at_once)
        if not rows:
            self.is_over = True
            self.close()
            log.info("re-extraction done pictures=%d unreadable=%d", self.done, self._unreadable)
            return True
        before_id, self._after_id = self._after_id, rows[-1].file_id
        self._chunk = _Chunk(before_id, len(rows), self._reader.begin(rows))
        return True

    def _compute(self, chunk: _Chunk) -> bool:
        if not all(read.done() for _, read in chunk.reads):
            return False
        chunk.pictures = _pictures_of(chunk.reads)
        chunk.computed = self._model.submit([picture.pixels for picture in chunk.pictures])
        return True

    def _keep(self, chunk: _Chunk, computed: Future[Computed]) -> bool:
        if not computed.done():
            return False
        try:
            done = computed.result()
        except (NoMemoryError, OSError):
            self._chunk, self._after_id = None, chunk.after_id  # again, when sorting goes on
            raise
        hashes = done.computed([picture.sha256 for picture in chunk.pictures])
        looks = {picture.sha256: look_of(picture) for picture in chunk.pictures}
        with self._store.atomic():
            self._store.fits.put_features(self._extractor.id, hashes, done.vectors)
            self._store.hashes.put(looks)
        self.done += chunk.n_rows
        self._unreadable += chunk.n_rows - len(hashes)
        self._chunk = None
        return True


class SortedPictures:
    """A pool of threads that reads sorted pictures; only the bytes that were sorted count."""

    def __init__(self, config: Config, threads: int | None = None) -> None:
        self._config = config
        limits = decode_limits(config.pictures)
        self._target = PictureReader(config.target, limits, threads)
        self._inbox = PictureReader(config.inbox, limits, 1)

    def begin(self, rows: Iterable[FileRow]) -> _Reads:
        """Begin to read those files that are there."""
        begun = [(kept, self._submit(kept)) for kept in rows]
        return [(kept, read) for kept, read in begun if read is not None]

    def read(self, rows: Iterable[FileRow]) -> list[Picture]:
        """Read files, and return those that are still the picture that was sorted."""
        return _pictures_of(self.begin(rows))

    def _submit(self, kept: FileRow) -> Future[ReadResult] | None:
        root, reader, name = self._config.target, self._target, kept.in_target
        is_copy = kept.op is Op.COPY  # which may have been edited since
        if name is None or (kept.is_in_inbox and not is_copy):  # a link's own place is no file
            root, reader, name = self._config.inbox, self._inbox, kept.src
        try:
            stamp = filesystem.stamp_of(os.lstat(os.path.join(os.fsencode(root), name)))
        except OSError:
            return None
        return reader.submit(Candidate(kept.file_id, name, stamp, is_patient=True))

    def close(self) -> None:
        """End the threads."""
        self._target.close()
        self._inbox.close()


def _pictures_of(reads: _Reads) -> list[Picture]:
    """Return, of files that were read, those that are still the picture that was sorted."""
    results = ((kept, read.result()) for kept, read in reads)
    return [r for kept, r in results if isinstance(r, Picture) and r.sha256 == kept.sha256]
