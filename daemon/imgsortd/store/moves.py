"""The move journal: a row is committed before the first system call, and closed after the last."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from imgsortd.records import FileState, Move, MovePhase, MoveResult, Op, Root, Route, Stamp
from imgsortd.store.library import LibraryFile
from imgsortd.store.queries import OPEN, Queries
from imgsortd.words import storable

_COLUMNS = (
    "id, file_id, op, src_root, src, inode, size_bytes, mtime_ns, sha256, dst, phase, dst_root, "
    "src_id, dst_id, mark"
)
_IN_USE = "SELECT id FROM roots WHERE kind = ? AND is_current"
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
    """A move that holds: the file stands where it has brought it."""

    move: Move
    batch: int
    after: Before
    """The state that it gave to the file."""
    move_ids: frozenset[int]
    """Its row, and those of earlier moves that an undo had taken back and it made again."""


@dataclass(frozen=True, slots=True)
class History:
    """The moves of one file: ``steps``, the oldest first, hold; ``last`` is the newest of all."""

    steps: Sequence[Step]
    undone: Mapping[int, Step]
    """The step that an undo, by its row, took back."""
    last: Step | None


class Journal(Queries):
    """Rows of ``moves``, and the ends they give to rows of ``files``.

    ``on_made`` is called, in the transaction that closes it, with each move that was made;
    ``library`` marks what moves make on their way, and keeps the numbers of batches.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        library: LibraryFile,
        on_made: Callable[[Move], None],
    ) -> None:
        super().__init__(connection)
        self._library, self._on_made = library, on_made

    def plan(
        self,
        planned: Move,
        route: Route,
        *,
        batch: int,
        fit_id: int | None = None,
        undoes: int | None = None,
    ) -> Move:
        """Write down one move; it may begin once the transaction is committed.

        ``route`` is what it gives to its file, ``fit_id`` the fit that has decided it, ``undoes``
        the row of the move that it takes back. Where it names no folders it is from the one that
        its file stands in, to the one in use. It is returned with its number, folders and mark.
        """
        stamp = planned.stamp
        planned = replace(
            planned,
            src_id=planned.src_id or self._came_from(planned),
            dst_id=planned.dst_id or self._in_use(planned.dst_root),
            mark=self._library.new_mark(),
        )
        move_id = self._insert(
            "moves",
            file_id=planned.file_id,
            op=planned.op,
            src_root=planned.src_root,
            src=planned.src,
            inode=stamp.inode,
            size_bytes=stamp.size_bytes,
            mtime_ns=stamp.mtime_ns,
            sha256=planned.sha256,
            dst=planned.dst,
            dst_root=planned.dst_root,
            src_id=planned.src_id,
            dst_id=planned.dst_id,
            mark=planned.mark,
            state_after=route.state,
            cluster_id=route.cluster_id,
            distance=route.distance,
            fit_id=fit_id,
            reason=storable(route.reason),
            planned_at=time.time(),
            batch=batch,
            undoes=undoes,
        )
        return replace(planned, move_id=move_id, phase=MovePhase.PLANNED)

    def _came_from(self, planned: Move) -> int:
        """Return the folder that a file stands in: an inbox may have been replaced meanwhile."""
        root = None
        if planned.src_root is Root.INBOX:
            root = self._number("SELECT inbox_id FROM files WHERE id = ?", planned.file_id)
        return root or self._in_use(planned.src_root)

    def _in_use(self, kind: Root) -> int:
        return self._count(_IN_USE, kind)

    def next_batch(self) -> int:
        """Return the number of the batch that is planned now; call in its transaction.

        None is used twice, also where the database was put back from a copy since: an OSError
        tells that this could not be kept.
        """
        library = self._library
        former = str(self._value("SELECT life FROM library"))
        if former != library.life:
            self._do("UPDATE library SET batch = max(batch, ?)", library.batches)
        self._do("UPDATE library SET life = ?", library.next_life(former))
        batch = self._count("UPDATE library SET batch = batch + 1 RETURNING batch")
        library.reserve(batch)
        return batch

    def unfinished(self) -> list[Move]:
        """Return the moves that were planned and not closed, oldest first."""
        return self._moves(f"{OPEN} ORDER BY id")

    def again(self, moves: Sequence[Move]) -> list[Move]:
        """Read moves again: a folder may have got another name since they were planned."""
        return [again for move in moves for again in self._moves("id = ?", move.move_id)]

    def is_moving(self, file_id: int) -> bool:
        """Tell whether a move of this file is unfinished."""
        return self._is_any(f"SELECT 1 FROM moves WHERE file_id = ? AND {OPEN}", file_id)

    def moving_in_inbox(self) -> set[bytes]:
        """Return the names in the inbox that unfinished moves take away from or bring back to."""
        root = self._in_use(Root.INBOX)
        name, goes = "iif(src_id = ?1, src, dst)", "?1 IN (src_id, dst_id)"
        return set(self._column(f"SELECT {name} FROM moves WHERE {OPEN} AND {goes}", root))

    def planned_names(self) -> set[bytes]:
        """Return the destinations that unfinished moves have been promised."""
        return set(self._column(f"SELECT dst FROM moves WHERE {OPEN}"))

    def rename(self, move_id: int, dst: bytes) -> None:
        """Keep another destination: a stranger had taken the planned name."""
        self._do("UPDATE moves SET dst = ? WHERE id = ?", dst, move_id)

    def mark_copied(self, move_id: int) -> None:
        """Note that the destination holds all bytes, synced; the source may go now."""
        self._do("UPDATE moves SET phase = 'copied' WHERE id = ?", move_id)

    def close(self, results: Iterable[MoveResult]) -> None:
        """Close moves and give their files the state that was planned."""
        for result in results:
            if result.phase not in (MovePhase.PLANNED, MovePhase.COPIED):
                self._close(result)
                continue
            error = storable(result.error)  # it stays open
            self._do("UPDATE moves SET error = ? WHERE id = ?", error, result.move.move_id)
            self._do("UPDATE files SET reason = ? WHERE id = ?", error, result.move.file_id)

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
                "UPDATE files SET (state, dst, target_id, cluster_id, distance, fit_id, reason) = "
                "(SELECT state_after, dst, dst_id, cluster_id, distance, fit_id, reason "
                "FROM moves WHERE id = ?), in_target = 1, done_at = coalesce(done_at, ?) "
                "WHERE id = ?",
                (move.move_id, now, move.file_id),
            )
            if move.src_root is Root.INBOX:
                self._connection.execute(
                    "UPDATE files SET in_inbox = ?, op = ? WHERE id = ?",
                    (move.op is not Op.MOVE, move.op, move.file_id),
                )
        elif move.src_root is Root.INBOX:
            self._give_up(result, now)

    def _back_in_inbox(self, move: Move) -> None:
        """Keep that a file is back: undone it stays there; pending it is to be read anew."""
        self._connection.execute(
            "UPDATE files SET (state, cluster_id, distance, fit_id, reason, in_inbox, inbox_id) = "
            "(SELECT state_after, cluster_id, distance, fit_id, reason, state_after != 'gone', "
            "dst_id FROM moves WHERE id = ?1), src = ?2, in_target = 0, target_id = NULL, "
            "op = NULL, dst = NULL WHERE id = ?3",
            (move.move_id, move.dst, move.file_id),
        )
        self._do(
            "UPDATE files SET sha256 = NULL, done_at = NULL WHERE id = ? AND state = 'pending'",
            move.file_id,
        )

    def _give_up(self, result: MoveResult, now: float) -> None:
        """The owner took or changed the file before its move began: nothing was done to it."""
        if result.phase is MovePhase.GONE:
            self._connection.execute(
                "UPDATE files SET state = 'gone', in_inbox = 0, done_at = ?, "
                "reason = 'taken away before it was sorted', dst = ?, target_id = ? "
                "WHERE id = ? AND state = 'pending'",
                (now, result.dst, result.move.dst_id, result.move.file_id),
            )
        else:
            self._do(
                "UPDATE files SET state = iif(companion_of IS NULL, 'pending', 'gone'), "
                "in_inbox = companion_of IS NULL, sha256 = NULL, reason = ? "
                "WHERE id = ? AND state = 'pending'",
                *(storable(result.error), result.move.file_id),
            )

    def open_errors(self) -> Sequence[tuple[bytes, str]]:
        """Return (src, error) of moves that could not be made yet."""
        return self._all(f"SELECT src, error FROM moves WHERE {OPEN} AND error != ''")

    def end_of(self, move_id: int) -> tuple[MovePhase, str]:
        """Return how far a move has come, and why where it could not be made."""
        row = self._one("SELECT phase, error FROM moves WHERE id = ?", move_id)
        return MovePhase(row[0]), row[1]

    def outcome(self, move_id: int) -> tuple[FileState, int | None, str]:
        """Return the state, cluster id and reason that a move gives to its file."""
        row = self._one("SELECT state_after, cluster_id, reason FROM moves WHERE id = ?", move_id)
        return FileState(row[0]), row[1], row[2]

    # --- what an undo needs: the moves that were done -------------------------------

    def newest_batch(self) -> int | None:
        """Return the newest batch with a move that no later one of its file has followed."""
        return self._number(
            "SELECT batch FROM moves WHERE phase = 'done' AND batch > 0 "
            f"AND NOT EXISTS ({_LATER}) ORDER BY batch DESC LIMIT 1"
        )

    def batches_since(self, unix_s: float) -> list[int]:
        """Return the batches with a move done since, newest first."""
        return self._column(
            "SELECT DISTINCT batch FROM moves WHERE phase = 'done' AND batch > 0 "
            "AND done_at >= ? ORDER BY batch DESC",
            unix_s,
        )

    def steps_from(self, batch: int) -> list[int]:
        """Return this batch, the one that it undoes, the one that that one undoes, and so on."""
        steps = [batch]
        while (
            row := self._one(
                "SELECT undone.batch FROM moves JOIN moves AS undone ON undone.id = moves.undoes "
                "WHERE moves.batch = ? AND moves.phase = 'done' LIMIT 1",
                steps[-1],
            )
        ) is not None:
            steps.append(row[0])
        return steps

    def moves(self, batch: int) -> list[Move]:
        """Return the done moves of a batch, the last one first."""
        return self._moves("batch = ? AND phase = 'done' ORDER BY id DESC", batch)

    def history(self, file_id: int) -> History:
        """Return what the moves of a file come to, with those left out that were undone."""
        rows = self._all(
            f"SELECT {_COLUMNS}, batch, undoes, state_after, cluster_id, distance, fit_id, "
            "reason FROM moves WHERE file_id = ? AND phase = 'done' ORDER BY id",
            file_id,
        )
        stack: list[Step] = []
        undone: dict[int, Step] = {}
        last: Step | None = None
        for *move, batch, undoes, state, cluster_id, distance, fit_id, reason in rows:
            after = Before(FileState(state), cluster_id, distance, fit_id, reason)
            last = Step(_move(move), batch, after, frozenset({move[0]}))
            if stack and undoes in stack[-1].move_ids:
                undone[last.move.move_id] = stack.pop()
            elif undoes in undone:  # an undo that was undone: the step is there again
                again = undone.pop(undoes)
                stack.append(replace(last, move_ids=last.move_ids | again.move_ids))
            else:
                stack.append(last)
        return History(stack, undone, last)

    def _moves(self, where: str, *values: int) -> list[Move]:
        rows = self._all(f"SELECT {_COLUMNS} FROM moves WHERE {where}", *values)
        return [_move(row) for row in rows]


def _move(row: Sequence[Any]) -> Move:
    """Make a move of a row's :data:`_COLUMNS`."""
    move_id, file_id, op, src_root, src, *stamp, sha256, dst, phase, dst_root = row[:12]
    ends = MovePhase(phase), Root(dst_root), *row[12:]
    return Move(move_id, file_id, Op(op), Root(src_root), src, Stamp(*stamp), sha256, dst, *ends)
