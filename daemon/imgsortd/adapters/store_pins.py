"""Pins: pictures whose place a person has chosen."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_STANDING = "dst IS NOT NULL AND state NOT IN ('pending', 'gone')"


@dataclass(frozen=True, slots=True)
class Pin:
    """A picture stays in this cluster, or where it stands outside of all where it is None.

    Two are equal that say the same; ``pinned_at``, in Unix seconds, is None where it is now.
    """

    cluster_id: int | None
    pinned_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PinRow:
    """A pin as it is listed; ``dst`` is None where the picture stands nowhere now."""

    sha256: bytes
    cluster_id: int | None
    pinned_at: float
    dst: bytes | None


class Pins:
    """Rows of ``pins``: by content, so that they outlive a move and a name.

    Attributes
    ----------
    version
        Another number after each change, for what is made of the pins.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.version = 0

    def put(self, sha256: bytes, cluster_id: int | None, pinned_at: float | None = None) -> None:
        """Keep a picture in a cluster, or, with None, out of all; since now, or since then."""
        self.version += 1
        self._connection.execute(
            "INSERT INTO pins VALUES (?, ?, ?) ON CONFLICT(sha256) DO UPDATE SET "
            "cluster_id = excluded.cluster_id, pinned_at = excluded.pinned_at",
            (sha256, cluster_id, time.time() if pinned_at is None else pinned_at),
        )

    def remove(self, hashes: Iterable[bytes]) -> int:
        """Free pictures; return how many were pinned."""
        self.version += 1
        return sum(
            self._connection.execute("DELETE FROM pins WHERE sha256 = ?", (sha256,)).rowcount
            for sha256 in hashes
        )

    def get(self, sha256: bytes) -> Pin | None:
        """Return the pin of these bytes, or None where they are free."""
        row = self._connection.execute(
            "SELECT cluster_id, pinned_at FROM pins WHERE sha256 = ?", (sha256,)
        ).fetchone()
        return None if row is None else Pin(*row)

    def is_pinned(self, sha256: bytes) -> bool:
        """Tell whether a person has chosen the place of these bytes."""
        return self.get(sha256) is not None

    def all(self) -> dict[bytes, int | None]:
        """Return the cluster, or None, of each pinned picture by its SHA-256."""
        return dict(self._connection.execute("SELECT sha256, cluster_id FROM pins").fetchall())

    def file_ids(self) -> set[int]:
        """Return the rows of all placed files whose bytes are pinned."""
        rows = self._connection.execute(
            f"SELECT id FROM pins CROSS JOIN files USING (sha256) WHERE {_STANDING}"
        )
        return {row[0] for row in rows}

    def newest(self, limit: int) -> list[tuple[bytes, int]]:
        """Return (SHA-256, cluster id) of the newest pins that name a cluster."""
        return self._connection.execute(
            "SELECT sha256, cluster_id FROM pins WHERE cluster_id IS NOT NULL "
            "ORDER BY pinned_at DESC LIMIT ?",
            (limit,),
        ).fetchall()

    def rows(self) -> list[PinRow]:
        """Return the pins for a list, the newest first."""
        rows = self._connection.execute(
            "SELECT sha256, cluster_id, pinned_at, (SELECT dst FROM files "
            f"WHERE files.sha256 = pins.sha256 AND {_STANDING} LIMIT 1) FROM pins "
            "ORDER BY pinned_at DESC, sha256"
        )
        return [PinRow(*row) for row in rows]

    def of_cluster(self, cluster_id: int) -> list[bytes]:
        """Return the pinned pictures of a cluster."""
        rows = self._connection.execute(
            "SELECT sha256 FROM pins WHERE cluster_id = ?", (cluster_id,)
        )
        return [row[0] for row in rows]

    def of_file(self, dst: bytes) -> Sequence[bytes]:
        """Return the pinned bytes that stand under a name of target."""
        rows = self._connection.execute(
            f"SELECT sha256 FROM files JOIN pins USING (sha256) WHERE dst = ? AND {_STANDING}",
            (dst,),
        )
        return [row[0] for row in rows]
