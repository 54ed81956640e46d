"""What a person's hand does to a fit: clusters that go on, seeds and constraints.

A cluster is *held* that has a pin or a name, or was made by hand. Each goes on in the new
clusters: as the one that has most of what stands in its folder, or, where another folder needs
that one more, as a cluster of its own on top, which begins at the mean of what stands there.

Pins seed k-means and stay where they are while it runs (Constrained-KMeans; Basu, Banerjee &
Mooney 2002, "Semi-supervised clustering by seeding"), in smoothed features. Two things differ
from the paper: clusters without pins start from the hierarchy's, and a cluster with pins
begins at a mean of these and of what it is without them, in which the pins weigh no more than
all else that stands in it, so that some odd pictures do not carry it off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from imgsortd.core.clusters import HAND_WEIGHT
from imgsortd.core.hierarchy import Labels, means_of
from imgsortd.core.records import Vectors
from imgsortd.core.routing import nearest

_ROUNDS = 3
_WITHOUT_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class Held:
    """The held clusters of a sample, 0 to g - 1, and what stands in whose folder.

    Attributes
    ----------
    rows
        intp [p], rows of the sample that are pinned.
    groups
        intp [p], which held cluster each of them is in.
    former
        intp [g], the row of each held cluster in the former centers; -1 where it has none.
    folders
        intp [n], the cluster in whose folder each row stands: a held one by its number, others
        by any number from g on; -1 for none. A pinned row stands in its own. None where that is
        not known: then the nearest former center tells.
    """

    rows: npt.NDArray[np.intp]
    groups: npt.NDArray[np.intp]
    former: npt.NDArray[np.intp]
    folders: npt.NDArray[np.intp] | None = None

    def standing(self, n: int, former_labels: Labels | None) -> Labels:
        """Return the folders of n rows, told by former labels where they are not known."""
        if self.folders is not None:
            return self.folders
        found = np.full(n, -1, dtype=np.intp)
        if former_labels is not None:
            found = len(self.former) + former_labels
            for group, label in enumerate(self.former):
                if label >= 0:
                    found[former_labels == label] = group
        found[self.rows] = self.groups
        return found


NOT_HELD = Held(*(np.empty(0, dtype=np.intp) for _ in range(3)))


def claims(labels: Labels, n_clusters: int, folders: Labels, n_groups: int) -> Labels:
    """Return the new cluster that each held one goes on as, intp [g]; -1 for one on top.

    All folders, held or not, are matched to new clusters so that the pictures shared are as
    many as can be; those of a held one count twice, and of two that count as much the one with
    more pictures comes first. What a held one gets must have at least half of it.

    Parameters
    ----------
    labels, folders
        intp [n], of the same pictures.
    """
    taken = np.full(n_groups, -1, dtype=np.intp)
    stands = folders >= 0
    if not n_groups or not stands.any():
        return taken
    shared = np.zeros((int(folders.max()) + 1, n_clusters), dtype=np.int64)
    np.add.at(shared, (folders[stands], labels[stands]), 1)
    weights = np.where(np.arange(len(shared)) < n_groups, HAND_WEIGHT, 1) * (len(labels) + 1)
    counted = shared * (weights + 1)[:, None]
    for folder, column in zip(*linear_sum_assignment(counted, maximize=True), strict=True):
        if folder < n_groups and 2 * shared[folder, column] >= max(1, shared[folder].sum()):
            taken[folder] = column
    return taken


def group_centers(smoothed: Vectors, folders: Labels, held: Held) -> Vectors:
    """Return where each held cluster begins by what stands in it, float32 [g, d].

    A mean of its pins and of all else in its folder (:func:`weighed`).
    """
    free = np.ones(len(smoothed), dtype=bool)
    free[held.rows] = False
    own = np.where(free, folders, -1)
    found = means_of(smoothed[held.rows], held.groups, len(held.former))
    for group in range(len(found)):
        count = int((own == group).sum())
        if count:
            without = smoothed[own == group].mean(axis=0)
            found[group] = weighed(found[group], without, count, held, group)
    return found


def weighed(pins: Vectors, without: Vectors, count: int, held: Held, group: int) -> Vectors:
    """Return the mean of a held cluster's pins and of what it is without them, float32 [d].

    Parameters
    ----------
    without
        The mean of so many pictures that are no pins; it has the weight of three at least.
    """
    weights = (int(np.sum(held.groups == group)), max(count, _WITHOUT_WEIGHT))
    mean: Vectors = np.average(np.stack([pins, without]), axis=0, weights=weights)
    return mean.astype(np.float32)


def constrained_labels(smoothed: Vectors, centers: Vectors, held: Held, labels: Labels) -> Labels:
    """Return labels, intp [n], from a few rounds of k-means in which pins do not move.

    Parameters
    ----------
    smoothed
        float32 [n, d].
    centers
        float32 [k, d], where it begins, in smoothed features.
    labels
        intp [g], the row in ``centers`` of each held cluster.
    """
    for _ in range(_ROUNDS):
        found, _ = nearest(smoothed, centers)
        found[held.rows] = labels[held.groups]
        centers = filled(means_of(smoothed, found, len(centers)), found, centers)
    return found


def filled(means: Vectors, labels: Labels, former: Vectors) -> Vectors:
    """Return the means, float32 [k, d], the former center where a cluster has no picture."""
    sizes = np.bincount(labels, minlength=len(means))
    return np.where(sizes[:, None] > 0, means, former).astype(np.float32)
