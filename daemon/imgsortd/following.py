"""Companions on their way: those whose picture has found its place are hashed and follow it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait

from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.reading import PictureReader
from imgsortd.batch_report import BatchReport
from imgsortd.bringing import Followers
from imgsortd.companions import IsSettling
from imgsortd.core.records import Candidate, Hashed, Move, NotRead, Skipped, Stamp
from imgsortd.library import Library
from imgsortd.pipeline import make_moves

log = logging.getLogger(__name__)

_AT_ONCE = 64


class Following:
    """Brings companions after their pictures, some at a time, whenever :meth:`step` is called.

    A raw file may be 50 MB and a film gigabytes: they are hashed in the reader's threads.

    Parameters
    ----------
    is_settling
        Tells whether a name in the inbox has not settled yet: a companion does not follow
        an older picture while a new one of that name is coming.
    on_hashed
        Called in a reader's thread when one is hashed, to wake whoever waits for it.
    """

    def __init__(
        self,
        library: Library,
        reader: PictureReader,
        is_settling: IsSettling,
        on_hashed: Callable[[], None] = lambda: None,
    ) -> None:
        self._library = library
        self._reader = reader
        self._is_settling = is_settling
        self._on_hashed = on_hashed
        self._hashing: dict[bytes, Future[Hashed | Skipped]] = {}
        self._unasked: dict[bytes, Stamp] = {}  # it was quiet for longer when it comes again

    @property
    def is_idle(self) -> bool:
        """Whether no companion is on its way."""
        return not (self._hashing or self._library.companions.has_ready)

    def placed(self, pictures: Iterable[bytes]) -> None:
        """Learn which pictures have found their place."""
        for name in pictures:
            self._library.companions.placed(name)

    def step(self) -> BatchReport:
        """Begin to hash what may follow, and move what is hashed; ``images`` says how many."""
        self._begin()
        done = [future.result() for future in self._hashing.values() if future.done()]
        if not done:
            return BatchReport()
        report = self._follow(done[:_AT_ONCE])
        for result in done[:_AT_ONCE]:  # not before: the store may have been locked
            del self._hashing[result.candidate.name]
        if done[_AT_ONCE:] or self._library.companions.has_ready:
            self._on_hashed()
        return report

    def run(self) -> Iterator[BatchReport]:
        """Do all that can be done, and yield a report of each portion."""
        while not self.is_idle:
            self._begin()
            wait(self._hashing.values())
            report = self.step()
            yield report
            if not (report.images or self._hashing):
                return  # what is left waits for a move that cannot be made now

    def _begin(self) -> None:
        companions, journal = self._library.companions, self._library.store.journal
        if not companions.has_ready or len(self._hashing) >= _AT_ONCE:
            return
        for name, stamp in companions.take_ready():
            if name in self._hashing:
                continue
            picture = companions.picture_of(name, self._is_settling)
            if picture is None:
                continue
            if len(self._hashing) >= _AT_ONCE or journal.is_moving(picture.file_id):
                companions.settled(name, stamp)  # later
                continue
            is_patient = self._unasked.pop(name, None) == stamp
            future = self._reader.submit_hash(Candidate(0, name, stamp, is_patient))
            self._hashing[name] = future
            future.add_done_callback(lambda _: self._on_hashed())

    def _follow(self, results: Iterable[Hashed | Skipped]) -> BatchReport:
        library, report = self._library, BatchReport()
        moves: list[Move] = []
        with library.store.atomic():
            followers, moving = Followers(library), library.store.journal.moving_in_inbox()
            for result in results:
                report.images += 1
                if isinstance(result, Skipped):
                    if result.why is NotRead.UNASKED:
                        self._unasked[result.candidate.name] = result.candidate.stamp
                    _note_skipped(result, report)
                    continue
                name = result.candidate.name
                picture = library.companions.picture_of(name, self._is_settling)
                if picture is None or name in moving:
                    continue  # taken back meanwhile; or planned before, and left to the journal
                report.settled.append(result.candidate)
                move = followers.plan(name, result.candidate.stamp, result.sha256, picture)
                if move is not None:
                    moves.append(move)
        fault_point("planned")
        make_moves(library, moves, report)
        if report.companions:
            log.info("companions followed files=%d", report.companions)
        return report


def _note_skipped(skipped: Skipped, report: BatchReport) -> None:
    name = skipped.candidate.name
    if skipped.why is NotRead.GONE:
        report.left.append(name)
    elif skipped.why is NotRead.DENIED:
        report.denied.append(name)
        report.errors.append(f"cannot read {os.fsdecode(name)!r}: {skipped.detail}")
    elif skipped.why is NotRead.UNASKED:
        report.unasked.append(name)
    else:
        report.look_again.append(name)


def bring_all(library: Library) -> Iterator[BatchReport]:
    """Bring every companion that is known to stand in the inbox after its picture."""
    reader = PictureReader(library.config.inbox, decode_limits(library.config.pictures))
    try:
        yield from Following(library, reader, lambda _: False).run()
    finally:
        reader.close()
