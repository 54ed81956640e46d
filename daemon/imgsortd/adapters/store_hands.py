"""The store's side of what a person does in target: rows by folder, corrections, new names."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from imgsortd.adapters.store_files import storable
from imgsortd.core.hands import Absent
from imgsortd.core.names import cluster_folder
from imgsortd.core.records import FileState

_STANDING = "dst IS NOT NULL AND state NOT IN ('pending', 'gone')"
_OPEN = "phase IN ('planned', 'copied')"
_AFTER_SLASH = b"0"  # the byte behind "/": all names of a folder lie between the two


@dataclass(frozen=True, slots=True)
class Standing:
    """A file of target as its row has it."""

    file_id: int
    dst: bytes
    sha256: bytes
    state: FileState
    cluster_id: int | None
    size_bytes: int
    src: bytes
    companion_of: int | None = None

    @property
    def absent(self) -> Absent:
        """It as a file that is missing."""
        return Absent(self.file_id, self.dst, self.sha256)


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """The folder of a cluster; ``named`` is None where it is ``cluster_N``."""

    cluster_id: int
    named: bytes | None
    inode: int | None
    is_retired: bool

    @property
    def folder(self) -> bytes:
        """Its name, directly under target."""
        return self.named or cluster_folder(self.cluster_id)


_COLUMNS = "id, dst, sha256, state, cluster_id, size_bytes, src, companion_of"


def _standing(row: Sequence[Any]) -> Standing:
    return Standing(row[0], row[1], row[2], FileState(row[3]), *row[4:])


class Hands:
    """Queries and changes that follow what a person has done."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def folders(self) -> Iterator[bytes]:
        """Yield the folders that placed files stand in, by one look into the index each."""
        after = b""
        while True:
            row = self._connection.execute(
                "SELECT min(dst) FROM files WHERE dst IS NOT NULL AND dst >= ?", (after,)
            ).fetchone()
            if row[0] is None:
                return
            folder = row[0].split(b"/", 1)[0]
            yield folder
            after = folder + _AFTER_SLASH

    def names_in(self, folder: bytes) -> dict[bytes, int]:
        """Return name and row of the placed files of a folder."""
        rows = self._connection.execute(
            f"SELECT dst, id FROM files WHERE dst >= ? AND dst < ? AND {_STANDING}",
            (folder + b"/", folder + _AFTER_SLASH),
        )
        return dict(rows.fetchall())

    def file(self, file_id: int) -> Standing | None:
        """Return a placed, hashed file; None where it is no longer one."""
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM files WHERE id = ? AND sha256 IS NOT NULL AND {_STANDING}",
            (file_id,),
        ).fetchone()
        return None if row is None else _standing(row)

    def gone_sizes(self) -> set[int]:
        """Return the sizes, in bytes, of files that were placed and then taken away."""
        rows = self._connection.execute(
            "SELECT DISTINCT size_bytes FROM files WHERE state = 'gone' AND dst IS NOT NULL"
        )
        return {row[0] for row in rows}

    def gone_with(self, sha256: bytes) -> list[Standing]:
        """Return the files of these bytes that were placed and then taken away."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM files WHERE sha256 = ? AND state = 'gone' "
            "AND dst IS NOT NULL ORDER BY id DESC",
            (sha256,),
        )
        return [_standing(row) for row in rows]

    def linked(self, src: bytes) -> bytes | None:
        """Return the hash of the file of the inbox that a symlink in target leads to."""
        row = self._connection.execute(
            "SELECT sha256 FROM files WHERE src = ? AND dst IS NOT NULL ORDER BY id DESC LIMIT 1",
            (src,),
        ).fetchone()
        return None if row is None else row[0]

    def under_way(self) -> tuple[set[int], set[bytes]]:
        """Return the rows that unfinished moves are of, and the names in target they go to."""
        rows = self._connection.execute(f"SELECT file_id, dst FROM moves WHERE {_OPEN}").fetchall()
        return {row[0] for row in rows}, {row[1] for row in rows}

    def has_features(self, sha256: bytes) -> bool:
        """Tell whether these bytes are a picture: some extractor has read them."""
        row = self._connection.execute(
            "SELECT 1 FROM features WHERE sha256 = ?", (sha256,)
        ).fetchone()
        return row is not None

    def correct(
        self, file_id: int, dst: bytes, state: FileState, cluster_id: int | None, reason: str
    ) -> None:
        """Keep where a person has put a file, also one that was taken for gone."""
        self._connection.execute(
            "UPDATE files SET dst = ?, state = ?, cluster_id = ?, distance = NULL, reason = ? "
            "WHERE id = ?",
            (dst, state, cluster_id, storable(reason), file_id),
        )

    def to_cluster(self, file_ids: Iterable[int], cluster_id: int) -> None:
        """Give files that stand in a person's folder to the cluster it has become."""
        self._connection.executemany(
            "UPDATE files SET cluster_id = ? WHERE id = ?",
            [(cluster_id, file_id) for file_id in file_ids],
        )

    def own_pictures(self, folder: bytes) -> list[tuple[int, bytes]]:
        """Return (row, SHA-256) of the pinned pictures of a folder that are in no cluster."""
        return self._connection.execute(
            "SELECT id, sha256 FROM files WHERE dst >= ? AND dst < ? AND cluster_id IS NULL "
            "AND state IN ('sorted', 'duplicate') AND sha256 IN "
            "(SELECT sha256 FROM pins WHERE cluster_id IS NULL) ORDER BY id",
            (folder + b"/", folder + _AFTER_SLASH),
        ).fetchall()

    def cluster_folders(self) -> list[ClusterFolder]:
        """Return the folder of each cluster that there is or was."""
        rows = self._connection.execute(
            "SELECT id, folder, folder_inode, retired_fit IS NOT NULL FROM clusters ORDER BY id"
        )
        return [ClusterFolder(*row) for row in rows]

    def is_free_number(self, cluster_id: int) -> bool:
        """Tell whether a folder may take a number: it is new, or its cluster has had files.

        Numbers without either are promised to clusters that are only proposed.
        """
        (is_known, was_used) = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM clusters WHERE id = ?), "
            "EXISTS (SELECT 1 FROM file_counts WHERE cluster_id = ?)",
            (cluster_id, cluster_id),
        ).fetchone()
        return bool(was_used or not is_known)

    def note_inodes(self, inodes: Iterable[tuple[int, int]]) -> None:
        """Keep, of (cluster id, inode) each, what a folder is known by, whatever its name."""
        self._connection.executemany(
            "UPDATE clusters SET folder_inode = ? WHERE id = ?",
            [(inode, cluster_id) for cluster_id, inode in inodes],
        )

    def name_cluster(
        self, cluster_id: int, folder: bytes | None, name: str | None, inode: int | None
    ) -> None:
        """Keep a cluster's folder and name; None for ``cluster_N`` and no name.

        A cluster that is no more may have had that name: it gives it up.
        """
        self._connection.execute(
            "UPDATE clusters SET folder = NULL, name = NULL WHERE folder = ? AND id != ?",
            (folder, cluster_id),
        )
        self._connection.execute(
            "UPDATE clusters SET folder = ?, name = ?, folder_inode = coalesce(?, folder_inode) "
            "WHERE id = ?",
            (folder, None if name is None else storable(name), inode, cluster_id),
        )

    def relabel(self, old: bytes, new: bytes) -> None:
        """Follow a folder's new name in all rows: files, and moves made or still open.

        A move that was planned into the old name would make that folder anew; an undo
        of an older one would, too.
        """
        for table, column, root in (
            ("files", "dst", ""),
            ("moves", "dst", "AND dst_root = 'target'"),
            ("moves", "src", "AND src_root = 'target'"),
        ):
            self._connection.execute(
                f"UPDATE {table} SET {column} = CAST(? || substr({column}, ?) AS BLOB) "
                f"WHERE {column} >= ? AND {column} < ? {root}",
                (new + b"/", len(old) + 2, old + b"/", old + _AFTER_SLASH),
            )

    def taken_away(self, file_ids: Iterable[int], reason: str) -> None:
        """End files that are no longer in target; a source in the inbox stays as it is."""
        now = time.time()
        self._connection.executemany(
            "UPDATE files SET state = 'gone', reason = ?, done_at = ? WHERE id = ?",
            [(storable(reason), now, file_id) for file_id in file_ids],
        )
