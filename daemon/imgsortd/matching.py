"""Whose clusters are these? A fit's clusters get the ids of those in force that they go on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store_files import Files
from imgsortd.adapters.store_records import FitRecord
from imgsortd.core.clusters import churn, match_ids
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Model
from imgsortd.fits import Fitted
from imgsortd.library import Library

Labels = npt.NDArray[np.intp]
_REVIEW = -1


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
        Cluster id of each label, None for a new number; empty where ids are to be matched.
    group
        Rows (positions in the fit's ``file_ids``) of pictures in review that it takes out.
    """

    cluster_id: int | None
    images: int
    kept_ids: tuple[int | None, ...] = ()
    group: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Matched:
    """A fit whose labels have ids; ``before`` and ``labels`` are of the same files."""

    fitted: Fitted
    ids: tuple[int, ...]
    old_ids: tuple[int, ...]
    before: Labels
    labels: Labels
    churn: float | None


def changes_of(matched: Matched, about: About | None) -> Iterator[tuple[int, int | None, int]]:
    """Yield (file id, old cluster, new cluster) where they differ; old None for review."""
    old = np.asarray(matched.old_ids)[matched.before]
    new = np.asarray(matched.ids)[matched.labels]
    group = set(about.group if about else ())
    file_ids = matched.fitted.file_ids
    for row in np.flatnonzero(old != new).tolist():
        yield int(file_ids[row]), None if row in group else int(old[row]), int(new[row])


def flows_of(matched: Matched, about: About | None) -> dict[tuple[int | None, int], int]:
    """Count the pictures that go from each old cluster to each new one; old None for review."""
    if not matched.old_ids:
        return {}
    old = np.asarray(matched.old_ids, dtype=np.int64)[matched.before]
    if about is not None:
        old[list(about.group)] = _REVIEW
    new = np.asarray(matched.ids, dtype=np.int64)[matched.labels]
    pairs, counts = np.unique(np.stack([old, new], axis=1), axis=0, return_counts=True)
    return {
        (None if pair[0] == _REVIEW else pair[0], pair[1]): number
        for pair, number in zip(pairs.tolist(), counts.tolist(), strict=True)
    }


def match_fit(
    library: Library, fitted: Fitted, basis: Model | None = None, about: About | None = None
) -> Matched:
    """Give the labels of a fit their cluster ids, kept where they go on from old clusters.

    Parameters
    ----------
    basis
        The model that ``fitted.old_labels`` are of; None for the one in force.
    """
    fit, next_id = fitted.fit, library.store.fits.next_cluster_id()
    old, (before, labels) = _old_clusters(library, fitted, basis)
    n_new = len(fit.centers)
    if old is None:
        none = fit.labels[:0]
        ids = match_ids(none, none, (), n_new, next_id, fitted.fixed_ids)
        return Matched(fitted, ids, (), before, labels, None)
    old_ids, at = np.unique(old.cluster_ids, return_inverse=True)  # a pin is a center more
    before, known = at[before], tuple(old_ids.tolist())
    if about is not None and about.kept_ids:
        fresh = count(next_id)
        ids = tuple(next(fresh) if kept is None else kept for kept in about.kept_ids)
    else:
        ids = match_ids(before, labels, known, n_new, next_id, fitted.fixed_ids)
    return Matched(fitted, ids, known, before, labels, churn(before, labels, known, ids))


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


def _old_clusters(
    library: Library, fitted: Fitted, basis: Model | None
) -> tuple[Model | None, tuple[Labels, Labels]]:
    """Return the clusters whose ids are to be kept, and old and new labels of the same files.

    After a change of backbone the old centers say nothing about the new features: what
    a file's old cluster was is told by the folder it stands in.
    """
    former, labels = library.former, fitted.fit.labels
    if former is None:
        if library.model is None:
            return None, (labels, labels)
        assert fitted.old_labels is not None, "the clusters in force are not those at its start"
        return basis or library.model, (fitted.old_labels, labels)
    placed = placed_clusters(library.store.files)
    placed = placed[np.isin(placed[:, 1], former.cluster_ids)]
    _, at, rows = np.intersect1d(
        placed[:, 0], fitted.file_ids, assume_unique=True, return_indices=True
    )
    order = np.argsort(former.cluster_ids)
    found = np.searchsorted(former.cluster_ids, placed[at, 1], sorter=order)
    return former, (order[found], labels[rows])


def placed_clusters(files: Files) -> npt.NDArray[np.int64]:
    """Return file id and cluster id, int64 [n, 2], of all files in clusters' folders."""
    numbers = (number for row in files.placed_clusters() for number in row)
    return np.fromiter(numbers, dtype=np.int64).reshape(-1, 2)
