"""Which pictures of a cluster are most like all of it, and which least.

Everything comes in parts, as the features are streamed: a million pictures are never in
memory at once, only a sum and a few pictures for each cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.core.records import Vectors

Ints = npt.NDArray[np.int64]


class MeanFeatures:
    """Sums up the features of each cluster.

    Parameters
    ----------
    n_clusters
        Rows from 0; most are 10,000, which with 512 numbers each take 41 MB.
    dims
        Length of a vector.
    """

    def __init__(self, n_clusters: int, dims: int) -> None:
        self._sums = np.zeros((n_clusters, dims), dtype=np.float64)
        self.counts = np.zeros(n_clusters, dtype=np.int64)

    def add(self, rows: Ints, features: Vectors) -> None:
        """Take in features, float32 [m, d], of the clusters ``rows``, int64 [m]."""
        if not len(rows):
            return
        from scipy.sparse import csr_array  # what only looks up places need not load it

        found, of_found, counts = np.unique(rows, return_inverse=True, return_counts=True)
        # A sparse product is ten times as fast as np.add.reduceat over the sorted rows.
        members = csr_array((np.ones(len(rows)), (of_found, np.arange(len(rows)))))
        self._sums[found] += members @ features.astype(np.float64)
        self.counts[found] += counts

    def means(self) -> Vectors:
        """Return float32 [n_clusters, d]; zeros for a cluster without features."""
        return (self._sums / np.maximum(self.counts, 1)[:, None]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Pictures of one cluster as (id, distance); in a small cluster, some are in both.

    Attributes
    ----------
    nearest
        The nearest first.
    farthest
        The farthest first.
    """

    nearest: tuple[tuple[int, float], ...] = ()
    farthest: tuple[tuple[int, float], ...] = ()


class Extremes:
    """Keeps the pictures nearest to the middle of each cluster, and the farthest.

    Parameters
    ----------
    nearest, farthest
        Pictures to keep for each cluster.
    """

    def __init__(self, nearest: int, farthest: int) -> None:
        self._near, self._far = _Best(nearest), _Best(farthest)

    def add(self, rows: Ints, ids: Ints, distances: Vectors) -> None:
        """Take in pictures ``ids`` of the clusters ``rows``, both int64 [m], with distances."""
        self._near.add(rows, ids, distances)
        self._far.add(rows, ids, -distances)

    def of_clusters(self) -> dict[int, Ranked]:
        """Return the pictures kept for each cluster."""
        near, far = self._near.groups(), self._far.groups()
        return {
            row: Ranked(tuple(near[row]), tuple((i, -negative) for i, negative in far[row]))
            for row in near
        }


class _Best:
    """The ``count`` lowest values of each row, with their ids."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows = np.empty(0, dtype=np.int64)
        self._ids = np.empty(0, dtype=np.int64)
        self._values: npt.NDArray[np.floating] = np.empty(0, dtype=np.float64)

    def add(self, rows: Ints, ids: Ints, values: npt.NDArray[np.floating]) -> None:
        rows = np.concatenate([self._rows, rows])
        ids = np.concatenate([self._ids, ids])
        values = np.concatenate([self._values, values])
        order = np.lexsort((ids, values, rows))  # by row, then value; equal ones by id
        rows = rows[order]
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)  # each in its row
        kept = order[places < self._count]
        self._rows = rows[places < self._count]
        self._ids, self._values = ids[kept], values[kept]

    def groups(self) -> dict[int, list[tuple[int, float]]]:
        found: dict[int, list[tuple[int, float]]] = {}
        for row, file_id, value in zip(
            self._rows.tolist(), self._ids.tolist(), self._values.tolist(), strict=True
        ):
            found.setdefault(row, []).append((file_id, value))
        return found
