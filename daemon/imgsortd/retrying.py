"""Read pictures again that were set aside: back into the inbox they go, as new."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from imgsortd.adapters import fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.mover import NAME_TAKEN
from imgsortd.adapters.store_companions import StoreCompanions
from imgsortd.adapters.store_hands import Standing
from imgsortd.adapters.store_undo import UndoRecords
from imgsortd.core.records import Candidate, FileState, Move, MovePhase, Op, Root, Route, Stamp
from imgsortd.core.routing import SET_ASIDE_FOLDER
from imgsortd.hand_report import HandReport
from imgsortd.library import Library
from imgsortd.pipeline import MOVES_AT_ONCE
from imgsortd.returning import MOVED_BY_HAND, UNDER_WAY, back_to_inbox

log = logging.getLogger(__name__)

_AGAIN = "to be read again"


class Retry:
    """Plans and makes the moves of one request.

    Attributes
    ----------
    back
        The names of the files that are in the inbox now, companions with them.
    """

    def __init__(self, library: Library) -> None:
        self._library, self._store = library, library.store
        self._records = UndoRecords(library.store.connection)
        self._companions = StoreCompanions(library.store.connection)
        self._promised: set[bytes] = set()
        self._report = HandReport()
        self.back: list[bytes] = []

    def run(self, file_ids: Sequence[int]) -> dict[str, Any]:
        """Bring files back; return the answer to the request."""
        with self._store.atomic():
            batch = self._store.journal.next_batch()
            moves = [move for file_id in file_ids for move in self._plan(file_id, batch)]
        fault_point("planned")
        self._make(moves)
        asked = set(file_ids)
        self._report.count(self._store, [move for move in moves if move.file_id in asked])
        return self._answer(batch if moves else None)

    def _answer(self, batch: int | None) -> dict[str, Any]:
        report = self._report
        log.info("retried files=%d left=%d batch=%s", report.done, len(report.left), batch)
        return {"retried": report.done, "batch": batch, "left": report.left}

    def _plan(self, file_id: int, batch: int) -> Iterator[Move]:
        """Yield the move of a picture, and those of the companions that went with it."""
        row = self._store.hands.file(file_id)
        reason = self._obstacle(file_id, row)
        if row is None or reason:
            self._report.leave(file_id, b"" if row is None else row.dst, reason)
            return
        move = self._plan_one(row, FileState.PENDING, batch)
        if move is None:
            return
        yield move
        for companion in self._companions.of(file_id):
            row = self._store.hands.file(companion.file_id)
            if row is None or fsops.split(row.dst)[0] != SET_ASIDE_FOLDER:
                continue  # its owner wants it elsewhere
            # It has no row until it follows its picture anew.
            move = self._plan_one(row, FileState.GONE, batch)
            if move is not None:
                yield move

    def _obstacle(self, file_id: int, row: Standing | None) -> str:
        """Say why a file is not to be read again; empty where it is."""
        self._library.mover.after_each()
        if self._store.journal.is_moving(file_id):
            return UNDER_WAY
        if row is None:
            state = self._store.placings.state_of(file_id)
            return "there is no such file" if state is None else f"it is not set aside ({state})"
        if row.state is FileState.DUPLICATE:
            return "it was read: its bytes are there already"
        return "" if row.state is FileState.SET_ASIDE else f"it is not set aside ({row.state})"

    def _plan_one(self, row: Standing, state: FileState, batch: int) -> Move | None:
        back = self._way_back(row)
        if isinstance(back, str):
            self._report.leave(row.file_id, row.dst, back)
            return None
        self._promised.add(back.dst)
        return self._store.journal.plan(
            Candidate(row.file_id, back.src, back.stamp),
            row.sha256,
            Route(row.file_id, state, b"", reason=_AGAIN if state is FileState.GONE else ""),
            op=back.op,
            dst=back.dst,
            fit_id=None,
            batch=batch,
            src_root=back.src_root,
            dst_root=back.dst_root,
        )

    def _way_back(self, row: Standing) -> Move | str:
        stamp = fsops.look(self._library.config.target, row.dst)
        if stamp is None:
            return MOVED_BY_HAND
        if row.src in self._promised or self._store.placings.is_pending(row.src):
            return NAME_TAKEN
        steps = self._records.history(row.file_id).steps
        # By what it has come: a copy's source, and a link's, still stands in the inbox.
        came = (step.move.op for step in steps if step.move.src_root is Root.INBOX)
        op = next(came, Op.MOVE)
        if op is not Op.MOVE:  # of the bytes, which are compared: a link's own stamp is another
            stamp = Stamp(0, row.size_bytes, 0)
        move = Move(0, row.file_id, op, Root.INBOX, row.src, stamp, row.sha256, row.dst)
        return back_to_inbox(self._library.config, move)

    def _make(self, moves: Sequence[Move]) -> None:
        for start in range(0, len(moves), MOVES_AT_ONCE):
            if self._library.mover.stopping():
                return  # their rows are open: the next start makes them
            results = self._library.mover.apply(moves[start : start + MOVES_AT_ONCE])
            with self._store.atomic():
                self._store.journal.close(results)
            fault_point("closed")
            done = (result.move for result in results if result.phase is MovePhase.DONE)
            self.back.extend(move.dst for move in done)
