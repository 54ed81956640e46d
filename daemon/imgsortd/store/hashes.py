"""What pictures look like, in 64 bits and a size each, and the pairs that a person has kept.

NumPy is imported where an array is made: ``status`` opens the store without it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from imgsortd.store.lookup import FileQueries, FileRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from imgsortd.records import Look

_BYTES = 8
_AT_ONCE = 50_000
_STANDS = "state IN ('pending', 'sorted', 'review', 'duplicate', 'undone')"
# Only those of which features are, or were, at hand: pictures, and no companions.
_LACKING = (
    f"sha256 IS NOT NULL AND {_STANDS} AND files.id > ? "
    "AND EXISTS (SELECT 1 FROM features WHERE features.sha256 = files.sha256) "
    "AND NOT EXISTS (SELECT 1 FROM picture_hashes WHERE picture_hashes.sha256 = files.sha256)"
)

Pair = tuple[bytes, bytes]
"""The SHA-256 of two pictures, the lower one first; twice the same for equal copies."""


class PictureHashes(FileQueries):
    """Rows of ``picture_hashes`` and ``kept_pairs``."""

    def put(self, looks: Mapping[bytes, Look]) -> None:
        """Keep the perceptual hash and the size of each SHA-256.

        A row of an older imgsortd, which has no size, is given it.
        """
        self._connection.executemany(
            "INSERT INTO picture_hashes(sha256, phash, width_px, height_px) VALUES (?, ?, ?, ?) "
            "ON CONFLICT(sha256) DO UPDATE SET width_px = excluded.width_px, "
            "height_px = excluded.height_px "
            "WHERE picture_hashes.width_px IS NULL AND excluded.width_px IS NOT NULL",
            [
                (sha256, look.phash.to_bytes(_BYTES, "big"), *(look.size_px or (None, None)))
                for sha256, look in looks.items()
            ],
        )

    def standing(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
        """Return the pictures that have a place: SHA-256, uint8 [n, 32], and hash, uint64 [n].

        In the order of the SHA-256; 40 bytes a picture. Each part is a read of its own, so
        that a writer may commit between two.
        """
        import numpy as np

        names: list[bytes] = []
        values: list[bytes] = []
        last = b""
        while rows := self._connection.execute(
            "SELECT sha256, phash FROM picture_hashes WHERE sha256 > ? AND EXISTS (SELECT 1 "
            f"FROM files WHERE files.sha256 = picture_hashes.sha256 AND {_STANDS}) "
            "ORDER BY sha256 LIMIT ?",
            (last, _AT_ONCE),
        ).fetchall():
            last = rows[-1][0]
            names.append(b"".join([row[0] for row in rows]))
            values.append(b"".join([row[1] for row in rows]))
        hashes = np.frombuffer(b"".join(values), dtype=">u8").astype(np.uint64)
        return np.frombuffer(b"".join(names), dtype=np.uint8).reshape(-1, 32), hashes

    def count_lacking(self) -> int:
        """Count the pictures that have a place and no hash: sorted before there were any."""
        return self._count(f"SELECT count(*) FROM files WHERE {_LACKING}", 0)

    def lacking(self, after_id: int, limit: int) -> list[FileRow]:
        """Return the next pictures, by id, that have a place and no hash."""
        return self._rows(FileRow, f"{_LACKING} ORDER BY id LIMIT ?", after_id, limit)

    def repeated(self) -> list[bytes]:
        """Return the SHA-256 that several files with a place have, in order."""
        return self._column(
            f"SELECT sha256 FROM files WHERE sha256 IS NOT NULL AND {_STANDS} "
            "GROUP BY sha256 HAVING count(*) > 1 ORDER BY min(id)"
        )

    def keep(self, hashes: Sequence[bytes]) -> int:
        """Remember of all pairs of these that both are wanted; return how many pairs are new.

        One that is given twice is a pair with itself: its copies, byte for byte, are wanted.
        """
        now = time.time()
        before = self._connection.total_changes
        self._connection.executemany(
            "INSERT OR IGNORE INTO kept_pairs VALUES (?, ?, ?)",
            [(*pair, now) for pair in combinations(sorted(hashes), 2)],
        )
        return self._connection.total_changes - before

    def forget(self, hashes: Sequence[bytes]) -> int:
        """Take :meth:`keep` back; of one picture alone, all its pairs. Return how many."""
        before = self._connection.total_changes
        if len(hashes) == 1:
            self._do("DELETE FROM kept_pairs WHERE first = ? OR second = ?", hashes[0], hashes[0])
        else:
            self._connection.executemany(
                "DELETE FROM kept_pairs WHERE first = ? AND second = ?",
                list(combinations(sorted(hashes), 2)),
            )
        return self._connection.total_changes - before

    def kept(self) -> set[Pair]:
        """Return the pairs of which a person has said that both are wanted."""
        return set(self._all("SELECT first, second FROM kept_pairs"))
