"""The store's side of placing: the pins that moves give, and what pictures had before them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import cached_property

from imgsortd.adapters.store_pins import Pin, Pins
from imgsortd.adapters.store_undo import Before
from imgsortd.core.records import FileState, Move, MovePhase


@dataclass(frozen=True, slots=True)
class Former:
    """What a picture was before a move, and its pin; None where it was free."""

    before: Before
    pin: Pin | None


class Placings:
    """Rows of ``placings``, one for each move that gives or takes a pin."""

    def __init__(self, connection: sqlite3.Connection, pins: Pins) -> None:
        self._connection, self._pins = connection, pins

    def note(self, move: Move, pin: Pin | None) -> None:
        """Keep, as a move is planned, the pin that it gives, and what there is before it.

        Call in the transaction that plans it.
        """
        before = self._pins.get(move.sha256)
        self._connection.execute(
            "INSERT INTO placings(move_id, state, cluster_id, distance, fit_id, reason, "
            "was_pinned, was_pinned_to, was_pinned_at, is_pinned, is_pinned_to, is_pinned_at) "
            "SELECT ?, state, cluster_id, distance, fit_id, reason, ?, ?, ?, ?, ?, ? "
            "FROM files WHERE id = ?",
            (
                move.move_id,
                before is not None,
                before and before.cluster_id,
                before and before.pinned_at,
                pin is not None,
                pin and pin.cluster_id,
                pin and pin.pinned_at,
                move.file_id,
            ),
        )

    def made(self, move: Move) -> None:
        """Give the pin of a move that was made; most moves have none.

        Call in the transaction that closes it. The pin is not given before: the move may find
        its file gone or changed, and a pin would then hold a picture that was never put there.
        It is not given after: a crash would part the file from what its owner meant.
        """
        row = self._connection.execute(
            "SELECT is_pinned, is_pinned_to, is_pinned_at FROM placings WHERE move_id = ?",
            (move.move_id,),
        ).fetchone()
        if row is None:
            return
        pin = Pin(*row[1:]) if row[0] else None
        if pin is None:
            self._pins.remove([move.sha256])
        elif pin.pinned_at is not None or pin != self._pins.get(move.sha256):
            self._pins.put(move.sha256, pin.cluster_id, pin.pinned_at)

    def before(self, move_id: int) -> Former | None:
        """Return what the picture of such a move was before it; None for any other move."""
        if not self._is_kept:
            return None
        row = self._connection.execute(
            "SELECT state, cluster_id, distance, fit_id, reason, was_pinned, was_pinned_to, "
            "was_pinned_at FROM placings WHERE move_id = ?",
            (move_id,),
        ).fetchone()
        if row is None:
            return None
        before = Before(FileState(row[0]), *row[1:5])
        return Former(before, Pin(*row[6:]) if row[5] else None)

    @cached_property
    def _is_kept(self) -> bool:
        """Whether there is all of the table: a dry run may read what an older imgsortd has left."""
        column = "SELECT 1 FROM pragma_table_info('placings') WHERE name = 'was_pinned_at'"
        return self._connection.execute(column).fetchone() is not None

    def in_force(self, cluster_id: int) -> bool:
        """Tell whether a cluster is one of the fit in force."""
        row = self._connection.execute(
            "SELECT 1 FROM centers JOIN fits ON fits.id = fit_id "
            "WHERE is_current = 1 AND cluster_id = ?",
            (cluster_id,),
        ).fetchone()
        return row is not None

    def outcome(self, move_id: int) -> tuple[MovePhase, str]:
        """Return how far a move has come, and why where it could not be made."""
        row = self._connection.execute(
            "SELECT phase, error FROM moves WHERE id = ?", (move_id,)
        ).fetchone()
        return MovePhase(row[0]), row[1]

    def state_of(self, file_id: int) -> FileState | None:
        """Return the state of a file; None where there is no such row."""
        row = self._connection.execute(
            "SELECT state FROM files WHERE id = ?", (file_id,)
        ).fetchone()
        return None if row is None else FileState(row[0])

    def is_pending(self, src: bytes) -> bool:
        """Tell whether a file of this name in the inbox waits to be sorted."""
        row = self._connection.execute(
            "SELECT 1 FROM files WHERE src = ? AND state = 'pending'", (src,)
        ).fetchone()
        return row is not None
