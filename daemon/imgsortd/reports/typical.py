"""Which pictures of a cluster are most like all of it, and which least.

Everything comes in parts, as the features are streamed: a million pictures are never in
memory at once, only a sum and a few pictures for each cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.records import Vectors
from imgsortd.store.database import Store

Ints = npt.NDArray[np.int64]

SPARE = 12  # for those that their owner has taken away since they were sorted


class MeanFeatures:
    """Sums up the features of each cluster: of 10,000, with 512 numbers each, in 41 MB."""

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
    """Pictures of one cluster as (id, distance), the nearest and the farthest first.

    In a small cluster, some are in both.
    """

    nearest: tuple[tuple[int, float], ...] = ()
    farthest: tuple[tuple[int, float], ...] = ()


class Extremes:
    """Keeps so many pictures nearest to the middle of each cluster, and farthest from it."""

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


def rank_members(
    store: Store,
    cluster_ids: Iterable[int],
    nearest: int,
    farthest: int,
    on_pictures: Callable[[int, int], None] = lambda *_: None,
) -> dict[int, Ranked]:
    """Return, for each cluster whose features are kept, the pictures nearest to its middle.

    The middle is the mean of the features of the pictures that are in its folder now: where a
    person has moved some, it is not the center of the fit.
    """
    model = store.fits.current()
    ids = np.array(sorted(cluster_ids), dtype=np.int64)
    if model is None or not len(ids):
        return {}
    extractor = model.extractor
    means = MeanFeatures(len(ids), extractor.dims)
    extremes = Extremes(nearest, farthest)
    total, done = 2 * store.records.count_features(), 0

    def members() -> Iterator[tuple[Ints, Ints, Vectors]]:
        """Yield rows of ``ids``, file ids and features; a cluster that came meanwhile is none."""
        nonlocal done
        for file_ids, numbers, features in store.fits.stream_members(extractor):
            known = np.isin(numbers, ids)
            rows = np.searchsorted(ids, numbers[known])
            yield rows, file_ids[known], features[known]
            done += len(file_ids)
            on_pictures(done, total)

    for rows, _, features in members():
        means.add(rows, features)
    middles = means.means()
    for rows, file_ids, features in members():
        distances = np.linalg.norm(features - middles[rows], axis=1)
        extremes.add(ids[rows], file_ids, distances)
    on_pictures(total, total)
    return extremes.of_clusters()
