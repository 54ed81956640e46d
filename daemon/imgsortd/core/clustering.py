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
from imgsortd.core.held import (
    NOT_HELD,
    Held,
    claims,
    constrained_labels,
    filled,
    group_centers,
    weighed,
)
from imgsortd.core.hierarchy import Labels, cut, means_of, pair_distances, ward
from imgsortd.core.neighbours import smooth
from imgsortd.core.records import KEPT, KRange, Vectors
from imgsortd.core.routing import nearest

SAMPLE_IMAGES = 4_000
"""A hierarchy takes memory and time with the square of the pictures: 0.2 GB, some seconds."""
CLEARLY_BETTER = 0.02
"""By so much the silhouette of new clusters must be above that of the former ones."""
WARD = "Ward"


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
        self.features = features
        self.smoothed = smooth(features)
        self.distances = pair_distances(self.smoothed)
        self.held = held
        self.former = former
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
        labels = constrained_labels(self.smoothed, starts, self.held, taken)
        centers = filled(means_of(self.features, labels, len(starts)), labels, base)
        return Clusters(centers, taken, algorithm)

    def silhouette(self, clusters: Clusters) -> float:
        """Return how well clusters set the sample apart, labelled as routing does."""
        return silhouette(self.distances, self.labels(clusters))

    def labels(self, clusters: Clusters) -> Labels:
        """Return the nearest center of each picture, and of pins their own."""
        labels, _ = nearest(self.features, clusters.centers)
        labels[self.held.rows] = clusters.held_labels[self.held.groups]
        return labels


def find_clusters(
    features: Vectors,
    wanted: int | KRange,
    former: Vectors | None = None,
    held: Held = NOT_HELD,
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
    if former is None or not _may_stay(len(former), wanted, held):
        return new
    kept = sample.keep()
    gain = sample.silhouette(new) - sample.silhouette(kept)
    return new if gain > CLEARLY_BETTER else kept


def _may_stay(n_former: int, wanted: int | KRange, held: Held) -> bool:
    """Tell whether former clusters are as many as are wanted; held ones may be on top."""
    if isinstance(wanted, KRange):
        return True
    n_held = int(np.sum(held.former >= 0))
    return wanted <= n_former <= wanted + n_held


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
