"""The straight line of a file: read, its features, its cluster, a journalled move, a closed row.

:meth:`Line.way` tells it whole; the daemon and ``imgsortd sort`` both drive it, and decide when.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import TypeAlias

import numpy as np

from imgsortd.clusters.in_force import InForce
from imgsortd.clusters.routing import choose
from imgsortd.inbox.companions import Companions
from imgsortd.moves.making import MOVES_AT_ONCE, Moves
from imgsortd.moves.planning import Planner
from imgsortd.networks.model_thread import Computed
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.pictures.hashing import look_of
from imgsortd.records import (
    BatchReport,
    Candidate,
    Choice,
    Move,
    NotRead,
    Picture,
    Pixels,
    ReadResult,
    Skipped,
    Unreadable,
    together,
)
from imgsortd.store.database import Store
from imgsortd.system.faults import fault_point

_WAITS = {
    NotRead.DENIED: "cannot be read: ",
    NotRead.BUSY: "somebody has it open for writing",
    NotRead.UNASKED: "waits: nobody can say whether somebody writes it",
    NotRead.CHANGED: "it changed while it was read",
    NotRead.INCOMPLETE: "unfinished, as it seems: ",
}


_Read = tuple[Candidate, bytes]


Way: TypeAlias = Generator[list[Pixels], Computed, BatchReport]
"""A batch on its way: yields once, what the model is to compute, and returns what became of it."""


class Line:
    """Takes batches of files from the reader's hands to their folders.

    Parameters
    ----------
    is_away
        Tells whether another folder stands under the inbox's path: what is not there is not gone.
    """

    def __init__(
        self,
        store: Store,
        extractor: FeatureExtractor,
        in_force: InForce,
        moves: Moves,
        companions: Companions,
        is_away: Callable[[], bool],
    ) -> None:
        self._store, self._extractor = store, extractor
        self._in_force, self._moves = in_force, moves
        self._companions, self._is_away = companions, is_away
        self._may_wait = True

    def way(self, results: Sequence[ReadResult], *, routes: bool = True) -> Way:
        """The whole way of files, in order, from what was read of them to their folders.

        It halts once, while the model's thread computes the pixels that it yields. A file that
        cannot be read does not hold up the others, also when none of the batch can; a picture
        that there is not memory enough for is set aside.

        Parameters
        ----------
        routes
            Whether pictures go to clusters, or wait as before the first fit.
        """
        new = self._without_features(results)
        done = yield list(new.values())
        started = time.perf_counter()
        hashes = done.computed(list(new))
        results = _without(results, new.keys() - hashes)
        looks = {each.sha256: look_of(each) for each in results if isinstance(each, Picture)}
        fault_point("read")
        with self._store.atomic():  # what is known of the files, and where they are to go
            self._store.fits.put_features(self._extractor.id, hashes, done.vectors)
            self._store.hashes.put(looks)
            planner = self._moves.planner(self._in_force.fit_id if routes else None)
            readable, planned, told = self._keep_read(planner, results)
            if routes and self._in_force.routing is not None:
                planned += self._route(planner, readable)
            else:
                told.append(BatchReport(waiting=len(readable)))
        fault_point("planned")
        made = self._moves.make(planned)  # and a second transaction closes their rows
        counts = BatchReport(
            batch=planner.batch,
            images=len(results),
            extracted=len(hashes),
            extract_s=done.extract_s,
            total_s=done.extract_s + time.perf_counter() - started,
        )
        return together((counts, *told, made))

    def _without_features(self, results: Sequence[ReadResult]) -> dict[bytes, Pixels]:
        """Return the pixels of pictures whose features are not stored yet, by their SHA-256."""
        fits, made_by = self._store.fits, self._extractor.id
        return {
            result.sha256: result.pixels
            for result in results
            if isinstance(result, Picture) and not fits.has_features(made_by, result.sha256)
        }

    def _keep_read(
        self, planner: Planner, results: Sequence[ReadResult]
    ) -> tuple[list[_Read], list[Move], list[BatchReport]]:
        """Keep what was read, and set aside what cannot be; return what can be routed first."""
        readable: list[_Read] = []
        moves: list[Move] = []
        told: list[BatchReport] = []
        for result in results:
            if isinstance(result, Skipped):
                told.append(self._skip(result))
                continue
            told.append(BatchReport(settled=(result.candidate,)))
            if isinstance(result, Unreadable) and self._leave_raw(result):
                continue
            self._store.files.set_read(result.candidate, result.sha256)
            if not isinstance(result, Unreadable):
                readable.append((result.candidate, result.sha256))
            elif (move := planner.set_aside(result)) is not None:
                moves.append(move)
        return readable, moves, told

    def _skip(self, skipped: Skipped) -> BatchReport:
        """Note why a file was not read this time."""
        file_id, files = skipped.candidate.file_id, self._store.files
        if skipped.why is NotRead.GONE:
            if not self._is_away():
                files.gone(file_id)
            return BatchReport(gone=1, left=(skipped.candidate.name,))
        files.waits(file_id, _WAITS[skipped.why] + skipped.detail)
        return not_read(skipped)

    def _leave_raw(self, unreadable: Unreadable) -> bool:
        """Leave a raw file that cannot be decoded in the inbox, for a picture of its name."""
        candidate = unreadable.candidate
        if not self._companions.rule.is_companion(candidate.name):
            return False
        self._store.companions.forget_unread(candidate.file_id)
        self._companions.leave(candidate.name, candidate.stamp, lambda _: False, unreadable.reason)
        return True

    def _route(self, planner: Planner, files: Sequence[_Read]) -> list[Move]:
        """Plan the moves of files to their nearest clusters, or to review."""
        model = self._in_force.routing
        if model is None or not files:
            return []
        hashes = [sha256 for _, sha256 in files]
        stored = self._store.fits.get_features(self._extractor.id, hashes)
        features = np.stack([stored[sha256] for sha256 in hashes])
        choices = choose(features, model, self._in_force.rule)
        moves = (
            planner.route(candidate, sha256, choice)
            for (candidate, sha256), choice in zip(files, choices, strict=True)
        )
        return [move for move in moves if move is not None]

    @property
    def has_more(self) -> bool:
        """Whether files may wait that the fit in force was not asked about."""
        return self._may_wait and self._in_force.model is not None

    def expect_more(self) -> None:
        """Learn that another fit may be in force, or that moves can be made again."""
        self._may_wait = True

    def route_more(self) -> BatchReport:
        """Route the next files that wait, then those in review; ``images`` is 0 at the end."""
        report = self.route_waiting()
        report = report if report.images else self.route_review()
        self._may_wait = report.images > 0 and not report.errors
        return report

    def route_waiting(self) -> BatchReport:
        """Route the next files whose features are stored already; ``images`` is 0 at the end."""
        started = time.perf_counter()
        waiting = self._store.files.waiting(MOVES_AT_ONCE)
        with self._store.atomic():
            planner = self._moves.planner(self._in_force.fit_id)
            planned = self._route(planner, waiting)
        made = self._make(planned)
        total_s = time.perf_counter() - started
        return BatchReport(batch=planner.batch, images=len(waiting), total_s=total_s) + made

    def route_review(self) -> BatchReport:
        """Ask the fit in force about the next files in review; ``images`` is 0 at the end.

        Those that are near to one of its clusters go there. Symlinks are never moved again.
        They go in the batch in which others have followed the fit, if any: one undo takes back
        both.
        """
        model, routing = self._in_force.model, self._in_force.routing
        if model is None or routing is None or not self._moves.can_move_again:
            return BatchReport()
        planned: list[Move] = []
        with self._store.atomic():
            asked = self._store.files.unasked(model.fit_id, MOVES_AT_ONCE)
            hashes = [sha256 for _, sha256 in asked]
            stored = self._store.fits.get_features(model.extractor, hashes)
            followed = self._store.records.batches_of(model.fit_id)
            planner = self._moves.planner(model.fit_id, followed[-1] if followed else None)
            for file_id, sha256 in asked:
                choice, move = Choice(None, None, "its features are not known"), None
                if sha256 in stored:
                    [choice] = choose(stored[sha256][None], routing, self._in_force.rule)
                if choice.cluster_id is not None:
                    move = planner.follow(file_id, None, choice.cluster_id)
                if move is None:
                    self._store.files.stays_in_review(file_id, model.fit_id, choice)
                else:
                    planned.append(move)
        return BatchReport(batch=planner.batch, images=len(asked)) + self._make(planned)

    def _make(self, planned: Sequence[Move]) -> BatchReport:
        if planned:
            fault_point("planned")
        return self._moves.make(planned)


def end(way: Way, done: Computed) -> BatchReport:
    """Take files the rest of their way, once their features are computed."""
    try:
        way.send(done)
    except StopIteration as ended:
        report: BatchReport = ended.value
        return report
    raise AssertionError("a way halts once")


def not_read(skipped: Skipped) -> BatchReport:
    """Tell of a file that could not be read this time and is looked at again."""
    name = skipped.candidate.name
    if skipped.why is NotRead.DENIED:
        error = f"cannot read {os.fsdecode(name)!r}: {skipped.detail}"
        return BatchReport(denied=(name,), errors=(error,))
    if skipped.why is NotRead.UNASKED:
        return BatchReport(unasked=(name,))
    if skipped.why is NotRead.INCOMPLETE:
        return BatchReport(incomplete=(skipped.candidate,))
    return BatchReport(look_again=(name,))


def _without(results: Sequence[ReadResult], lost: Collection[bytes]) -> list[ReadResult]:
    """Return what was read, with pictures that the model could not do as none."""
    return [
        Unreadable(each.candidate, each.sha256, "the model runs out of memory on it")
        if isinstance(each, Picture) and each.sha256 in lost
        else each
        for each in results
    ]
