"""The move journal: a row is committed before the first system call, and closed after the last."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from imgsortd.adapters.store_files import storable
from imgsortd.core.records import (
    Candidate,
    FileState,
    Move,
    MovePhase,
    MoveResult,
    Op,
    Root,
    Route,
    Stamp,
)

COLUMNS = (
    "id, file_id, op, src_root, src, inode, size_bytes, mtime_ns, sha256, dst, phase, dst_root"
)


def as_move(row: Sequence[Any]) -> Move:
    """Make a move of a row's :data:`COLUMNS`."""
    return Move(
        row[0],
        row[1],
        Op(row[2]),
        Root(row[3]),
        row[4],
        Stamp(*row[5:8]),
        row[8],
        row[9],
        MovePhase(row[10]),
        Root(row[11]),
    )


class Journal:
    """Rows of ``moves``, and the ends they give to rows of ``files``.

    Parameters
    ----------
    on_made
        Called, in the transaction that closes it, with each move that was made.
    """

    def __init__(self, connection: sqlite3.Connection, on_made: Callable[[Move], None]) -> None:
        self._connection = connection
        self._on_made = on_made

    def plan(
        self,
        candidate: Candidate,
        sha256: bytes,
        route: Route,
        *,
        op: Op,
        dst: bytes,
        fit_id: int | None,
        batch: int,
        src_root: Root = Root.INBOX,
        dst_root: Root = Root.TARGET,
        undoes: int | None = None,
    ) -> Move:
        """Write down one move; it may begin once the transaction is committed."""
        stamp = candidate.stamp
        cursor = self._connection.execute(
            "INSERT INTO moves(file_id, op, src_root, src, inode, size_bytes, mtime_ns, sha256, "
            "dst, state_after, cluster_id, distance, fit_id, reason, planned_at, batch, dst_root, "
            "undoes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                candidate.file_id,
                op,
                src_root,
                candidate.name,
                stamp.inode,
                stamp.size_bytes,
                stamp.mtime_ns,
                sha256,
                dst,
                route.state,
                route.cluster_id,
                route.distance,
                fit_id,
                storable(route.reason),
                time.time(),
                batch,
                dst_root,
                undoes,
            ),
        )
        move_id = cursor.lastrowid
        assert move_id is not None
        return Move(
            move_id,
            candidate.file_id,
            op,
            src_root,
            candidate.name,
            stamp,
            sha256,
            dst,
            dst_root=dst_root,
        )

    def next_batch(self) -> int:
        """Return the number of the batch that is planned now; call in its transaction."""
        row = self._connection.execute("SELECT coalesce(max(batch), 0) + 1 FROM moves").fetchone()
        return int(row[0])

    def unfinished(self) -> list[Move]:
        """Return the moves that were planned and not closed, oldest first."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM moves WHERE phase IN ('planned', 'copied') ORDER BY id"
        )
        return [as_move(row) for row in rows]

    def again(self, moves: Sequence[Move]) -> list[Move]:
        """Read moves again: a folder may have got another name since they were planned."""
        return [
            as_move(row)
            for move in moves
            for row in self._connection.execute(
                f"SELECT {COLUMNS} FROM moves WHERE id = ?", (move.move_id,)
            )
        ]

    def is_moving(self, file_id: int) -> bool:
        """Tell whether a move of this file is unfinished."""
        row = self._connection.execute(
            "SELECT 1 FROM moves WHERE file_id = ? AND phase IN ('planned', 'copied')", (file_id,)
        ).fetchone()
        return row is not None

    def moving_in_inbox(self) -> set[bytes]:
        """Return the names in the inbox that unfinished moves take away from or bring back to."""
        rows = self._connection.execute(
            "SELECT iif(src_root = 'inbox', src, dst) FROM moves "
            "WHERE phase IN ('planned', 'copied') AND 'inbox' IN (src_root, dst_root)"
        )
        return {row[0] for row in rows}

    def planned_names(self) -> set[bytes]:
        """Return the destinations that unfinished moves have been promised."""
        rows = self._connection.execute(
            "SELECT dst FROM moves WHERE phase IN ('planned', 'copied')"
        )
        return {row[0] for row in rows}

    def rename(self, move_id: int, dst: bytes) -> None:
        """Keep another destination: a stranger had taken the planned name."""
        self._connection.execute("UPDATE moves SET dst = ? WHERE id = ?", (dst, move_id))

    def mark_copied(self, move_id: int) -> None:
        """Note that the destination holds all bytes, synced; the source may go now."""
        self._connection.execute("UPDATE moves SET phase = 'copied' WHERE id = ?", (move_id,))

    def close(self, results: Iterable[MoveResult]) -> None:
        """Close moves and give their files the state that was planned."""
        for result in results:
            if result.phase in (MovePhase.PLANNED, MovePhase.COPIED):
                self._keep_open(result)
            else:
                self._close(result)

    def _keep_open(self, result: MoveResult) -> None:
        error = storable(result.error)
        self._connection.execute(
            "UPDATE moves SET error = ? WHERE id = ?", (error, result.move.move_id)
        )
        self._connection.execute(
            "UPDATE files SET reason = ? WHERE id = ?", (error, result.move.file_id)
        )

    def _close(self, result: MoveResult) -> None:
        now = time.time()
        move = result.move
        if result.phase is MovePhase.DONE:
            self._on_made(move)
        self._connection.execute(
            "UPDATE moves SET phase = ?, dst = ?, error = ?, done_at = ? WHERE id = ?",
            (result.phase, result.dst, storable(result.error), now, move.move_id),
        )
        if result.phase is MovePhase.DONE and move.dst_root is Root.INBOX:
            self._back_in_inbox(move)
        elif result.phase is MovePhase.DONE:
            self._connection.execute(
                "UPDATE files SET (state, dst, cluster_id, distance, fit_id, reason) = "
                "(SELECT state_after, dst, cluster_id, distance, fit_id, reason FROM moves "
                "WHERE id = ?), done_at = coalesce(done_at, ?) WHERE id = ?",
                (move.move_id, now, move.file_id),
            )
            if move.src_root is Root.INBOX:
                self._connection.execute(
                    "UPDATE files SET stays = ? WHERE id = ?",
                    (move.op is not Op.MOVE, move.file_id),
                )
        elif move.src_root is Root.INBOX:
            self._give_up(result, now)

    def _back_in_inbox(self, move: Move) -> None:
        """Keep that a file is back: undone it stays there; pending it is to be read anew."""
        self._connection.execute(
            "UPDATE files SET (state, cluster_id, distance, fit_id, reason, stays) = "
            "(SELECT state_after, cluster_id, distance, fit_id, reason, state_after = 'undone' "
            "FROM moves WHERE id = ?), dst = NULL WHERE id = ?",
            (move.move_id, move.file_id),
        )
        self._connection.execute(
            "UPDATE files SET sha256 = NULL, done_at = NULL WHERE id = ? AND state = 'pending'",
            (move.file_id,),
        )

    def _give_up(self, result: MoveResult, now: float) -> None:
        """The owner took or changed the file before its move began: nothing was done to it."""
        if result.phase is MovePhase.GONE:
            self._connection.execute(
                "UPDATE files SET state = 'gone', reason = 'taken away before it was sorted', "
                "done_at = ? WHERE id = ? AND state = 'pending'",
                (now, result.move.file_id),
            )
        else:
            self._connection.execute(
                "UPDATE files SET state = iif(companion_of IS NULL, 'pending', 'gone'), "
                "sha256 = NULL, reason = '' WHERE id = ? AND state = 'pending'",
                (result.move.file_id,),
            )

    def open_errors(self) -> Sequence[tuple[bytes, str]]:
        """Return (src, error) of moves that could not be made yet."""
        return self._connection.execute(
            "SELECT src, error FROM moves WHERE phase IN ('planned', 'copied') AND error != ''"
        ).fetchall()

    def outcome(self, move_id: int) -> tuple[FileState, int | None, str]:
        """Return the state, cluster id and reason that a move gives to its file."""
        row = self._connection.execute(
            "SELECT state_after, cluster_id, reason FROM moves WHERE id = ?", (move_id,)
        ).fetchone()
        return FileState(row[0]), row[1], row[2]
