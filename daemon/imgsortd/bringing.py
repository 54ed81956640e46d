"""Move companions: beside their picture, when it has found its place or another one."""

from __future__ import annotations

from collections.abc import Sequence

from imgsortd.adapters.fsops import look
from imgsortd.adapters.store_companions import PictureRow, StoreCompanions
from imgsortd.core.records import (
    Candidate,
    FileState,
    Move,
    MovePhase,
    MoveResult,
    Root,
    Stamp,
    Unreadable,
)
from imgsortd.library import Library
from imgsortd.planning import Planner


def _planner(library: Library) -> Planner:
    return Planner(library.config, library.store, library.mover, library.model, library.companions)


def bring_along(library: Library, results: Sequence[MoveResult]) -> list[Move]:
    """Plan, for pictures that went from one folder of target to another, their companions.

    Call in the transaction that closes the pictures' moves: a crash parts the two never.
    """
    rows, planner = StoreCompanions(library.store.connection), None
    moves: list[Move] = []
    for result in results:
        move = result.move
        if result.phase is not MovePhase.DONE or not _within_target(move):
            continue
        for row in rows.of(move.file_id):
            stamp = look(library.config.target, row.dst)
            if stamp is None or _folder(row.dst) == _folder(result.dst):
                continue  # taken elsewhere by a person, or there already
            planner = planner or _planner(library)
            candidate = Candidate(row.file_id, row.dst, stamp)
            picture, batch = (move.src, result.dst), rows.batch_of(move.file_id)
            moves.append(
                planner.beside(
                    candidate,
                    row.sha256,
                    picture,
                    batch=batch or planner.batch,
                    src_root=Root.TARGET,
                )
            )
    return moves


def _within_target(move: Move) -> bool:
    return move.src_root is Root.TARGET and move.dst_root is Root.TARGET


def _folder(dst: bytes) -> bytes:
    return dst.rpartition(b"/")[0]


class Followers:
    """Plans, in one transaction, companions in the inbox that follow their pictures."""

    def __init__(self, library: Library) -> None:
        self._files = library.store.files
        self._mover = library.mover
        self._rows = StoreCompanions(library.store.connection)
        self._planner = _planner(library)

    def plan(self, name: bytes, stamp: Stamp, sha256: bytes, picture: PictureRow) -> Move | None:
        """Plan one move; None where the file was only touched since it was taken along.

        The bytes of a companion may be those of any other file: many sidecars are alike.
        """
        former = self._files.staying(name, sha256, 0)
        for file_id, dst, _ in former:
            if dst is not None and self._mover.exists(dst):
                self._rows.refresh(file_id, stamp)
                return None
        candidate = self._files.arrive([(name, stamp)])[0].candidate
        self._rows.take(candidate.file_id, picture.file_id, sha256)
        for file_id, _, _ in former:  # it came back by an undo, or its copy was deleted
            self._files.finish(file_id, FileState.GONE, stays=False, reason="seen again")
        self._files.end_undone(name, candidate.file_id)
        assert picture.dst is not None
        batch = self._rows.batch_of(picture.file_id) or self._planner.batch
        return self._planner.beside(candidate, sha256, (picture.src, picture.dst), batch=batch)


def leave_raw(library: Library, unreadable: Unreadable) -> bool:
    """Leave a raw file that cannot be decoded in the inbox, for a picture of its name to take."""
    candidate = unreadable.candidate
    companions = library.companions
    if not companions.rule.is_companion(candidate.name):
        return False
    StoreCompanions(library.store.connection).forget_unread(candidate.file_id)
    companions.leave(candidate.name, candidate.stamp, lambda _: False, unreadable.reason)
    return True
