"""Which cluster does a picture belong to, or is it for a person to say?

A picture goes to its nearest center, except where the nearest is farther than nearly all
pictures of the fit were from theirs, or where two clusters are about equally near: that
one goes to review instead of a wrong folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.core.records import Model, Vectors
from imgsortd.core.routing import center_distances

QUANTILES = 1000


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The cluster of a picture; ``cluster_id`` is None for review, for the ``reason`` given."""

    cluster_id: int | None
    distance: float | None
    reason: str = ""


def distance_quantiles(distances: Vectors, labels: npt.NDArray[np.intp]) -> Vectors | None:
    """Return the quantiles 0, 1/1000 … 1 of the distances of a fit, float32 [1001].

    A center is the mean of its own pictures, which therefore lie nearer to it than others
    will: the distance to the mean of the n - 1 others is n / (n - 1) times as long. Pictures
    alone in their cluster say nothing.

    Parameters
    ----------
    distances
        float32 [n], of each picture to its center.
    labels
        intp [n], its cluster.

    Returns
    -------
    float32 [1001] or None
        None where every picture is alone in its cluster.
    """
    sizes = np.bincount(labels)[labels]
    several = sizes > 1
    if not several.any():
        return None
    others = distances[several] * (sizes[several] / (sizes[several] - 1))
    return np.quantile(others, np.linspace(0, 1, QUANTILES + 1)).astype(np.float32)


def farthest(model: Model, rule: ReviewRule) -> float:
    """Return the distance beyond which a picture goes to review; infinite where none is."""
    if rule.quantile is None or model.distances is None:
        return math.inf
    return float(model.distances[round(rule.quantile * QUANTILES)])


def choose(features: Vectors, model: Model, rule: ReviewRule) -> list[Choice]:
    """Choose the cluster of each picture, or review.

    Parameters
    ----------
    features
        float32 [n, d]; a batch, for n times k distances are in memory.
    model
        Several of its centers may be of one cluster.
    """
    if not len(features):
        return []
    ids = np.asarray(model.cluster_ids)
    limit = farthest(model, rule)
    nearly = center_distances(features, model.centers)
    return [
        _choose(feature, model.centers, row, ids, limit, rule)
        for feature, row in zip(features, nearly, strict=True)
    ]


def _choose(
    feature: Vectors,
    centers: Vectors,
    nearly: Vectors,
    ids: npt.NDArray[np.int_],
    limit: float,
    rule: ReviewRule,
) -> Choice:
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
