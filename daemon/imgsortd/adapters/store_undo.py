"""What was moved in which batch, and what state a file had before."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from imgsortd.adapters.store_journal import COLUMNS, as_move
from imgsortd.core.records import FileState, Move

_LATER = (
    "SELECT 1 FROM moves AS later WHERE later.file_id = moves.file_id "
    "AND later.phase = 'done' AND later.id > moves.id"
)


@dataclass(frozen=True, slots=True)
class Before:
    """The state of a file before a move; ``undone`` where it was in the inbox."""

    state: FileState
    cluster_id: int | None = None
    distance: float | None = None
    fit_id: int | None = None
    reason: str = ""


class UndoRecords:
    """Queries over the done rows of ``moves``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def newest_batch(self) -> int | None:
        """Return the newest batch with a move that no later one of its file has followed."""
        row = self._connection.execute(
            "SELECT batch FROM moves WHERE phase = 'done' AND batch > 0 "
            f"AND NOT EXISTS ({_LATER}) ORDER BY batch DESC LIMIT 1"
        ).fetchone()
        return None if row is None else int(row[0])

    def batches_since(self, unix_s: float) -> list[int]:
        """Return the batches with a move done since, newest first."""
        rows = self._connection.execute(
            "SELECT DISTINCT batch FROM moves WHERE phase = 'done' AND batch > 0 "
            "AND done_at >= ? ORDER BY batch DESC",
            (unix_s,),
        )
        return [row[0] for row in rows]

    def moves(self, batch: int) -> list[Move]:
        """Return the done moves of a batch, the last one first."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM moves WHERE batch = ? AND phase = 'done' ORDER BY id DESC",
            (batch,),
        )
        return [as_move(row) for row in rows]

    def later_batches(self, move: Move) -> Sequence[int]:
        """Return the batches that have moved the same file since, newest first."""
        rows = self._connection.execute(
            "SELECT batch FROM moves WHERE file_id = ? AND phase = 'done' AND id > ? "
            "ORDER BY id DESC",
            (move.file_id, move.move_id),
        )
        return [row[0] for row in rows]

    def before(self, move: Move) -> Before:
        """Return the state that the file had before a move."""
        row = self._connection.execute(
            "SELECT state_after, cluster_id, distance, fit_id, reason FROM moves "
            "WHERE file_id = ? AND phase = 'done' AND id < ? ORDER BY id DESC LIMIT 1",
            (move.file_id, move.move_id),
        ).fetchone()
        return Before(FileState.UNDONE) if row is None else Before(FileState(row[0]), *row[1:])
