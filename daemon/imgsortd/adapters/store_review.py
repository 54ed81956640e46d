"""Files in review, and which fit has been asked about them."""

from __future__ import annotations

import sqlite3

from imgsortd.adapters.store_files import storable
from imgsortd.core.review import Choice


class ReviewRows:
    """Rows of ``files`` in the state ``review``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def before(self, fit_id: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (id, sha256) of files in review that this fit has not been asked about.

        One that it has taken out of review, and that was put back since, is left there; so is
        one that a person has put there.
        """
        rows = self._connection.execute(
            "SELECT id, sha256 FROM files WHERE state = 'review' AND fit_id IS NOT ? "
            "AND NOT EXISTS (SELECT 1 FROM pins WHERE pins.sha256 = files.sha256) "
            "AND NOT EXISTS (SELECT 1 FROM moves WHERE file_id = files.id "
            "AND (moves.fit_id = ? OR phase IN ('planned', 'copied'))) LIMIT ?",
            (fit_id, fit_id, limit),
        )
        return rows.fetchall()

    def stays(self, file_id: int, fit_id: int, choice: Choice) -> None:
        """Note that this fit would send a file in review there, too, and why."""
        self._connection.execute(
            "UPDATE files SET fit_id = ?, distance = ?, reason = ? WHERE id = ?",
            (fit_id, choice.distance, storable(choice.reason), file_id),
        )

    def undecided(self, after: int, limit: int) -> list[int]:
        """Return the next files in review, by number; those that a person has put there are not."""
        rows = self._connection.execute(
            "SELECT id FROM files INDEXED BY files_state WHERE state = 'review' AND id > ? "
            "AND NOT EXISTS (SELECT 1 FROM pins WHERE pins.sha256 = files.sha256) "
            "ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [file_id for (file_id,) in rows.fetchall()]

    def count_kept(self) -> int:
        """Count the files that a person has put into review, to stay there."""
        row = self._connection.execute(
            "SELECT count(*) FROM pins CROSS JOIN files USING (sha256) WHERE state = 'review'"
        ).fetchone()
        return int(row[0])
