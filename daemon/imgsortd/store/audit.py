"""The store's side of a comparison with the disk: a listing in a table of its own, joined."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from imgsortd.records import FileState, Op, Stamp
from imgsortd.store.lookup import FileQueries, Standing
from imgsortd.store.queries import HERE, NOT_MOVING, OPEN, PLACED


@dataclass(frozen=True, slots=True)
class Listed:
    """A file below target: its name, and its stamp as it is now."""

    dst: bytes
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Differing:
    """A file whose size or time is not the one it was sorted with."""

    file_id: int
    found: Listed
    sha256: bytes


@dataclass(frozen=True, slots=True)
class AdoptedFile:
    """A file of target as it is taken into the store: it has no row yet."""

    found: Listed
    src: bytes
    sha256: bytes
    state: FileState
    cluster_id: int | None
    reason: str = ""
    inbox_stamp: Stamp | None = None
    """Of the file in the inbox that it is a copy of or link to; None where it was moved."""
    op: Op | None = None
    companion_of: int | None = None
    """Row of the picture that it is a companion of."""
    is_source_known: bool = False
    """Whether ``src``, with its folder, is what it was called in the inbox."""


class TargetListing(FileQueries):
    """Rows of ``files`` against a listing of target, kept in a temporary table.

    A million names stay on disk, not in memory.
    """

    def take_listing(self, files: Iterable[Listed]) -> None:
        """Take the listing in, in place of any earlier one."""
        self._do("DROP TABLE IF EXISTS temp.found")
        self._do(
            "CREATE TEMP TABLE found(dst BLOB PRIMARY KEY, inode INTEGER, size_bytes INTEGER, "
            "mtime_ns INTEGER, ctime_ns INTEGER) WITHOUT ROWID"
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO temp.found VALUES (?, ?, ?, ?, ?)",
            ((file.dst, *astuple(file.stamp)) for file in files),
        )
        self._connection.commit()

    def missing(self) -> list[Standing]:
        """Return the placed files that the listing lacks, and that no move is under way for."""
        return self._rows(
            Standing,
            f"{PLACED} AND dst NOT IN (SELECT dst FROM temp.found) AND sha256 IS NOT NULL "
            f"AND {NOT_MOVING} ORDER BY id",
        )

    def foreign(self) -> list[Listed]:
        """Return listed files that no row, and no move under way, has for its place."""
        rows = self._all(
            "SELECT dst, inode, size_bytes, mtime_ns FROM temp.found WHERE dst NOT IN "
            f"(SELECT dst FROM files WHERE {PLACED}) AND dst NOT IN "
            f"(SELECT dst FROM moves WHERE {OPEN}) ORDER BY dst"
        )
        return [Listed(row[0], Stamp(*row[1:])) for row in rows]

    def differing(self, *, all_of_them: bool = False) -> list[Differing]:
        """Return placed files that may have been changed, or all.

        Those are files of another size or time than their row's, and files whose inode was
        changed after imgsortd last moved them: a bit may flip, or be flipped, and size and
        time be as before.
        """
        rows = self._all(
            "SELECT files.id, files.sha256, found.dst, found.inode, found.size_bytes, "
            "found.mtime_ns FROM temp.found JOIN files USING (dst) "
            f"WHERE {PLACED} AND files.sha256 IS NOT NULL AND files.{NOT_MOVING} AND (? OR "
            " found.size_bytes != files.size_bytes OR found.mtime_ns != files.mtime_ns "
            "OR found.ctime_ns / 1e9 > max(files.done_at, coalesce((SELECT max(done_at) "
            "FROM moves WHERE file_id = files.id), 0))) ORDER BY files.id",
            all_of_them,
        )
        return [Differing(row[0], Listed(row[2], Stamp(*row[3:])), row[1]) for row in rows]

    def adopt(self, files: Iterable[AdoptedFile]) -> None:
        """Take files in that stand in target already, as if they had been sorted."""
        now = time.time()
        for file in files:
            stamp = file.inbox_stamp or file.found.stamp
            here = "SELECT id FROM roots WHERE kind = ? AND is_current"
            if file.inbox_stamp is not None:
                self._do(  # this is what became of it
                    "UPDATE files SET state = 'gone', in_inbox = 0, reason = 'seen again' "
                    f"WHERE src = ? AND {HERE} AND state IN ('pending', 'undone') AND {NOT_MOVING}",
                    file.src,
                )
            self._insert(
                "files",
                inbox_id=self._number(here, "inbox") if file.is_source_known else None,
                target_id=self._number(here, "target"),
                in_target=True,
                op=file.op,
                src=file.src,
                inode=stamp.inode,
                size_bytes=stamp.size_bytes,
                mtime_ns=stamp.mtime_ns,
                sha256=file.sha256,
                state=file.state,
                in_inbox=file.inbox_stamp is not None,
                cluster_id=file.cluster_id,
                dst=file.found.dst,
                reason=file.reason,
                companion_of=file.companion_of,
                seen_at=now,
                done_at=now,
            )

    def original_of(self, sha256: bytes) -> bytes | None:
        """Return where these bytes stand as a sorted file, or None."""
        where = f"sha256 = ? AND +state = 'sorted' AND {PLACED}"
        return self._value(f"SELECT dst FROM files WHERE {where}", sha256)

    def waiting_with(self, sha256: bytes) -> list[tuple[int, bytes]]:
        """Return (id, src) of files of these bytes that wait in the inbox, as far as is known."""
        where = f"sha256 = ? AND state = 'pending' AND {HERE} AND {NOT_MOVING} ORDER BY id"
        return self._all(f"SELECT id, src FROM files WHERE {where}", sha256)

    def changed(self, file: Differing, sha256: bytes) -> None:
        """Keep the bytes that a placed file has now; of a link, those of its source.

        The stamp of a copy whose source stays in the inbox is its source's.
        """
        stamp = file.found.stamp
        self._do("UPDATE files SET sha256 = ? WHERE id = ?", sha256, file.file_id)
        self._do(
            "UPDATE files SET inode = ?, size_bytes = ?, mtime_ns = ? "
            "WHERE id = ? AND NOT (in_inbox AND op = 'copy')",
            *(stamp.inode, stamp.size_bytes, stamp.mtime_ns, file.file_id),
        )
