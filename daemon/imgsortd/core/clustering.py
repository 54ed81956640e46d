"""Clusters of a sample of features: of a hierarchy, or the former ones moved on.

The centers are means of raw features, for routing compares raw ones. Former clusters are
kept unless new ones set the pictures apart clearly better: a folder that stays is worth
more than a thousandth in any measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.core.choosing_k import (
    CurvePoint,
    curve,
    numbers_to_try,
    pick,
    silhouette,
)
from imgsortd.core.hierarchy import Labels, cut, means_of, pair_distances, ward
from imgsortd.core.neighbours import smooth
from imgsortd.core.pinned import (
    NO_PINS,
    Pinned,
    constrained_labels,
    filled,
    group_centers,
    labels_of_groups,
)
from imgsortd.core.records import KRange, Vectors
from imgsortd.core.routing import nearest

SAMPLE_IMAGES = 4_000
"""A hierarchy takes memory and time with the square of the pictures: 0.2 GB, some seconds."""
CLEARLY_BETTER = 0.02
"""By so much the silhouette of new clusters must be above that of the former ones."""
WARD = "Ward"
KEPT = "Ward, kept"


@dataclass(frozen=True, slots=True)
class Clusters:
    """Where clusters are.

    Attributes
    ----------
    centers
        float32 [k, d], means of raw features.
    pinned_labels
        intp [g], the row in ``centers`` of each pinned cluster.
    algorithm
        Where they come from.
    """

    centers: Vectors
    pinned_labels: Labels
    algorithm: str


class _Sample:
    """Features of a sample, smoothed, with the distances and the hierarchy when they are asked."""

    def __init__(self, features: Vectors, former: Vectors | None, pinned: Pinned) -> None:
        self.features = features
        self.smoothed = smooth(features)
        self.distances = pair_distances(self.smoothed)
        self.pinned = pinned
        self.former = former
        self.former_labels = None if former is None else nearest(features, former)[0]

    def cut(self, wanted: int | KRange) -> Clusters:
        """Return new clusters."""
        joins = ward(self.distances)
        if isinstance(wanted, KRange):
            wanted = pick(self.curve(joins, wanted))
        return self.of_labels(cut(joins, wanted), wanted, WARD)

    def curve(self, joins: npt.NDArray[np.int64], wanted: KRange) -> list[CurvePoint]:
        """Return what each number of clusters in a range would be like."""
        numbers = numbers_to_try(wanted, len(self.features))
        return curve(self.features, joins, self.distances, numbers)

    def of_labels(self, labels: Labels, n_clusters: int, algorithm: str) -> Clusters:
        """Return clusters as they were found, with the pins in theirs."""
        pinned = self.pinned
        if not len(pinned.rows):
            centers = means_of(self.features, labels, n_clusters)
            return Clusters(centers, pinned.former, algorithm)
        groups = group_centers(self.smoothed, self.former_labels, pinned)
        starts = means_of(self.smoothed, labels, n_clusters)
        if len(groups) >= n_clusters:
            return self._constrained(groups, np.arange(len(groups)), groups, algorithm)
        taken = labels_of_groups(starts, groups)
        starts[taken] = groups
        base = means_of(self.features, labels, n_clusters)
        return self._constrained(starts, taken, base, algorithm)

    def keep(self) -> Clusters:
        """Return the former clusters, moved to the means of what now lies nearest to them."""
        assert self.former is not None
        assert self.former_labels is not None
        labels, k, pinned = self.former_labels, len(self.former), self.pinned
        moved = filled(means_of(self.features, labels, k), labels, self.former)
        if not len(pinned.rows):
            return Clusters(moved, pinned.former, KEPT)
        starts = filled(means_of(self.smoothed, labels, k), labels, self.former)
        groups = group_centers(self.smoothed, labels, pinned)
        is_new = pinned.former < 0
        taken = np.where(is_new, k - 1 + np.cumsum(is_new), pinned.former)
        starts = np.concatenate([starts, groups[is_new]])
        starts[taken] = groups
        base = np.concatenate([moved, groups[is_new]])
        return self._constrained(starts, taken, base, KEPT)

    def _constrained(
        self, starts: Vectors, taken: Labels, base: Vectors, algorithm: str
    ) -> Clusters:
        labels = constrained_labels(self.smoothed, starts, self.pinned, taken)
        centers = filled(means_of(self.features, labels, len(starts)), labels, base)
        return Clusters(centers, taken, algorithm)

    def silhouette(self, clusters: Clusters) -> float:
        """Return how well clusters set the sample apart, labelled as routing does."""
        return silhouette(self.distances, self.labels(clusters))

    def labels(self, clusters: Clusters) -> Labels:
        """Return the nearest center of each picture, and of pins their own."""
        labels, _ = nearest(self.features, clusters.centers)
        labels[self.pinned.rows] = clusters.pinned_labels[self.pinned.groups]
        return labels


def find_clusters(
    features: Vectors,
    wanted: int | KRange,
    former: Vectors | None = None,
    pinned: Pinned = NO_PINS,
) -> Clusters:
    """Find clusters of a sample.

    Parameters
    ----------
    features
        float32 [n, d] with n up to some thousands, all finite.
    wanted
        How many, at most n; a cluster that a person has made comes on top. Or a range.
    former
        Centers in force, float32 [k, d]: their clusters stay unless new ones are clearly
        better, or another number is wanted.
    pinned
        Pictures that a person has put into a cluster.
    """
    sample = _Sample(features, former, pinned)
    if former is None:
        return sample.cut(wanted)
    kept = sample.keep()
    n_wanted = _number_wanted(wanted, len(former), pinned)
    new = sample.cut(n_wanted)
    if isinstance(n_wanted, int) and n_wanted != len(kept.centers):
        return new
    gain = sample.silhouette(new) - sample.silhouette(kept)
    return new if gain > CLEARLY_BETTER else kept


def _number_wanted(wanted: int | KRange, n_former: int, pinned: Pinned) -> int | KRange:
    """Return how many clusters there are to be, those that a person has made with them.

    Made before this fit they are among the former ones, and may be as many as have pins.
    """
    if isinstance(wanted, KRange):
        return wanted
    n_new = int(np.sum(pinned.former < 0))
    n_made = len(pinned.former) - n_new
    return min(max(n_former, wanted), wanted + n_made) + n_new


def constrain(
    features: Vectors, centers: Vectors, former: Vectors | None, pinned: Pinned, algorithm: str
) -> Clusters:
    """Put a person's pictures into clusters that were found in another way."""
    if not len(pinned.rows):
        return Clusters(centers, pinned.former, algorithm)
    labels, _ = nearest(features, centers)
    return _Sample(features, former, pinned).of_labels(labels, len(centers), algorithm)


def number_curve(features: Vectors, wanted: KRange) -> list[CurvePoint]:
    """Return what each number of clusters in a range would be like for a sample [n, d]."""
    sample = _Sample(features, None, NO_PINS)
    return sample.curve(ward(sample.distances), wanted)


def choose_number(features: Vectors, wanted: KRange) -> int:
    """Return the best number of clusters in a range for a sample, float32 [n, d]."""
    return pick(number_curve(features, wanted))
