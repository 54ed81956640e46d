"""Pictures whose place a person has chosen: the pins, and what each placing gives or takes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from imgsortd.records import FileState, Move
from imgsortd.store.moves import Before
from imgsortd.store.queries import PLACED, Queries


@dataclass(frozen=True, slots=True)
class Pin:
    """A picture stays in this cluster, or where it stands outside of all where it is None.

    Two are equal that say the same; ``pinned_at``, in Unix seconds, is None where it is now.
    """

    cluster_id: int | None
    pinned_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PinRow:
    """A pin as it is listed; ``dst`` is None where the picture stands nowhere now."""

    sha256: bytes
    cluster_id: int | None
    pinned_at: float
    dst: bytes | None


@dataclass(frozen=True, slots=True)
class Former:
    """What a picture was before a move, and its pin; None where it was free."""

    before: Before
    pin: Pin | None


class Pins(Queries):
    """Rows of ``pins`` and ``placings``: by content, so that they outlive a move and a name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.version = 0
        """Another number after each change, for what is made of the pins."""

    def put(self, sha256: bytes, cluster_id: int | None, pinned_at: float | None = None) -> None:
        """Keep a picture in a cluster, or, with None, out of all; since now, or since then."""
        self.version += 1
        self._connection.execute(
            "INSERT INTO pins VALUES (?, ?, ?) ON CONFLICT(sha256) DO UPDATE SET "
            "cluster_id = excluded.cluster_id, pinned_at = excluded.pinned_at",
            (sha256, cluster_id, time.time() if pinned_at is None else pinned_at),
        )

    def remove(self, hashes: Iterable[bytes]) -> int:
        """Free pictures; return how many were pinned."""
        self.version += 1
        return sum(
            self._connection.execute("DELETE FROM pins WHERE sha256 = ?", (sha256,)).rowcount
            for sha256 in hashes
        )

    def get(self, sha256: bytes) -> Pin | None:
        """Return the pin of these bytes, or None where they are free."""
        row = self._one("SELECT cluster_id, pinned_at FROM pins WHERE sha256 = ?", sha256)
        return None if row is None else Pin(*row)

    def is_pinned(self, sha256: bytes) -> bool:
        """Tell whether a person has chosen the place of these bytes."""
        return self.get(sha256) is not None

    def all(self) -> dict[bytes, int | None]:
        """Return the cluster, or None, of each pinned picture by its SHA-256."""
        return dict(self._all("SELECT sha256, cluster_id FROM pins"))

    def file_ids(self) -> set[int]:
        """Return the rows of all placed files whose bytes are pinned."""
        return set(
            self._column(f"SELECT id FROM pins CROSS JOIN files USING (sha256) WHERE {PLACED}")
        )

    def newest(self, limit: int) -> list[tuple[bytes, int]]:
        """Return (SHA-256, cluster id) of the newest pins that name a cluster."""
        return self._all(
            "SELECT sha256, cluster_id FROM pins WHERE cluster_id IS NOT NULL "
            "ORDER BY pinned_at DESC LIMIT ?",
            limit,
        )

    def rows(self) -> list[PinRow]:
        """Return the pins for a list, the newest first."""
        dst = f"(SELECT dst FROM files WHERE files.sha256 = pins.sha256 AND {PLACED} LIMIT 1)"
        order = "ORDER BY pinned_at DESC, sha256"
        rows = self._all(f"SELECT sha256, cluster_id, pinned_at, {dst} FROM pins {order}")
        return [PinRow(*row) for row in rows]

    def of_cluster(self, cluster_id: int) -> list[bytes]:
        """Return the pinned pictures of a cluster."""
        return self._column("SELECT sha256 FROM pins WHERE cluster_id = ?", cluster_id)

    def of_file(self, dst: bytes) -> Sequence[bytes]:
        """Return the pinned bytes that stand under a name of target."""
        return self._column(
            f"SELECT sha256 FROM files JOIN pins USING (sha256) WHERE dst = ? AND {PLACED}", dst
        )

    # --- placings: a row for each move that gives or takes a pin --------------------

    def note_placing(self, move: Move, pin: Pin | None) -> None:
        """Keep, as a move is planned, the pin that it gives, and what there is before it.

        Call in the transaction that plans it.
        """
        before = self.get(move.sha256)
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
        row = self._one(
            "SELECT is_pinned, is_pinned_to, is_pinned_at FROM placings WHERE move_id = ?",
            move.move_id,
        )
        if row is None:
            return
        pin = Pin(*row[1:]) if row[0] else None
        if pin is None:
            self.remove([move.sha256])
        elif pin.pinned_at is not None or pin != self.get(move.sha256):
            self.put(move.sha256, pin.cluster_id, pin.pinned_at)

    def before_placing(self, move_id: int) -> Former | None:
        """Return what the picture of such a move was before it; None for any other move."""
        if not self._keeps_placings:
            return None
        row = self._one(
            "SELECT state, cluster_id, distance, fit_id, reason, was_pinned, was_pinned_to, "
            "was_pinned_at FROM placings WHERE move_id = ?",
            move_id,
        )
        if row is None:
            return None
        before = Before(FileState(row[0]), *row[1:5])
        return Former(before, Pin(*row[6:]) if row[5] else None)

    @cached_property
    def _keeps_placings(self) -> bool:
        """Whether there is all of the table: a dry run may read what an older imgsortd has left."""
        column = "SELECT 1 FROM pragma_table_info('placings') WHERE name = 'was_pinned_at'"
        return self._one(column) is not None
