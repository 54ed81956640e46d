"""Take batches back: each file to where it came from, by the journal that brought it.

An undo is a batch of moves like any other, so it survives a crash, never overwrites,
and can be undone itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from imgsortd.adapters import fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.mover import Mover
from imgsortd.adapters.placing import CHANGED
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_placing import Former
from imgsortd.adapters.store_undo import Before, History, UndoRecords
from imgsortd.asking import Progress
from imgsortd.cluster_folders import ClusterFolders
from imgsortd.config import Config
from imgsortd.core.names import cluster_of
from imgsortd.core.records import (
    Candidate,
    FileState,
    Move,
    MovePhase,
    MoveResult,
    Op,
    Root,
    Route,
)
from imgsortd.errors import UndoError
from imgsortd.pins_back import former_of, note_back
from imgsortd.returning import (
    MOVED_BY_HAND,
    NOT_THERE,
    NOT_YET,
    UNDER_WAY,
    back_to_inbox,
    is_there,
    reversed_ends,
)
from imgsortd.undo_job import UndoChoice, UndoReport

log = logging.getLogger(__name__)

_AT_ONCE = 64


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
            if len(report.batches) == 1 and (switch := self._switch_back(batch)) is not None:
                report.fit_in_force = switch[1]
            for move in self._records.moves(batch):
                if move.file_id in seen:
                    continue  # it goes on from where an earlier step brings it
                seen.add(move.file_id)
                reverse = self._reverse(move, report.batches)
                if isinstance(reverse, str):
                    _leave(report, move, reverse)
                else:
                    _count(report, reverse.move)
        return report

    def run(self, choice: UndoChoice) -> UndoReport:
        """Undo the batches, newest first.

        Raises
        ------
        UndoError
            There is nothing to undo.
        """
        ClusterFolders(self._store, self._config).follow()
        report = UndoReport(dry_run=False, batches=self._choose(choice))
        for batch in report.batches:
            moves, number = self._records.moves(batch), 0
            # The files that followed a fit go back with it, all or none.
            at_once = _AT_ONCE if self._switch_back(batch) is None else len(moves)
            for start in range(0, len(moves), at_once):
                if self._mover.stopping():
                    raise UndoError(f"stopped after {report.undone:,} files; the rest stays")
                self._progress(f"batch {batch}: {start:,} of {len(moves):,}")
                number = self._portion(batch, moves[start : start + at_once], number, report)
            report.made.extend([number] if number else [])
        return report

    def _switch_back(self, batch: int) -> tuple[int, int] | None:
        """Return the fit in force and the one that undoing a batch puts in force; None for none.

        Raises
        ------
        UndoError
            Files followed from one fit to another in it, and another one is in force now; or
            not all of them have come there yet.
        """
        proposals, steps = self._store.proposals, self._records.steps_from(batch)
        switch = proposals.switch_in(steps[-1])
        if switch is None:
            return None
        now, to = switch if len(steps) % 2 == 1 else switch[::-1]
        current = proposals.current_id()
        if current != now:
            raise UndoError(
                f"in batch {batch} files followed fit {now}, but fit {current} is in force now; "
                f"`imgsortd rollback` goes back step by step"
            )
        if still := proposals.count_following(batch):
            raise UndoError(
                f"{still:,} files of batch {batch} are still to be moved; undo it when they are "
                f"(`imgsortd status` says what holds them up)"
            )
        return now, to

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

    def _portion(self, undone: int, moves: Sequence[Move], batch: int, report: UndoReport) -> int:
        """Reverse some moves of a batch; return the number of the batch they make.

        They stand by another fit then where they had followed one, which is in force with them:
        a crash leaves both, or neither.
        """
        with self._store.atomic():
            number = batch or self._store.journal.next_batch()
            planned = []
            for move in moves:
                reverse = self._reverse(move, ())
                if isinstance(reverse, str):
                    _leave(report, move, reverse)
                else:
                    planned.append(self._plan(reverse, number))
                self._mover.after_each()  # many plans take as long as many moves
            switch = self._switch_back(undone) if planned else None
            if switch is not None:
                images = self._store.records.count_features()
                self._store.proposals.switch(*switch, images)
                report.fit_in_force = switch[1]
        fault_point("planned")
        for start in range(0, len(planned), _AT_ONCE):
            if start and self._mover.stopping():
                raise UndoError(
                    f"stopped after {report.undone:,} files; the others follow at the next start"
                )
            self._make(planned[start : start + _AT_ONCE], report)
        return number if planned else batch

    def _make(self, planned: Sequence[Move], report: UndoReport) -> None:
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

    def _reverse(self, move: Move, undone_first: Collection[int]) -> _Reverse | str:
        """Return the move that takes one back, or why there is none.

        Parameters
        ----------
        undone_first
            Batches that will have been undone by then.
        """
        if self._store.journal.is_moving(move.file_id):
            return UNDER_WAY
        named = self._store.records.named_folders()
        found = _standing(self._records.history(move.file_id), move, undone_first, named)
        if isinstance(found, str):
            return found
        now, before = found
        if now.dst_root is Root.TARGET and not self._stands_at(move.file_id, now.dst):
            return MOVED_BY_HAND
        state = self._store.placings.state_of(move.file_id)
        if now.dst_root is Root.INBOX and state is FileState.PENDING:
            return "it is read again; undo the batch that sorts it"
        into_inbox = now.src_root is Root.INBOX
        reverse = back_to_inbox(self._config, now) if into_inbox else reversed_ends(now)
        if isinstance(reverse, str):
            return reverse
        if not is_there(self._config, reverse.src_root, reverse.src):
            return NOT_THERE
        former = former_of(self._store, now)
        if former is not None:
            before = former.before
        return _Reverse(reverse, before, former)

    def _stands_at(self, file_id: int, dst: bytes) -> bool:
        """Tell whether a file is where we have put it; its owner may have moved it on."""
        row = self._store.hands.file(file_id)
        return row is None or row.dst == dst

    def _plan(self, reverse: _Reverse, batch: int) -> Move:
        move, before = reverse.move, reverse.before
        route = Route(
            move.file_id,
            before.state,
            fsops.split(move.dst)[0],
            before.cluster_id,
            before.distance,
            before.reason,
        )
        # No inode: so the bytes are compared, not the stamp, before anything is done.
        stamp = replace(move.stamp, inode=0)
        planned = self._store.journal.plan(
            Candidate(move.file_id, move.src, stamp),
            move.sha256,
            route,
            op=move.op,
            dst=move.dst,
            fit_id=before.fit_id,
            batch=batch,
            src_root=move.src_root,
            dst_root=move.dst_root,
            undoes=move.move_id,
        )
        if reverse.former is not None:
            note_back(self._store, planned, reverse.former)
        return planned


@dataclass(frozen=True, slots=True)
class _Reverse:
    """A move to be made, with the row of the one it takes back, and the state it leads to.

    ``former`` is what the picture was, its pin with it, where a person had placed it.
    """

    move: Move
    before: Before
    former: Former | None = None


def _standing(
    history: History, move: Move, undone_first: Collection[int], named: Mapping[int, bytes]
) -> tuple[Move, Before] | str:
    """Return the move that has brought a file to where it is, and its state before.

    A text says why a move cannot be taken back.
    """
    last = history.last
    if last is not None and last.move.move_id == move.move_id and move.move_id in history.undone:
        return last.move, history.undone[move.move_id].after
    at = next((n for n, s in enumerate(history.steps) if move.move_id in s.move_ids), None)
    if at is None:
        return "it is undone already"
    later = [step for step in history.steps[at + 1 :] if step.batch not in undone_first]
    if later:
        return f"moved again since: undo batch {later[-1].batch} first"
    step = history.steps[at]
    if at and history.steps[at - 1].move.dst_root is Root.TARGET:
        return step.move, history.steps[at - 1].after
    if step.move.src_root is Root.INBOX:
        return step.move, Before(FileState.UNDONE)
    # Taken in where it stood when the database was rebuilt: its folder says what it was.
    folder = fsops.split(step.move.src)[0]
    return step.move, replace(step.after, cluster_id=cluster_of(folder, named), distance=None)


_WHY = {
    MovePhase.GONE: NOT_THERE,
    MovePhase.CHANGED: CHANGED,
    MovePhase.PLANNED: NOT_YET,
    MovePhase.COPIED: NOT_YET,
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
