"""The store's side of what a person does in target: rows by folder, corrections, new names."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from imgsortd.names import cluster_folder
from imgsortd.records import FileState
from imgsortd.store.lookup import FileQueries, Standing
from imgsortd.store.queries import OPEN, PLACED
from imgsortd.words import storable

_AFTER_SLASH = b"0"  # the byte behind "/": all names of a folder lie between the two


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """A cluster that there is or was; ``named`` is None where its folder is ``cluster_N``."""

    cluster_id: int
    named: bytes | None = None
    inode: int | None = None
    is_retired: bool = True
    name: str = ""
    """What a person calls it; empty where it has no name."""

    @property
    def folder(self) -> bytes:
        """Its name, directly under target."""
        return self.named or cluster_folder(self.cluster_id)


def in_use(clusters: Iterable[ClusterFolder], sizes: Mapping[int, int]) -> list[ClusterFolder]:
    """Return the clusters in force, and all that hold files (``sizes``), by number."""
    found = {number: ClusterFolder(number) for number in sizes}
    found |= {
        one.cluster_id: one for one in clusters if not one.is_retired or one.cluster_id in sizes
    }
    return [found[number] for number in sorted(found)]


class TargetFolders(FileQueries):
    """Files by folder of target, and the folders and names of clusters."""

    def folders(self) -> Iterator[bytes]:
        """Yield the folders that placed files stand in, by one look into the index each."""
        after = b""
        while True:
            dst = self._value(
                "SELECT min(dst) FROM files WHERE dst IS NOT NULL AND dst >= ?", after
            )
            if dst is None:
                return
            folder = dst.split(b"/", 1)[0]
            yield folder
            after = folder + _AFTER_SLASH

    def names_in(self, folder: bytes) -> dict[bytes, int]:
        """Return name and row of the placed files of a folder."""
        rows = self._connection.execute(
            f"SELECT dst, id FROM files WHERE dst >= ? AND dst < ? AND {PLACED}",
            (folder + b"/", folder + _AFTER_SLASH),
        )
        return dict(rows.fetchall())

    def file(self, file_id: int) -> Standing | None:
        """Return a placed, hashed file; None where it is no longer one."""
        where = f"id = ? AND sha256 IS NOT NULL AND {PLACED}"
        return next(iter(self._rows(Standing, where, file_id)), None)

    def gone_sizes(self) -> set[int]:
        """Return the sizes, in bytes, of files that were placed and then taken away."""
        was_placed = "state = 'gone' AND dst IS NOT NULL"
        return set(self._column(f"SELECT DISTINCT size_bytes FROM files WHERE {was_placed}"))

    def gone_with(self, sha256: bytes) -> list[Standing]:
        """Return the files of these bytes that were placed and then taken away."""
        where = "sha256 = ? AND state = 'gone' AND dst IS NOT NULL ORDER BY id DESC"
        return self._rows(Standing, where, sha256)

    def linked(self, src: bytes) -> bytes | None:
        """Return the hash of the file of the inbox that a symlink in target leads to."""
        where = "src = ? AND dst IS NOT NULL ORDER BY id DESC LIMIT 1"
        return self._value(f"SELECT sha256 FROM files WHERE {where}", src)

    def under_way(self) -> tuple[set[int], set[bytes]]:
        """Return the rows that unfinished moves are of, and the names in target they go to."""
        rows = self._all(f"SELECT file_id, dst FROM moves WHERE {OPEN}")
        return {row[0] for row in rows}, {row[1] for row in rows}

    def has_features(self, sha256: bytes) -> bool:
        """Tell whether these bytes are a picture: some extractor has read them."""
        return self._is_any("SELECT 1 FROM features WHERE sha256 = ?", sha256)

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
        rows = self._all(
            "SELECT id, folder, folder_inode, retired_fit IS NOT NULL, coalesce(name, '') "
            "FROM clusters ORDER BY id"
        )
        return [ClusterFolder(*row) for row in rows]

    def is_free_number(self, cluster_id: int) -> bool:
        """Tell whether a folder may take a number: it is new, or its cluster has had files.

        Numbers without either are promised to clusters that are only proposed.
        """
        (is_known, was_used) = self._one(
            "SELECT EXISTS (SELECT 1 FROM clusters WHERE id = ?), "
            "EXISTS (SELECT 1 FROM file_counts WHERE cluster_id = ?)",
            cluster_id,
            cluster_id,
        )
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
