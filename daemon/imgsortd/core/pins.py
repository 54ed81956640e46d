"""Pins at once: what a person has corrected draws others like it, before the next fit.

Without SciPy: what only asks where a picture would go takes less time than that does to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from imgsortd.core.records import Model, Vectors
from imgsortd.core.routing import nearest

_PULL = 0.25


def routing_model(
    model: Model, features: Vectors, pinned_to: npt.NDArray[np.int64] | Sequence[int]
) -> Model:
    """Return the model that new pictures are routed by: the fit, and a center for its pins.

    A pin that lies nearest to a center of its own cluster anyway changes nothing. Of those
    that do not, each cluster gets one more center (:func:`pin_centers`);
    its distances stay the fit's. At most twice as many centers come out, however many pins
    there are.

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
    """Return one more center for each pinned cluster, by which pictures are routed at once.

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
        int64 [p], the cluster of each: its id.

    Returns
    -------
    float32 [g, d]
        The centers.
    int64 [g]
        The cluster of each, ascending.
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
