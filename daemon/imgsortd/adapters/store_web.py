"""What the web page asks of a library; nothing is written.

Every query is a short read of its own: in the journal mode of an older SQLite, a reader that
stays keeps the daemon from committing. The index ``files_shown`` is not there before the
daemon has started once since it came; then the same queries take longer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from imgsortd.adapters.store_fits import stored_dtype
from imgsortd.core.names import cluster_folder
from imgsortd.core.records import REBUILT, Backbone, ExtractorId, Layer, Vectors

_SHOWN = "state IN ('sorted','duplicate')"
_AT_ONCE = 500
_SLASH = b"/"


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster that there is or was; ``named`` is None where its folder is ``cluster_N``."""

    cluster_id: int
    named: bytes | None
    is_retired: bool

    @property
    def folder(self) -> bytes:
        """Its folder, directly under target."""
        return self.named or cluster_folder(self.cluster_id)


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture as it is shown.

    Attributes
    ----------
    width_px, height_px
        Upright; 0 where they are not known.
    """

    file_id: int
    sha256: bytes | None
    src: bytes
    dst: bytes | None
    cluster_id: int | None
    width_px: int
    height_px: int
    is_pinned: bool
    reason: str

    @property
    def name(self) -> bytes:
        """The last part of its name: below target, or in the inbox where it stands there."""
        return (self.dst or self.src).rsplit(_SLASH, 1)[-1]


Member = tuple[int, bytes | None]
"""A picture in a cluster's folder: (id, SHA-256)."""

Place = tuple[float, int]
"""Where a picture stands among the newest: (Unix seconds, id)."""


