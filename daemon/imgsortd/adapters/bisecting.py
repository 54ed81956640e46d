"""Split one cluster in parts: 2-means again and again on the largest (bisecting k-means).

Steinbach, Karypis and Kumar, "A comparison of document clustering techniques", 2000.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import fit_kmeans
from imgsortd.core.records import Vectors
from imgsortd.core.routing import center_distances
from imgsortd.errors import FitError

LEAST_PICTURES = 5
"""A part of fewer is no cluster, but a few odd pictures."""
_LEAST_SEPARATION = 0.05
_MOST_PARTS = 64


def bisect(features: Vectors, most_pictures: float, random_state: int) -> list[Vectors]:
    """Split pictures until no part has more than so many, or none of those falls apart.

    Parameters
    ----------
    features
        float32 [n, d], of one cluster.

    Returns
    -------
    list of float32 [m, d]
        The parts, the largest first; one where the pictures do not fall apart.
    """
    done: list[Vectors] = []
    parts = [features]
    while parts and len(done) + len(parts) < _MOST_PARTS:
        parts.sort(key=len)
        largest = parts.pop()
        if len(largest) <= most_pictures:
            done.append(largest)
            break
        halves = _halves(largest, random_state)
        if halves is None:
            done.append(largest)
        else:
            parts.extend(halves)
    return sorted([*done, *parts], key=len, reverse=True)


def _halves(features: Vectors, random_state: int) -> tuple[Vectors, Vectors] | None:
    """Return two parts, or None where they would not be two clusters.

    They are when pictures lie nearer to their own center than to the other one: by 5 % of
    the farther distance on average (the silhouette in its simplified form, with centers
    for the mean over pictures; Vendramin, Campello and Hruschka, 2010).
    """
    try:
        fit = fit_kmeans(features, 2, random_state)
    except FitError:
        return None
    is_second: npt.NDArray[np.bool_] = fit.labels == 1
    if min(is_second.sum(), (~is_second).sum()) < LEAST_PICTURES:
        return None
    distances = np.sort(center_distances(features, fit.centers), axis=1)
    far = distances[:, 1]
    silhouettes = (far - distances[:, 0]) / np.where(far > 0, far, 1)
    if float(silhouettes.mean()) < _LEAST_SEPARATION:
        return None
    return features[~is_second], features[is_second]
