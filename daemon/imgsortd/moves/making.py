"""Make planned moves, close their rows, bring companions along; make again what a crash left."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.moves.crossing import Known, return_orphans
from imgsortd.moves.folders import ClusterFolders
from imgsortd.moves.mover import Mover
from imgsortd.moves.planning import InInbox, Planner, tell_other_name
from imgsortd.moves.roots import Roots
from imgsortd.records import (
    BatchReport,
    Candidate,
    FileState,
    Move,
    MovePhase,
    MoveResult,
    Op,
    Root,
    together,
)
from imgsortd.store.database import CommittedJournal, Store
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

MOVES_AT_ONCE = 64


class Moves:
    """Plan, make, close, recover: whoever moves files does it by these.

    ``returned`` are the names of files that were given back, which moves had hidden.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        mover: Mover,
        folders: ClusterFolders,
        companions: InInbox | None = None,
    ) -> None:
        self._config, self._store, self.mover = config, store, mover
        self.folders, self._companions = folders, companions
        self._searched: set[tuple[int, int] | None] = {None}  # inboxes that have no orphans now
        self.returned: list[bytes] = []

    @property
    def can_move_again(self) -> bool:
        """Whether what is sorted may be moved to another folder: links never are."""
        return self._config.op is not Op.SYMLINK

    def planner(self, fit_id: int | None, batch: int | None = None) -> Planner:
        """Return a planner for one transaction: by which fit, and for a new batch or this one."""
        return Planner(self._config, self._store, self.mover, fit_id, self._companions, batch)

    def make(self, moves: Sequence[Move], *, again: bool = False) -> BatchReport:
        """Make planned moves and close their rows; what cannot be done now stays open.

        Parameters
        ----------
        again
            They may have been begun before: what stands at a destination may be our own.
        """
        parts = []
        for results, companions in self._portions(moves, again=again, brings=True):
            parts += [*map(self._told, results), self.make(companions)]
        return together(parts)

    def make_alone(self, moves: Sequence[Move]) -> Iterator[list[MoveResult]]:
        """Make planned moves, companions among them; yield what became of each portion."""
        for results, _ in self._portions(moves, again=False, brings=False):
            yield results

    def _portions(
        self, moves: Sequence[Move], *, again: bool, brings: bool
    ) -> Iterator[tuple[list[MoveResult], list[Move]]]:
        for start in range(0, len(moves), MOVES_AT_ONCE):
            if self.mover.stopping():
                return  # their rows are open: the next start makes them
            now = moves[start : start + MOVES_AT_ONCE]
            if self.folders.follow():  # else a move would make a renamed folder anew
                now = self._store.journal.again(now)
            results = self.mover.apply(now, again=again)
            with self._store.atomic():
                self._store.journal.close(results)
                companions = self._bring_along(results) if brings else []
            fault_point("closed")
            yield results, companions

    def recover(self) -> BatchReport:
        """Do what whoever works with a library does first: finish what a crash has left.

        Renamed folders are followed before claims are looked for: else those in them are nobody's.
        """
        self.folders.follow()
        self.give_back_orphans(Root.TARGET)
        self.give_back_orphans(Root.INBOX)
        return self.make_again()

    def make_again(self) -> BatchReport:
        """Make the open moves of the journal again."""
        self.folders.follow()
        moves = self._store.journal.unfinished()
        return BatchReport(images=len(moves)) + self.make(moves, again=True)

    def give_back_orphans(self, kind: Root, former: Path | None = None) -> list[bytes]:
        """Give back the claims that no open move knows of; return their names.

        Of the folder in use, or of an inbox that was one.
        """
        known = Known(self._store.journal.unfinished(), self._store.library.is_ours)
        if kind is Root.INBOX:
            folder = former or self._config.inbox
            if (where := _identity(folder)) in self._searched:
                return []
            self._searched.add(where)
            names = return_orphans(folder, known)
        else:
            names = return_orphans(self._config.target, known, deep=False)
        self.returned += names
        for name in names:
            log.warning("claim without a journal row given back name=%r", os.fsdecode(name))
        return names

    def _bring_along(self, results: Sequence[MoveResult]) -> list[Move]:
        """Plan, for pictures that went from one folder of target to another, their companions.

        In the transaction that closes the pictures' moves: a crash parts the two never.
        """
        rows, planner = self._store.companions, None
        moves: list[Move] = []
        for result in results:
            move = result.move
            is_within = move.src_root is Root.TARGET and move.dst_root is Root.TARGET
            if result.phase is not MovePhase.DONE or not is_within:
                continue
            for row in rows.of(move.file_id):
                stamp = filesystem.look(self._config.target, row.dst)
                if stamp is None or filesystem.split(row.dst)[0] == filesystem.split(result.dst)[0]:
                    continue  # taken elsewhere by a person, or there already
                planner = planner or self.planner(None)
                moves.append(
                    planner.beside(
                        Candidate(row.file_id, row.dst, stamp),
                        row.sha256,
                        (move.src, result.dst),
                        batch=rows.batch_of(move.file_id),
                        src_root=Root.TARGET,
                    )
                )
        return moves

    def _told(self, result: MoveResult) -> BatchReport:
        """Return what became of a move that was closed."""
        move, name = result.move, result.move.src
        from_inbox = move.src_root is Root.INBOX
        if result.phase is MovePhase.GONE:
            return BatchReport(gone=1, left=(name,) if from_inbox else ())
        if result.phase is MovePhase.CHANGED:
            return BatchReport(look_again=(name,) if from_inbox else ())
        if result.phase is not MovePhase.DONE and not result.error:
            return BatchReport(stopped=1)
        if result.phase is not MovePhase.DONE:
            error = f"cannot move {os.fsdecode(name)!r}: {result.error}"
            return BatchReport(errors=(error,), no_space=result.no_space)
        state, cluster_id, reason = self._store.journal.outcome(move.move_id)
        is_companion = state is FileState.COMPANION
        if is_companion and result.dst != move.dst:
            tell_other_name(move.dst, result.dst)
        # Into the inbox goes what is to be read again, after a start that ended badly.
        is_to_be_read = move.dst_root is Root.INBOX and state is not FileState.UNDONE
        return BatchReport(
            sorted=int(state is FileState.SORTED),
            duplicates=int(state is FileState.DUPLICATE),
            set_aside=int(state is FileState.SET_ASIDE),
            review=int(state is FileState.REVIEW),
            companions=int(is_companion),
            clusters=frozenset() if cluster_id is None else frozenset((cluster_id,)),
            left=(name,) if move.op is Op.MOVE and from_inbox else (),
            placed=(name,) if from_inbox and not is_companion else (),
            look_again=(result.dst,) if is_to_be_read else (),
            set_aside_reasons=((name, reason),) if state is FileState.SET_ASIDE else (),
        )


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_moves(config: Config, store: Store, roots: Roots) -> Moves:
    """Return what makes moves where no picture comes in: for an undo, or a repair."""
    mover = Mover(config.inbox, config.target, CommittedJournal(store), roots)
    return Moves(config, store, mover, ClusterFolders(store, config, roots))
