"""What a person's corrections do to a fit: seeds and constraints.

In a fit they seed k-means and stay where they are while it runs (Constrained-KMeans; Basu,
Banerjee & Mooney 2002, "Semi-supervised clustering by seeding"), in smoothed features. Two
things differ from the paper: clusters without pins start from the hierarchy's, and a cluster
that is there already begins at a mean of its pins and of what it was, so that one odd
picture does not carry it off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from imgsortd.core.hierarchy import Labels, means_of
from imgsortd.core.records import Vectors
from imgsortd.core.routing import nearest

_ROUNDS = 3
_FORMER_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class Pinned:
    """Pictures whose cluster a person chose.

    Attributes
    ----------
    rows
        intp [p], rows of the features that are fitted.
    groups
        intp [p], which of the pinned clusters each is in, 0 to g - 1.
    former
        intp [g], the row of each pinned cluster in the former centers; -1 where it has none,
        being a folder that a person has made.
    """

    rows: npt.NDArray[np.intp]
    groups: npt.NDArray[np.intp]
    former: npt.NDArray[np.intp]


NO_PINS = Pinned(*(np.empty(0, dtype=np.intp) for _ in range(3)))


def group_centers(smoothed: Vectors, former_labels: Labels | None, pinned: Pinned) -> Vectors:
    """Return where each pinned cluster begins, float32 [g, d].

    The mean of its pins, and with the weight of three of them the mean of its former
    pictures.
    """
    n_groups = len(pinned.former)
    sizes = np.bincount(pinned.groups, minlength=n_groups)[:, None]
    means = means_of(smoothed[pinned.rows], pinned.groups, n_groups)
    if former_labels is None:
        return means
    free = np.ones(len(smoothed), dtype=bool)
    free[pinned.rows] = False
    for group, label in enumerate(pinned.former):
        own = free & (former_labels == label)
        if own.any():
            weights = (sizes[group, 0], _FORMER_WEIGHT)
            both = np.stack([means[group], smoothed[own].mean(axis=0)])
            means[group] = np.average(both, axis=0, weights=weights)
    return means


def places_of(centers: Vectors, points: Vectors) -> Labels:
    """Return the row in ``centers`` that each point takes over, intp [g]; -1 for none.

    All different, as many as can be, so that the sum of squared distances is the least: of
    two points for one center the nearer one takes it over.
    """
    costs = np.square(points[:, None] - centers).sum(axis=2, dtype=np.float64)
    places = np.full(len(points), -1, dtype=np.intp)
    rows, columns = linear_sum_assignment(costs)
    places[rows] = columns
    return places


def constrained_labels(
    smoothed: Vectors, centers: Vectors, pinned: Pinned, labels: Labels
) -> Labels:
    """Return labels, intp [n], from a few rounds of k-means in which pins do not move.

    Parameters
    ----------
    smoothed
        float32 [n, d].
    centers
        float32 [k, d], where it begins, in smoothed features.
    labels
        intp [g], the row in ``centers`` of each pinned cluster.
    """
    for _ in range(_ROUNDS):
        found, _ = nearest(smoothed, centers)
        found[pinned.rows] = labels[pinned.groups]
        centers = filled(means_of(smoothed, found, len(centers)), found, centers)
    return found


def filled(means: Vectors, labels: Labels, former: Vectors) -> Vectors:
    """Return the means, float32 [k, d], the former center where a cluster has no picture."""
    sizes = np.bincount(labels, minlength=len(means))
    return np.where(sizes[:, None] > 0, means, former).astype(np.float32)
