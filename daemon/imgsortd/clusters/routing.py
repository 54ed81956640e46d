"""Where a picture goes: to its nearest center, to that of pins like it, or to review.

Distances are Euclidean. For L2-normalised features (pool5, fc2) they rank exactly as cosine
distances do. Without SciPy, for it takes longer to load than to ask where a picture would go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imgsortd.records import Choice, Model, Vectors

_CHUNK_ROWS = 65_536
_BATCH_ROWS = 32
_ONE_THREAD_PRODUCTS = 2**18  # OpenBLAS, interface/gemm.c: no more multiplications than these

_QUANTILES = 1000
_PULL = 0.25


def nearest(
    features: Vectors, centers: Vectors
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the label of each feature's nearest center, intp [n], and the distance, float32 [n].

    Labels are row numbers in ``centers``; the lower one where two are equally near.

    Parameters
    ----------
    features, centers
        float32 [n, d] and [k, d].
    """
    labels = np.empty(len(features), dtype=np.intp)
    distances = np.empty(len(features), dtype=np.float32)
    half_norms = 0.5 * np.einsum("ij,ij->i", centers, centers)
    for start in range(0, len(features), _CHUNK_ROWS):
        part = features[start : start + _CHUNK_ROWS]
        # argmin |x-c|² = argmin ½|c|² - x·c: one matrix product, no [n, k, d] array.
        found = np.argmin(half_norms - _products(part, centers), axis=1)
        labels[start : start + len(part)] = found
        distances[start : start + len(part)] = np.linalg.norm(part - centers[found], axis=1)
    return labels, distances


def center_distances(features: Vectors, centers: Vectors) -> Vectors:
    """Return the Euclidean distance of each feature to each center, float32 [n, k].

    For a batch, or for few centers: all n times k are in memory.
    """
    squares = np.einsum("ij,ij->i", features, features)[:, None]
    squares = squares + np.einsum("ij,ij->i", centers, centers)
    squares -= 2 * _products(features, centers)
    distances: Vectors = np.sqrt(np.maximum(squares, 0))
    return distances


def _products(features: Vectors, centers: Vectors) -> Vectors:
    """Return each feature times each center, float32 [n, k].

    A batch is multiplied in slices so small that OpenBLAS leaves them to the calling
    thread: 0.6 ms for 16 features and 1,000 centers. Its other threads halve that on
    an idle machine, and cost 20 ms where the model or the decoders hold the cores.
    """
    rows = _ONE_THREAD_PRODUCTS // max(1, features.size)
    if len(features) > _BATCH_ROWS or rows == 0:
        return features @ centers.T
    products = np.empty((len(features), len(centers)), dtype=np.float32)
    for start in range(0, len(centers), rows):
        part = slice(start, start + rows)
        np.matmul(features, centers[part].T, out=products[:, part])
    return products


@dataclass(frozen=True, slots=True)
class ReviewRule:
    """When a picture goes to review.

    Attributes
    ----------
    quantile
        It lies farther from its nearest center than this share (0 to 1) of the pictures of
        the fit; None for never.
    margin
        The next cluster is farther by less than this share of the distance; None for never.
    """

    quantile: float | None = None
    margin: float | None = None


def distance_quantiles(distances: Vectors, labels: npt.NDArray[np.intp]) -> Vectors | None:
    """Return the quantiles 0, 1/1000 … 1 of the distances of a fit, float32 [1001].

    A center is the mean of its own pictures, which therefore lie nearer to it than others
    will: the distance to the mean of the n - 1 others is n / (n - 1) times as long. Pictures
    alone in their cluster say nothing.

    None where every picture is alone.

    Parameters
    ----------
    distances, labels
        float32 [n] and intp [n], of each picture to its center, and its cluster.
    """
    sizes = np.bincount(labels)[labels]
    several = sizes > 1
    if not several.any():
        return None
    others = distances[several] * (sizes[several] / (sizes[several] - 1))
    return np.quantile(others, np.linspace(0, 1, _QUANTILES + 1)).astype(np.float32)


def farthest(model: Model, rule: ReviewRule) -> float:
    """Return the distance beyond which a picture goes to review; infinite where none is."""
    if rule.quantile is None or model.distances is None:
        return math.inf
    return float(model.distances[round(rule.quantile * _QUANTILES)])


