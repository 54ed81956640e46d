"""Clusters of a sample of features: of a hierarchy, or the former ones moved on.

The centers are means of raw features, for routing compares raw ones. Former clusters are
kept unless new ones set the pictures apart clearly better: a folder that stays is worth
more than a thousandth in any measure.

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

from imgsortd.clusters.hierarchy import Labels, cut, means_of, pair_distances, smooth, ward
from imgsortd.clusters.ids import HAND_WEIGHT
from imgsortd.clusters.number import CurvePoint, curve, numbers_to_try, pick, silhouette
from imgsortd.clusters.routing import nearest
from imgsortd.records import KEPT, KRange, Vectors

SAMPLE_IMAGES = 4_000
"""A hierarchy takes memory and time with the square of the pictures: 0.2 GB, some seconds."""
CLEARLY_BETTER = 0.02
"""By so much the silhouette of new clusters must be above that of the former ones."""
WARD = "Ward"

_ROUNDS = 3
_WITHOUT_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class Clusters:
    """Where clusters are.

    Attributes
    ----------
    centers
        float32 [k, d], means of raw features.
    held_labels
        intp [g], the row in ``centers`` of each held cluster.
    algorithm
        Where they come from.
    """

    centers: Vectors
    held_labels: Labels
    algorithm: str


class _Sample:
    """Features of a sample, smoothed, with the distances and the hierarchy when they are asked."""

    def __init__(self, features: Vectors, former: Vectors | None, held: Held) -> None:
        self.features, self.former, self.held = features, former, held
        self.smoothed = smooth(features)
        self.distances = pair_distances(self.smoothed)
        self.former_labels = None if former is None else nearest(features, former)[0]
        self.folders = held.standing(len(features), self.former_labels)

    def cut(self, wanted: int | KRange) -> Clusters:
        """Return new clusters; held ones that are none of them are on top."""
        joins = ward(self.distances)
        if isinstance(wanted, KRange):
            wanted = pick(self.curve(joins, wanted))
        return self.of_labels(cut(joins, wanted), wanted, WARD)

    def curve(self, joins: npt.NDArray[np.int64], wanted: KRange) -> list[CurvePoint]:
        """Return what each number of clusters in a range would be like."""
        numbers = numbers_to_try(wanted, len(self.features))
        return curve(self.features, joins, self.distances, numbers)

    def of_labels(self, labels: Labels, n_clusters: int, algorithm: str) -> Clusters:
        """Return clusters as they were found, with the held ones among them."""
        held, n_held = self.held, len(self.held.former)
        base = means_of(self.features, labels, n_clusters)
        taken = claims(labels, n_clusters, self.folders, n_held)
        if not len(held.rows) and (taken >= 0).all():
            return Clusters(base, taken, algorithm)
        groups = group_centers(self.smoothed, self.folders, held)
        starts = means_of(self.smoothed, labels, n_clusters)
        pins = means_of(self.smoothed[held.rows], held.groups, n_held)
        for group in np.flatnonzero(taken >= 0).tolist():
            own = self.folders[labels == taken[group]] == group
            starts[taken[group]] = weighed(
                pins[group], starts[taken[group]], int(own.sum()), held, group
            )
        on_top = np.flatnonzero(taken < 0)
        taken[on_top] = n_clusters + np.arange(len(on_top))
        starts = np.concatenate([starts, groups[on_top]])
        base = np.concatenate([base, groups[on_top]])
        return self._constrained(starts, taken, base, algorithm)

    def keep(self) -> Clusters:
        """Return the former clusters, moved to the means of what now lies nearest to them."""
        assert self.former is not None
        assert self.former_labels is not None
        labels, k, held = self.former_labels, len(self.former), self.held
        moved = filled(means_of(self.features, labels, k), labels, self.former)
        is_new = held.former < 0
        if not len(held.rows) and not is_new.any():
            return Clusters(moved, held.former, KEPT)
        starts = filled(means_of(self.smoothed, labels, k), labels, self.former)
        groups = group_centers(self.smoothed, self.folders, held)
        taken = np.where(is_new, k - 1 + np.cumsum(is_new), held.former)
        starts = np.concatenate([starts, groups[is_new]])
        is_begun_anew = is_new | np.isin(np.arange(len(taken)), held.groups)
        starts[taken[is_begun_anew]] = groups[is_begun_anew]
        base = np.concatenate([moved, groups[is_new]])
        return self._constrained(starts, taken, base, KEPT)

    def _constrained(
        self, starts: Vectors, taken: Labels, base: Vectors, algorithm: str
    ) -> Clusters:
        """Return clusters after a few rounds of k-means on smoothed features; pins do not move."""
        for _ in range(_ROUNDS):
            labels, _ = nearest(self.smoothed, starts)
            labels[self.held.rows] = taken[self.held.groups]
            starts = filled(means_of(self.smoothed, labels, len(starts)), labels, starts)
        centers = filled(means_of(self.features, labels, len(starts)), labels, base)
        return Clusters(centers, taken, algorithm)

    def silhouette(self, clusters: Clusters) -> float:
        """Return how well clusters set the sample apart, labelled as routing does."""
        labels, _ = nearest(self.features, clusters.centers)
        labels[self.held.rows] = clusters.held_labels[self.held.groups]
        return silhouette(self.distances, labels)


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

    rows: Labels
    groups: Labels
    former: Labels
    folders: Labels | None = None

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


def find_clusters(
    features: Vectors, wanted: int | KRange, former: Vectors | None = None, held: Held = NOT_HELD
) -> Clusters:
    """Find clusters of a sample.

    Parameters
    ----------
    features
        float32 [n, d] with n up to some thousands, all finite.
    wanted
        How many, at most n; held clusters that are none of them come on top. Or a range.
    former
        Centers in force, float32 [k, d]: their clusters stay unless new ones are clearly
        better, or another number is wanted. None to begin from nothing.
    held
        Clusters that a person has had a hand in.
    """
    sample = _Sample(features, former, held)
    new = sample.cut(wanted)
    # Former clusters may stay that are as many as are wanted; held ones may be on top.
    n_held = int(np.sum(held.former >= 0))
    if former is None or not (
        isinstance(wanted, KRange) or wanted <= len(former) <= wanted + n_held
    ):
        return new
    kept = sample.keep()
    gain = sample.silhouette(new) - sample.silhouette(kept)
    return new if gain > CLEARLY_BETTER else kept


def constrain(
    features: Vectors, centers: Vectors, former: Vectors | None, held: Held, algorithm: str
) -> Clusters:
    """Let held clusters go on in clusters that were found in another way."""
    if not len(held.former):
        return Clusters(centers, held.former, algorithm)
    labels, _ = nearest(features, centers)
    return _Sample(features, former, held).of_labels(labels, len(centers), algorithm)


def number_curve(features: Vectors, wanted: KRange) -> list[CurvePoint]:
    """Return what each number of clusters in a range would be like for a sample [n, d]."""
    sample = _Sample(features, None, NOT_HELD)
    return sample.curve(ward(sample.distances), wanted)


def choose_number(features: Vectors, wanted: KRange) -> int:
    """Return the best number of clusters in a range for a sample, float32 [n, d]."""
    return pick(number_curve(features, wanted))


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


def filled(means: Vectors, labels: Labels, former: Vectors) -> Vectors:
    """Return the means, float32 [k, d], the former center where a cluster has no picture."""
    sizes = np.bincount(labels, minlength=len(means))
    return np.where(sizes[:, None] > 0, means, former).astype(np.float32)
