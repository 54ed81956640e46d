"""After a change of backbone: the library's features anew, beside everything else.

Clusters keep their numbers: when every picture that can still be read has features of
the new backbone, one fit is made of them, and its clusters take the ids of the folders
whose pictures they share.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass

from imgsortd.adapters.store_backbones import Kept
from imgsortd.core.perceptual import look_of
from imgsortd.core.records import Picture, ReadResult
from imgsortd.errors import NoMemoryError
from imgsortd.library import Library
from imgsortd.model_thread import Computed, ModelThread
from imgsortd.placed_pictures import PlacedPictures, same_picture

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Chunk:
    """Some pictures on their way: first they are read, then computed."""

    after_id: int
    reads: list[tuple[Kept, Future[ReadResult]]]
    pictures: list[Picture]
    computed: Future[Computed] | None = None


class Reextraction:
    """Extracts in small chunks, one at a time, whenever :meth:`step` is called.

    Attributes
    ----------
    total, done
        Pictures that lacked features of the new backbone at the start, and those gone
        through since.
    """

    def __init__(self, library: Library, model: ModelThread) -> None:
        self._library = library
        self._model = model
        self._after_id = 0
        self._chunk: _Chunk | None = None
        self._reader: PlacedPictures | None = None
        self.done, self.total, self._unreadable = 0, 0, 0
        self.is_over = library.former is None
        if not self.is_over:
            self.total = library.store.backbones.count_outdated(library.extractor.id)
            self._reader = PlacedPictures(library.config)
            log.info(
                "re-extraction started pictures=%d from=%s to=%s",
                self.total,
                library.former.extractor.backbone if library.former else "",
                library.extractor.id.backbone,
            )

    @property
    def note(self) -> str:
        """Say how far it is; empty when there is nothing to do."""
        if self.is_over:
            return ""
        name = self._library.extractor.id.backbone.product_name
        return f"extracting features anew for {name}: {self.done:,} of {self.total:,}"

    @property
    def is_computing(self) -> bool:
        """Whether the model has pictures of it in hand."""
        return self._chunk is not None and self._chunk.computed is not None

    def step(self, *, may_begin: bool) -> bool:
        """Go on where a chunk has come a stage further; return whether it has.

        Parameters
        ----------
        may_begin
            Whether a new chunk may be begun: files in the inbox come first.
        """
        if self.is_over:
            return False
        if self._chunk is None:
            return may_begin and self._begin()
        if self._chunk.computed is None:
            return self._compute(self._chunk)
        return self._store(self._chunk, self._chunk.computed)

    def close(self) -> None:
        """End the threads; what is stored stays, and a later start goes on from there."""
        if self._reader is not None:
            self._reader.close()

    def _begin(self) -> bool:
        library = self._library
        assert self._reader is not None
        rows = library.store.backbones.outdated(
            library.extractor.id, self._after_id, library.extractor.batch_images
        )
        if not rows:
            self.is_over = True
            self.close()
            log.info("re-extraction done pictures=%d unreadable=%d", self.done, self._unreadable)
            return True
        before_id, self._after_id = self._after_id, rows[-1].file_id
        begun = [(kept, self._reader.submit(kept)) for kept in rows]
        reads = [(kept, read) for kept, read in begun if read is not None]
        self._count(len(rows) - len(reads), 0)
        self._chunk = _Chunk(before_id, reads, [])
        return True

    def _compute(self, chunk: _Chunk) -> bool:
        if not all(read.done() for _, read in chunk.reads):
            return False
        read = [same_picture(kept, read.result()) for kept, read in chunk.reads]
        chunk.pictures = [picture for picture in read if picture is not None]
        self._count(len(read) - len(chunk.pictures), 0)
        chunk.computed = self._model.submit([picture.pixels for picture in chunk.pictures])
        return True

    def _store(self, chunk: _Chunk, computed: Future[Computed]) -> bool:
        if not computed.done():
            return False
        library = self._library
        try:
            done = computed.result()
        except (NoMemoryError, OSError):
            self._chunk, self._after_id = None, chunk.after_id  # again, when sorting goes on
            raise
        hashes = done.computed([picture.sha256 for picture in chunk.pictures])
        looks = {picture.sha256: look_of(picture) for picture in chunk.pictures}
        with library.store.atomic():
            library.store.fits.put_features(library.extractor.id, hashes, done.vectors)
            library.store.hashes.put(looks)
        self._count(len(done.failed), len(hashes))
        self._chunk = None
        return True

    def _count(self, unreadable: int, extracted: int) -> None:
        self._unreadable += unreadable
        self.done += unreadable + extracted
