"""Sorted files, to be read again: for another backbone's features, or to try int8 on."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from imgsortd.core.records import ExtractorId

_SORTED = (
    "sha256 IS NOT NULL AND (state IN ('sorted', 'review') "
    "OR (state = 'duplicate' AND cluster_id IS NOT NULL))"
)
_OUTDATED = (
    f"FROM files WHERE {_SORTED} AND files.id > ? AND NOT EXISTS (SELECT 1 FROM features "
    "WHERE features.sha256 = files.sha256 AND extractor_id = "
    "(SELECT id FROM extractors WHERE weights_digest = ? AND layer = ?))"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A sorted file: ``dst`` below target, or ``src`` in the inbox where it ``stays``."""

    file_id: int
    src: bytes
    dst: bytes | None
    stays: bool
    sha256: bytes


class Backbones:
    """Queries over ``files`` and ``features``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def count_outdated(self, extractor: ExtractorId) -> int:
        """Count the sorted files that lack features of this extractor."""
        row = self._connection.execute(
            f"SELECT count(*) {_OUTDATED}", (0, extractor.weights_digest, extractor.layer)
        ).fetchone()
        return int(row[0])

    def outdated(self, extractor: ExtractorId, after_id: int, limit: int) -> list[Kept]:
        """Return the next sorted files, by id, that lack features of this extractor."""
        rows = self._connection.execute(
            f"SELECT id, src, dst, stays, sha256 {_OUTDATED} ORDER BY files.id LIMIT ?",
            (after_id, extractor.weights_digest, extractor.layer, limit),
        )
        return [_kept(row) for row in rows]

    def first_sorted(self, limit: int) -> list[Kept]:
        """Return the files that were sorted first, oldest first."""
        rows = self._connection.execute(
            "SELECT id, src, dst, stays, sha256 FROM files WHERE state = 'sorted' "
            "AND sha256 IS NOT NULL ORDER BY id LIMIT ?",
            (limit,),
        )
        return [_kept(row) for row in rows]


def _kept(row: tuple[int, bytes, bytes | None, int, bytes]) -> Kept:
    return Kept(row[0], row[1], row[2], bool(row[3]), row[4])
