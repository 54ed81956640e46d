"""Ward's hierarchy: every picture alone, then the two clusters joined that cost least, and so on.

A join costs what it adds to the sum of squared distances to the clusters' means (Ward 1963;
SciPy's nearest-neighbour chain, Müllner 2011). It needs no seed and no first guess, and one
hierarchy holds the clusters of every k.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_array

from imgsortd.core.records import Vectors

Labels = npt.NDArray[np.intp]
_BLOCK_ROWS = 256


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

    Parameters
    ----------
    distances
        float32 [n, n], of each two points; n² in memory, three times over.

    Returns
    -------
    int64 [n - 1, 2]
        Rows of two clusters each: below n a point, n + i what the i-th join made.
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
