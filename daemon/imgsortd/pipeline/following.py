"""Companions on their way: those whose picture has found its place are hashed and follow it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing

from imgsortd.config.model import Config
from imgsortd.inbox.companions import Companions, IsSettling
from imgsortd.moves.making import Moves
from imgsortd.moves.planning import Planner
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.line import not_read
from imgsortd.records import (
    BatchReport,
    Candidate,
    FileState,
    Hashed,
    Move,
    NotRead,
    Skipped,
    Stamp,
    together,
)
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileRow
from imgsortd.system.faults import fault_point

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
        store: Store,
        companions: Companions,
        moves: Moves,
        reader: PictureReader,
        is_settling: IsSettling,
        on_hashed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._companions, self._moves = store, companions, moves
        self._reader, self._is_settling, self._on_hashed = reader, is_settling, on_hashed
        self._hashing: dict[bytes, Future[Hashed | Skipped]] = {}
        self._held_up: dict[bytes, Stamp] = {}  # by a move of their pictures that is under way
        self._unasked: dict[bytes, Stamp] = {}  # it was quiet for longer when it comes again

    @property
    def is_idle(self) -> bool:
        """Whether no companion is on its way; some may wait for moves that cannot be made."""
        return not (self._hashing or self._companions.has_ready)

    def placed(self, pictures: Iterable[bytes]) -> None:
        """Learn which pictures have found their place."""
        for name in pictures:
            self._companions.placed(name)

    def step(self) -> BatchReport:
        """Begin to hash what may follow, and move what is hashed; ``images`` says how many."""
        self._begin()
        done = [future.result() for future in self._hashing.values() if future.done()]
        if not done:
            return BatchReport()
        report = self._follow(done[:_AT_ONCE])
        for result in done[:_AT_ONCE]:  # not before: the store may have been locked
            del self._hashing[result.candidate.name]
        if done[_AT_ONCE:] or self._companions.has_ready:
            self._on_hashed()
        return report

    def run(self) -> Iterator[BatchReport]:
        """Do all that can be done, and yield a report of each portion."""
        while not self.is_idle:
            self._begin()
            wait(self._hashing.values())
            report = self.step()
            yield report

    def _begin(self) -> None:
        companions, hashing = self._companions, self._hashing
        held_up, self._held_up = self._held_up, {}
        for name, stamp in held_up.items():
            companions.settled(name, stamp)
        if not companions.has_ready or len(hashing) >= _AT_ONCE:
            return
        for name, stamp in companions.take_ready():
            if name in hashing:
                continue
            picture = companions.picture_of(name, self._is_settling)
            if picture is None:
                continue
            if self._store.journal.is_moving(picture.file_id):
                self._held_up[name] = stamp
                continue
            if len(hashing) >= _AT_ONCE:
                companions.settled(name, stamp)  # later
                continue
            is_patient = self._unasked.pop(name, None) == stamp
            hashing[name] = self._reader.submit_hash(Candidate(0, name, stamp, is_patient))
            hashing[name].add_done_callback(lambda _: self._on_hashed())

    def _follow(self, results: Iterable[Hashed | Skipped]) -> BatchReport:
        told: list[BatchReport] = []
        planned: list[Move] = []
        with self._store.atomic():
            planner, moving = self._moves.planner(None), self._store.journal.moving_in_inbox()
            for result in results:
                name = result.candidate.name
                told.append(BatchReport(images=1))
                if isinstance(result, Skipped):
                    told.append(self._skip(result))
                    continue
                picture = self._companions.picture_of(name, self._is_settling)
                if picture is None or name in moving:
                    continue  # taken back meanwhile; or planned before, and left to the journal
                told.append(BatchReport(settled=(result.candidate,)))
                move = self._plan(planner, result, picture)
                planned += [] if move is None else [move]
        fault_point("planned")
        report = together((*told, self._moves.make(planned)))
        if report.companions:
            log.info("companions followed files=%d", report.companions)
        return report

    def _skip(self, skipped: Skipped) -> BatchReport:
        name = skipped.candidate.name
        if skipped.why is NotRead.GONE:
            return BatchReport(left=(name,))
        if skipped.why is NotRead.UNASKED:
            self._unasked[name] = skipped.candidate.stamp
        return not_read(skipped)

    def _plan(self, planner: Planner, hashed: Hashed, picture: FileRow) -> Move | None:
        """Plan one move; None where the file was only touched since it was taken along.

        The bytes of a companion may be those of any other file: many sidecars are alike.
        """
        name, stamp, sha256 = hashed.candidate.name, hashed.candidate.stamp, hashed.sha256
        files, rows = self._store.files, self._store.companions
        former = files.staying(name, sha256, 0)
        for file_id, dst, state in former:
            if dst is not None and state != FileState.UNDONE:  # a deleted copy is respected
                files.refresh(file_id, stamp)
                return None
        candidate = files.arrive([(name, stamp)])[0].candidate
        rows.take(candidate.file_id, picture.file_id, sha256)
        for file_id, _, _ in former:  # it came back by an undo
            files.end(file_id, "seen again")
        files.replaced(name, candidate.file_id)
        assert picture.dst is not None
        batch = rows.batch_of(picture.file_id)
        return planner.beside(candidate, sha256, (picture.src, picture.dst), batch=batch)


def bring_all(
    store: Store, companions: Companions, moves: Moves, config: Config
) -> Iterator[BatchReport]:
    """Bring every companion that is known to stand in the inbox after its picture."""
    with closing(PictureReader(config.inbox, decode_limits(config.pictures))) as reader:
        yield from Following(store, companions, moves, reader, lambda _: False).run()
