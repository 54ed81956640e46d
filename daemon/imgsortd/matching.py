"""Whose clusters are these? A fit's clusters get the ids of the folders that they go on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store_records import FitRecord
from imgsortd.core.clusters import HAND_WEIGHT, churn, match_ids
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Model
from imgsortd.fit_rows import IN_REVIEW, NOWHERE, Ids
from imgsortd.fits import Fitted
from imgsortd.library import Library

Labels = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class About:
    """What a change of a few clusters is about.

    Attributes
    ----------
    cluster_id
        The cluster that is split; None for a new one.
    images
        Its pictures, or those in review.
    kept_ids
        Cluster id of each label that stays as it is, None for others.
    """

    cluster_id: int | None
    images: int
    kept_ids: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """A fit whose labels have ids.

    Attributes
    ----------
    ids
        Cluster id of each label.
    old_ids
        The clusters that there were.
    begins
        int64 [n], the cluster in whose folder each file stands, or will by the fit before where
        it waits in the inbox; IN_REVIEW, NOWHERE or BY_HAND for others.
    ends
        int64 [n], the same by this fit: ``begins`` for those that stay.
    churn
        Share (0 to 1) of the pictures in clusters' folders and in review that change: they
        lie nearest to another cluster by this fit than by the one before, or it takes them
        out of review. None for the first one.
    """

    fitted: Fitted
    ids: tuple[int, ...]
    old_ids: tuple[int, ...]
    begins: Ids
    ends: Ids
    churn: float | None


def changes_of(matched: Matched) -> Iterator[tuple[int, int | None, int]]:
    """Yield (file id, old cluster, new cluster) of files to be moved; old None for review."""
    begins, file_ids = matched.begins, matched.fitted.file_ids
    for row in np.flatnonzero(begins != matched.ends).tolist():
        old = int(begins[row])
        yield int(file_ids[row]), None if old == IN_REVIEW else old, int(matched.ends[row])


def flows_of(matched: Matched) -> dict[tuple[int | None, int], int]:
    """Count the pictures that go from each folder to each, or stay; old None for review."""
    placed = matched.ends >= 0
    pairs = np.stack([matched.begins[placed], matched.ends[placed]], axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    return {
        (None if old == IN_REVIEW else old, new): number
        for (old, new), number in zip(pairs.tolist(), counts.tolist(), strict=True)
    }


def match_fit(
    library: Library, fitted: Fitted, basis: Model | None = None, about: About | None = None
) -> Matched:
    """Give the labels of a fit their cluster ids, kept where they go on from old clusters.

    Parameters
    ----------
    basis
        The model that ``fitted.old_labels`` are of; None for the one in force.
    about
        What a change of a few clusters is about: it leaves pictures of all others where they
        stand.
    """
    before = basis or library.model
    former = library.former or before
    nearest_before = _nearest_before(library, fitted, before)
    ids = _ids(library, fitted, nearest_before, about)
    after = np.asarray(ids, dtype=np.int64)[fitted.fit.labels]
    stands = begins = fitted.stands
    if nearest_before is not None:
        begins = np.where(stands == NOWHERE, nearest_before, stands)
    goes = begins >= 0
    if about is not None:
        assert nearest_before is not None
        goes &= nearest_before != after
    goes[fitted.taken] = True
    changed = None
    if former is not None:
        old = np.where(stands >= 0, stands if nearest_before is None else nearest_before, after)
        old[fitted.taken] = IN_REVIEW  # whatever is nearest, it goes to another folder
        changed = churn(old[stands >= IN_REVIEW], after[stands >= IN_REVIEW])
    old_ids = () if former is None else tuple(sorted(set(former.cluster_ids)))
    return Matched(fitted, ids, old_ids, begins, np.where(goes, after, begins), changed)


def _nearest_before(library: Library, fitted: Fitted, before: Model | None) -> Ids | None:
    """Return each picture's cluster id by the fit before; None where none says anything.

    After a change of backbone the old centers say nothing of the new features.
    """
    if library.former is not None or before is None:
        return None
    assert fitted.old_labels is not None, "the clusters in force are not those at its start"
    return np.asarray(before.cluster_ids, dtype=np.int64)[fitted.old_labels]


def _ids(
    library: Library, fitted: Fitted, nearest_before: Ids | None, about: About | None
) -> tuple[int, ...]:
    """Return the cluster id of each label, by what stands in the folders.

    What waits in the inbox, or was routed there since the fit in force, has a say only where no
    other has: it may be of another kind.
    """
    fixed = dict(fitted.fixed_ids)
    if about is not None:
        fixed |= {label: kept for label, kept in enumerate(about.kept_ids) if kept is not None}
    stands, labels = fitted.stands, fitted.fit.labels
    old = stands.copy()
    if nearest_before is not None:
        waits = stands < IN_REVIEW
        old[waits] = nearest_before[waits]
    rows = np.flatnonzero(old >= 0)
    by_hand = library.store.records.by_hand()
    weights = np.where(np.isin(old[rows], by_hand), HAND_WEIGHT, 1) * (len(rows) + 1)
    last_file = library.store.proposals.last_file()
    is_new = stands[rows] < 0
    if last_file is not None:
        is_new |= fitted.file_ids[rows] > last_file
    weights[is_new] = 1
    known, at = np.unique(old[rows], return_inverse=True)
    return match_ids(
        at.astype(np.intp),
        labels[rows],
        tuple(known.tolist()),
        len(fitted.fit.centers),
        library.store.fits.next_cluster_id(),
        fixed,
        weights,
    )


def sizes_of(matched: Matched) -> list[int]:
    """Count the pictures of each label."""
    fit = matched.fitted.fit
    sizes: list[int] = np.bincount(fit.labels, minlength=len(fit.centers)).tolist()
    return sizes


def record_of(
    library: Library, matched: Matched, trigger: FitTrigger, about: About | None = None
) -> FitRecord:
    """Return what is kept of the fit itself."""
    fit, distances = matched.fitted.fit, matched.fitted.distances
    return FitRecord(
        trigger,
        fit.algorithm,
        len(fit.labels),
        library.config.clusters.random_state,
        fit.inertia,
        matched.churn,
        fit.fit_s,
        distances=None if distances is None else distances.astype("<f4").tobytes(),
        about_id=about.cluster_id if about else None,
        about_images=about.images if about else None,
    )
