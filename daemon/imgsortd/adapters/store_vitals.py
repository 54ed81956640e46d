"""How the daemon does, as its rows say it; nothing is written."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file that could not be read; ``is_read`` tells whether its bytes were hashed."""

    file_id: int
    src: bytes
    dst: bytes | None
    reason: str
    is_read: bool


class Vitals:
    """Queries for the status page and for metrics, over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def set_aside(self, limit: int) -> list[SetAside]:
        """Return the newest files that are set aside."""
        rows = self._connection.execute(
            "SELECT id, src, dst, reason, sha256 IS NOT NULL FROM files "
            "WHERE state = 'set_aside' ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [
            SetAside(file_id, src, dst, reason, bool(is_read))
            for file_id, src, dst, reason, is_read in rows.fetchall()
        ]

    def sorted_by_minute(self, since: float, minutes: int) -> list[int]:
        """Return how many pictures found a place in each minute from then on, oldest first."""
        rows = self._connection.execute(
            "SELECT CAST((done_at - ?1) / 60 AS INTEGER) AS minute, count(*) FROM files "
            "INDEXED BY files_done_at WHERE done_at >= ?1 AND done_at < ?1 + 60 * ?2 "
            "AND state IN ('sorted', 'review', 'duplicate') GROUP BY minute",
            (since, minutes),
        )
        found = dict(rows.fetchall())
        return [found.get(minute, 0) for minute in range(minutes)]

    def open_moves(self) -> int:
        """Count the moves that are planned and not yet made."""
        row = self._connection.execute(
            "SELECT count(*) FROM moves WHERE phase IN ('planned', 'copied')"
        ).fetchone()
        return int(row[0])

    def errors_kept(self) -> int:
        """Count the errors that the daemon has kept."""
        return int(self._connection.execute("SELECT count(*) FROM errors").fetchone()[0])
