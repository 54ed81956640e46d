"""Which way clusters are found: by hierarchy on a sample, or by KMeans, and then by their means.

KMeans as the article calls it is left to logits, which are no unit vectors, and to so many
clusters of so many pictures that a sample would hold too few of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import PASSES, STREAMED, check_features, fit_centers, fit_kmeans
from imgsortd.core.clustering import Clusters, choose_number, constrain, find_clusters
from imgsortd.core.hierarchy import sums_of
from imgsortd.core.lifecycle import Start
from imgsortd.core.records import KEPT, KRange, Layer, Vectors
from imgsortd.core.routing import nearest
from imgsortd.fit_rows import FitSource, Hands, Ids, Rows, StreamedRows, WholeRows

_IMAGES_A_CLUSTER = 10
_BY_MEANS = 2

Labelled = tuple[Ids, npt.NDArray[np.intp], Vectors, npt.NDArray[np.intp]]
"""File ids, labels, distances to the label's center, labels by the old centers."""


@dataclass(frozen=True, slots=True)
class Found:
    """Centers, before the pictures are labelled.

    Attributes
    ----------
    fixed_ids
        Label → cluster id, of clusters with pins or a name, and of former ones that are kept.
    passes
        How often a fit goes through all pictures, the labelling with it.
    labels, inertia
        Where KMeans itself has told them.
    """

    centers: Vectors
    algorithm: str
    fixed_ids: dict[int, int] = field(default_factory=dict)
    passes: int = _BY_MEANS
    labels: npt.NDArray[np.intp] | None = None
    inertia: float | None = None


def find(
    source: FitSource, rows: Rows, hands: Hands, wanted: int | KRange, random_state: int
) -> Found:
    """Find the centers of a fit.

    Raises
    ------
    FitError
        Fewer pictures than clusters, or a feature that is not a finite number.
    """
    (ids, sample), pins = hands.added_to(rows.sample(random_state))
    former, former_ids = _former(source)
    groups = hands.groups()
    held = hands.held(ids, pins, former_ids)
    check_features(sample, wanted if isinstance(wanted, int) and not rows.is_sampled else 1)
    if source.extractor.layer is Layer.LOGITS and isinstance(wanted, KRange):
        wanted = choose_number(sample, wanted)
    if isinstance(wanted, int) and not _has_enough(source, rows, sample, wanted):
        found = _by_kmeans(rows, wanted, random_state)
        if not groups:
            return found
        clusters = constrain(sample, found.centers, former, held, found.algorithm)
        return Found(clusters.centers, clusters.algorithm, _ids(clusters, groups), found.passes)
    clusters = find_clusters(sample, wanted, former, held)
    centers, fixed_ids = clusters.centers, _ids(clusters, groups)
    if rows.is_sampled:
        centers = _means(rows, centers, hands, fixed_ids)
    if clusters.algorithm == KEPT:  # also one that has lost all its pictures
        fixed_ids = {**dict(enumerate(former_ids)), **fixed_ids}
    return Found(centers, clusters.algorithm, fixed_ids)


def _former(source: FitSource) -> tuple[Vectors | None, tuple[int, ...]]:
    """Return one center of each former cluster, the fit's own: those of its pins come after it."""
    if source.old_centers is None or source.start is Start.NOTHING:
        return None, ()
    if not source.old_ids:
        return source.old_centers, ()
    rows = np.sort(np.unique(source.old_ids, return_index=True)[1])
    return source.old_centers[rows], tuple(source.old_ids[row] for row in rows.tolist())


def _has_enough(source: FitSource, rows: Rows, sample: Vectors, wanted: int) -> bool:
    if source.extractor.layer is Layer.LOGITS:
        return False
    return not rows.is_sampled or wanted * _IMAGES_A_CLUSTER <= len(sample)


def _ids(clusters: Clusters, groups: list[int]) -> dict[int, int]:
    return dict(zip(clusters.held_labels.tolist(), groups, strict=True))


def _by_kmeans(rows: Rows, n_clusters: int, random_state: int) -> Found:
    if isinstance(rows, WholeRows):
        fit = fit_kmeans(rows.vectors, n_clusters, random_state)
        return Found(fit.centers, fit.algorithm, {}, 1, fit.labels, fit.inertia)
    assert isinstance(rows, StreamedRows)
    streamed = rows

    def stream() -> Iterator[Vectors]:
        return (vectors for _, vectors in streamed.untold())

    centers = fit_centers(
        stream,
        n_clusters,
        random_state,
        streamed.sample_rows,
        lambda number, done: streamed.on_rows(number, done, PASSES),
    )
    return Found(centers, STREAMED, {}, PASSES)


def _means(rows: Rows, centers: Vectors, hands: Hands, fixed_ids: dict[int, int]) -> Vectors:
    """Return the means, float32 [k, d], of all pictures that lie nearest to each center."""
    label_of = {number: label for label, number in fixed_ids.items()}
    sums, sizes = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    for ids, vectors in rows.parts(1, _BY_MEANS):
        labels = _label(ids, vectors, centers, hands, label_of)[0]
        sums += sums_of(vectors, labels, len(centers))
        sizes += np.bincount(labels, minlength=len(centers))
    means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return np.where(sizes[:, None] > 0, means, centers)


def _label(
    ids: Ids, vectors: Vectors, centers: Vectors, hands: Hands, label_of: dict[int, int]
) -> tuple[npt.NDArray[np.intp], Vectors]:
    labels, distances = nearest(vectors, centers)
    rows, own = hands.labels_for(ids, label_of)
    labels[rows] = own
    distances[rows] = np.linalg.norm(vectors[rows] - centers[own], axis=1)
    return labels, distances


def label_rows(source: FitSource, rows: Rows, found: Found, hands: Hands) -> Iterator[Labelled]:
    """Label every picture by its nearest center, and a pinned one by its pin."""
    label_of = {number: label for label, number in found.fixed_ids.items()}
    done = 0
    for ids, vectors in rows.parts(found.passes, found.passes):
        labels, distances = _label(ids, vectors, found.centers, hands, label_of)
        if found.labels is not None:
            labels = found.labels[done : done + len(ids)]
        old = labels if source.old_centers is None else nearest(vectors, source.old_centers)[0]
        done += len(ids)
        yield ids, labels, distances, old
