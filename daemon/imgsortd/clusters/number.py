"""How many clusters there are: as many as set the pictures apart best.

For each k the clusters are cut from one hierarchy of smoothed features and labelled by the
nearest mean of raw ones, as routing would. The silhouette (Rousseeuw 1987) then says by how
much a picture is nearer to its own cluster than to the next, in smoothed features; the k
with the greatest mean is taken. What else was tried is in docs/clustering.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.clusters.hierarchy import Labels, cut, means_of
from imgsortd.clusters.routing import nearest
from imgsortd.records import KRange, Vectors

_ALL_UP_TO = 40
_STEP = 1.05


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What k clusters would be like.

    Attributes
    ----------
    silhouette
        Mean over the pictures, -1 to 1; more is better.
    largest_share
        Share (0 to 1) of the pictures in the largest cluster.
    """

    n_clusters: int
    silhouette: float
    largest_share: float


def silhouette(distances: Vectors, labels: Labels) -> float:
    """Return the mean silhouette width of a labelling, -1 to 1; 0 for a single cluster.

    Parameters
    ----------
    distances
        float32 [n, n].
    labels
        intp [n]; labels without a picture count for nothing.
    """
    _, labels = np.unique(labels, return_inverse=True)
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        return 0.0
    members = np.zeros((len(labels), len(sizes)), dtype=np.float32)
    rows = np.arange(len(labels))
    members[rows, labels] = 1
    sums = distances @ members
    own = sums[rows, labels] / np.maximum(sizes[labels] - 1, 1)
    sums /= sizes
    sums[rows, labels] = np.inf
    other = sums.min(axis=1)
    widths = (other - own) / np.maximum(np.maximum(other, own), 1e-12)
    widths[sizes[labels] == 1] = 0
    return float(widths.mean(dtype=np.float64))


def numbers_to_try(wanted: KRange, n: int) -> list[int]:
    """Return the k that are tried for n pictures: each up to 40, then in steps of 5 %.

    No more than one for every three pictures, and at least one number.
    """
    most = max(1, min(wanted.most, n // 3))
    number = min(wanted.least, most)
    found = [number]
    while number < most:
        number = min(most, number + 1 if number < _ALL_UP_TO else int(number * _STEP) + 1)
        found.append(number)
    return found


def curve(
    features: Vectors, joins: npt.NDArray[np.int64], distances: Vectors, numbers: Sequence[int]
) -> list[CurvePoint]:
    """Return what each number of clusters would be like.

    Parameters
    ----------
    features
        Raw ones, float32 [n, d].
    joins, distances
        Hierarchy, int64 [n - 1, 2], and distances, float32 [n, n], of the smoothed ones.
    """
    points = []
    for number in numbers:
        labels, _ = nearest(features, means_of(features, cut(joins, number), number))
        share = float(np.bincount(labels).max() / len(labels))
        points.append(CurvePoint(number, silhouette(distances, labels), share))
    return points


def pick(points: Sequence[CurvePoint]) -> int:
    """Return the number with the greatest silhouette; the smaller one where two are equal."""
    return max(points, key=lambda point: (point.silhouette, -point.n_clusters)).n_clusters