def choose(features: Vectors, model: Model, rule: ReviewRule) -> list[Choice]:
    """Choose the cluster of each picture; or review, instead of a wrong folder.

    It goes to its nearest center, except where that is farther than nearly all pictures of the
    fit were from theirs, or where two clusters are about equally near.

    Parameters
    ----------
    features
        float32 [n, d]; a batch, for n times k distances are in memory.
    model
        Several of its centers may be of one cluster.
    """
    if not len(features):
        return []
    ids, centers = np.asarray(model.cluster_ids), model.centers
    limit = farthest(model, rule)

    def choose_one(feature: Vectors, nearly: Vectors) -> Choice:
        first = int(np.argmin(nearly))
        cluster_id, distance = int(ids[first]), float(np.linalg.norm(feature - centers[first]))
        if distance > limit:
            share = f"{100 * (rule.quantile or 0):g} %"
            reason = f"far from every cluster: {distance:.3f}, {share} of the fit were within "
            return Choice(None, distance, f"{reason}{limit:.3f}")
        others = np.flatnonzero(ids != cluster_id)
        if rule.margin is not None and len(others):
            second = int(others[np.argmin(nearly[others])])
            next_distance = float(np.linalg.norm(feature - centers[second]))
            if next_distance - distance < rule.margin * next_distance:
                reason = (
                    f"between cluster {cluster_id} ({distance:.3f}) and cluster {ids[second]} "
                    f"({next_distance:.3f})"
                )
                return Choice(None, distance, reason)
        return Choice(cluster_id, distance)

    return list(map(choose_one, features, center_distances(features, centers)))


def nearest_clusters(
    distances: Vectors, cluster_ids: Sequence[int], count: int
) -> list[tuple[int, float]]:
    """Return (cluster id, distance) of the ``count`` nearest clusters, each once.

    Parameters
    ----------
    distances
        float32 [k], to each center.
    cluster_ids
        The cluster of each center.
    """
    found: dict[int, float] = {}
    for label in np.argsort(distances, kind="stable"):
        found.setdefault(int(cluster_ids[label]), float(distances[label]))
        if len(found) == count:
            break
    return list(found.items())


def routing_model(
    model: Model, features: Vectors, pinned_to: npt.NDArray[np.int64] | Sequence[int]
) -> Model:
    """Return the model that new pictures are routed by: the fit, and a center for its pins.

    What a person has corrected draws others like it, before the next fit. A pin that lies nearest
    to a center of its own cluster anyway changes nothing. Of those that do not, each cluster gets
    one more center (:func:`pin_centers`); its distances stay the fit's. At most twice as many
    centers come out, however many pins there are.

    Parameters
    ----------
    model
        The fit in force; it is not changed.
    features
        float32 [n, d], of the pinned pictures.
    pinned_to
        int [n], the cluster id of each; those of clusters that the fit lacks are left out.
    """
    ids = np.asarray(pinned_to, dtype=np.int64)
    if not len(ids):
        return model
    own = np.asarray(model.cluster_ids, dtype=np.int64)
    wrong = np.isin(ids, own) & (own[nearest(features, model.centers)[0]] != ids)
    if not wrong.any():
        return model
    more, numbers = pin_centers(model.centers, features[wrong], ids[wrong])
    return replace(
        model,
        centers=np.concatenate([model.centers, more]),
        cluster_ids=(*model.cluster_ids, *numbers.tolist()),
    )


def pin_centers(
    centers: Vectors, features: Vectors, groups: npt.NDArray[np.int64]
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return one more center for each pinned cluster, float32 [g, d], and its id, ascending.

    The feature of a single picture attracts next to nothing: means lie nearer to everything.
    So the center lies a quarter of the way from the center nearest to the pins' mean to that
    mean; half of the way for a single pin, and a third for two, which say little of others.

    Parameters
    ----------
    centers
        float32 [k, d], of the fit.
    features
        float32 [p, d], of the pins.
    groups
        int64 [p], the id of each one's cluster.
    """
    clusters, indices, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if not len(clusters):
        return np.empty((0, centers.shape[1]), dtype=np.float32), clusters
    order = np.argsort(indices, kind="stable")
    starts = np.cumsum(sizes) - sizes
    sums = np.add.reduceat(features[order].astype(np.float64), starts, axis=0)
    means = (sums / sizes[:, None]).astype(np.float32)
    pull = np.maximum(_PULL, 1 / (sizes + 1))[:, None]
    base = centers[nearest(means, centers)[0]]
    return ((1 - pull) * base + pull * means).astype(np.float32), clusters
