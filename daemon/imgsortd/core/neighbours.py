"""Features smoothed over their nearest neighbours, before clusters are looked for.

A picture's features say much that has nothing to do with what sets groups apart. The mean
of the pictures most like it says less of that. Half of each feature is replaced by the mean
of its neighbours, twice, and brought back to its length: a low-pass filter on the graph of
neighbours (Taubin 1995), used before k-means by Zhang, Liu, Li & Wu (2019, "Attributed graph
clustering via adaptive graph convolution"). Only the fit sees smoothed features; routing
compares raw ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imgsortd.core.records import Vectors

NEIGHBOURS = 15
STEPS = 2
WEIGHT = 0.5
_BLOCK_PRODUCTS = 2**22


def nearest_neighbours(features: Vectors, count: int) -> npt.NDArray[np.intp]:
    """Return the nearest other rows of each row, in no order; itself is not among them.

    Parameters
    ----------
    features
        float32 [n, d].
    count
        How many, below n.

    Returns
    -------
    intp [n, count]
        Equal features are neighbours like any others.
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

    Few features have as many neighbours as there are others; one alone stays as it is.
    """
    count = min(NEIGHBOURS, len(features) - 1)
    if count < 1:
        return features
    neighbours = nearest_neighbours(features, count)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    smoothed = features
    for _ in range(STEPS):
        mean = np.zeros_like(smoothed)
        for column in neighbours.T:  # one at a time: no [n, 15, d] array
            mean += smoothed[column]
        smoothed = (1 - WEIGHT) * smoothed + (WEIGHT / count) * mean
        # Between two groups a mean is shorter: without this all that lies there seems alike.
        smoothed *= lengths / np.maximum(np.linalg.norm(smoothed, axis=1, keepdims=True), 1e-12)
    return np.asarray(smoothed, dtype=np.float32)
