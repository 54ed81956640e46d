"""Features, fits and centers: arrays in SQLite, each row with what made it.

pool5 and fc2 vectors have length 1 and are kept as float16 (relative error up to
2⁻¹¹, below what bf16 arithmetic itself leaves); logits are kept as float32.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store_proposals import Proposals
from imgsortd.adapters.store_records import FitRecord, FitRecords
from imgsortd.core.records import Backbone, ExtractorId, FitState, Layer, Model, Vectors

_USED = (
    "(state IN ('pending', 'sorted', 'review') OR (state = 'duplicate' AND cluster_id IS NOT NULL))"
)
_FITTED = f"FROM files JOIN features USING (sha256) WHERE extractor_id = ? AND {_USED}"
# CROSS JOIN is SQLite's word for "in this order": down the primary key of features, which is
# the order on disk, and never a sort of a million rows.
_STREAMED = (
    "SELECT features.sha256, files.id, vector FROM features "
    "CROSS JOIN files ON files.sha256 = features.sha256 WHERE extractor_id = ? "
    "AND features.sha256 >= ? AND NOT (features.sha256 = ? AND files.id <= ?) "
    f"AND {_USED} ORDER BY features.sha256, files.id LIMIT ?"
)
_PINNED = (
    "SELECT files.id, pinned_to, vector FROM "
    "(SELECT sha256, cluster_id AS pinned_to FROM pins WHERE cluster_id IS NOT NULL) "
    f"JOIN files USING (sha256) JOIN features USING (sha256) WHERE extractor_id = ? AND {_USED} "
    "ORDER BY sha256, files.id"
)
_STREAM_BYTES = 2**24
_IDS_AT_ONCE = 500

Part = tuple[npt.NDArray[np.int64], Vectors]
"""File ids, int64 [n], and their features, float32 [n, d]."""


def stored_dtype(layer: Layer) -> np.dtype[np.float32] | np.dtype[np.float16]:
    """Return the dtype that a layer's vectors are stored in."""
    return np.dtype("<f4") if layer is Layer.LOGITS else np.dtype("<f2")


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

    def latest_extractor(self) -> ExtractorId | None:
        """Return the extractor that was made last, or None before the first picture."""
        row = self._connection.execute(
            "SELECT weights_digest, layer, dims, backbone FROM extractors ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return row and ExtractorId(row[0], Layer(row[1]), row[2], Backbone(row[3]))

    def _find_extractor(self, extractor: ExtractorId) -> int | None:
        row = self._connection.execute(
            "SELECT id FROM extractors WHERE weights_digest = ? AND layer = ?",
            (extractor.weights_digest, extractor.layer),
        ).fetchone()
        return None if row is None else int(row[0])

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
        row = self._connection.execute(
            "SELECT 1 FROM features WHERE sha256 = ? AND extractor_id = ?",
            (sha256, self._find_extractor(extractor)),
        ).fetchone()
        return row is not None

    def get_features(self, extractor: ExtractorId, hashes: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the stored vector, float32 [d], of each hash that has one."""
        row_id = self._find_extractor(extractor)
        dtype = stored_dtype(extractor.layer)
        found = {}
        for sha256 in hashes:
            row = self._connection.execute(
                "SELECT vector FROM features WHERE sha256 = ? AND extractor_id = ?",
                (sha256, row_id),
            ).fetchone()
            if row is not None:
                found[sha256] = np.frombuffer(row[0], dtype=dtype).astype(np.float32)
        return found

    def lacking(self, extractor: ExtractorId) -> list[int]:
        """Return waiting files whose bytes were hashed but not extracted by this extractor."""
        rows = self._connection.execute(
            "SELECT id FROM files WHERE state = 'pending' AND sha256 IS NOT NULL "
            "AND id NOT IN (SELECT file_id FROM moves WHERE phase IN ('planned', 'copied')) "
            "AND NOT EXISTS (SELECT 1 FROM features WHERE features.sha256 = files.sha256 "
            "AND extractor_id = ?)",
            (self._find_extractor(extractor),),
        )
        return [row[0] for row in rows]

    def load_features(self, extractor: ExtractorId) -> Part:
        """Return file ids, int64 [n], and vectors, float32 [n, d], ordered by file name.

        Every sorted or waiting file is one row, kept duplicates too; the order makes
        a fit with the same seed repeatable.
        """
        rows = self._connection.execute(
            f"SELECT files.id, vector {_FITTED} ORDER BY src, files.id",
            (self._find_extractor(extractor),),
        ).fetchall()
        return _part(rows, extractor)

    def load_review(self, extractor: ExtractorId, limit: int) -> Part:
        """Return file ids, int64 [n], and vectors, float32 [n, d], of the newest in review.

        Those that a person has put there are not among them.
        """
        rows = self._connection.execute(
            "SELECT files.id, vector FROM files JOIN features USING (sha256) "
            "WHERE extractor_id = ? AND state = 'review' AND dst IS NOT NULL "
            "AND sha256 NOT IN (SELECT sha256 FROM pins) ORDER BY files.id DESC LIMIT ?",
            (self._find_extractor(extractor), limit),
        ).fetchall()
        return _part(rows, extractor)

    def features_of(self, extractor: ExtractorId, file_ids: Sequence[int]) -> Part:
        """Return those of some files that have features, int64 [n], and these, float32 [n, d].

        In the order of the ids.
        """
        rows: list[tuple[int, bytes]] = []
        for start in range(0, len(file_ids), _IDS_AT_ONCE):
            some = file_ids[start : start + _IDS_AT_ONCE]
            rows += self._connection.execute(
                "SELECT files.id, vector FROM files JOIN features USING (sha256) "
                f"WHERE extractor_id = ? AND files.id IN ({','.join('?' * len(some))})",
                (self._find_extractor(extractor), *some),
            ).fetchall()
        return _part(sorted(rows), extractor)

    def stream_features(self, extractor: ExtractorId) -> Iterator[Part]:
        """Yield file ids, int64 [m], and vectors, float32 [m, d], in the order of the hashes.

        The same rows as :meth:`load_features`, 16 MB at a time. Hashes know nothing of
        what is in a picture, so the first rows are a random sample of all. Each part is
        a read of its own: a reader that stays would keep the writer from committing.
        Files that come or go meanwhile may be in it or not.
        """
        dtype = stored_dtype(extractor.layer)
        row_id = self._find_extractor(extractor)
        limit = max(1, _STREAM_BYTES // (4 * extractor.dims))
        last: tuple[bytes, int] = (b"", 0)
        while True:
            rows = self._connection.execute(
                _STREAMED, (row_id, last[0], last[0], last[1], limit)
            ).fetchall()
            if not rows:
                return
            last = rows[-1][:2]
            raw = np.frombuffer(b"".join([row[2] for row in rows]), dtype=dtype)
            yield (
                np.array([row[1] for row in rows], dtype=np.int64),
                raw.reshape(len(rows), extractor.dims).astype(np.float32),
            )

    def pinned_features(
        self, extractor: ExtractorId
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Vectors]:
        """Return file ids, int64 [p], cluster ids, int64 [p], and vectors, float32 [p, d].

        Of the pictures that a person has put into a cluster, in the order of the hashes.
        """
        rows = self._connection.execute(_PINNED, (self._find_extractor(extractor),)).fetchall()
        raw = np.frombuffer(b"".join(row[2] for row in rows), stored_dtype(extractor.layer))
        return (
            np.array([row[0] for row in rows], dtype=np.int64),
            np.array([row[1] for row in rows], dtype=np.int64),
            raw.reshape(len(rows), extractor.dims).astype(np.float32),
        )

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
        Proposals(self._connection).put_in_force(model.fit_id)
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
        proposals = Proposals(self._connection)
        cursor = self._connection.execute(
            "INSERT INTO fits(extractor_id, is_current, fit_trigger, algorithm, n_clusters, "
            "n_images, random_state, inertia, churn, fit_s, created_at, distances, state, "
            "former_id, about_id, about_images) "
            "VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.extractor_row(extractor),
                record.trigger,
                record.algorithm,
                len(centers),
                record.n_images,
                record.random_state,
                record.inertia,
                record.churn,
                record.fit_s,
                time.time(),
                record.distances,
                state,
                proposals.current_id(),
                record.about_id,
                record.about_images,
            ),
        )
        fit_id = cursor.lastrowid
        assert fit_id is not None
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
        proposals.decide(fit_id, state, record.n_images)
        return Model(fit_id, extractor, centers, tuple(cluster_ids), _quantiles(record.distances))

    def current(self) -> Model | None:
        """Return the model in force, or None before the first fit."""
        fit_id = Proposals(self._connection).current_id()
        return None if fit_id is None else self.model(fit_id)

    def model(self, fit_id: int) -> Model:
        """Return the model of a fit that is kept."""
        row = self._connection.execute(
            "SELECT fits.id, weights_digest, layer, dims, backbone, distances FROM fits "
            "JOIN extractors ON extractors.id = extractor_id WHERE fits.id = ?",
            (fit_id,),
        ).fetchone()
        extractor = ExtractorId(row[1], Layer(row[2]), row[3], Backbone(row[4]))
        rows = self._connection.execute(
            "SELECT cluster_id, vector FROM centers WHERE fit_id = ? ORDER BY label", (fit_id,)
        ).fetchall()
        centers = np.stack([np.frombuffer(vector, dtype="<f4") for _, vector in rows])
        ids = tuple(cluster_id for cluster_id, _ in rows)
        return Model(fit_id, extractor, centers.astype(np.float32), ids, _quantiles(row[5]))


def _part(rows: Sequence[tuple[int, bytes]], extractor: ExtractorId) -> Part:
    dtype = stored_dtype(extractor.layer)
    vectors = np.empty((len(rows), extractor.dims), dtype=np.float32)
    for index, (_, vector) in enumerate(rows):
        vectors[index] = np.frombuffer(vector, dtype=dtype)
    return np.array([row[0] for row in rows], dtype=np.int64), vectors


def _quantiles(blob: bytes | None) -> Vectors | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f4").astype(np.float32)
