"""Features smoothed over their nearest neighbours, and Ward's hierarchy of them.

The hierarchy begins with every picture alone, and joins the two clusters that cost least: what a
join adds to the sum of squared distances to the clusters' means (Ward 1963; SciPy's
nearest-neighbour chain, Müllner 2011). It needs no seed and no first guess, and one hierarchy
holds the clusters of every k.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_array

from imgsortd.records import Vectors

Labels = npt.NDArray[np.intp]

_NEIGHBOURS = 15
_STEPS = 2
_WEIGHT = 0.5
_BLOCK_ROWS = 256
_BLOCK_PRODUCTS = 2**22


def pair_distances(points: Vectors) -> Vectors:
    """Return the Euclidean distance of each two points, float32 [n, n]."""
    norms = np.einsum("ij,ij->i", points, points)
    found = np.empty((len(points), len(points)), dtype=np.float32)
    for start in range(0, len(points), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        squares = norms[rows, None] + norms - 2 * (points[rows] @ points.T)
        found[rows] = np.sqrt(np.maximum(squares, 0))
    np.fill_diagonal(found, 0)
    return found


def ward(distances: Vectors) -> npt.NDArray[np.int64]:
    """Return the joins in the order of their cost, int64 [n - 1, 2].

    Each is of two clusters: below n a point, n + i what the i-th join made.

    Parameters
    ----------
    distances
        float32 [n, n], of each two points; n² in memory, three times over.
    """
    n = len(distances)
    if n < 2:
        return np.empty((0, 2), dtype=np.int64)
    condensed = np.empty(n * (n - 1) // 2)
    start = 0
    for row in range(n - 1):
        condensed[start : start + n - 1 - row] = distances[row, row + 1 :]
        start += n - 1 - row
    joins: npt.NDArray[np.int64] = linkage(condensed, "ward")[:, :2].astype(np.int64)
    return joins


def cut(joins: npt.NDArray[np.int64], n_clusters: int) -> Labels:
    """Return the labels, intp [n], of exactly k clusters, numbered in the order of the points."""
    n = len(joins) + 1
    parents = np.arange(2 * n - 1)
    for index, pair in enumerate(joins[: n - n_clusters]):
        parents[pair] = n + index
    for _ in range(math.ceil(math.log2(2 * n)) + 1):  # each time twice as far up
        parents = parents[parents]
    _, first, labels = np.unique(parents[:n], return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.intp)
    order[np.argsort(first)] = np.arange(len(first))
    return order[labels]


def means_of(points: Vectors, labels: Labels, n_clusters: int) -> Vectors:
    """Return the mean of each cluster's points, float32 [k, d]; zeros where it has none."""
    sizes = np.bincount(labels, minlength=n_clusters)
    return (sums_of(points, labels, n_clusters) / np.maximum(sizes, 1)[:, None]).astype(np.float32)


def sums_of(points: Vectors, labels: Labels, n_clusters: int) -> npt.NDArray[np.float64]:
    """Return the sum of each cluster's points, float64 [k, d]."""
    places = (labels, np.arange(len(points)))
    members = csr_array((np.ones(len(points)), places), shape=(n_clusters, len(points)))
    found: npt.NDArray[np.float64] = members @ points  # np.add.at takes ten times as long
    return found


def nearest_neighbours(features: Vectors, count: int) -> npt.NDArray[np.intp]:
    """Return the nearest other rows of each row, intp [n, count], in no order.

    Itself is not among them; equal features are neighbours like any others.

    Parameters
    ----------
    features
        float32 [n, d], with n above ``count``.
    """
    n = len(features)
    found = np.empty((n, count), dtype=np.intp)
    half_norms = 0.5 * np.einsum("ij,ij->i", features, features)
    step = max(1, _BLOCK_PRODUCTS // max(1, n))  # 16 MB of products at a time
    for start in range(0, n, step):
        part = half_norms - features[start : start + step] @ features.T
        rows = np.arange(len(part))
        part[rows, start + rows] = np.inf
        found[start : start + step] = np.argpartition(part, count - 1, axis=1)[:, :count]
    return found


def smooth(features: Vectors) -> Vectors:
    """Return features, float32 [n, d], each drawn to the mean of its nearest neighbours.

    A picture's features say much that has nothing to do with what sets groups apart. The mean
    of the pictures most like it says less of that. Half of each feature is replaced by the mean
    of its neighbours, twice, and brought back to its length: a low-pass filter on the graph of
    neighbours (Taubin 1995), used before k-means by Zhang, Liu, Li & Wu (2019, "Attributed graph
    clustering via adaptive graph convolution"). Only the fit sees smoothed features; routing
    compares raw ones. One feature alone stays as it is.
    """
    count = min(_NEIGHBOURS, len(features) - 1)
    if count < 1:
        return features
    neighbours = nearest_neighbours(features, count)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    smoothed = features
    for _ in range(_STEPS):
        mean = np.zeros_like(smoothed)
        for column in neighbours.T:  # one at a time: no [n, 15, d] array
            mean += smoothed[column]
        smoothed = (1 - _WEIGHT) * smoothed + (_WEIGHT / count) * mean
        # Between two groups a mean is shorter: without this all that lies there seems alike.
        smoothed *= lengths / np.maximum(np.linalg.norm(smoothed, axis=1, keepdims=True), 1e-12)
    return np.asarray(smoothed, dtype=np.float32)
