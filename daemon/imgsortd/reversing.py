"""Take batches back: each file to where it came from, by the journal that brought it.

An undo is a batch of moves like any other, so it survives a crash, never overwrites,
and can be undone itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from imgsortd.adapters import fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.mover import NAME_TAKEN, Mover
from imgsortd.adapters.placing import CHANGED
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_undo import UndoRecords
from imgsortd.asking import Progress
from imgsortd.config import Config
from imgsortd.core.records import (
    Candidate,
    Move,
    MovePhase,
    MoveResult,
    Op,
    Root,
    Route,
    Stamp,
)
from imgsortd.errors import ImgsortdError, UndoError
from imgsortd.intake import Intake
from imgsortd.undo_job import UndoChoice, UndoReport

_AT_ONCE = 64


class UndoRequests:
    """Takes the requests of ``imgsortd undo`` in the daemon's loop, between two batches.

    Parameters
    ----------
    intake
        Told of files that are back in the inbox, before an event speaks of them.
    """

    def __init__(self, config: Config, store: Store, mover: Mover, intake: Intake) -> None:
        self._undo = Undo(config, store, mover, self._learn)
        self._config, self._store, self._intake = config, store, intake

    def step(self) -> None:
        """Answer a request if one waits."""
        control = self._store.control
        verb = control.next_verb()
        if verb in (None, "refit"):
            return
        with self._store.atomic():
            request = control.take(str(verb))
        assert request is not None
        try:
            if verb != "undo":
                raise UndoError(f"unknown verb {verb!r}")
            state, result = "done", self._undo.run(UndoChoice(**request.params)).as_dict()
        except ImgsortdError as error:
            state, result = "failed", {"error": str(error)}
        with self._store.atomic():
            control.answer(request.request_id, state, result)

    def _learn(self, results: Sequence[MoveResult]) -> None:
        done = [r.move for r in results if r.phase is MovePhase.DONE]
        back = [
            Candidate(move.file_id, move.dst, stamp)
            for move in done
            if move.dst_root is Root.INBOX and (stamp := _look(self._config, move)) is not None
        ]
        left = [m.src for m in done if m.src_root is Root.INBOX and m.op is Op.MOVE]
        self._intake.done(back, left, (), (), time.monotonic())


def _look(config: Config, move: Move) -> Stamp | None:
    try:
        return fsops.stamp_of(os.lstat(os.path.join(os.fsencode(config.inbox), move.dst)))
    except OSError:
        return None


class Undo:
    """Plans and makes the moves that reverse others.

    Parameters
    ----------
    on_moved
        Told of the results of each portion.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        mover: Mover,
        on_moved: Callable[[Sequence[MoveResult]], None] = lambda _: None,
        progress: Progress = lambda _: None,
    ) -> None:
        self._config, self._store, self._mover = config, store, mover
        self._records = UndoRecords(store.connection)
        self._on_moved = on_moved
        self._progress = progress

    def preview(self, choice: UndoChoice) -> UndoReport:
        """Say what :meth:`run` would do, as far as can be seen now."""
        report = UndoReport(dry_run=True, batches=self._choose(choice))
        seen: set[int] = set()
        for batch in report.batches:
            for move in self._records.moves(batch):
                if move.file_id in seen:
                    continue  # it goes on from where an earlier step brings it
                seen.add(move.file_id)
                reverse = self._reverse(move, report.batches)
                if isinstance(reverse, str):
                    _leave(report, move, reverse)
                else:
                    _count(report, reverse)
        return report

    def run(self, choice: UndoChoice) -> UndoReport:
        """Undo the batches, newest first.

        Raises
        ------
        UndoError
            There is nothing to undo.
        """
        report = UndoReport(dry_run=False, batches=self._choose(choice))
        for batch in report.batches:
            moves = self._records.moves(batch)
            number = 0
            for start in range(0, len(moves), _AT_ONCE):
                self._progress(f"batch {batch}: {start:,} of {len(moves):,}")
                number = self._portion(moves[start : start + _AT_ONCE], number, report)
            report.made.extend([number] if number else [])
        return report

    def _choose(self, choice: UndoChoice) -> list[int]:
        if choice.batch is not None:
            if not self._records.moves(choice.batch):
                raise UndoError(f"batch {choice.batch} is not known; the log names each batch")
            return [choice.batch]
        if choice.since_s is not None:
            batches = self._records.batches_since(time.time() - choice.since_s)
        else:
            newest = self._records.newest_batch()
            batches = [] if newest is None else [newest]
        if not batches:
            raise UndoError("there is nothing to undo")
        return batches

    def _portion(self, moves: Sequence[Move], batch: int, report: UndoReport) -> int:
        """Reverse some moves; return the number of the batch they make."""
        with self._store.atomic():
            batch = batch or self._store.journal.next_batch()
            planned = []
            for move in moves:
                reverse = self._reverse(move, ())
                if isinstance(reverse, str):
                    _leave(report, move, reverse)
                else:
                    planned.append(self._plan(move, reverse, batch))
        fault_point("planned")
        if not planned:
            return 0
        results = self._mover.apply(planned)
        with self._store.atomic():
            self._store.journal.close(results)
        fault_point("closed")
        self._on_moved(results)
        for result in results:
            if result.phase is MovePhase.DONE:
                _count(report, result.move)
            else:
                _leave(report, result.move, result.error or _WHY[result.phase])
        return batch

    def _reverse(self, move: Move, undone_first: Sequence[int]) -> Move | str:
        """Return the move that takes one back, or why there is none.

        Parameters
        ----------
        undone_first
            Batches that will have been undone by then.
        """
        later = [n for n in self._records.later_batches(move) if n not in undone_first]
        if later:
            return f"moved again since: undo batch {later[0]} first"
        reverse = replace(
            move, src_root=move.dst_root, src=move.dst, dst_root=move.src_root, dst=move.src
        )
        into_inbox = reverse.dst_root is Root.INBOX
        if into_inbox and move.op is not Op.MOVE:
            if self._has_source(move):
                return reverse
            if move.op is Op.SYMLINK:
                return "its source in the inbox is gone or changed"
            reverse = replace(reverse, op=Op.MOVE)
        if into_inbox and os.path.lexists(self._path(Root.INBOX, reverse.dst)):
            return NAME_TAKEN
        if not os.path.lexists(self._path(reverse.src_root, reverse.src)):
            return "it is no longer there"
        return reverse

    def _has_source(self, move: Move) -> bool:
        with fsops.Folders(self._config.inbox) as inbox:
            return fsops.holds_bytes(inbox, move.src, move.stamp.size_bytes, move.sha256)

    def _path(self, root: Root, name: bytes) -> bytes:
        folder = self._config.inbox if root is Root.INBOX else self._config.target
        return os.path.join(os.fsencode(folder), name)

    def _plan(self, move: Move, reverse: Move, batch: int) -> Move:
        before = self._records.before(move)
        route = Route(
            move.file_id,
            before.state,
            fsops.split(reverse.dst)[0],
            before.cluster_id,
            before.distance,
            before.reason,
        )
        return self._store.journal.plan(
            Candidate(move.file_id, reverse.src, move.stamp),
            move.sha256,
            route,
            op=reverse.op,
            dst=reverse.dst,
            fit_id=before.fit_id,
            batch=batch,
            src_root=reverse.src_root,
            dst_root=reverse.dst_root,
        )


_WHY = {
    MovePhase.GONE: "it is no longer there",
    MovePhase.CHANGED: CHANGED,
    MovePhase.PLANNED: "not yet: it is tried again",
    MovePhase.COPIED: "not yet: it is tried again",
}


def _count(report: UndoReport, move: Move) -> None:
    if move.dst_root is Root.TARGET:
        report.placed += 1
    elif move.op is Op.MOVE:
        report.returned += 1
    else:
        report.taken_back += 1


def _leave(report: UndoReport, move: Move, reason: str) -> None:
    place = move.dst if move.dst_root is Root.TARGET else move.src
    report.left.append({"file": os.fsdecode(place), "reason": reason})
