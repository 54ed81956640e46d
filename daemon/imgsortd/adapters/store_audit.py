"""The store's side of a comparison with the disk: a listing in a table of its own, joined."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from imgsortd.core.records import FileState, Stamp

_PLACED = "dst IS NOT NULL AND state NOT IN ('pending', 'gone')"


@dataclass(frozen=True, slots=True)
class Found:
    """A file below target: its name, and its stamp as it is now."""

    dst: bytes
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Differing:
    """A file whose size or time is not the one it was sorted with."""

    file_id: int
    found: Found
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Adopted:
    """A file of target as it is taken into the store."""

    found: Found
    src: bytes
    sha256: bytes
    state: FileState
    cluster_id: int | None
    reason: str = ""
    inbox_stamp: Stamp | None = None
    """Of the file in the inbox that it is a copy of or link to; None where it was moved."""
    companion_of: int | None = None
    """Row of the picture that it is a companion of."""


class StoreAudit:
    """Rows of ``files`` against a listing of target, kept in a temporary table.

    A million names stay on disk, not in memory.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("DROP TABLE IF EXISTS temp.found")
        connection.execute(
            "CREATE TEMP TABLE found(dst BLOB PRIMARY KEY, inode INTEGER, size_bytes INTEGER, "
            "mtime_ns INTEGER, ctime_ns INTEGER) WITHOUT ROWID"
        )

    def take_listing(self, files: Iterable[Found]) -> None:
        """Take the listing in."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO temp.found VALUES (?, ?, ?, ?, ?)",
            ((file.dst, *astuple(file.stamp)) for file in files),
        )
        self._connection.commit()

    def missing(self) -> list[tuple[int, bytes]]:
        """Return (id, dst) of placed files that the listing lacks."""
        return self._connection.execute(
            f"SELECT id, dst FROM files WHERE {_PLACED} AND dst NOT IN "
            "(SELECT dst FROM temp.found) ORDER BY id"
        ).fetchall()

    def foreign(self) -> list[Found]:
        """Return listed files that no row, and no move under way, has for its place."""
        rows = self._connection.execute(
            "SELECT dst, inode, size_bytes, mtime_ns FROM temp.found WHERE dst NOT IN "
            f"(SELECT dst FROM files WHERE {_PLACED}) AND dst NOT IN "
            "(SELECT dst FROM moves WHERE phase IN ('planned', 'copied')) ORDER BY dst"
        )
        return [Found(row[0], Stamp(*row[1:])) for row in rows]

    def differing(self, *, all_of_them: bool = False) -> list[Differing]:
        """Return placed files that may have been changed, or all.

        Those are files of another size or time than their row's, and files whose inode was
        changed after imgsortd last moved them: a bit may flip, or be flipped, and size and
        time be as before.
        """
        rows = self._connection.execute(
            "SELECT files.id, files.sha256, found.dst, found.inode, found.size_bytes, "
            "found.mtime_ns FROM temp.found JOIN files USING (dst) "
            f"WHERE {_PLACED} AND files.sha256 IS NOT NULL AND "
            "(? OR found.size_bytes != files.size_bytes OR found.mtime_ns != files.mtime_ns "
            "OR found.ctime_ns / 1e9 > max(files.done_at, coalesce((SELECT max(done_at) "
            "FROM moves WHERE file_id = files.id), 0))) ORDER BY files.id",
            (all_of_them,),
        )
        return [Differing(row[0], Found(row[2], Stamp(*row[3:])), row[1]) for row in rows]

    def adopt(self, files: Iterable[Adopted]) -> None:
        """Take files in that stand in target already, as if they had been sorted."""
        now = time.time()
        for file in files:
            stays = file.inbox_stamp is not None
            stamp = file.inbox_stamp or file.found.stamp
            self._connection.execute(
                "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, stays, "
                "cluster_id, dst, reason, companion_of, seen_at, done_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    file.src,
                    stamp.inode,
                    stamp.size_bytes,
                    stamp.mtime_ns,
                    file.sha256,
                    file.state,
                    stays,
                    file.cluster_id,
                    file.found.dst,
                    file.reason,
                    file.companion_of,
                    now,
                    now,
                ),
            )

    def original_of(self, sha256: bytes) -> bytes | None:
        """Return where these bytes stand as a sorted file, or None."""
        row = self._connection.execute(
            "SELECT dst FROM files WHERE sha256 = ? AND state = 'sorted' AND dst IS NOT NULL",
            (sha256,),
        ).fetchone()
        return None if row is None else row[0]

    def changed(self, file: Differing, sha256: bytes) -> None:
        """Keep the bytes that a placed file has now."""
        stamp = file.found.stamp
        self._connection.execute(
            "UPDATE files SET sha256 = ?, inode = ?, size_bytes = ?, mtime_ns = ? WHERE id = ?",
            (sha256, stamp.inode, stamp.size_bytes, stamp.mtime_ns, file.file_id),
        )