class WebRows:
    """Queries for the page, over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @cached_property
    def _files(self) -> str:
        """``files`` with its index named: without statistics SQLite takes another one."""
        row = self._connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'files_shown'"
        ).fetchone()
        return "files" if row is None else "files INDEXED BY files_shown"

    @cached_property
    def _sizes(self) -> str:
        """The columns of a picture's size, or zeros where they are still to come."""
        columns = {row[1] for row in self._connection.execute("PRAGMA table_info(picture_hashes)")}
        return "coalesce(width_px, 0), coalesce(height_px, 0)" if "width_px" in columns else "0, 0"

    # --- clusters ------------------------------------------------------------------------

    def clusters(self) -> list[ClusterLine]:
        """Return the clusters that there are and were, by number."""
        rows = self._connection.execute(
            "SELECT id, folder, retired_fit IS NOT NULL FROM clusters ORDER BY id"
        )
        return [ClusterLine(number, named, bool(retired)) for number, named, retired in rows]

    def last_changes(self) -> tuple[object, ...]:
        """Return what is another value whenever a picture may have gone to another cluster.

        Counts alone would not tell of two that have changed places.
        """
        (row,) = self._connection.execute(
            "SELECT (SELECT max(id) FROM moves), "
            "(SELECT count(*) FROM moves WHERE phase IN ('planned', 'copied')), "
            "(SELECT count(*) FROM pins), (SELECT max(pinned_at) FROM pins), "
            "(SELECT id FROM fits WHERE is_current = 1)"
        )
        return tuple(row)

    def pins_state(self) -> tuple[object, ...]:
        """Return what is another value when the pins are others.

        An undo gives old ones back, so that the newest alone would not tell.
        """
        row: tuple[object, ...] = self._connection.execute(
            "SELECT count(*), max(pinned_at), total(pinned_at), sum(cluster_id) FROM pins"
        ).fetchone()
        return row

    def last_came(self, cluster_id: int) -> float | None:
        """Return when the newest picture of a cluster came, in Unix seconds."""
        row: tuple[float | None] = self._connection.execute(
            f"SELECT max(done_at) FROM {self._files} WHERE cluster_id = ? AND {_SHOWN}",
            (cluster_id,),
        ).fetchone()
        return row[0]

    def arrivals(self, cluster_id: int, since: float) -> list[float]:
        """Return when the pictures of a cluster came that have come since, in Unix seconds."""
        rows = self._connection.execute(
            f"SELECT done_at FROM {self._files} WHERE cluster_id = ? AND done_at >= ? AND {_SHOWN}",
            (cluster_id, since),
        )
        return [done_at for (done_at,) in rows.fetchall()]

    def latest_members(self, cluster_id: int, count: int) -> list[Member]:
        """Return (id, SHA-256) of so many pictures in a cluster's folder, by the highest ids."""
        return self._connection.execute(
            "SELECT id, sha256 FROM files WHERE id IN "
            f"(SELECT id FROM {self._files} WHERE cluster_id = ? AND {_SHOWN} "
            "ORDER BY id DESC LIMIT ?)",
            (cluster_id, count),
        ).fetchall()

    def fit_in_force(self) -> tuple[int, float] | None:
        """Return what is another value when another fit is in force; None before the first.

        A database that was made anew numbers its fits from 1 again.
        """
        row: tuple[int, float] | None = self._connection.execute(
            "SELECT id, created_at FROM fits WHERE is_current = 1"
        ).fetchone()
        return row

    def centers(self, cluster_id: int | None = None) -> dict[int, Vectors]:
        """Return the center, float32 [d], of each cluster of the fit in force, or of one."""
        only = "" if cluster_id is None else " AND cluster_id = ?"
        rows = self._connection.execute(
            "SELECT cluster_id, vector FROM centers "
            f"WHERE fit_id = (SELECT id FROM fits WHERE is_current = 1){only}",
            () if cluster_id is None else (cluster_id,),
        )
        return {
            number: np.frombuffer(vector, dtype="<f4").astype(np.float32)
            for number, vector in rows.fetchall()
        }

    def own_folders(self) -> list[tuple[bytes, int]]:
        """Return (folder, pictures) of the folders in target that are no cluster's."""
        return self._connection.execute(
            "SELECT CAST(substr(dst, 1, instr(dst, x'2f') - 1) AS BLOB) AS folder, count(*) "
            f"FROM files WHERE {_SHOWN} AND cluster_id IS NULL AND dst IS NOT NULL "
            "GROUP BY folder ORDER BY folder"
        ).fetchall()

    def extractor(self) -> ExtractorId | None:
        """Return what made the features that the clusters in force are of; None without any."""
        row = self._connection.execute(
            "SELECT weights_digest, layer, dims, backbone FROM fits "
            "JOIN extractors ON extractors.id = extractor_id WHERE is_current = 1"
        ).fetchone()
        if row is None or row[0] == REBUILT:
            return None
        return ExtractorId(row[0], Layer(row[1]), row[2], Backbone(row[3]))

    def rolls_back(self) -> int | None:
        """Return the fit in force if there is one before it, made of the same features."""
        row = self._connection.execute(
            "SELECT now.id FROM fits AS now JOIN fits AS former ON former.id = now.former_id "
            "WHERE now.is_current = 1 AND former.extractor_id = now.extractor_id"
        ).fetchone()
        return None if row is None else int(row[0])

    # --- pictures ------------------------------------------------------------------------

    def pictures(self, ids: Iterable[int]) -> dict[int, PictureRow]:
        """Return what is shown of these files; those without a row are left out."""
        found: dict[int, PictureRow] = {}
        rest = iter(ids)
        while part := list(islice(rest, _AT_ONCE)):
            rows = self._connection.execute(
                f"SELECT id, files.sha256, src, dst, cluster_id, {self._sizes}, EXISTS "
                "(SELECT 1 FROM pins WHERE pins.sha256 = files.sha256), reason "
                "FROM files LEFT JOIN picture_hashes "
                "ON picture_hashes.sha256 = files.sha256 WHERE id IN "
                f"({','.join('?' * len(part))})",
                part,
            ).fetchall()
            found.update({row[0]: _picture(row) for row in rows})
        return found

    def hashes(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the SHA-256 of each of these files that has one."""
        found: dict[int, bytes] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            rows = self._connection.execute(
                "SELECT id, sha256 FROM files WHERE sha256 IS NOT NULL "
                f"AND id IN ({','.join('?' * len(part))})",
                part,
            )
            found.update(rows.fetchall())
        return found

    def members(self, cluster_id: int) -> list[Member]:
        """Return (id, SHA-256) of all pictures in a cluster's folder."""
        return self._connection.execute(
            f"SELECT id, sha256 FROM {self._files} WHERE cluster_id = ? AND {_SHOWN}",
            (cluster_id,),
        ).fetchall()

    def member_ids(self, cluster_id: int) -> list[int]:
        """Return the numbers of all pictures in a cluster's folder, from the index alone."""
        rows = self._connection.execute(
            f"SELECT id FROM {self._files} WHERE cluster_id = ? AND {_SHOWN}", (cluster_id,)
        )
        return [file_id for (file_id,) in rows.fetchall()]

    def membership(self, cluster_id: int) -> tuple[int, int]:
        """Return what is another value when other pictures are in a cluster, most likely."""
        row: tuple[int, int] = self._connection.execute(
            f"SELECT count(*), coalesce(sum(id), 0) FROM {self._files} "
            f"WHERE cluster_id = ? AND {_SHOWN}",
            (cluster_id,),
        ).fetchone()
        return row

    def size_bytes(self, file_id: int) -> int:
        """Return the size of a file."""
        row = self._connection.execute(
            "SELECT size_bytes FROM files WHERE id = ?", (file_id,)
        ).fetchone()
        return int(row[0])

    def vectors(
        self, extractor: ExtractorId, hashes: Sequence[bytes]
    ) -> Iterator[tuple[list[bytes], Vectors]]:
        """Yield those hashes that have features, and these, float32 [m, d], 500 at a time.

        Hashes in their order are quickest: they lie on disk so.
        """
        dtype = stored_dtype(extractor.layer)
        for start in range(0, len(hashes), _AT_ONCE):
            part = hashes[start : start + _AT_ONCE]
            rows = self._connection.execute(
                "SELECT sha256, vector FROM features WHERE extractor_id = (SELECT id FROM "
                "extractors WHERE weights_digest = ? AND layer = ?) "
                f"AND sha256 IN ({','.join('?' * len(part))})",
                (extractor.weights_digest, extractor.layer, *part),
            ).fetchall()
            raw = np.frombuffer(b"".join([vector for _, vector in rows]), dtype=dtype)
            vectors = raw.reshape(len(rows), extractor.dims).astype(np.float32)
            yield [sha256 for sha256, _ in rows], vectors

    def newest(self, cluster_id: int, before: Place | None, limit: int) -> list[Place]:
        """Return where the next pictures of a cluster stand, the newest first."""
        came, file_id = before or (float("inf"), 0)
        return self._connection.execute(
            f"SELECT coalesce(done_at, 0) AS came, id FROM {self._files} WHERE cluster_id = ? "
            f"AND {_SHOWN} AND (came, id) < (?, ?) ORDER BY came DESC, id DESC LIMIT ?",
            (cluster_id, came, file_id, limit),
        ).fetchall()


def _picture(row: Sequence[Any]) -> PictureRow:
    *columns, is_pinned, reason = row
    file_id, sha256, src, dst, cluster_id, width_px, height_px = columns
    return PictureRow(
        file_id, sha256, src, dst, cluster_id, width_px, height_px, bool(is_pinned), reason
    )
