"""Take batches back: each file to where it came from, by the journal that brought it.

An undo is a batch of moves like any other, so it survives a crash, never overwrites,
and can be undone itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from imgsortd.errors import UndoError
from imgsortd.moves.copies import CHANGED, SOURCE_GONE
from imgsortd.moves.ends import NAME_TAKEN
from imgsortd.moves.making import MOVES_AT_ONCE, Moves
from imgsortd.names import cluster_of
from imgsortd.records import FileState, Move, MovePhase, MoveResult, Op, Progress, Root, Route
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileRow
from imgsortd.store.moves import Before, History
from imgsortd.store.pins import Former, Pin
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

NOT_THERE = "it is no longer there"
MOVED_BY_HAND = "its owner has moved it since"
NOT_YET = "not yet: it is tried again"
UNDER_WAY = "a move of it is under way; try again when it is done"
_WHY = {MovePhase.GONE: NOT_THERE, MovePhase.CHANGED: CHANGED}


class StaysError(Exception):
    """A file stays where it is; the text says why."""


@dataclass(frozen=True, slots=True)
class UndoChoice:
    """What is to be undone: one batch, all since some seconds ago, or else the last one."""

    batch: int | None = None
    since_s: float | None = None


@dataclass(slots=True)
class UndoReport:
    """What came of it, or would come.

    Attributes
    ----------
    batches
        The batches that were undone, newest first.
    made
        The batches of this undo, by which it can be undone.
    returned, taken_back, placed
        Files moved back into the inbox; copies and links removed whose source stands
        there; files brought (back) into a folder of target.
    left
        Files that were left as they are, with the reason.
    fit_in_force
        The fit that is in force again, where the files had followed another one; None
        where the fit is as it was.
    """

    dry_run: bool
    batches: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    returned: int = 0
    taken_back: int = 0
    placed: int = 0
    left: list[dict[str, str]] = field(default_factory=list)
    fit_in_force: int | None = None

    @property
    def undone(self) -> int:
        """Files that were undone."""
        return self.returned + self.taken_back + self.placed

    def count(self, move: Move) -> None:
        """Count a file that was undone."""
        if move.dst_root is Root.TARGET:
            self.placed += 1
        elif move.op is Op.MOVE:
            self.returned += 1
        else:
            self.taken_back += 1

    def leave(self, move: Move, reason: str) -> None:
        """Note a file that was left."""
        place = move.dst if move.dst_root is Root.TARGET else move.src
        self.left.append({"file": os.fsdecode(place), "reason": reason})

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


class Undo:
    """Plans and makes the moves that reverse others; ``on_moved`` is told of each portion."""

    def __init__(
        self,
        store: Store,
        moves: Moves,
        on_moved: Callable[[Sequence[MoveResult]], None] = lambda _: None,
        progress: Progress = lambda _: None,
    ) -> None:
        self._store, self._moves = store, moves
        self._mover, self._journal = moves.mover, store.journal
        self._on_moved, self._progress = on_moved, progress

    def preview(self, choice: UndoChoice) -> UndoReport:
        """Say what :meth:`run` would do, as far as can be seen now."""
        report = UndoReport(dry_run=True, batches=self._choose(choice))
        seen: set[int] = set()
        for batch in report.batches:
            if len(report.batches) == 1 and (switch := self._switch_back(batch)) is not None:
                report.fit_in_force = switch[1]
            for move in self._journal.moves(batch):
                if move.file_id in seen:
                    continue  # it goes on from where an earlier step brings it
                seen.add(move.file_id)
                try:
                    report.count(self._reverse(move, report.batches).move)
                except StaysError as why:
                    report.leave(move, str(why))
        return report

    def run(self, choice: UndoChoice) -> UndoReport:
        """Undo the batches, newest first; an UndoError where there are none."""
        self._moves.folders.follow()
        report = UndoReport(dry_run=False, batches=self._choose(choice))
        for batch in report.batches:
            moves, number = self._journal.moves(batch), 0
            # The files that followed a fit go back with it, all or none.
            at_once = MOVES_AT_ONCE if self._switch_back(batch) is None else len(moves)
            for start in range(0, len(moves), at_once):
                if self._mover.stopping():
                    raise UndoError(f"stopped after {report.undone:,} files; the rest stays")
                self._progress(f"batch {batch}: {start:,} of {len(moves):,}")
                number = self._portion(batch, moves[start : start + at_once], number, report)
            report.made.extend([number] if number else [])
        return report

    def _switch_back(self, batch: int) -> tuple[int, int] | None:
        """Return the fit in force and the one that undoing a batch puts in force; None for none.

        An UndoError tells that a third one is in force, or not all files have followed yet.
        """
        records, steps = self._store.records, self._journal.steps_from(batch)
        switch = records.switch_in(steps[-1])
        if switch is None:
            return None
        now, to = switch if len(steps) % 2 == 1 else switch[::-1]
        current = records.current_id()
        if current != now:
            raise UndoError(
                f"in batch {batch} files followed fit {now}, but fit {current} is in force now; "
                f"`imgsortd rollback` goes back step by step"
            )
        if still := records.count_following(batch):
            raise UndoError(
                f"{still:,} files of batch {batch} are still to be moved; undo it when they are "
                f"(`imgsortd status` says what holds them up)"
            )
        return now, to

    def _choose(self, choice: UndoChoice) -> list[int]:
        if choice.batch is not None:
            if not self._journal.moves(choice.batch):
                raise UndoError(f"batch {choice.batch} is not known; the log names each batch")
            return [choice.batch]
        if choice.since_s is not None:
            batches = self._journal.batches_since(time.time() - choice.since_s)
        else:
            newest = self._journal.newest_batch()
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
            number, planned = batch, []
            for move in moves:
                try:
                    reverse = self._reverse(move, ())
                    number = number or self._journal.next_batch()
                    planned.append(self._plan(reverse, number))
                except StaysError as why:
                    report.leave(move, str(why))
                self._mover.after_each()  # many plans take as long as many moves
            switch = self._switch_back(undone) if planned else None
            if switch is not None:
                images = self._store.records.count_features()
                self._store.records.switch(*switch, images)
                report.fit_in_force = switch[1]
        fault_point("planned")
        made = 0
        for results in self._moves.make_alone(planned):
            made += len(results)
            self._on_moved(results)
            for result in results:
                if result.phase is MovePhase.DONE:
                    report.count(result.move)
                else:
                    report.leave(result.move, result.error or _WHY.get(result.phase, NOT_YET))
        if made < len(planned):
            raise UndoError(
                f"stopped after {report.undone:,} files; the others follow at the next start"
            )
        return number

    def _reverse(self, move: Move, undone_first: Collection[int]) -> _Reverse:
        """Return the move that takes one back, when these batches are undone; or StaysError."""
        store, file_id = self._store, move.file_id
        if store.journal.is_moving(file_id):
            raise StaysError(UNDER_WAY)
        named, history = store.records.named_folders(), store.journal.history(file_id)
        now, before = _standing(history, move, undone_first, named)
        row = store.lookup.by_id(file_id)
        if now.dst_root is Root.TARGET:
            now = _as_it_stands(now, row, history)
        elif row is not None and row.state is FileState.PENDING:
            raise StaysError("it is read again; undo the batch that sorts it")
        into_inbox = now.src_root is Root.INBOX
        now = replace(now, src_id=self._mover.roots.now(now.src_id))
        reverse = back_to_inbox(self._root(now.src_id), now) if into_inbox else _reversed_ends(now)
        if filesystem.look(self._root(reverse.src_id), reverse.src) is None:
            raise StaysError(NOT_THERE)
        former = _former_of(store, now)
        return _Reverse(reverse, before if former is None else former.before, former)

    def _root(self, root_id: int) -> Path:
        roots = self._mover.roots
        if not roots.is_there(root_id):
            raise StaysError("the folder that it came from is not there, or another one")
        return roots.path(root_id)

    def _plan(self, reverse: _Reverse, batch: int) -> Move:
        move, was = reverse.move, reverse.before
        folder = filesystem.split(move.dst)[0]
        route = Route(move.file_id, was.state, folder, was.cluster_id, was.distance, was.reason)
        # No inode: so the bytes are compared, not the stamp, before anything is done.
        planned = self._store.journal.plan(
            replace(move, stamp=replace(move.stamp, inode=0)),
            route,
            batch=batch,
            fit_id=was.fit_id,
            undoes=move.move_id,
        )
        if reverse.former is not None:
            _note_pin(self._store, planned, reverse.former)
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
) -> tuple[Move, Before]:
    """Return the move that has brought a file to where it is, and its state before it."""
    last = history.last
    if last is not None and last.move.move_id == move.move_id and move.move_id in history.undone:
        return last.move, history.undone[move.move_id].after
    at = next((n for n, s in enumerate(history.steps) if move.move_id in s.move_ids), None)
    if at is None:
        raise StaysError("it is undone already")
    later = [step for step in history.steps[at + 1 :] if step.batch not in undone_first]
    if later:
        raise StaysError(f"moved again since: undo batch {later[-1].batch} first")
    step = history.steps[at]
    if at and history.steps[at - 1].move.dst_root is Root.TARGET:
        return step.move, history.steps[at - 1].after
    if step.move.src_root is Root.INBOX:
        return step.move, Before(FileState.UNDONE)
    # Taken in where it stood when the database was rebuilt: its folder says what it was.
    folder = filesystem.split(step.move.src)[0]
    return step.move, replace(step.after, cluster_id=cluster_of(folder, named), distance=None)


def _as_it_stands(move: Move, row: FileRow | None, history: History) -> Move:
    """Return a move with the name that its file has now: it may have met a taken one since.

    A StaysError tells that a person has put it elsewhere.
    """
    last = move if history.last is None else history.last.move
    if row is None or not row.is_in_target:
        return move
    if row.dst != last.dst and row.dst != move.dst:
        raise StaysError(MOVED_BY_HAND)
    assert row.dst is not None
    return replace(move, dst=row.dst)


def back_to_inbox(inbox: Path, came: Move) -> Move:
    """Return the move that takes back one from the inbox.

    Parameters
    ----------
    inbox
        The folder that it came from.
    came
        The move that has brought the file to where it is, ``came.dst`` below target.

    Raises
    ------
    StaysError
        Its old name is taken, or a link's source is not what it was.
    """
    back = _reversed_ends(came)
    if came.op is not Op.MOVE:
        if _has_source(inbox, came):
            return back
        if came.op is Op.SYMLINK:
            raise StaysError(SOURCE_GONE)
        back = replace(back, op=Op.MOVE)
    if filesystem.look(inbox, back.dst) is not None:
        raise StaysError(NAME_TAKEN)
    return back


def _reversed_ends(move: Move) -> Move:
    return replace(
        move,
        src_root=move.dst_root,
        src_id=move.dst_id,
        src=move.dst,
        dst_root=move.src_root,
        dst_id=move.src_id,
        dst=move.src,
    )


def _has_source(inbox: Path, move: Move) -> bool:
    try:
        with filesystem.Folders(inbox) as source:
            return filesystem.holds_bytes(source, move.src, move.stamp.size_bytes, move.sha256)
    except OSError:  # not to be read: then the copy is kept
        return False


def _former_of(store: Store, move: Move) -> Former | None:
    """Return what a picture was before a placing; None where the move is no placing.

    The folder that it stood in may have become a cluster since: then it belongs to that.
    """
    former = store.pins.before_placing(move.move_id)
    if former is None or former.before.cluster_id is not None:
        return former
    if former.before.state not in (FileState.SORTED, FileState.DUPLICATE):
        return former
    number = cluster_of(filesystem.split(move.src)[0], store.records.named_folders())
    if number is None or not store.records.is_in_force(number):
        return former
    pin = former.pin
    if pin == Pin(None):
        pin = Pin(number, pin.pinned_at)
    return Former(replace(former.before, cluster_id=number), pin)


def _note_pin(store: Store, move: Move, former: Former) -> None:
    """Keep, with the planned undo of a placing, the pin that it gives back.

    A pin is of bytes: where it speaks of a copy that was placed elsewhere since, it stays.
    """
    pin, row = store.pins.get(move.sha256), store.hands.file(move.file_id)
    is_of_this = pin is None or row is None or pin.cluster_id == row.cluster_id
    store.pins.note_placing(move, former.pin if is_of_this else pin)
