"""Do pictures in review belong together, so that they are a cluster of their own?"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from imgsortd.core.records import Vectors

LEAST_PICTURES = 5
_MEDIAN = 500  # of the quantiles 0, 1/1000 … 1


def mutual_limit(quantiles: Vectors) -> float:
    """Return the distance between two pictures up to which they are near, for this fit.

    Two pictures of a cluster lie √2 times as far from each other as from its center, in
    the square mean: so this is how far pictures of a middling cluster lie apart.

    Parameters
    ----------
    quantiles
        float32 [1001], of the fit's own distances
        (:func:`imgsortd.core.review.distance_quantiles`).
    """
    return math.sqrt(2) * float(quantiles[_MEDIAN])


def coherent_group(features: Vectors, limit: float) -> npt.NDArray[np.intp]:
    """Find the largest group of pictures that lie near each other.

    Agglomerative clustering with average linkage: groups are joined while their pictures
    lie within ``limit`` of each other on average.

    Parameters
    ----------
    features
        float32 [n, d]; n² distances are in memory, so a few thousand at most.

    Returns
    -------
    intp [m]
        Rows of ``features``; empty where no group has five pictures.
    """
    none = np.empty(0, dtype=np.intp)
    if len(features) < LEAST_PICTURES:
        return none
    groups = fcluster(linkage(features, method="average"), limit, criterion="distance")
    sizes = np.bincount(groups)
    if sizes.max() < LEAST_PICTURES:
        return none
    return np.flatnonzero(groups == sizes.argmax())
