"""The store's side of what a person does in target: rows by folder, corrections, new names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from imgsortd.names import cluster_folder
from imgsortd.records import FileState
from imgsortd.store.lookup import FileQueries, Standing
from imgsortd.store.queries import HERE, NOT_MOVING, OPEN, PLACED
from imgsortd.words import storable

_AFTER_SLASH = b"0"  # the byte behind "/": all names of a folder lie between the two
_TARGET = "target_id = (SELECT id FROM roots WHERE kind = 'target' AND is_current)"
_IS_LINK = "op IN ('hardlink', 'symlink')"
_WAS_PLACED = f"state = 'gone' AND NOT in_target AND {_TARGET}"


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


@dataclass(frozen=True, slots=True)
class NewName:
    """The folder that a cluster has from now on; its inode is None where it is as before."""

    cluster_id: int
    folder: bytes
    inode: int | None


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
                f"SELECT min(dst) FROM files WHERE dst IS NOT NULL AND dst >= ? AND {PLACED}", after
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
        return set(self._column(f"SELECT DISTINCT size_bytes FROM files WHERE {_WAS_PLACED}"))

    def gone_with(self, sha256: bytes) -> list[Standing]:
        """Return the files of these bytes that were placed and then taken away."""
        return self._rows(Standing, f"sha256 = ? AND {_WAS_PLACED} ORDER BY id DESC", sha256)

    def links_from(self, src: bytes) -> list[Standing]:
        """Return the files that were linked into target from a name in the inbox."""
        where = f"src = ? AND {HERE} AND in_inbox AND {PLACED} AND {_IS_LINK} ORDER BY id DESC"
        return self._rows(Standing, where, src)

    def links_with(self, sha256: bytes) -> list[Standing]:
        """Return the files of these bytes that were linked into target."""
        where = f"sha256 = ? AND {PLACED} AND {_IS_LINK} AND {NOT_MOVING} ORDER BY id"
        return self._rows(Standing, where, sha256)

    def linked(self, path: bytes) -> bytes | None:
        """Return the hash of the file in an inbox, by its whole path, that a symlink leads to."""
        rows = self._all(
            "SELECT sha256 FROM roots CROSS JOIN files ON inbox_id = roots.id "
            "AND src = CAST(substr(?1, length(path) + 2) AS BLOB) "
            "WHERE kind = 'inbox' AND length(path) > 0 AND target_id IS NOT NULL "
            "AND substr(?1, 1, length(path) + 1) = CAST(path || x'2f' AS BLOB) "
            "ORDER BY +files.id DESC LIMIT 1",
            path,
        )
        return rows[0][0] if rows else None

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
            "UPDATE files SET dst = ?, state = ?, cluster_id = ?, distance = NULL, reason = ?, "
            "in_target = 1, target_id = "
            "(SELECT id FROM roots WHERE kind = 'target' AND is_current) WHERE id = ?",
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
            f"AND {PLACED} AND state IN ('sorted', 'duplicate') AND sha256 IN "
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

    def relabel(self, renamed: Mapping[bytes, bytes]) -> None:
        """Follow folders' new names, by their old ones, in all rows: files, and moves.

        A move that was planned into an old name would make that folder anew; an undo of an
        older one would, too. One may have got the name that another had: all old names go
        before the first new one comes.
        """
        passing = {old: b"\0%d" % number for number, old in enumerate(renamed)}
        for old, between in passing.items():
            self._relabel(old, between)
        for old, between in passing.items():
            self._relabel(between, renamed[old])

    def _relabel(self, old: bytes, new: bytes) -> None:
        for table, column, root in (
            ("files", "dst", "target_id"),
            ("moves", "dst", "dst_id"),
            ("moves", "src", "src_id"),
        ):
            self._connection.execute(
                f"UPDATE {table} SET {column} = CAST(? || substr({column}, ?) AS BLOB) "
                f"WHERE {column} >= ? AND {column} < ? "
                f"AND {root} = (SELECT id FROM roots WHERE kind = 'target' AND is_current)",
                (new + b"/", len(old) + 2, old + b"/", old + _AFTER_SLASH),
            )

    def name_clusters(self, named: Iterable[NewName]) -> None:
        """Keep the folders and names of clusters, all at once: two may have changed theirs.

        A cluster that is no more may have had one of these names: it gives it up.
        """
        named = list(named)
        for one in named:
            self._do(
                "UPDATE clusters SET folder = NULL, name = NULL WHERE id = ?1 OR folder = ?2",
                *(one.cluster_id, one.folder),
            )
        for one in named:
            has_name = one.folder != cluster_folder(one.cluster_id)
            self._do(
                "UPDATE clusters SET folder = ?, name = ?, "
                "folder_inode = coalesce(?, folder_inode) WHERE id = ?",
                one.folder if has_name else None,
                storable(os.fsdecode(one.folder)) if has_name else None,
                *(one.inode, one.cluster_id),
            )

    def taken_away(self, file_ids: Iterable[int], reason: str) -> None:
        """End files that are no longer in target; a source in the inbox stays as it is.

        What was left in the inbox because their bytes stood in target is to be sorted now.
        """
        now, reason = time.time(), storable(reason)
        for file_id in file_ids:
            self._do(
                "UPDATE files SET state = 'gone', in_target = 0, reason = ?, done_at = ? "
                "WHERE id = ?",
                *(reason, now, file_id),
            )
            self._do(
                # By the bytes ("+": not by the state, of which there may be many).
                "UPDATE files SET state = 'pending', reason = '', done_at = NULL WHERE "
                "+state = 'duplicate' AND in_inbox AND NOT in_target AND sha256 = "
                "(SELECT sha256 FROM files WHERE id = ?) AND NOT EXISTS (SELECT 1 FROM files AS "
                "newer WHERE newer.inbox_id = files.inbox_id AND newer.src = files.src "
                "AND newer.state = 'pending')",
                file_id,
            )
