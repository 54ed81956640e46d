"""Features and centers: arrays in SQLite, each row with what made it.

pool5 and fc2 vectors have length 1 and are kept as float16 (relative error up to
2⁻¹¹, below what bf16 arithmetic itself leaves); logits are kept as float32.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsortd.records import ExtractorId, FitState, Layer, Model, Vectors
from imgsortd.store.fits import FitRecord, FitRecords
from imgsortd.store.lookup import extractor_of
from imgsortd.store.queries import NOT_MOVING, marks, parts

_USED = (
    "(state IN ('pending', 'sorted', 'review') OR (state = 'duplicate' AND cluster_id IS NOT NULL))"
)
_PINNED = (
    "SELECT sha256, pinned_to, files.id, vector FROM "
    "(SELECT sha256, cluster_id AS pinned_to FROM pins WHERE cluster_id IS NOT NULL) "
    f"JOIN files USING (sha256) JOIN features USING (sha256) WHERE extractor_id = ? AND {_USED} "
    "ORDER BY sha256, files.id"
)
# CROSS JOIN is SQLite's word for "in this order": down the primary key of features, which is
# the order on disk, and never a sort of a million rows.
_STREAM = (
    "SELECT features.sha256, {columns}files.id, vector FROM features "
    "CROSS JOIN files ON files.sha256 = features.sha256 WHERE extractor_id = ? "
    "AND features.sha256 >= ? AND NOT (features.sha256 = ? AND files.id <= ?) "
    "AND {where} ORDER BY features.sha256, files.id LIMIT ?"
)
_IN_CLUSTERS = "cluster_id IS NOT NULL AND state IN ('sorted', 'duplicate')"
_STREAM_BYTES = 2**24

Part = tuple[npt.NDArray[np.int64], Vectors]
"""File ids, int64 [n], and their features, float32 [n, d]."""
InClusters = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Vectors]
"""File ids, int64 [n], cluster ids, int64 [n], and features, float32 [n, d]."""


class Fits(FitRecords):
    """Rows of ``extractors``, ``features``, ``fits``, ``clusters`` and ``centers``."""

    def extractor_row(self, extractor: ExtractorId) -> int:
        """Return the row of an extractor, made where it is new."""
        self._connection.execute(
            "INSERT INTO extractors(weights_digest, layer, dims, backbone) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (extractor.weights_digest, extractor.layer, extractor.dims, extractor.backbone),
        )
        row = self._find_extractor(extractor)
        assert row is not None
        return row

    def _find_extractor(self, extractor: ExtractorId) -> int | None:
        return self._number(
            "SELECT id FROM extractors WHERE weights_digest = ? AND layer = ?",
            extractor.weights_digest,
            extractor.layer,
        )

    def put_features(
        self, extractor: ExtractorId, hashes: Iterable[bytes], vectors: Vectors
    ) -> None:
        """Keep the vector [d] of each hash."""
        row_id = self.extractor_row(extractor)
        dtype = stored_dtype(extractor.layer)
        self._connection.executemany(
            "INSERT OR IGNORE INTO features VALUES (?, ?, ?)",
            [
                (sha256, row_id, vector.astype(dtype).tobytes())
                for sha256, vector in zip(hashes, vectors, strict=True)
            ],
        )

    def has_features(self, extractor: ExtractorId, sha256: bytes) -> bool:
        """Tell whether these bytes were extracted before, by the same extractor."""
        return self._is_any(
            "SELECT 1 FROM features WHERE sha256 = ? AND extractor_id = ?",
            sha256,
            self._find_extractor(extractor),
        )

    def get_features(self, extractor: ExtractorId, hashes: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the stored vector, float32 [d], of each hash that has one."""
        row_id = self._find_extractor(extractor)
        found = {}
        for sha256 in hashes:
            row = self._one(
                "SELECT vector FROM features WHERE sha256 = ? AND extractor_id = ?", sha256, row_id
            )
            if row is not None:
                found[sha256] = vectors_of(row, extractor)[0]
        return found

    def lacking(self, extractor: ExtractorId) -> list[int]:
        """Return waiting files whose bytes were hashed but not extracted by this extractor."""
        return self._column(
            "SELECT id FROM files WHERE state = 'pending' AND sha256 IS NOT NULL "
            f"AND {NOT_MOVING} "
            "AND NOT EXISTS (SELECT 1 FROM features WHERE features.sha256 = files.sha256 "
            "AND extractor_id = ?)",
            self._find_extractor(extractor),
        )

    def load_features(self, extractor: ExtractorId) -> Part:
        """Return file ids, int64 [n], and vectors, float32 [n, d], ordered by file name.

        Every sorted or waiting file is one row, kept duplicates too; the order makes
        a fit with the same seed repeatable.
        """
        rows = self._all(
            "SELECT files.id, vector FROM files JOIN features USING (sha256) "
            f"WHERE extractor_id = ? AND {_USED} ORDER BY src, files.id",
            self._find_extractor(extractor),
        )
        return _part(rows, extractor)

    def load_review(self, extractor: ExtractorId, limit: int) -> Part:
        """Return file ids, int64 [n], and vectors, float32 [n, d], of the newest in review.

        Those that a person has put there are not among them.
        """
        rows = self._connection.execute(
            "SELECT files.id, vector FROM files JOIN features USING (sha256) "
            "WHERE extractor_id = ? AND state = 'review' AND in_target "
            "AND sha256 NOT IN (SELECT sha256 FROM pins) ORDER BY files.id DESC LIMIT ?",
            (self._find_extractor(extractor), limit),
        ).fetchall()
        return _part(rows, extractor)

    def features_of(self, extractor: ExtractorId, file_ids: Sequence[int]) -> Part:
        """Return those of some files that have features, int64 [n], and these, float32 [n, d].

        In the order of the ids.
        """
        row_id = self._find_extractor(extractor)
        rows: list[tuple[int, bytes]] = []
        for some in parts(file_ids):
            rows += self._all(
                "SELECT files.id, vector FROM files JOIN features USING (sha256) "
                f"WHERE extractor_id = ? AND files.id IN {marks(some)}",
                *(row_id, *some),
            )
        return _part(sorted(rows), extractor)

    def stream_features(self, extractor: ExtractorId) -> Iterator[Part]:
        """Yield file ids, int64 [m], and vectors, float32 [m, d], in the order of the hashes.

        The same rows as :meth:`load_features`, 16 MB at a time. Hashes know nothing of
        what is in a picture, so the first rows are a random sample of all. Each part is
        a read of its own: a reader that stays would keep the writer from committing.
        Files that come or go meanwhile may be in it or not.
        """
        for rows in self._stream(extractor, "", _USED):
            yield _part(rows, extractor)

    def stream_members(self, extractor: ExtractorId) -> Iterator[InClusters]:
        """Yield the pictures in cluster folders as :meth:`stream_features` does.

        Bytes that a cluster holds several times come once.
        """
        last = b""
        seen: set[int] = set()  # clusters that hold the bytes in hand
        for rows in self._stream(extractor, "cluster_id, ", _IN_CLUSTERS):
            once = []
            for row in rows:
                if row[0] != last:
                    seen.clear()
                if row[1] not in seen:
                    once.append(row)
                seen.add(row[1])
                last = row[0]
            yield _in_clusters(once, extractor)

    def _stream(self, extractor: ExtractorId, columns: str, where: str) -> Iterator[list[Any]]:
        """Yield rows of a SHA-256, some more columns, a file's id and its vector, in parts."""
        row_id = self._find_extractor(extractor)
        limit = max(1, _STREAM_BYTES // (4 * extractor.dims))
        sha256, file_id = b"", 0
        sql = _STREAM.format(columns=columns, where=where)
        while rows := self._all(sql, row_id, sha256, sha256, file_id, limit):
            sha256, file_id = rows[-1][0], rows[-1][-2]
            yield rows

    def pinned_features(self, extractor: ExtractorId) -> InClusters:
        """Return the pictures that a person has put into a cluster, in the order of the hashes."""
        return _in_clusters(self._all(_PINNED, self._find_extractor(extractor)), extractor)

    def save(
        self,
        extractor: ExtractorId,
        centers: Vectors,
        cluster_ids: Sequence[int],
        sizes: Sequence[int],
        record: FitRecord,
    ) -> Model:
        """Keep a fit and make it the current one; call inside one transaction."""
        model = self.keep(extractor, centers, cluster_ids, sizes, record, FitState.ADOPTED)
        self.put_in_force(model.fit_id)
        return model

    def keep(
        self,
        extractor: ExtractorId,
        centers: Vectors,
        cluster_ids: Sequence[int],
        sizes: Sequence[int],
        record: FitRecord,
        state: FitState,
    ) -> Model:
        """Keep a fit without putting it in force; its new numbers are taken for good."""
        fit_id = self._insert(
            "fits",
            extractor_id=self.extractor_row(extractor),
            is_current=0,
            fit_trigger=record.trigger,
            algorithm=record.algorithm,
            n_clusters=len(centers),
            n_images=record.n_images,
            random_state=record.random_state,
            inertia=record.inertia,
            churn=record.churn,
            fit_s=record.fit_s,
            created_at=time.time(),
            distances=record.distances,
            state=state,
            former_id=self.current_id(),
            about_id=record.about_id,
            about_images=record.about_images,
        )
        self._connection.executemany(
            "INSERT INTO clusters(id, first_fit, retired_fit) VALUES (?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            [(cluster_id, fit_id, fit_id) for cluster_id in cluster_ids],
        )
        self._connection.executemany(
            "INSERT INTO centers VALUES (?, ?, ?, ?, ?)",
            [
                (fit_id, label, cluster_ids[label], sizes[label], center.astype("<f4").tobytes())
                for label, center in enumerate(centers)
            ],
        )
        self.decide(fit_id, state, record.n_images)
        return Model(fit_id, extractor, centers, tuple(cluster_ids), _quantiles(record.distances))

    def current(self) -> Model | None:
        """Return the model in force, or None before the first fit."""
        fit_id = self.current_id()
        return None if fit_id is None else self.model(fit_id)

    def model(self, fit_id: int) -> Model:
        """Return the model of a fit that is kept."""
        distances, *columns = self._one(
            "SELECT distances, weights_digest, layer, dims, backbone FROM fits "
            "JOIN extractors ON extractors.id = extractor_id WHERE fits.id = ?",
            fit_id,
        )
        rows = self._all(
            "SELECT cluster_id, vector FROM centers WHERE fit_id = ? ORDER BY label", fit_id
        )
        centers = np.stack([floats(vector) for _, vector in rows])
        ids = tuple(cluster_id for cluster_id, _ in rows)
        return Model(fit_id, extractor_of(*columns), centers, ids, _quantiles(distances))


def stored_dtype(layer: Layer) -> np.dtype[np.float32] | np.dtype[np.float16]:
    """Return the dtype that a layer's vectors are stored in."""
    return np.dtype("<f4") if layer is Layer.LOGITS else np.dtype("<f2")


def floats(blob: bytes) -> Vectors:
    """Return the numbers of a center, or of quantiles, float32 [n]."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32)


def vectors_of(blobs: Sequence[bytes], extractor: ExtractorId) -> Vectors:
    """Return stored vectors as float32 [n, d]."""
    raw = np.frombuffer(b"".join(blobs), dtype=stored_dtype(extractor.layer))
    return raw.reshape(len(blobs), extractor.dims).astype(np.float32)


def _part(rows: Sequence[Sequence[Any]], extractor: ExtractorId) -> Part:
    """Make arrays of rows that end in a file's id and its vector."""
    ids = np.array([row[-2] for row in rows], dtype=np.int64)
    return ids, vectors_of([row[-1] for row in rows], extractor)


def _in_clusters(rows: Sequence[Sequence[Any]], extractor: ExtractorId) -> InClusters:
    """Make arrays of rows of a SHA-256, a cluster's id, a file's id and its vector."""
    ids, vectors = _part(rows, extractor)
    return ids, np.array([row[1] for row in rows], dtype=np.int64), vectors


def _quantiles(blob: bytes | None) -> Vectors | None:
    return None if blob is None else floats(blob)
