"""What the web page asks of a library; nothing is written.

Every query is a short read of its own: in the journal mode of an older SQLite, a reader that
stays keeps the daemon from committing. The index ``files_shown`` is not there before the
daemon has started once since it came; then the same queries take longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from imgsortd.names import base_name
from imgsortd.records import REBUILT, ExtractorId, Vectors
from imgsortd.store.features import floats, vectors_of
from imgsortd.store.lookup import extractor_of
from imgsortd.store.queries import EXTRACTOR, OPEN, PLACED, Queries, marks, parts

_SHOWN = "state IN ('sorted','duplicate')"


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture as it is shown; its size is that of it upright, 0 where it is not known."""

    file_id: int
    sha256: bytes | None
    src: bytes
    dst: bytes | None
    cluster_id: int | None
    width_px: int
    height_px: int
    is_pinned: int  # 1 or 0, as SQLite tells it
    reason: str

    @property
    def name(self) -> bytes:
        """The last part of its name: below target, or in the inbox where it stands there."""
        return base_name(self.dst or self.src)


Member = tuple[int, bytes | None]
"""A picture in a cluster's folder: (id, SHA-256)."""

CameAt = tuple[float, int]
"""Where a picture stands among the newest: (Unix seconds, id)."""


class WebRows(Queries):
    """Queries for the page."""

    @cached_property
    def _in_cluster(self) -> str:
        """The files of a cluster, the index named: without statistics SQLite takes another one."""
        row = self._one("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'files_shown'")
        files = "files" if row is None else "files INDEXED BY files_shown"
        return f"{files} WHERE cluster_id = ? AND {_SHOWN}"

    @cached_property
    def _sizes(self) -> str:
        """The columns of a picture's size, or zeros where they are still to come."""
        columns = {row[1] for row in self._all("PRAGMA table_info(picture_hashes)")}
        return "coalesce(width_px, 0), coalesce(height_px, 0)" if "width_px" in columns else "0, 0"

    # --- clusters ------------------------------------------------------------------------

    def last_changes(self) -> tuple[object, ...]:
        """Return what is another value whenever a picture may have gone to another cluster.

        Counts alone would not tell of two that have changed places.
        """
        (row,) = self._all(
            f"SELECT (SELECT max(id) FROM moves), (SELECT count(*) FROM moves WHERE {OPEN}), "
            "(SELECT count(*) FROM pins), (SELECT max(pinned_at) FROM pins), "
            "(SELECT id FROM fits WHERE is_current = 1)"
        )
        return tuple(row)

    def pins_state(self) -> tuple[object, ...]:
        """Return what is another value when the pins are others.

        An undo gives old ones back, so that the newest alone would not tell.
        """
        row: tuple[object, ...] = self._one(
            "SELECT count(*), max(pinned_at), total(pinned_at), sum(cluster_id) FROM pins"
        )
        return row

    def last_came(self, cluster_id: int) -> float | None:
        """Return when the newest picture of a cluster came, in Unix seconds."""
        return self._value(f"SELECT max(done_at) FROM {self._in_cluster}", cluster_id)

    def arrivals(self, cluster_id: int, since: float) -> list[float]:
        """Return when the pictures of a cluster came that have come since, in Unix seconds."""
        came = f"SELECT done_at FROM {self._in_cluster} AND done_at >= ?"
        return self._column(came, cluster_id, since)

    def latest_members(self, cluster_id: int, count: int) -> list[Member]:
        """Return (id, SHA-256) of so many pictures in a cluster's folder, by the highest ids."""
        latest = f"SELECT id FROM {self._in_cluster} ORDER BY id DESC LIMIT ?"
        sql = f"SELECT id, sha256 FROM files WHERE id IN ({latest})"
        return self._all(sql, cluster_id, count)

    def fit_in_force(self) -> tuple[int, float] | None:
        """Return what is another value when another fit is in force; None before the first.

        A database that was made anew numbers its fits from 1 again.
        """
        row: tuple[int, float] | None = self._one(
            "SELECT id, created_at FROM fits WHERE is_current = 1"
        )
        return row

    def centers(self, cluster_id: int | None = None) -> dict[int, Vectors]:
        """Return the center, float32 [d], of each cluster of the fit in force, or of one."""
        only = "" if cluster_id is None else " AND cluster_id = ?"
        rows = self._all(
            "SELECT cluster_id, vector FROM centers "
            f"WHERE fit_id = (SELECT id FROM fits WHERE is_current = 1){only}",
            *() if cluster_id is None else (cluster_id,),
        )
        return {number: floats(vector) for number, vector in rows}

    def own_folders(self) -> list[tuple[bytes, int]]:
        """Return (folder, pictures) of the folders in target that are no cluster's."""
        return self._all(
            "SELECT CAST(substr(dst, 1, instr(dst, x'2f') - 1) AS BLOB) AS folder, count(*) "
            f"FROM files WHERE {_SHOWN} AND cluster_id IS NULL AND {PLACED} "
            "GROUP BY folder ORDER BY folder"
        )

    def extractor(self) -> ExtractorId | None:
        """Return what made the features that the clusters in force are of; None without any."""
        row = self._one(
            "SELECT weights_digest, layer, dims, backbone FROM fits "
            "JOIN extractors ON extractors.id = extractor_id WHERE is_current = 1"
        )
        return None if row is None or row[0] == REBUILT else extractor_of(*row)

    def rolls_back(self) -> int | None:
        """Return the fit in force if there is one before it, made of the same features."""
        return self._number(
            "SELECT now.id FROM fits AS now JOIN fits AS former ON former.id = now.former_id "
            "WHERE now.is_current = 1 AND former.extractor_id = now.extractor_id"
        )

    # --- pictures ------------------------------------------------------------------------

    def pictures(self, ids: Iterable[int]) -> dict[int, ShownPicture]:
        """Return what is shown of these files; those without a row are left out."""
        found: dict[int, ShownPicture] = {}
        for part in parts(list(ids)):
            rows = self._all(
                f"SELECT id, files.sha256, src, dst, cluster_id, {self._sizes}, EXISTS "
                "(SELECT 1 FROM pins WHERE pins.sha256 = files.sha256), reason "
                "FROM files LEFT JOIN picture_hashes "
                f"ON picture_hashes.sha256 = files.sha256 WHERE id IN {marks(part)}",
                *part,
            )
            found.update({row[0]: ShownPicture(*row) for row in rows})
        return found

    def hashes(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the SHA-256 of each of these files that has one."""
        found: dict[int, bytes] = {}
        for part in parts(ids):
            rows = self._all(
                f"SELECT id, sha256 FROM files WHERE sha256 IS NOT NULL AND id IN {marks(part)}",
                *part,
            )
            found.update(rows)
        return found

    def members(self, cluster_id: int) -> list[Member]:
        """Return (id, SHA-256) of all pictures in a cluster's folder."""
        return self._all(f"SELECT id, sha256 FROM {self._in_cluster}", cluster_id)

    def member_ids(self, cluster_id: int) -> list[int]:
        """Return the numbers of all pictures in a cluster's folder, from the index alone."""
        return self._column(f"SELECT id FROM {self._in_cluster}", cluster_id)

    def membership(self, cluster_id: int) -> tuple[int, int]:
        """Return what is another value when other pictures are in a cluster, most likely."""
        sql = f"SELECT count(*), coalesce(sum(id), 0) FROM {self._in_cluster}"
        row: tuple[int, int] = self._one(sql, cluster_id)
        return row

    def size_bytes(self, file_id: int) -> int:
        """Return the size of a file."""
        return self._count("SELECT size_bytes FROM files WHERE id = ?", file_id)

    def vectors(
        self, extractor: ExtractorId, hashes: Sequence[bytes]
    ) -> Iterator[tuple[list[bytes], Vectors]]:
        """Yield those hashes that have features, and these, float32 [m, d], 500 at a time.

        Hashes in their order are quickest: they lie on disk so.
        """
        for part in parts(hashes):
            rows = self._connection.execute(
                f"SELECT sha256, vector FROM features WHERE extractor_id = {EXTRACTOR} "
                f"AND sha256 IN {marks(part)}",
                (extractor.weights_digest, extractor.layer, *part),
            ).fetchall()
            vectors = vectors_of([vector for _, vector in rows], extractor)
            yield [sha256 for sha256, _ in rows], vectors

    def newest(self, cluster_id: int, before: CameAt | None, limit: int) -> list[CameAt]:
        """Return where the next pictures of a cluster stand, the newest first."""
        came, file_id = before or (float("inf"), 0)
        return self._connection.execute(
            f"SELECT coalesce(done_at, 0) AS came, id FROM {self._in_cluster} "
            "AND (came, id) < (?, ?) ORDER BY came DESC, id DESC LIMIT ?",
            (cluster_id, came, file_id, limit),
        ).fetchall()
