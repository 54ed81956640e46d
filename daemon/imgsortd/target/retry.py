"""Read pictures again that were set aside: back into the inbox they go, as new."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from imgsortd.config.model import Config
from imgsortd.moves.ends import NAME_TAKEN
from imgsortd.moves.making import Moves
from imgsortd.moves.planning import Planner
from imgsortd.moves.undo import MOVED_BY_HAND, StaysError, back_to_inbox
from imgsortd.names import SET_ASIDE_FOLDER
from imgsortd.records import FileState, Move, MovePhase, Op, Root, Route, Stamp
from imgsortd.store.database import Store
from imgsortd.store.lookup import Standing
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point
from imgsortd.target.placing import RequestReport, check_request, out_of_reach

log = logging.getLogger(__name__)

_AGAIN = "to be read again"


class Retry:
    """Plans and makes the moves of one request."""

    def __init__(self, config: Config, store: Store, moves: Moves) -> None:
        self._config, self._store, self._moves = config, store, moves
        self._promised: set[bytes] = set()
        self._report = RequestReport()
        self.back: list[bytes] = []  # what is in the inbox now, companions with it

    def run(self, params: Any) -> dict[str, Any]:
        """Bring the ``files`` of a request back; return the answer to it.

        Raises
        ------
        PlacingError
            The request is not understood.
        """
        file_ids, report = check_request("retry", params, "files"), self._report
        with self._store.atomic():
            planner = self._moves.planner(None)
            moves = [move for file_id in file_ids for move in self._plan(file_id, planner)]
        fault_point("planned")
        for results in self._moves.make_alone(moves):
            done = (result.move for result in results if result.phase is MovePhase.DONE)
            self.back.extend(move.dst for move in done)
        asked = set(file_ids)
        report.count(self._store, [move for move in moves if move.file_id in asked])
        made = planner.batch or None
        log.info("retried files=%d left=%d batch=%s", report.done, len(report.left), made)
        return {"retried": report.done, "batch": made, "left": report.left}

    def _plan(self, file_id: int, planner: Planner) -> Iterator[Move]:
        """Yield the move of a picture, and those of the companions that went with it."""
        row = self._store.hands.file(file_id)
        reason = self._obstacle(file_id, row)
        if row is None or reason:
            self._report.leave(file_id, b"" if row is None else row.dst, reason)
            return
        move = self._plan_one(row, FileState.PENDING, planner)
        if move is None:
            return
        yield move
        for companion in self._store.companions.of(file_id):
            row = self._store.hands.file(companion.file_id)
            if row is None or filesystem.split(row.dst)[0] != SET_ASIDE_FOLDER:
                continue  # its owner wants it elsewhere
            # It has no row until it follows its picture anew.
            move = self._plan_one(row, FileState.GONE, planner)
            if move is not None:
                yield move

    def _obstacle(self, file_id: int, row: Standing | None) -> str:
        """Say why a file is not to be read again; empty where it is."""
        self._moves.mover.after_each()
        reason = out_of_reach(self._store, file_id, row, "set aside")
        if row is None or reason:
            return reason
        if row.state is FileState.DUPLICATE:
            return "it was read: its bytes are there already"
        return "" if row.state is FileState.SET_ASIDE else f"it is not set aside ({row.state})"

    def _plan_one(self, row: Standing, state: FileState, planner: Planner) -> Move | None:
        try:
            back = self._way_back(row)
        except StaysError as why:
            self._report.leave(row.file_id, row.dst, str(why))
            return None
        self._promised.add(back.dst)
        reason = _AGAIN if state is FileState.GONE else ""
        route = Route(row.file_id, state, b"", reason=reason)
        return self._store.journal.plan(back, route, batch=planner.numbered())

    def _way_back(self, row: Standing) -> Move:
        stamp = filesystem.look(self._config.target, row.dst)
        if stamp is None:
            raise StaysError(MOVED_BY_HAND)
        if row.src in self._promised or self._store.files.is_pending(row.src):
            raise StaysError(NAME_TAKEN)
        op = row.op or Op.MOVE  # a copy's source, and a link's, still stands in the inbox
        if op is not Op.MOVE:  # of the bytes, which are compared: a link's own stamp is another
            stamp = Stamp(0, row.size_bytes, 0)
        move = Move(0, row.file_id, op, Root.INBOX, row.src, stamp, row.sha256, row.dst)
        return back_to_inbox(self._config.inbox, move)
