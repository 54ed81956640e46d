"""What was moved in which batch, and what state a file had before."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from imgsortd.adapters.store_journal import COLUMNS, as_move
from imgsortd.core.records import FileState, Move

_LATER = (
    "SELECT 1 FROM moves AS later WHERE later.file_id = moves.file_id "
    "AND later.phase = 'done' AND later.id > moves.id"
)


@dataclass(frozen=True, slots=True)
class Before:
    """The state of a file before a move, or after one; ``undone``: back in the inbox."""

    state: FileState
    cluster_id: int | None = None
    distance: float | None = None
    fit_id: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A move that holds: the file stands where it has brought it.

    Attributes
    ----------
    after
        The state that it gave to the file.
    move_ids
        Its row, and those of earlier moves that an undo had taken back and it made again.
    """

    move: Move
    batch: int
    after: Before
    move_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class History:
    """The moves of one file.

    Attributes
    ----------
    steps
        Those that hold, the oldest first.
    undone
        The step that an undo, by its row, took back.
    last
        The newest move of all.
    """

    steps: Sequence[Step]
    undone: Mapping[int, Step]
    last: Step | None


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

    def steps_from(self, batch: int) -> list[int]:
        """Return this batch, the one that it undoes, the one that that one undoes, and so on."""
        steps = [batch]
        while (
            row := self._connection.execute(
                "SELECT undone.batch FROM moves JOIN moves AS undone ON undone.id = moves.undoes "
                "WHERE moves.batch = ? AND moves.phase = 'done' LIMIT 1",
                (steps[-1],),
            ).fetchone()
        ) is not None:
            steps.append(row[0])
        return steps

    def moves(self, batch: int) -> list[Move]:
        """Return the done moves of a batch, the last one first."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM moves WHERE batch = ? AND phase = 'done' ORDER BY id DESC",
            (batch,),
        )
        return [as_move(row) for row in rows]

    def history(self, file_id: int) -> History:
        """Return what the moves of a file come to, with those left out that were undone."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS}, batch, undoes, state_after, cluster_id, distance, fit_id, reason "
            "FROM moves WHERE file_id = ? AND phase = 'done' ORDER BY id",
            (file_id,),
        )
        stack: list[Step] = []
        undone: dict[int, Step] = {}
        last: Step | None = None
        for row in rows:
            after = Before(FileState(row[14]), *row[15:])
            last = Step(as_move(row), row[12], after, frozenset({row[0]}))
            undoes = row[13]
            if stack and undoes in stack[-1].move_ids:
                undone[row[0]] = stack.pop()
            elif undoes in undone:  # an undo that was undone: the step is there again
                again = undone.pop(undoes)
                stack.append(replace(last, move_ids=last.move_ids | again.move_ids))
            else:
                stack.append(last)
        return History(stack, undone, last)
