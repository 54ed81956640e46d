"""What the sheets and the list of names need to know of a library; nothing is written."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store_counts import file_groups
from imgsortd.adapters.store_fits import stored_dtype
from imgsortd.core.records import ExtractorId, FileState, Vectors
from imgsortd.core.routing import cluster_folder

_IN_CLUSTERS = "cluster_id IS NOT NULL AND state IN ('sorted', 'duplicate')"
# As for a fit: down the primary key of features, never a sort of a million rows.
_MEMBERS = (
    "SELECT features.sha256, files.id, cluster_id, vector FROM features CROSS JOIN files "
    "ON files.sha256 = features.sha256 WHERE extractor_id = (SELECT id FROM extractors "
    "WHERE weights_digest = ? AND layer = ?) AND features.sha256 >= ? "
    f"AND NOT (features.sha256 = ? AND files.id <= ?) AND {_IN_CLUSTERS} "
    "ORDER BY features.sha256, files.id LIMIT ?"
)
_PART_BYTES = 2**24
_IDS_AT_ONCE = 500
_SHOWN = "SELECT id, src, dst, stays, reason FROM files"


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster: its number, the name a person gave it (or ""), its folder below target."""

    cluster_id: int
    name: str
    folder: bytes


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A file that a sheet may show: below target, or in the inbox where it stays."""

    file_id: int
    src: bytes
    dst: bytes | None
    stays: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Members:
    """Pictures in cluster folders: file ids and cluster ids, int64 [m]; features [m, d]."""

    file_ids: npt.NDArray[np.int64]
    cluster_ids: npt.NDArray[np.int64]
    features: Vectors


class SheetRows:
    """Queries for the sheets, over one connection; reading is enough."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def clusters(self, sizes: Mapping[int, int]) -> list[ClusterRow]:
        """Return the clusters in force, and all that hold files (``sizes``), by number."""
        rows = self._connection.execute(
            "SELECT id, coalesce(name, ''), folder, retired_fit IS NULL FROM clusters"
        ).fetchall()
        found = {
            number: ClusterRow(number, name, folder or cluster_folder(number))
            for number, name, folder, is_in_force in rows
            if is_in_force or sizes.get(number)
        }
        for number in sizes:
            found.setdefault(number, ClusterRow(number, "", cluster_folder(number)))
        return [found[number] for number in sorted(found)]

    def members(self, extractor: ExtractorId) -> Iterator[Members]:
        """Yield the pictures in cluster folders in the order of their hashes, 16 MB at a time.

        Bytes that a cluster holds several times come once. Each part is a read of its own:
        a reader that stays would keep the writer from committing.
        """
        dtype = stored_dtype(extractor.layer)
        limit = max(1, _PART_BYTES // (4 * extractor.dims))
        last: tuple[bytes, int] = (b"", 0)
        seen: set[int] = set()  # clusters that hold the bytes in hand
        key = (extractor.weights_digest, extractor.layer)
        while rows := self._connection.execute(
            _MEMBERS, (*key, last[0], last[0], last[1], limit)
        ).fetchall():
            once = []
            for sha256, file_id, cluster_id, vector in rows:
                if sha256 != last[0]:
                    seen.clear()
                if cluster_id not in seen:
                    once.append((file_id, cluster_id, vector))
                seen.add(cluster_id)
                last = (sha256, file_id)
            raw = np.frombuffer(b"".join([row[2] for row in once]), dtype=dtype)
            yield Members(
                np.array([row[0] for row in once], dtype=np.int64),
                np.array([row[1] for row in once], dtype=np.int64),
                raw.reshape(len(once), extractor.dims).astype(np.float32),
            )

    def duplicates(self) -> dict[int, int]:
        """Return how many duplicates each cluster holds."""
        counts: Counter[int] = Counter()
        for group in file_groups(self._connection):
            if group.state == FileState.DUPLICATE and group.cluster_id is not None:
                counts[group.cluster_id] += group.files
        return dict(counts)

    def files(self, ids: Iterable[int]) -> dict[int, ShownFile]:
        """Return what is known of these files; those without a row are left out."""
        found: dict[int, ShownFile] = {}
        rest = iter(ids)
        while part := list(islice(rest, _IDS_AT_ONCE)):
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(f"{_SHOWN} WHERE id IN ({marks})", part)
            found.update({row[0]: _shown(row) for row in rows})
        return found

    def first_of(self, cluster_id: int, limit: int) -> list[ShownFile]:
        """Return the first files of a cluster, for one whose features are not kept."""
        rows = self._connection.execute(
            f"{_SHOWN} WHERE cluster_id = ? AND state = 'sorted' ORDER BY id LIMIT ?",
            (cluster_id, limit),
        )
        return [_shown(row) for row in rows]

    def newest(self, state: FileState, limit: int) -> list[ShownFile]:
        """Return the newest files in a state."""
        rows = self._connection.execute(
            f"{_SHOWN} WHERE state = ? ORDER BY id DESC LIMIT ?", (state, limit)
        )
        return [_shown(row) for row in rows]


def _shown(row: tuple[int, bytes, bytes | None, int, str]) -> ShownFile:
    return ShownFile(row[0], row[1], row[2], bool(row[3]), row[4])
