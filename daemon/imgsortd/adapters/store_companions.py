"""Companions in the store: the pictures they may go with, and those that a picture has."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from imgsortd.core.records import FileState, Stamp


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture that was seen: its name in the inbox, and where it stands below target."""

    file_id: int
    src: bytes
    state: FileState
    dst: bytes | None
    stays: bool


@dataclass(frozen=True, slots=True)
class CompanionRow:
    """A companion that stands below target."""

    file_id: int
    dst: bytes
    sha256: bytes


class StoreCompanions:
    """Queries over ``files`` and ``moves``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def pictures(self, stems: Iterable[bytes]) -> list[PictureRow]:
        """Return the pictures that were seen under these stems; for each name the newest."""
        return self._pictures("src", stems)

    def placed_pictures(self, stems: Iterable[bytes]) -> list[PictureRow]:
        """Return the pictures that stand below target under these stems."""
        return self._pictures("dst", stems)

    def _pictures(self, column: str, stems: Iterable[bytes]) -> list[PictureRow]:
        found: dict[bytes, PictureRow] = {}
        for stem in stems:
            # "/" follows "." in ASCII: the range holds every name that begins with the stem
            # and a dot, and the index has it in one place.
            rows = self._connection.execute(
                f"SELECT id, src, state, dst, stays FROM files WHERE {column} IS NOT NULL "
                f"AND ({column} = ? OR ({column} >= ? AND {column} < ?)) "
                "AND companion_of IS NULL AND state != 'gone' ORDER BY state = 'pending', id",
                (stem, stem + b".", stem + b"/"),
            )
            for row in rows:
                picture = PictureRow(row[0], row[1], FileState(row[2]), row[3], bool(row[4]))
                found[row[1] if column == "src" else row[3]] = picture
        return list(found.values())

    def take(self, file_id: int, picture_id: int, sha256: bytes) -> None:
        """Make a row that has just arrived one of a companion."""
        self._connection.execute(
            "UPDATE files SET companion_of = ?, sha256 = ? WHERE id = ?",
            (picture_id, sha256, file_id),
        )

    def of(self, picture_id: int) -> list[CompanionRow]:
        """Return a picture's companions below target that no move is under way for."""
        rows = self._connection.execute(
            "SELECT id, dst, sha256 FROM files WHERE companion_of = ? AND state = 'companion' "
            "AND dst IS NOT NULL AND id NOT IN "
            "(SELECT file_id FROM moves WHERE phase IN ('planned', 'copied')) ORDER BY id",
            (picture_id,),
        )
        return [CompanionRow(*row) for row in rows]

    def batch_of(self, file_id: int) -> int | None:
        """Return the batch that has brought a file to where it is; None where none has."""
        row = self._connection.execute(
            "SELECT batch FROM moves WHERE file_id = ? AND phase = 'done' AND batch > 0 "
            "ORDER BY id DESC LIMIT 1",
            (file_id,),
        ).fetchone()
        return None if row is None else int(row[0])

    def is_picture(self, src: bytes) -> bool:
        """Tell whether a file in the inbox was taken for a picture of its own."""
        row = self._connection.execute(
            "SELECT 1 FROM files WHERE src = ? AND companion_of IS NULL "
            "AND (state = 'pending' OR (stays = 1 AND state != 'gone'))",
            (src,),
        ).fetchone()
        return row is not None

    def forget_unread(self, file_id: int) -> None:
        """Forget a file that has just arrived: it is no picture, and waits for one."""
        self._connection.execute(
            "DELETE FROM files WHERE id = ? AND id NOT IN (SELECT file_id FROM moves)", (file_id,)
        )
        self._connection.execute(
            "UPDATE files SET state = 'gone', reason = 'no picture' WHERE id = ?", (file_id,)
        )

    def refresh(self, file_id: int, stamp: Stamp) -> None:
        """Keep the stamp of a file in the inbox that was only touched."""
        self._connection.execute(
            "UPDATE files SET inode = ?, size_bytes = ?, mtime_ns = ? WHERE id = ?",
            (stamp.inode, stamp.size_bytes, stamp.mtime_ns, file_id),
        )
